"""A log that was cut, emptied or taken away, with workers and narrators at work."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Root, clean_environment, orchestra_argv, wait_until, watches

from orchestra.model.event import Event, encode

UNTIL = 'until [ -e "$ORCHESTRA_RUN_DIR/../go" ]; do sleep 0.05; done'
QUIET = {"A": ["sleep", "300"], "B": ["sleep", "300"]}
PLAN = """\
command: [sh, -c, 'sleep 2; echo done']
phases:
- {name: one, workers: [{name: A, brief: a}, {name: B, brief: b}]}
- {name: two, workers: [{name: C, brief: c}]}
"""


def cut(root: Root, run: str, lines: int) -> None:
    """Keep the first lines of the log: no byte of it is torn."""
    log = root.run_dir(run) / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:lines]))


def test_who_is_planned_and_lost_from_the_log_is_taken_on_by_the_first_step(root: Root) -> None:
    root.init("r", PLAN)
    root("spawn", "r", "--phase", "one", "--no-throttle")
    pids = launchers(root, "r")
    cut(root, "r", 1)
    (root.run_dir("r") / "state.json").unlink()
    step = root("status", "r").json["next"][0]
    assert step == "orchestra spawn r --phase one"
    assert {row["pid"] for row in root(*step.split()[1:]).json["spawned"]} == pids


def test_a_wait_whose_log_is_taken_away_says_so(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"A": ["sh", "-c", UNTIL]})
    waiting = root.start("wait", "r", "--timeout", "60")
    wait_until(lambda: watches(waiting.pid), "the watch")
    (root.run_dir("r") / "events.jsonl").unlink()
    (root.path / "go").touch()
    answer = json.loads(waiting.communicate()[0].splitlines()[-1])
    assert answer.get("error", {}).get("code") != "no_such_worker", answer
    assert answer["ok"] or answer["error"]["code"] == "corrupt_log", answer


def launchers(root: Root, run: str) -> set[int]:
    """The living launchers of a run; a child of one, on its way to become the worker, is none."""
    found = {
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if f"{root.run_dir(run)}/.run-" in text_of(path)
    }
    return {pid for pid in found if parent_of(pid) not in found}


def parent_of(pid: int) -> int | None:
    fields = text_of(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[1]) if fields else None


def text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def alert(root: Root, run: str, kind: str) -> list[dict[str, object]]:
    return [row for row in root("status", run).json["alerts"] if row["kind"] == kind]


def test_what_a_cut_log_has_lost_comes_back_with_the_next_command(root: Root) -> None:
    root.init("r")
    op = root.spawn("r", QUIET, "--narrator", "me").json["op"]
    before = launchers(root, "r")
    cut(root, "r", 1)
    assert alert(root, "r", "log_shortened") == [{"kind": "log_shortened", "after_op": 1, "up_to_op": op}]
    assert {row["worker"]: bool(row["pids"]) for row in alert(root, "r", "unknown_worker")} == {
        "A": True,
        "B": True,
    }
    assert root("status", "r").json["next"][0] == "orchestra unlock r"
    again = root.spawn("r", QUIET, "--narrator", "me").json
    assert again["recovered"][0]["what"] == "log_shortened"
    assert [(row["name"], row["state"]) for row in again["already"]] == [("A", "running"), ("B", "running")]
    [told] = [event for event in root.events("r") if event["kind"] == "log_shortened"]
    assert (told["op"], again["op"] > op) == (op + 1, True)  # no cursor means two things
    assert launchers(root, "r") == before
    assert root.spawn("r", QUIET, "--narrator", "you").json["error"]["seat"] == "me"
    assert len(root("stop", "r", "--grace", "1").json["stopped"]) == 2
    assert not launchers(root, "r")


def test_doctor_offers_no_end_to_those_whom_a_cut_log_does_not_know(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"A": ["sleep", "300"]})
    (pid,) = launchers(root, "r")

    def found(check: str, text: str) -> list[dict[str, str]]:
        rows = root("doctor", "r").json["checks"]
        return [row for row in rows if row["check"] == check and text in row["found"]]

    cut(root, "r", 1)
    assert [row["advice"] for row in found("state.json", "has lost")] == ["orchestra unlock r"]
    assert ["does not know them" in row["found"] for row in found("leftover processes", f"{pid}")] == [True]
    assert root("unlock", "r").json["ok"]
    assert [row["verdict"] for row in found("state.json", "")] == ["ok"]
    assert not found("leftover processes", f"{pid}")
    root("stop", "r", "--grace", "1")


def test_an_attempt_that_the_log_has_lost_is_no_reason_for_a_second_one(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", "[ $ORCHESTRA_ATTEMPT = 2 ] && exec sleep 300; exit 3"]})
    root("wait", "r")
    lines = len(root.events("r"))
    root("retry", "r", "W")
    before = launchers(root, "r")
    cut(root, "r", lines)
    assert root("retry", "r", "W").json["already"][0]["state"] == "running"
    assert (launchers(root, "r"), root.worker("r", "W")["attempt"]) == (before, 2)
    root("stop", "r", "--grace", "1")


@pytest.mark.parametrize("ended", [False, True], ids=["at work", "ended"])
def test_without_state_json_the_same_call_takes_on_who_is_there(root: Root, ended: bool) -> None:
    command = ["true"] if ended else ["sleep", "300"]
    root.init("r")
    root.spawn("r", {"A": command})
    if ended:
        root("wait", "r")
    before = launchers(root, "r")
    cut(root, "r", 1)
    (root.run_dir("r") / "state.json").unlink()
    assert [bool(row["pids"]) for row in alert(root, "r", "unknown_worker")] == [not ended]
    assert root.spawn("r", {"A": command}).names("spawned") == ["A"]
    assert root.worker("r", "A")["state"] == ("done" if ended else "running")
    assert launchers(root, "r") == before
    assert not alert(root, "r", "unknown_worker")
    root("stop", "r", "A", "--grace", "1")  # by name: its token is the launcher's again
    assert not launchers(root, "r")


def emptied(log: bytes) -> bytes:
    return b""


def gone(log: bytes) -> None:
    return None


def zeros(log: bytes) -> bytes:
    return bytes(len(log))


def without_its_beginning(log: bytes) -> bytes:
    return b"x" * 100 + log[100:]


def with_a_hole(log: bytes) -> bytes:
    lines = log.splitlines(keepends=True)
    return lines[0] + b"x" * (len(lines[1]) - 1) + b"\n" + b"".join(lines[2:])


@pytest.mark.parametrize("harm", [emptied, gone, zeros, without_its_beginning, with_a_hole])
def test_what_was_at_the_beginning_of_the_log_comes_back_too(
    root: Root, harm: Callable[[bytes], bytes | None]
) -> None:
    root.init("r", PLAN.replace("sleep 2", "sleep 300"))
    root("spawn", "r", "--phase", "one", "--no-throttle")
    before = root("status", "r").json["workers"]
    log = root.run_dir("r") / "events.jsonl"
    harmed = harm(log.read_bytes())
    log.unlink()
    if harmed is not None:
        log.write_bytes(harmed)
    if harm is not with_a_hole:
        told = root("status", "r").json
        assert (told["error"]["code"], told["next"]) == ("corrupt_log", ["orchestra unlock r"])
    root("unlock", "r")
    after = root("status", "r").json
    for old, new in zip(before, after["workers"], strict=True):
        assert (old["name"], old["pid"], old["state"]) == (new["name"], new["pid"], new["state"])
    assert {"log_damaged", "log_shortened", "log_headless"} & {alert["kind"] for alert in after["alerts"]}
    root("stop", "r", "--grace", "1")
    assert not launchers(root, "r")


def test_whoever_was_called_off_stays_so_when_the_log_is_cut(root: Root) -> None:
    root.init("r", "throttle: {max_workers: 1}\n" + PLAN.replace("sleep 2", "sleep 300"))
    assert root("spawn", "r", "--phase", "one").names("deferred") == ["B"]
    lines = len(root.events("r"))
    root("stop", "r", "--grace", "1")
    for kept in (1, lines):
        cut(root, "r", kept)
        assert root("spawn", "r").names("spawned") == []
        assert [root.worker("r", name)["verdict"] for name in "AB"] == ["stopped", "stopped"]


def test_a_mended_command_and_how_the_narrator_ended_come_back_too(root: Root) -> None:
    root.init("r", PLAN.replace("sleep 2; echo done", "exit 3"))
    assert root("run", "--run", "r", "--no-throttle").json["stopped_at"] == "one"
    root("retry", "r", "A", "--", "true")
    root("wait", "r", "--for", "A", "--timeout", "30")
    before = root("status", "r").json
    cut(root, "r", 1)
    root("unlock", "r")
    assert root("explain", "r", "A").json["worker"]["command"] == ["true"]
    assert root("status", "r").json["next"] == before["next"]


FULL = {"ORCHESTRA_THROTTLE": "{memory_available: 64TiB}"}  # nobody starts


def test_an_attempt_that_never_began_is_not_mistaken_for_the_one_before(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["false"]})
    root("wait", "r")
    lines = len(root.events("r"))
    root("retry", "r", "W", env=FULL)
    root("stop", "r", "W")
    cut(root, "r", lines)
    root("unlock", "r")
    worker = root.worker("r", "W")
    assert (worker["attempt"], worker["verdict"]) == (2, "stopped")


def test_whole_lines_that_are_missing_at_the_beginning_come_back_too(root: Root) -> None:
    root.init("r")
    brief = root.brief("W")
    root("spawn", "r", "--worker", f"W={brief}", "--", "true", env=FULL)
    root("stop", "r", "W")
    log = root.run_dir("r") / "events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[2:]))
    told = root("unlock", "r", "--text").stdout
    assert "put right: the event log had lost how the run began" in told
    assert root.worker("r", "W")["verdict"] == "stopped"


def test_whoever_is_killed_while_it_writes_a_beginning_back_leaves_that_to_the_next(root: Root) -> None:
    root.init("r")
    root("spawn", "r", "--worker", f"W={root.brief('W')}", "--", "true", env=FULL)
    root("stop", "r", "W")
    state, log = root.run_dir("r") / "state.json", root.run_dir("r") / "events.jsonl"
    saved = state.read_bytes()
    headless = b"".join(log.read_bytes().splitlines(keepends=True)[2:])
    log.write_bytes(headless)
    root("unlock", "r")
    for kept in range(headless.count(b"\n"), len(whole := log.read_bytes().splitlines(keepends=True))):
        log.write_bytes(b"".join(whole[:kept]))
        state.write_bytes(saved)
        root("unlock", "r")
        assert root.worker("r", "W")["verdict"] == "stopped"


def test_the_same_init_is_no_op_while_somebody_is_at_work(root: Root) -> None:
    root.init("r", PLAN)
    running = root.start("run", "--run", "r", "--no-throttle")
    wait_until(lambda: root("status", "r").json["lock"]["held"], "the narrator")
    answer = root("init", "r", "--plan", str(root.path.parent / "r.yaml"))
    assert (answer.code, answer.json["created"]) == (0, False)
    assert json.loads(running.communicate(timeout=60)[0])["ok"]


def test_a_bad_line_stays_in_sight_until_what_it_said_is_written_back(root: Root) -> None:
    root.init("r")
    root("spawn", "r", "--worker", f"W={root.brief('W')}", "--", "true", env=FULL)
    root("stop", "r", "W")
    log = root.run_dir("r") / "events.jsonl"
    log.write_bytes(with_a_hole(log.read_bytes()))
    inject = "inject=pwrite64,write:error=ENOSPC:when=1+"
    argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(log), "-e", inject]
    if shutil.which("strace") is None:
        pytest.skip("strace is not here")
    full = subprocess.run(
        [*argv, *orchestra_argv("unlock", "r")],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        capture_output=True,
        text=True,
    )
    assert json.loads(full.stdout)["error"]["code"] == "storage"
    assert [row["what"] for row in root("unlock", "r").json["recovered"]] == ["log_damaged"]
    assert root.worker("r", "W")["verdict"] == "stopped"


def test_whoever_is_killed_while_it_writes_back_leaves_that_to_the_next(root: Root) -> None:
    """The log of a complete recovery, cut at each of its lines, as a kill in the append leaves it."""
    root.init("r", "throttle: {max_workers: 1}\n" + PLAN.replace("sleep 2", "sleep 300"))
    root("spawn", "r", "--phase", "one", "--narrator", "me")
    root("stop", "r", "B", "--narrator", "me")
    state = root.run_dir("r") / "state.json"
    saved = state.read_bytes()
    cut(root, "r", 1)
    root("unlock", "r")
    lines = len(root.events("r"))
    log = (root.run_dir("r") / "events.jsonl").read_bytes()
    for kept in range(1, lines):
        (root.run_dir("r") / "events.jsonl").write_bytes(log)
        cut(root, "r", kept)
        state.write_bytes(saved)
        root("unlock", "r")
        told = root("status", "r").json
        assert [(row["name"], row["state"], row["verdict"]) for row in told["workers"]] == [
            ("A", "running", None),
            ("B", "failed", "stopped"),
            ("C", "planned", None),
        ]
        assert told["seat"] == "me"
    root("stop", "r", "--grace", "1")


@pytest.mark.parametrize("ended", [False, True], ids=["at work", "ended"])
def test_without_state_json_a_later_attempt_is_taken_on_too(root: Root, ended: bool) -> None:
    root.init("r")
    second = "exit 0" if ended else "exec sleep 300"
    root.spawn("r", {"W": ["sh", "-c", f"[ $ORCHESTRA_ATTEMPT = 2 ] && {second}; exit 3"]})
    root("wait", "r")
    lines = len(root.events("r"))
    root("retry", "r", "W")
    wait_until(lambda: not launchers(root, "r") or not ended, "its end")
    before = launchers(root, "r")
    cut(root, "r", lines)
    (root.run_dir("r") / "state.json").unlink()
    assert [row["worker"] for row in alert(root, "r", "unknown_worker")] == ["W"]
    assert root("retry", "r", "W").json["already"][0]["state"] == ("done" if ended else "running")
    assert (launchers(root, "r"), root.worker("r", "W")["attempt"]) == (before, 2)
    root("stop", "r", "W", "--grace", "1")
    assert not launchers(root, "r")


def test_a_run_put_back_from_a_copy_has_no_worker_twice(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", "[ $ORCHESTRA_ATTEMPT = 2 ] && exec sleep 300; exit 3"]})
    root("wait", "r")
    shutil.copytree(root.run_dir("r"), root.path / "copy")
    root("retry", "r", "W")
    removed(root.run_dir("r"))
    (root.path / "copy").rename(root.run_dir("r"))
    (before,) = launchers(root, "r")
    assert root("retry", "r", "W").names("spawned") == ["W"]
    (after,) = launchers(root, "r")
    assert after != before
    root("stop", "r", "W", "--grace", "1")
    assert not launchers(root, "r")


@pytest.mark.parametrize("other", ["command", "brief"])
def test_whom_the_log_has_lost_is_taken_on_for_what_it_is_and_nothing_else(root: Root, other: str) -> None:
    root.init("r")
    root.spawn("r", {"A": ["true"]}, brief="old")
    root("wait", "r")
    cut(root, "r", 1)
    (root.run_dir("r") / "state.json").unlink()
    command, brief = (["echo", "new"], "old") if other == "command" else (["true"], "new")
    error = root.spawn("r", {"A": command}, brief=brief).json["error"]
    assert (error["code"], f"another {other}" in error["message"]) == ("name_taken", True)
    assert root.spawn("r", {"A": ["true"]}, brief="old").names("spawned") == ["A"]


def test_an_old_launcher_tells_nothing_in_a_new_run_of_the_same_name(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", UNTIL]})
    (old,) = launchers(root, "r")
    removed(root.run_dir("r"))
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    root("wait", "r")
    before = root.result("r", "W")
    (root.path / "go").touch()
    wait_until(lambda: old not in launchers(root, "r"), "the old launcher to end")
    assert root.result("r", "W") == before
    assert json.loads((root.run_dir("r") / "attempts/W/1/result.json").read_text()) == before


def test_an_argument_that_looks_like_a_launcher_of_another_run_is_none(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"A": ["true"]})
    script = root.run_dir("r") / ".run-A.sh"
    root.init("x")
    root.spawn("x", {"X": ["tail", "-f", str(script)]})
    assert root("stop", "r").json["strays"] == []
    assert root.worker("x", "X")["state"] == "running"
    root("stop", "x", "--grace", "1")


@pytest.mark.parametrize(
    "row",
    [
        {"kind": "spawn_intended", "worker": "X", "attempt": 1, "token": "t"},
        {"kind": "spawn_intended", "worker": "X", "attempt": 10**14, "token": "t", "entry": {}},
        {"kind": "spawn_intended", "worker": "X", "attempt": 1, "token": "t", "entry": {"command": [5]}},
        {"kind": "retry_intended", "worker": "A", "attempt": 10**14, "token": "t"},
        {"kind": "ended", "worker": "A", "attempt": 1, "leftovers": 5},
        {"kind": "stop_intended", "worker": "A", "attempt": 1, "grace_s": "x"},
        {"kind": "seat_taken"},
    ],
    ids=lambda row: str(row["kind"]),
)
def test_a_line_that_says_nothing_is_passed_over_and_told(root: Root, row: dict[str, object]) -> None:
    root.init("r")
    root.spawn("r", {"A": ["sleep", "300"]})
    kind, data = str(row["kind"]), {key: value for key, value in row.items() if key != "kind"}
    line = encode(Event(99, "2026-01-01T00:00:00.000Z", "commands", kind, 1, data))
    with (root.run_dir("r") / "events.jsonl").open("ab") as log:
        log.write(line)
    assert [row["at_op"] for row in alert(root, "r", "odd_event")] == [99]
    assert "say nothing" in root("status", "r", "--text").stdout
    assert root("stop", "r", "A", "--grace", "1").code == 0
    assert not launchers(root, "r")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"op":3', b'"op":903'),
        (b'"attempt":1', b'"attempt":2'),
        (b'"attempt":1', b'"attempt":99999999999999'),
        (b'"epoch":', b'"epocc":'),
        (b'"state":"running"', b'"state":"zombie"'),
        (b'"command":["sleep","300"]', b'"command":[5,null]'),
        (b'"unseated":[]', b'"unseated":5'),
    ],
)
@pytest.mark.parametrize("lost", [False, True], ids=["whole log", "cut log"])
def test_a_forged_state_json_is_no_more_than_a_lie(root: Root, old: bytes, new: bytes, lost: bool) -> None:
    root.init("r")
    root.spawn("r", {"A": ["sleep", "300"]})
    state = root.run_dir("r") / "state.json"
    head, body = state.read_bytes().split(b"\n", 1)
    assert old in head + body
    head, body = head.replace(old, new), body.replace(old, new)
    head = re.sub(rb'"body":"\w+"', b'"body":"%08x"' % zlib.crc32(body), head)
    head = head[: head.rindex(b',"crc"')]
    state.write_bytes(b'%s,"crc":"%08x",\n%s' % (head, zlib.crc32(head), body))
    if lost:
        cut(root, "r", 1)
    for words in (["status", "r"], ["spawn", "r"], ["wait", "r", "--timeout", "0"]):
        assert root(*words).code in (0, 1, 4, 5), words
    assert len(launchers(root, "r")) == 1
    assert root("stop", "r", "--grace", "1").code in (0, 1)
    assert not launchers(root, "r")


def test_a_wait_writes_nothing_behind_what_the_log_has_lost(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    lines = len(root.events("r"))
    root.spawn("r", {"X": ["true"]})
    wait_until((root.run_dir("r") / "result-W.json").exists, "an end")
    cut(root, "r", lines)
    root("wait", "r", "--timeout", "0")
    assert len(root.events("r")) == lines
    assert alert(root, "r", "log_shortened")


def test_a_cursor_that_the_log_has_lost_is_a_cursor_still(root: Root) -> None:
    root.init("r")
    op = root.spawn("r", {"A": ["sleep", "300"]}).json["op"]
    cut(root, "r", 1)
    assert root("wait", "r", "--since", str(op), "--timeout", "0.1").code in (4, 5)
    root("unlock", "r")
    assert root("wait", "r", "--since", str(op), "--timeout", "0.1").code == 5
    root("stop", "r", "--grace", "1")


def test_a_worker_tells_how_it_ended_though_the_log_was_away(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"A": ["sh", "-c", UNTIL]})
    log = root.run_dir("r") / "events.jsonl"
    log.rename(root.path / "kept")
    (root.path / "go").touch()
    wait_until(lambda: not launchers(root, "r"), "the launcher to end")
    (root.path / "kept").rename(log)
    assert root.worker("r", "A")["state"] == "done"


def test_one_whom_the_log_does_not_know_can_be_stopped_by_name(root: Root) -> None:
    root.init("r")
    root.spawn("r", QUIET)
    cut(root, "r", 1)
    (root.run_dir("r") / "state.json").unlink()
    answer = root("stop", "r", "A", "--grace", "1").json
    assert [row["worker"] for row in answer["strays"]] == ["A"]
    assert len(launchers(root, "r")) == 1
    assert root("stop", "r", "C").json["error"]["code"] == "no_such_worker"
    root("stop", "r", "--grace", "1")


def test_a_stop_of_the_run_ends_also_whom_its_log_does_not_know(root: Root) -> None:
    root.init("r")
    root.spawn("r", QUIET)
    cut(root, "r", 1)
    (root.run_dir("r") / "state.json").unlink()
    answer = root("stop", "r", "--grace", "1")
    assert [row["worker"] for row in answer.json["strays"]] == ["A", "B"]
    assert (answer.code, launchers(root, "r")) == (0, set())


def removed(run_dir: Path) -> None:
    shutil.rmtree(run_dir)


def moved(run_dir: Path) -> None:
    run_dir.rename(run_dir.parent / "elsewhere")


def without_log(run_dir: Path) -> None:
    (run_dir / "events.jsonl").unlink()


def with_an_empty_log(run_dir: Path) -> None:
    (run_dir / "events.jsonl").write_bytes(b"")
    (run_dir / "state.json").unlink()


def with_a_pipe(run_dir: Path) -> None:
    without_log(run_dir)
    os.mkfifo(run_dir / "events.jsonl")


@pytest.mark.parametrize("become", [removed, moved, without_log, with_an_empty_log, with_a_pipe])
def test_a_run_that_cannot_be_read_can_be_stopped(root: Root, become: Callable[[Path], None]) -> None:
    root.init("r")
    root.spawn("r", QUIET)
    become(root.run_dir("r"))
    status = root("status", "r")
    assert not status.json["ok"]
    assert status.json["error"]["code"] in ("no_such_run", "corrupt_log", "storage")
    assert len(launchers(root, "r")) == 2
    answer = root("stop", "r", "--grace", "1")
    if become is without_log:  # state.json is there: all of it comes back
        assert (answer.code, answer.json["recovered"][0]["what"]) == (0, "log_headless")
        assert not launchers(root, "r")
        return
    if become in (removed, moved):
        assert (answer.code, [row["worker"] for row in answer.json["strays"]]) == (0, ["A", "B"])
    else:
        assert "these were ended: A (pids" in answer.json["error"]["message"]
    assert not launchers(root, "r")
    again = root("stop", "r")
    assert (again.json["ok"], "were ended" in again.json["error"]["message"]) == (False, False)


def test_a_run_that_is_gone_and_whose_workers_live_says_so(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"A": ["sleep", "300"]})
    removed(root.run_dir("r"))
    error = root("status", "r").json
    assert launchers(root, "r") <= set(error["error"]["pids"])
    assert error["next"] == ["orchestra stop r"]
    root("stop", "r", "--grace", "1")
    assert root("status", "r").json["next"] == ["orchestra list"]


@pytest.mark.parametrize(
    "become", [lambda log: os.truncate(log, 10), lambda log: log.unlink()], ids=["cut", "gone"]
)
def test_a_narrator_whose_log_is_cut_under_it_does_not_go_on_as_if_nothing_were(
    root: Root, become: Callable[[Path], None]
) -> None:
    root.init("r", PLAN)
    running = root.start("run", "--run", "r", "--no-throttle")
    wait_until(lambda: root("status", "r").json["counts"]["running"] == 2, "the first phase to run")
    become(root.run_dir("r") / "events.jsonl")
    out, _ = running.communicate(timeout=60)
    assert (running.returncode, json.loads(out)["error"]["code"]) == (1, "corrupt_log")


def test_what_a_narrator_did_whose_log_was_cut_is_known_to_the_next(root: Root) -> None:
    root.init("r", PLAN)
    running = root.start("run", "--run", "r", "--no-throttle")
    wait_until(lambda: root("status", "r").json["counts"]["running"] == 2, "the first phase to run")
    cut(root, "r", 1)
    running.communicate(timeout=60)
    assert root("unlock", "r").json["next"][0] == "orchestra run --run r --no-throttle"
    answer = root("run", "--run", "r", "--no-throttle").json
    assert (answer["ok"], answer["counts"]["done"]) == (True, 3)
    assert [root.result("r", name)["attempt"] for name in "ABC"] == [1, 1, 1]


def test_a_narrator_that_is_stopped_is_told_with_what_wakes_it(root: Root) -> None:
    root.init("r", PLAN)
    running = root.start("run", "--run", "r", "--no-throttle")
    wait_until(lambda: root("status", "r").json["counts"]["running"] == 2, "the first phase to run")
    os.kill(running.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: alert(root, "r", "stopped_holder"), "the alert")
        assert root("status", "r").json["next"][0] == f"kill -CONT {running.pid}"
        assert f"kill -CONT {running.pid}" in root("spawn", "r").json["error"]["message"]
    finally:
        os.kill(running.pid, signal.SIGCONT)
    assert json.loads(running.communicate(timeout=60)[0])["ok"]


def run_with_faults(root: Root, fault: str, path: str, *words: str, calls: str = "openat") -> dict[str, Any]:
    """A command for which every open of a path fails."""
    if shutil.which("strace") is None:
        pytest.skip("NOT RUN: a machine short of descriptors (strace is not here)")
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e", f"inject={calls}:error={fault}"]
    done = subprocess.run(
        [*strace, *orchestra_argv(*words)],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        capture_output=True,
        text=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("fault", ["EMFILE", "ENOMEM"])
@pytest.mark.parametrize("words", [["retry", "r", "A"], ["spawn", "r"], ["stop", "r"], ["status", "r"]])
def test_whom_one_cannot_look_at_is_not_dead(root: Root, fault: str, words: list[str]) -> None:
    root.init("r")
    root.spawn("r", {"A": ["sleep", "300"]})
    (pid,) = launchers(root, "r")
    assert run_with_faults(root, fault, f"/proc/{pid}/stat", *words)["error"]["code"] == "storage"
    assert (launchers(root, "r"), root.worker("r", "A")["state"]) == ({pid}, "running")
    root("stop", "r", "--grace", "1")


@pytest.mark.parametrize("fault", ["EMFILE", "EIO"])
def test_a_state_json_that_cannot_be_read_just_now_is_not_written_over(root: Root, fault: str) -> None:
    root.init("r")
    root("spawn", "r", "--worker", f"W={root.brief('W')}", "--", "true", env=FULL)
    cut(root, "r", 1)
    answer = run_with_faults(root, fault, str(root.run_dir("r") / "state.json"), "unlock", "r")
    assert answer["error"]["code"] == "storage"
    root("unlock", "r")
    assert root.worker("r", "W")["state"] == "deferred"


def test_a_lock_that_cannot_be_read_just_now_is_nobodys_to_take(root: Root) -> None:
    root.init("r", PLAN)
    running = root.start("run", "--run", "r", "--no-throttle")
    wait_until(lambda: root("status", "r").json["counts"]["running"] == 2, "the first phase to run")
    holder = root.run_dir("r") / ".narrator.lock" / "holder.json"
    for words in (["unlock", "r"], ["spawn", "r"]):
        assert run_with_faults(root, "EMFILE", str(holder), *words)["error"]["code"] == "storage"
    assert json.loads(running.communicate(timeout=60)[0])["ok"]
