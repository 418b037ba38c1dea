"""The log survives whatever is done to it: cut, filled with NULs, written over, written by many at once."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE_S, Root, clean_environment, log_at, orchestra_argv

from orchestra.engine.conduct import conduct
from orchestra.engine.narrator import Narrator
from orchestra.model.event import (
    ALERTS,
    LOG_DAMAGED,
    OBSERVATIONS,
    Damage,
    Draft,
    Event,
    decode,
    encode,
    read_lines,
    torn,
)
from orchestra.model.history import History
from orchestra.store import eventlog
from orchestra.store.eventlog import Appender, EventLog, Repair
from orchestra.store.layout import Layout

AT = "2026-01-31T23:59:59.123Z"
DRAFTS = [
    Draft(OBSERVATIONS, "noted", {"text": "plain"}),
    Draft(OBSERVATIONS, "noted", {"text": "Grüße, 世界 \U0001f3bb", "nested": {"crc": ',"crc":"00000000"}'}}),
    Draft(ALERTS, "noted", {"text": "x" * 3000}),
    Draft(OBSERVATIONS, "noted", {"text": "a\nb\0c\udce9", "list": [1, None, 2.5]}),
    Draft(OBSERVATIONS, "noted", {}),
]
EVENTS = [Event(op, AT, d.topic, d.kind, 1, d.data) for op, d in enumerate(DRAFTS, 1)]
LINES = [encode(event) for event in EVENTS]
WHOLE = b"".join(LINES)
AFTER = Draft(OBSERVATIONS, "noted", {"text": "after"})


def append(log: EventLog, *drafts: Draft) -> list[Event]:
    with log.exclusive() as appender:
        return appender.append(list(drafts), at=AT, epoch=1)


def repair(log: EventLog) -> list[Repair]:
    """As a command does: what was in the middle is told behind."""
    with log.exclusive() as appender:
        repairs = [appender.repair(torn=True), appender.repair(torn=False)]
        done = [repair for repair in repairs if repair is not None]
        drafts = [Draft(ALERTS, LOG_DAMAGED, r.to_json()) for r in done if not r.damage[0].torn]
        appender.append(drafts, at=AT, epoch=1)
    return done


def others(events: list[Event]) -> list[Event]:
    """But for what tells of damage."""
    return [event for event in events if event.kind != LOG_DAMAGED]


def read_anew(log: EventLog) -> tuple[list[Event], EventLog]:
    fresh = EventLog(log.path, log.damaged)
    return fresh.read_new(), fresh


def committed(cut: int) -> list[Event]:
    """The events whose newline is there when the log has `cut` bytes."""
    ends = [sum(map(len, LINES[: i + 1])) for i in range(len(LINES))]
    return [event for event, end in zip(EVENTS, ends, strict=True) if end <= cut]


def size_of(events: list[Event]) -> int:
    return sum(map(len, LINES[: len(events)]))


# --- cut at every byte --------------------------------------------------------------------------


def test_cut_at_every_byte_exactly_the_committed_prefix_is_read() -> None:
    for cut in range(len(WHOLE) + 1):
        whole = WHOLE[: WHOLE.rfind(b"\n", 0, cut) + 1]
        reading = read_lines(whole, 0, 0)
        assert reading.events == committed(cut), cut
        assert reading.good_end == size_of(committed(cut)), cut
        assert reading.damage == []
        assert sum(damage.size for damage in torn(reading.good_end, cut)) == cut - reading.good_end, cut


def test_cut_at_every_byte_it_is_repaired_and_appending_goes_on(tmp_path: Path) -> None:
    for cut in range(len(WHOLE) + 1):
        log = log_at(tmp_path, WHOLE[:cut])
        before = committed(cut)
        torn = WHOLE[size_of(before) : cut]
        repairs = repair(log)
        assert [r.damage for r in repairs] == ([[Damage(size_of(before), len(torn), True)]] if torn else [])
        for done in repairs:
            assert Path(done.saved_as).read_bytes() == torn, cut
            os.unlink(done.saved_as)
        (after,) = append(log, AFTER)
        assert after.op == (before[-1].op if before else 0) + 1, cut
        events, fresh = read_anew(log)
        assert (events, fresh.damage) == ([*before, after], []), cut


def test_a_reader_that_was_there_before_the_cut_reads_on_after_the_repair(tmp_path: Path) -> None:
    cut = size_of(EVENTS[:3]) + 7
    log = log_at(tmp_path, WHOLE[:cut])
    reader = EventLog(log.path, log.damaged)
    assert reader.read_new() == EVENTS[:3]
    repair(log)
    (after,) = append(log, AFTER)
    assert (reader.read_new(), reader.damage) == ([after], [])


# --- what else may stand at the tail -----------------------------------------------------------


@pytest.mark.parametrize(
    "tail",
    [
        b"\0",
        b"\0" * 4096,
        b"\0" * 4096 + b"\n",
        b"garbage",
        b"garbage\n",
        b"garbage\ngarbage\n{",
        b"\xff\xfe\n",
        b'{"op":6}\n',
        LINES[0].replace(b"plain", b"plane"),
        b"[" * 5000 + b"\n",
    ],
    ids=lambda tail: f"{len(tail)}-{tail[:8]!r}",
)
def test_a_tail_that_is_no_event_is_saved_aside_and_cut_off(tmp_path: Path, tail: bytes) -> None:
    log = log_at(tmp_path, WHOLE + tail)
    saved = b"".join(Path(r.saved_as).read_bytes() for r in repair(log))
    assert saved == tail
    assert Path(log.path).read_bytes() == WHOLE
    (after,) = append(log, AFTER)
    assert (after.op, read_anew(log)[0]) == (6, [*EVENTS, after])


@pytest.mark.parametrize("which", range(len(LINES) - 1))
@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace(b"noted", b"noticed"[:5]),
        lambda line: b"\0" * (len(line) - 1) + b"\n",
        lambda line: b"\xff" + line[1:],
        lambda line: line[:-2] + b"x\n",
        lambda line: line[: len(line) // 2] + b"\n" + line[len(line) // 2 + 1 :],
    ],
    ids=["altered", "nul", "no-utf8", "no-end", "newline-inside"],
)
def test_a_damaged_line_in_the_middle_costs_that_line_only(
    tmp_path: Path, which: int, spoil: Callable[[bytes], bytes]
) -> None:
    bad = spoil(LINES[which])
    assert len(bad) == len(LINES[which]) and bad != LINES[which]
    good = EVENTS[:which] + EVENTS[which + 1 :]
    log = log_at(tmp_path, b"".join([*LINES[:which], bad, *LINES[which + 1 :]]))
    reader = EventLog(log.path, log.damaged)
    assert reader.read_new() == good
    assert reader.damage == [Damage(size_of(EVENTS[:which]), len(bad), False)]

    before = Path(log.path).read_bytes()
    (done,) = repair(log)
    assert (done.damage, done.kept) == (reader.damage, len(bad))
    assert Path(done.saved_as).read_bytes() == bad
    assert Path(log.path).read_bytes().startswith(before), "nothing is written over"
    (after,) = append(log, AFTER)
    events, fresh = read_anew(log)
    assert (others(events), fresh.damage) == ([*good, after], [])


def test_many_places_of_damage_are_set_aside_together_and_told_in_one_line(tmp_path: Path) -> None:
    good = [encode(Event(op, AT, OBSERVATIONS, "noted", 1, {})) for op in range(1, 5001)]
    bad = [b"x" * (i % 7 + 1) + b"\n" for i in range(len(good) - 1)]
    log = log_at(tmp_path, b"".join(a + b for a, b in zip(good, [*bad, b"torn"], strict=True)))
    tail, middle = repair(log)
    assert Path(tail.saved_as).read_bytes() == b"torn"
    assert Path(middle.saved_as).read_bytes() == b"".join(bad)
    told = middle.to_json()
    assert (told["offset"], told["size"]) == (len(good[0]), sum(map(len, bad)))
    assert [size for _, size in told["places"]] == [len(line) for line in bad]
    events, fresh = read_anew(log)
    assert (len(events), fresh.damage, repair(fresh)) == (len(good) + 1, [], [])
    history = History().apply(events)
    assert history.alerts[0]["places"] == len(bad)


def test_more_places_than_one_line_tells_are_told_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventlog, "MOST_PLACES", 4)
    monkeypatch.setattr(eventlog, "MOST_KEPT", 10)
    log = log_at(tmp_path, b"".join(LINES[0] + b"x" * i + b"\n" for i in range(10)) + LINES[1])
    told = []
    for left in (6, 2, 0):
        (done,) = repair(log)
        told += done.damage
        assert (len(log.damage), len(read_anew(log)[1].damage)) == (left, left)
        assert (done.kept, os.stat(done.saved_as).st_size) == (10, 10)
    assert [damage.size for damage in told] == list(range(1, 11))


def test_what_is_damaged_after_it_was_told_is_told_again(tmp_path: Path) -> None:
    log = log_at(tmp_path, LINES[0] + b"bad\n" + LINES[1] + LINES[2])
    (first,) = repair(log)
    data = Path(log.path).read_bytes()
    Path(log.path).write_bytes(LINES[0].replace(b"plain", b"plane") + data[len(LINES[0]) :])
    _, fresh = read_anew(log)
    assert fresh.damage == [Damage(0, len(LINES[0]) + 4, False)]
    (second,) = repair(fresh)
    assert (first.saved_as, second.saved_as) == (
        f"{log.damaged}/{len(LINES[0])}",
        f"{log.damaged}/0",
    )
    assert read_anew(log)[1].damage == []


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"offset": [], "size": {}},
        {"offset": float("inf"), "size": 1},
        {"offset": "1", "size": True},
        {"places": 7},
        {"places": [[1]]},
        {"places": ["ab"]},
        {"offset": 1},
    ],
)
def test_what_tells_of_no_place_hides_no_damage(tmp_path: Path, data: dict[str, Any]) -> None:
    log = log_at(tmp_path, LINES[0] + b"bad\n" + LINES[1])
    append(log, Draft(ALERTS, LOG_DAMAGED, data))
    assert read_anew(log)[1].damage == [Damage(len(LINES[0]), 4, False)]


def test_a_log_that_is_being_repaired_again_after_a_crash_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between saving the bytes and cutting them off: the second repair saves them again."""
    log = log_at(tmp_path, WHOLE + b"torn")

    def die(fd: int, length: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "ftruncate", die)
        repair(log)
    _, fresh = read_anew(log)
    (done,) = repair(fresh)
    assert Path(done.saved_as).read_bytes().endswith(b"torn")
    assert Path(log.path).read_bytes() == WHOLE


