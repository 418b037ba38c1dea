"""Large runs: what is long is read on from its checkpoint, and nobody is overlooked in a crowd."""

from __future__ import annotations

import json
import os
import resource
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Root, wait_until

from orchestra.engine.conduct import conduct
from orchestra.engine.narrator import Narrator
from orchestra.engine.observe import Observer
from orchestra.engine.stop import stop
from orchestra.model.event import COMMANDS, OBSERVATIONS, Event, encode, json_bytes
from orchestra.model.plan import WorkerEntry, entry_to_json
from orchestra.store.eventlog import CHECKED_WHOLE
from orchestra.store.layout import Layout

AT = "2026-01-31T23:59:59.123Z"
ENDED = {"status": "done", "exit_code": 0, "started_at": AT, "ended_at": AT}


def make_long(root: Path) -> int:
    """Go on with a new run's log until it is longer than what is read whole; returns its workers."""
    with open(root / "events.jsonl", "ab") as log:
        count = 0
        while log.tell() <= CHECKED_WHOLE:
            entry = entry_to_json(WorkerEntry(f"W{count}", "x" * 2000, ("true",)))
            who = {"worker": f"W{count}", "attempt": 1}
            op = log.tell() and 2 * count + 2
            log.write(
                encode(Event(op, AT, COMMANDS, "spawn_intended", 1, {**who, "token": "t", "entry": entry}))
            )
            log.write(encode(Event(op + 1, AT, OBSERVATIONS, "ended", 1, {**who, **ENDED})))
            count += 1
    return count


@pytest.fixture
def long(root: Root) -> tuple[Root, int]:
    """A run with a long log and its checkpoint."""
    root.init("r")
    count = make_long(root.run_dir("r"))
    assert root("unlock", "r").code == 0
    return root, count


def story(root: Root) -> object:
    answer = root("status", "r", "--limit", "0").json
    return answer["op"], answer["counts"], answer["workers"], answer["alerts"]


