"""A worker writes into the log what no line of ours can be: every command answers, in bounded memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE_S, Answer, Root, log_at

from orchestra.model import event
from orchestra.model.event import (
    ALERTS,
    LOG_DAMAGED,
    OBSERVATIONS,
    Damage,
    Draft,
    Event,
    Reading,
    decode_all,
    encode,
    read_lines,
)
from orchestra.model.plan import MOST_INPUT
from orchestra.store import eventlog
from orchestra.store.eventlog import EventLog

AT = "2026-01-31T23:59:59.123Z"
LINES = [encode(Event(op, AT, OBSERVATIONS, "noted", 1, {"text": "x" * 50})) for op in range(1, 4)]
FEW = 4 * eventlog.CHUNK
TIB = 1 << 40
MEMORY = 1 << 20  # KiB of address space for a command; without a flood it takes a tenth


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MOST_LINE", FEW)
    monkeypatch.setattr(eventlog, "MOST_KEPT", FEW)


def anew(log: EventLog) -> tuple[list[int], list[Damage]]:
    fresh = EventLog(log.path, log.damaged)
    return [event.op for event in fresh.read_new()], fresh.damage


@pytest.mark.parametrize(
    "flood",
    [
        b"\n" * (2 * FEW),
        b"x" * FEW,
        b"x" * (FEW + 1),
        b"x" * (5 * FEW),
        b"y\n" * (2 * FEW),
        b"\n \n" * FEW + b"z",
        LINES[0][:-1] * (FEW // 100) + b"\n",
        (b"x" * (FEW + 1) + b"\n") * 3 + b"x",
    ],
    ids=[
        "empty-lines",
        "as-long-as-a-line",
        "one-more",
        "five",
        "many-short",
        "blanks",
        "lines-without-end",
        "many-long",
    ],
)
@pytest.mark.parametrize("within", [True, False], ids=["within", "behind"])
def test_a_flood_is_one_place_of_damage_and_costs_nothing_else(
    tmp_path: Path, few: None, flood: bytes, within: bool
) -> None:
    if within and not flood.endswith(b"\n"):
        flood += b"\n"
    log = log_at(tmp_path, b"".join([*LINES[:2], flood, *(LINES[2:] if within else [])]))
    place = Damage(len(LINES[0]) * 2, len(flood), torn=not within)
    assert anew(log) == ([1, 2, 3] if within else [1, 2], [place])

    with log.exclusive() as appender:
        repair = appender.repair(torn=not within)
        assert repair is not None
        assert (repair.damage, repair.kept) == ([place], min(len(flood), FEW))
        assert (appender.repair(torn=within), appender.damage()) == (None, [])
        appender.append([Draft(ALERTS, LOG_DAMAGED, repair.to_json())], at=AT, epoch=1)
    assert Path(repair.saved_as).read_bytes() == flood[:FEW]
    assert anew(log) == ([1, 2, 3, 4] if within else [1, 2, 3], [])
    assert within == (os.stat(log.path).st_size > len(flood)), "it stays in the middle, and a tail is cut off"


def test_the_longest_line_that_there_may_be_is_read(tmp_path: Path, few: None) -> None:
    bare = len(encode(Event(4, AT, OBSERVATIONS, "noted", 1, {"text": ""})))
    log = log_at(tmp_path, b"".join(LINES))
    with log.exclusive() as appender:
        with pytest.raises(OSError, match="a line of"):
            appender.append([Draft(OBSERVATIONS, "noted", {"text": "x" * (FEW - bare + 1)})], at=AT, epoch=1)
        assert Path(log.path).read_bytes() == b"".join(LINES)
        appender.append([Draft(OBSERVATIONS, "noted", {"text": "x" * (FEW - bare)})], at=AT, epoch=1)
    assert anew(log) == ([1, 2, 3, 4], [])


@pytest.mark.parametrize("op", [1, 2, 3, 4])
def test_an_operation_is_found_on_either_side_of_a_flood(tmp_path: Path, few: None, op: int) -> None:
    log = log_at(tmp_path, b"".join([*LINES[:2], b"x" * (5 * FEW), b"\n", *LINES[2:], b"x" * (5 * FEW)]))
    found = log.find(op)
    assert (found and found.op) == (op if op < 4 else None)


def test_a_reader_does_not_run_after_who_still_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads what is there when it begins: a flood may be faster."""
    log = log_at(tmp_path, LINES[0] + b"y\n" * eventlog.CHUNK)
    pieces = []

    def read_while_it_grows(data: bytes, *rest: Any) -> Reading:
        pieces.append(len(data))
        with open(log.path, "ab") as file:
            file.write(LINES[1] if len(pieces) < 100 else b"")
        return read_lines(data, *rest)

    size = os.stat(log.path).st_size
    monkeypatch.setattr(eventlog, "read_lines", read_while_it_grows)
    assert [event.op for event in log.read_new()] == [1]
    assert sum(pieces) <= size
    grown = len(pieces)
    assert [event.op for event in log.read_new()] == [2] * grown