# --- writes that fail ---------------------------------------------------------------------------


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A write beyond `size` is cut short, as on a disk that fills up; the next one fails (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_write_cut_short_at_every_byte_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    log = log_at(tmp_path, WHOLE)
    news = [AFTER, Draft(OBSERVATIONS, "noted", {"text": "ü"})]
    size = sum(len(encode(Event(6 + i, AT, d.topic, d.kind, 1, d.data))) for i, d in enumerate(news))
    for room in range(size):
        with pytest.raises(OSError), file_size_limit(len(WHOLE) + room):
            append(log, *news)
        assert Path(log.path).read_bytes() == WHOLE, room
    assert [event.op for event in append(log, *news)] == [6, 7]
    assert len(read_anew(log)[0]) == 7


@pytest.mark.parametrize("call", ["fdatasync", "lseek"])
def test_a_failing_sync_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    log = log_at(tmp_path, WHOLE)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(os, call, fail)
        append(log, AFTER)
    assert Path(log.path).read_bytes() == WHOLE
    assert append(log, AFTER)[0].op == 6
    assert len(read_anew(log)[0]) == 6


def test_an_interrupt_in_the_middle_of_an_append_leaves_the_log_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_at(tmp_path, WHOLE)

    def half(fd: int, data: bytes) -> None:
        os.write(fd, data[: len(data) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(eventlog, "write_all", half)
        append(log, AFTER)
    assert Path(log.path).read_bytes() == WHOLE


def test_a_repair_that_cannot_save_the_bytes_takes_nothing_away(tmp_path: Path) -> None:
    log = log_at(tmp_path, WHOLE + b"torn")
    with pytest.raises(OSError), file_size_limit(2):
        repair(log)
    assert Path(log.path).read_bytes() == WHOLE + b"torn"
    _, fresh = read_anew(log)
    assert list(tmp_path.glob("events.damaged/*")) == []
    (done,) = repair(fresh)
    assert Path(done.saved_as).read_bytes() == b"torn"


def full(fd: int, data: bytes) -> None:
    os.write(fd, data[:1000])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("tail", "kept"), [(b"", 1000), (LINES[0], 0)], ids=["at-the-end", "in-the-middle"])
def test_a_flood_that_has_filled_the_disk_hinders_no_repair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: bytes, kept: int
) -> None:
    """At the end what there is space for is kept: to cut it off gives that back. In the middle, nothing."""
    log = log_at(tmp_path, WHOLE + b"x" * eventlog.FLOOD + b"\n" + tail)
    with monkeypatch.context() as patch, log.exclusive() as appender:
        patch.setattr(eventlog, "write_all", full)
        done = appender.repair(torn=not tail)
    assert done is not None
    assert (done.kept, done.to_json()["kept"]) == (kept, kept)
    assert sum(path.stat().st_size for path in tmp_path.glob("events.damaged/*")) == kept
    assert (Path(log.path).read_bytes() == WHOLE) == (not tail)


def test_what_is_no_flood_waits_until_there_is_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = WHOLE + b"x" * eventlog.FLOOD
    log = log_at(tmp_path, data)
    with monkeypatch.context() as patch:
        patch.setattr(eventlog, "write_all", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                repair(log)
            assert list(tmp_path.glob("events.damaged/*")) == []
    assert Path(log.path).read_bytes() == data
    assert repair(log)[0].kept == eventlog.FLOOD


def test_a_repair_that_is_made_again_and_again_copies_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = log_at(tmp_path, LINES[0] + b"bad\n" + LINES[1] + b"torn")
    with monkeypatch.context() as patch:

        def fail(fd: int, length: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(os, "ftruncate", fail)
        for _ in range(3):
            with pytest.raises(OSError, match="Input/output"):
                repair(log)
    for _ in range(3):
        with EventLog(log.path, log.damaged).exclusive() as appender:
            appender.repair(torn=False)
    assert sorted(path.read_bytes() for path in tmp_path.glob("events.damaged/*")) == [b"bad\n", b"torn"]


def test_no_drafts_touch_nothing(tmp_path: Path) -> None:
    log = log_at(tmp_path, WHOLE)
    assert append(log) == []
    assert Path(log.path).read_bytes() == WHOLE


# --- many at once ---------------------------------------------------------------------------------


def in_child(work: Callable[[], None]) -> int:
    """Run it in a process of its own; exit status 0 where it raised nothing."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def exit_status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def appender_of(path: Path, who: str, times: int) -> Callable[[], None]:
    def work() -> None:
        log = EventLog(str(path / "events.jsonl"), str(path / "events.damaged"))
        for i in range(times):
            append(log, Draft(OBSERVATIONS, "noted", {"who": who, "i": i, "pad": "é" * (i % 700)}))

    return work


def test_two_that_append_at_once_lose_nothing_and_share_no_op(tmp_path: Path) -> None:
    log = log_at(tmp_path, b"")
    pids = [in_child(appender_of(tmp_path, who, 200)) for who in "AB"]
    assert [exit_status(pid) for pid in pids] == [0, 0]
    events = log.read_new()
    assert [event.op for event in events] == list(range(1, 401))
    for who in "AB":
        assert [e.data["i"] for e in events if e.data["who"] == who] == list(range(200))


def test_a_reader_beside_a_writer_never_sees_a_torn_event(tmp_path: Path) -> None:
    log = log_at(tmp_path, b"")
    pid = in_child(appender_of(tmp_path, "A", 300))
    seen: list[Event] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(seen) < 300:
        seen += log.read_new()
        assert all(damage.torn for damage in log.damage)
        assert time.monotonic() < deadline
    assert exit_status(pid) == 0
    assert [(e.op, e.data["i"], len(e.data["pad"])) for e in seen] == [
        (i + 1, i, i % 700) for i in range(300)
    ]


def test_a_writer_killed_at_work_leaves_a_log_that_reads_and_grows(tmp_path: Path) -> None:
    log = log_at(tmp_path, b"")
    for _ in range(5):
        before = len(read_anew(log)[0])
        pid = in_child(appender_of(tmp_path, "A", 100_000))
        deadline = time.monotonic() + PATIENCE_S
        while len(read_anew(log)[0]) < before + 5:
            assert time.monotonic() < deadline
        os.kill(pid, signal.SIGKILL)
        assert exit_status(pid) == -signal.SIGKILL
        _, fresh = read_anew(log)
        repair(fresh)
        append(fresh, AFTER)
        events, again = read_anew(log)
        assert again.damage == []
        assert [event.op for event in events] == list(range(1, len(events) + 1))


def test_what_died_while_we_conduct_is_repaired_before_we_append(root: Root) -> None:
    """Somebody (a `wait`) dies in an append after our command has begun and looked."""
    root.init("r")
    layout = Layout(os.path.realpath(root.run_dir("r")))
    with conduct(layout, Narrator("spawn", None)) as conductor:
        with open(layout.events, "ab") as file:
            file.write(LINES[2][:2000])
        conductor.record([Draft(ALERTS, "noted", {"text": "after"})])
    lines = Path(layout.events).read_bytes().splitlines()
    kinds = [event.kind if event else "damage" for event in map(decode, lines)]
    assert kinds == ["run_created", "log_damaged", "noted"]
    assert Path(f"{layout.damaged}/{len(lines[0]) + 1}").read_bytes() == LINES[2][:2000]


# --- through the command line -----------------------------------------------------------------------


@pytest.fixture
def done_run(root: Root) -> bytes:
    """A run `r` of two workers that are done; returns its log."""
    root.init("r")
    assert root.spawn("r", {"W1": ["true"], "W2": ["echo", "Grüße"]}).code == 0
    assert root("wait", "r").code == 0
    return (root.run_dir("r") / "events.jsonl").read_bytes()


def kinds_of(alerts: list[dict[str, Any]]) -> list[str]:
    return [alert["kind"] for alert in alerts]


def test_a_run_whose_log_was_cut_answers_and_the_next_command_repairs_it(root: Root, done_run: bytes) -> None:
    log = root.run_dir("r") / "events.jsonl"
    first = done_run.index(b"\n") + 1
    for cut in (first, first + 1, *range(first + 100, len(done_run), 331), len(done_run) - 1):
        log.write_bytes(done_run[:cut])
        torn = done_run[:cut].rpartition(b"\n")[2]

        status = root("status", "r")
        assert status.code == 0, (cut, status)
        assert ("log_damage" in kinds_of(status.json["alerts"])) == bool(torn), cut
        assert log.read_bytes() == done_run[:cut], "status writes nothing"

        answer = root("unlock", "r")
        assert answer.code == 0, (cut, answer)
        damaged = [row for row in answer.json["recovered"] if row["what"] == "log_damaged"]
        assert [row["size"] for row in damaged] == ([len(torn)] if torn else []), cut
        status = root("status", "r")
        assert "log_damage" not in kinds_of(status.json["alerts"])
        told = [alert for alert in status.json["alerts"] if alert["kind"] == "log_damaged"]
        assert len(told) == bool(torn), cut
        for alert in told:
            saved = Path(alert["saved_as"])
            assert saved.read_bytes() == torn, cut
            saved.unlink()
        assert all(decode(line) for line in log.read_bytes().splitlines()), cut


def test_a_worker_whose_end_was_cut_off_the_log_is_still_done(root: Root, done_run: bytes) -> None:
    log = root.run_dir("r") / "events.jsonl"
    cut = done_run.index(b'"kind":"ended"') + 20
    log.write_bytes(done_run[:cut])
    assert root("status", "r").json["counts"]["done"] == 2
    assert root("spawn", "r").code == 0
    ended = [event["worker"] for event in root.events("r") if event["kind"] == "ended"]
    assert sorted(ended) == ["W1", "W2"]


def test_the_same_spawn_after_the_log_lost_the_intents_starts_nothing_twice(root: Root) -> None:
    root.init("r")
    starts = root.path / "starts"
    workers = {"W1": ["sh", "-c", f"echo x >>'{starts}'"]}
    assert root.spawn("r", workers).code == 0
    assert root("wait", "r").code == 0
    log = root.run_dir("r") / "events.jsonl"
    data = log.read_bytes()
    log.write_bytes(data[: data.index(b"\n") + 20])
    assert root.spawn("r", workers).code == 0
    assert root.worker("r", "W1")["state"] == "done"
    assert starts.read_text() == "x\n"


def test_a_damaged_line_in_the_middle_is_named_by_status_and_set_aside_by_spawn(
    root: Root, done_run: bytes
) -> None:
    log = root.run_dir("r") / "events.jsonl"
    lines = done_run.splitlines(keepends=True)
    which = next(i for i, line in enumerate(lines) if b'"spawned"' in line)
    lines[which] = b"\0" * (len(lines[which]) - 1) + b"\n"
    log.write_bytes(b"".join(lines))
    status = root("status", "r")
    assert (status.code, status.json["counts"]["done"]) == (0, 2)
    (alert,) = (a for a in status.json["alerts"] if a["kind"] == "log_damage")
    assert (alert["size"], alert["torn"]) == (len(lines[which]), False)
    answer = root("spawn", "r")
    (row,) = answer.json["recovered"]
    assert (row["what"], row["torn"]) == ("log_damaged", False)
    assert Path(row["saved_as"]).read_bytes() == lines[which]
    assert root("status", "r").json["alerts"][0]["saved_as"] == row["saved_as"]


@pytest.mark.parametrize("verb", ["status", "wait", "events", "spawn", "unlock", "stop", "retry", "init"])
def test_a_log_without_its_first_line_is_corrupt_and_left_alone(
    root: Root, done_run: bytes, verb: str
) -> None:
    log = root.run_dir("r") / "events.jsonl"
    first, *others = done_run.splitlines(keepends=True)
    (root.run_dir("r") / "state.json").unlink()  # else it comes back from there
    spoiled = b"".join([first.replace(b"run_created", b"run_crested"), *others])
    log.write_bytes(spoiled)
    answer = root(verb, "r")
    if verb == "events":  # reads lines, and needs no beginning
        assert answer.code in (0, 1)
    else:
        assert (answer.code, answer.json["error"]["code"]) == (1, "corrupt_log"), answer
    assert log.read_bytes() == spoiled


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_run_whose_only_line_was_torn_is_made_by_the_same_init(root: Root, size: int) -> None:
    root.init("r")
    log = root.run_dir("r") / "events.jsonl"
    log.write_bytes(log.read_bytes()[:size])
    assert root("status", "r").json["error"]["code"] in ("no_such_run", "corrupt_log")
    assert root("init", "r").code == 0
    assert root.spawn("r", {"W1": ["true"]}).code == 0
    assert root("wait", "r").code == 0


# --- a run that cannot be written to --------------------------------------------------------------


def on_read_only(run_dir: Path, root: Root, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a mount namespace where the run directory is read-only (root minds no modes)."""
    unshare, mount = shutil.which("unshare"), shutil.which("mount")
    if unshare is None or mount is None:
        pytest.skip("NOT RUN: a read-only run directory needs unshare and mount")
    bind = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 99; exec "$@"'
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", bind, str(run_dir), *orchestra_argv(*words)],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    if done.returncode == 99 or (not done.stdout and "unshare" in done.stderr):
        pytest.skip(f"NOT RUN: no mount namespace can be had here: {done.stderr.strip()}")
    return done


def test_wait_answers_where_the_run_cannot_be_written_to(root: Root) -> None:
    root.init("r")
    assert root.spawn("r", {"W1": ["true"]}).code == 0
    result = root.run_dir("r") / "result-W1.json"
    deadline = time.monotonic() + PATIENCE_S
    while not result.exists():
        assert time.monotonic() < deadline
    before = root.events("r")
    done = on_read_only(root.run_dir("r"), root, "wait", "r", "--timeout", "20")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["outcome"], answer["counts"]["done"]) == (0, "ended", 1), done
    assert root.events("r") == before


@pytest.mark.parametrize("verb", ["spawn", "stop", "retry", "unlock"])
def test_a_mutating_command_on_a_read_only_run_says_storage(root: Root, verb: str) -> None:
    root.init("r")
    done = on_read_only(root.run_dir("r"), root, verb, "r")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "storage"), done


def test_status_answers_on_a_read_only_run(root: Root, done_run: bytes) -> None:
    done = on_read_only(root.run_dir("r"), root, "status", "r")
    assert (done.returncode, json.loads(done.stdout)["counts"]["done"]) == (0, 2), done


def test_an_appender_is_what_exclusive_yields(tmp_path: Path) -> None:
    with log_at(tmp_path, WHOLE).exclusive() as appender:
        assert isinstance(appender, Appender)
        assert appender.news == EVENTS