def spoil_state(root: Root, how: str) -> None:
    state = root.run_dir("r") / "state.json"
    data = state.read_bytes()
    match how:
        case "missing":
            state.unlink()
        case "torn":
            state.write_bytes(data[: len(data) // 2])
        case "altered":
            state.write_bytes(data.replace(b'"exit_code":0', b'"exit_code":1', 1))
        case "of another version":
            state.write_bytes(of_another_version(data))
        case "a directory":
            state.unlink()
            state.mkdir()


def of_another_version(data: bytes) -> bytes:
    """Whole, and with another word in it than the log has."""
    first, body = data.split(b"\n", 1)
    body = body.replace(b'"exit_code":0', b'"exit_code":1', 1)
    head = json.loads(first.removesuffix(b",") + b"}")
    del head["crc"]
    head |= {"version": head["version"] + 1, "body": f"{zlib.crc32(body):08x}"}
    told = json_bytes(head)[:-1]
    return b'%s,"crc":"%08x",\n%s' % (told, zlib.crc32(told), body)


@pytest.mark.parametrize("how", ["missing", "torn", "altered", "of another version", "a directory"])
def test_a_checkpoint_that_cannot_be_used_is_not_missed(long: tuple[Root, int], how: str) -> None:
    root, _ = long
    before = story(root)
    spoil_state(root, how)
    assert story(root) == before
    assert root("unlock", "r").code == 0
    assert story(root) == before


def test_a_checkpoint_of_another_log_is_not_used(long: tuple[Root, int]) -> None:
    root, _ = long
    events = root.run_dir("r") / "events.jsonl"
    lines = events.read_bytes().splitlines(keepends=True)
    last = json.loads(lines[-1])
    assert root("status", "r").json["op"] == last["op"]
    other = encode(Event(last["op"], AT, OBSERVATIONS, "noted", 1, {"pad": "x"}))
    room = len(lines[-1]) - len(other)  # the log stays as long as it was
    other = encode(Event(last["op"], AT, OBSERVATIONS, "noted", 1, {"pad": "x" * (room + 1)}))
    assert len(other) == len(lines[-1])
    events.write_bytes(b"".join(lines[:-1]) + other)
    assert root("status", "r").json["counts"]["done"] == len(lines) // 2 - 1, "its last end was never told"


def test_a_command_on_a_long_log_reads_what_came_after_the_checkpoint_and_a_deletion_checks_all(
    long: tuple[Root, int],
) -> None:
    root, count = long
    events = root.run_dir("r") / "events.jsonl"
    before = story(root)
    with open(events, "r+b") as log:
        log.seek(CHECKED_WHOLE // 2)
        log.write(b"\0")
    assert story(root) == before, "what lies before the checkpoint was read"
    spawned = root.spawn("r", {"New": ["true"]})
    assert spawned.names("spawned") == ["New"]
    assert root("wait", "r", "--for", "New").json["counts"]["done"] == 1
    spoil_state(root, "missing")
    kinds = [alert["kind"] for alert in root("status", "r").json["alerts"]]
    assert kinds.count("log_damage") == 1
    assert root("unlock", "r").json["recovered"][0]["what"] == "log_damaged"
    assert root("status", "r").json["counts"]["done"] in (count, count + 1), "it cost one line at most"


DEAF = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"]
BRIEF = "Look into this. " * 200
OTHER = ["sh", "-c", 'cat; [ "$ORCHESTRA_ATTEMPT" -ge 2 ]']


@pytest.mark.parametrize("gone", [False, True], ids=["the brief's file is there", "it is not"])
@pytest.mark.parametrize("lengthened", [False, True], ids=["a short log", "a long one"])
def test_a_long_brief_is_in_state_json_until_the_end_and_a_retry_has_it_all_the_same(
    root: Root, lengthened: bool, gone: bool
) -> None:
    root.init("r")
    if lengthened:
        make_long(root.run_dir("r"))
        root("unlock", "r")
    row = {"name": "W", "brief": BRIEF, "command": OTHER}
    assert root("spawn", "r", "--no-throttle", "--from", "-", stdin=json.dumps([row])).names("spawned") == [
        "W"
    ]
    assert root("wait", "r", "--for", "W").code == 1
    again = root("spawn", "r", "--no-throttle", "--from", "-", stdin=json.dumps([row]))
    assert [row["name"] for row in again.json["already"]] == ["W"]
    other = root("spawn", "r", "--from", "-", stdin=json.dumps([{**row, "brief": BRIEF + "!"}]))
    assert other.json["error"]["code"] == "name_taken"
    assert BRIEF not in (root.run_dir("r") / "state.json").read_text()
    brief = root.run_dir("r") / "brief-W.md"
    if gone:
        brief.write_text("another")
    assert root("retry", "r", "W", "--no-throttle").names("spawned") == ["W"]
    assert root("wait", "r", "--for", "W").code == 0
    assert brief.read_text() == BRIEF
    assert (root.run_dir("r") / "log-W.out").read_text() == BRIEF


def test_status_of_a_long_run_says_what_it_cut_and_counts_everybody(long: tuple[Root, int]) -> None:
    root, count = long
    answer = root("status", "r", "--limit", "3").json
    assert (len(answer["workers"]), answer["truncated"]["workers"]) == (3, count - 3)
    assert answer["counts"]["done"] == count


def test_more_quiet_workers_than_a_beat_looks_at_are_all_told_as_stalled(root: Root) -> None:
    names = [f"Q{i}" for i in range(40)]
    root.init("r")
    assert root.spawn("r", {name: ["sleep", "300"] for name in names}, stall="1s").code == 0
    waiting = root.start("wait", "r", "--timeout", "300")
    try:
        wait_until(
            lambda: {e["worker"] for e in root.events("r") if e["kind"] == "stalled"} == set(names),
            "that all are told as stalled",
            60,
        )
    finally:
        waiting.kill()
        waiting.communicate()
        root("stop", "r", "--grace", "0")


def test_every_worker_is_watched_where_few_files_may_be_open(root: Root) -> None:
    root.init("r")
    root.spawn("r", {f"Q{i}": ["sleep", "300"] for i in range(30)})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    waiting = root.start(
        "wait",
        "r",
        "--timeout",
        "300",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, hard)),
    )
    try:
        wait_until(lambda: pidfds_of(waiting.pid) == 30, "that all 30 are watched")
    finally:
        waiting.kill()
        waiting.communicate()
        root("stop", "r", "--grace", "0")


def pidfds_of(pid: int) -> int:
    found = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += "[pidfd]" in os.readlink(fd)
        except OSError:
            continue
    return found


def counting(real: Callable[[str], list[str]], seen: list[str]) -> Callable[[str], list[str]]:
    def listdir(path: str = ".") -> list[str]:
        seen.append(path)
        return real(path)

    return listdir


def test_a_stop_of_many_looks_through_the_processes_as_often_as_of_one(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(root.tmp))
    looks: dict[int, int] = {}
    for count in (1, 12):
        run = f"of-{count}"
        root.init(run)
        root.spawn(run, {f"W{i}": DEAF for i in range(count)})
        for i in range(count):
            wait_until((root.run_dir(run) / f"log-W{i}.out").read_text, "the trap")
        seen: list[str] = []
        with (
            conduct(Layout(str(root.run_dir(run))), Narrator("stop")) as conductor,
            monkeypatch.context() as patch,
        ):
            patch.setattr(os, "listdir", counting(os.listdir, seen))
            report = stop(conductor, [], grace_s=0)
        assert len(report.stopped) == count
        looks[count] = seen.count("/proc")
    assert looks[12] <= looks[1] + 4, "graces may end at two moments"


@pytest.mark.parametrize("meanwhile", ["nothing", "more", "taken back"])
def test_what_was_read_before_the_lock_is_read_on_or_anew(long: tuple[Root, int], meanwhile: str) -> None:
    root, count = long
    layout = Layout(str(root.run_dir("r")))
    log = root.run_dir("r") / "events.jsonl"
    size, op = log.stat().st_size, Observer(layout).open().history.op
    who = {"worker": f"W{count}", "attempt": 1, "token": "t", "entry": {"name": f"W{count}", "brief": "b"}}
    one_more = encode(Event(op + 1, AT, COMMANDS, "spawn_intended", 1, who))
    if meanwhile == "taken back":
        log.write_bytes(log.read_bytes() + one_more)
    before = Observer(layout).open()
    if meanwhile == "taken back":  # as by whoever could not make it durable
        os.truncate(log, size)
    elif meanwhile == "more":
        log.write_bytes(log.read_bytes() + one_more)
    with conduct(layout, Narrator("unlock", None), before=before) as conductor:
        names = list(conductor.history.workers)
        assert names == [f"W{i}" for i in range(count + (meanwhile == "more"))]
    assert list(Observer(layout).open().history.workers) == names
    assert root("status", "r").json["alerts"] == []