@pytest.mark.parametrize("junk", [b"\n" * (1 << 24), b"y\n" * (1 << 23), b" \n" * (1 << 23)])
def test_no_line_is_looked_at_of_what_can_be_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, junk: bytes
) -> None:
    log = log_at(tmp_path, LINES[0] + junk + LINES[1] + junk)
    looked_at = []

    def count(lines: list[bytes], *rest: Any) -> list[Event | None]:
        looked_at.append(len(lines))
        return decode_all(lines, *rest)

    monkeypatch.setattr(event, "decode_all", count)
    ops, damage = anew(log)
    assert (ops, [d.torn for d in damage]) == ([1, 2], [False, True])
    assert sum(looked_at) <= 3 * eventlog.CHUNK, "but for the pieces that have such a line"


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["torn", "whole"])
def test_of_a_line_that_can_be_none_of_ours_only_the_end_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    log = log_at(tmp_path, LINES[0])
    for _ in range(50):
        os.truncate(log.path, os.stat(log.path).st_size + (100 << 20))
        with open(log.path, "ab") as file:
            file.write(end)
    real, read = os.pread, []

    def pread(fd: int, size: int, at: int) -> bytes:
        read.append(size)
        return real(fd, size, at)

    monkeypatch.setattr(os, "pread", pread)
    ops, damage = anew(log)
    assert (ops, [d.torn for d in damage]) == ([1], [True])
    assert (max(read) <= eventlog.CHUNK, sum(read) < 50 * 4 * eventlog.CHUNK) == (True, True)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_stands_where_damage_is_to_be_kept_is_named(root: Root, make: Callable[[Path], None]) -> None:
    root.init("r")
    log = root.run_dir("r") / "events.jsonl"
    place = root.run_dir("r") / f"events.damaged/{log.stat().st_size}"
    place.parent.mkdir()
    make(place)
    with log.open("ab") as file:
        file.write(b"garbage")
    error = root("unlock", "r").json["error"]
    assert (error["code"], error["path"]) == ("storage", str(place))
    os.rename(place, root.path / "aside")
    assert [row["what"] for row in root("unlock", "r").json["recovered"]] == ["log_damaged"]


def bounded(root: Root, *words: str) -> Answer:
    return root(*words, limits=f"-v {MEMORY}", timeout=PATIENCE_S)


@pytest.mark.parametrize("name", ["events.jsonl", "state.json", "telemetry.jsonl"])
def test_a_file_of_a_tebibyte_takes_no_command_down(root: Root, name: str) -> None:
    """Without a byte in it: whoever looks at what was written only, sees nothing there."""
    for run in ("r", "other"):
        root.init(run)
        assert root.spawn(run, {"W": ["sleep", "300"]}).names("spawned") == ["W"]
    path = root.run_dir("r") / name
    path.touch()
    os.truncate(path, TIB)
    listed = bounded(root, "list").json["runs"]
    assert {row["run"]: row["counts"]["running"] for row in listed} == {"r": 1, "other": 1}
    for words in (["status", "r"], ["explain", "r", "W"], ["events", "r"]):
        answer = bounded(root, *words)
        assert (answer.code, answer.stderr) == (0, ""), answer
    assert bounded(root, "wait", "r", "--timeout", "0").json["outcome"] == "timeout"
    assert bounded(root, "doctor", "r").json["ok"] is not None
    assert bounded(root, "stop", "r", "--grace", "0").names("stopped") == ["W"]
    assert root.worker("r", "W")["verdict"] == "stopped"
    if name == "events.jsonl":
        (alert,) = root("status", "r").json["alerts"]
        assert (alert["kind"], alert["kept"]) == ("log_damaged", eventlog.MOST_KEPT)
        assert path.stat().st_size < MOST_INPUT
        assert f"(the first {eventlog.MOST_KEPT} bytes)" in root("--text", "status", "r").stdout


def test_a_hole_with_a_line_behind_it_fills_no_disk(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    root("wait", "r")
    log = root.run_dir("r") / "events.jsonl"
    last = log.read_bytes().splitlines(keepends=True)[-1]
    os.truncate(log, TIB)
    with log.open("ab") as file:
        file.write(b"\n" + last)
    before = blocks(root)
    assert root.spawn("r", {"X": ["true"]}).names("spawned") == ["X"]
    assert (blocks(root) - before) * 512 < 2 * eventlog.MOST_KEPT
    (alert,) = root("status", "r").json["alerts"]
    assert (alert["kind"], alert["torn"], alert["kept"]) == ("log_damaged", False, eventlog.MOST_KEPT)
    assert root.spawn("r", {"Y": ["true"]}).names("spawned") == ["Y"]
    assert [e["kind"] for e in root_events(root)].count("log_damaged") == 1


def test_of_many_places_of_damage_an_answer_has_the_number(root: Root) -> None:
    root.init("r")
    log = root.run_dir("r") / "events.jsonl"
    line = log.read_bytes()
    log.write_bytes((line + b"x\n") * 3000 + line)
    (told,) = root("unlock", "r").json["recovered"]
    assert (told["what"], told["places"], told["size"]) == ("log_damaged", 3000, 6000)
    (alert,) = root("status", "r").json["alerts"]
    assert (alert["places"], len(list(root.run_dir("r").glob("events.damaged/*")))) == (3000, 1)
    assert "6000 bytes in 3000 places at offset" in root("status", "r", "--text").stdout
    assert root("unlock", "r").json["recovered"] == []


def root_events(root: Root) -> list[dict[str, Any]]:
    return [json.loads(line) for line in root("events", "r").stdout.splitlines()]


def blocks(root: Root) -> int:
    return sum(path.stat().st_blocks for path in root.run_dir("r").rglob("*") if path.is_file())


def test_a_plan_of_more_bytes_than_one_may_have_is_refused(root: Root) -> None:
    plan = root.path.parent / "plan.yaml"
    plan.write_text("phases: []\n# " + "x" * MOST_INPUT)
    answer = bounded(root, "init", "r", "--plan", str(plan))
    assert answer.json["error"]["code"] == "bad_plan"
    assert "bytes" in answer.json["error"]["message"]
    assert not root.run_dir("r").exists()


def test_a_plan_that_its_aliases_make_too_long_is_refused_and_leaves_nothing(root: Root) -> None:
    plan = root.path.parent / "plan.yaml"
    rows = [f"  - {{name: W{i}, brief: *b}}" for i in range(1, 50)]
    first = f"  - {{name: W0, brief: &b 'b {'x' * (1 << 20)}'}}"
    plan.write_text("\n".join(["command: [cat]", "phases:", "- name: p", "  workers:", first, *rows]))
    error = root("init", "r", "--plan", str(plan)).json["error"]
    assert error["code"] == "bad_plan"
    assert "aliases written out" in error["message"], error
    assert not root.run_dir("r").exists()


def test_a_brief_of_the_most_bytes_in_their_longest_form_is_a_line_that_is_read(root: Root) -> None:
    root.init("r")
    brief = root.brief("W")
    Path(brief).write_bytes(b"\xff" * MOST_INPUT)
    answer = root("spawn", "r", "--worker", f"W={brief}", "--", "sh", "-c", "wc -c <$ORCHESTRA_BRIEF")
    assert answer.names("spawned") == ["W"], answer
    assert root("wait", "r").json["ok"]
    assert root("status", "r").json["alerts"] == []
    assert (root.run_dir("r") / "log-W.out").read_text().strip() == str(MOST_INPUT)
    assert max(map(len, (root.run_dir("r") / "events.jsonl").read_bytes().split(b"\n"))) > 5 * MOST_INPUT
