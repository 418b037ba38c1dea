"""Ending workers, and trying again: the old attempt is dead and kept before the new one begins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Root, wait_until

FOREVER = ["sleep", "300"]
FAILS = ["sh", "-c", 'echo "try $ORCHESTRA_ATTEMPT"; touch "$ORCHESTRA_OUT/made"; exit 3']
SECOND_TIME = ["sh", "-c", '[ "$ORCHESTRA_ATTEMPT" -ge 2 ]']
DEAF = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"]


def failed(root: Root, command: list[str] = FAILS) -> None:
    """Worker W of run r, whose first attempt has failed."""
    root.init("r")
    root.spawn("r", {"W": command})
    assert root("wait", "r").code == 1


def living(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def children(pid: int) -> list[int]:
    return [int(kid) for kid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lose(root: Root) -> None:
    """SIGKILL for W's launcher and worker, and somebody who sees it."""
    launcher = root.mark("r", "W")["pid"]
    workers = wait_until(lambda: children(launcher), "the worker")
    for pid in (launcher, *workers):
        os.kill(pid, signal.SIGKILL)
    assert root("wait", "r").code == 1
    assert root.worker("r", "W")["verdict"] == "lost"


# --- retry -----------------------------------------------------------------------------------


def test_retry_makes_a_second_attempt(root: Root) -> None:
    failed(root, SECOND_TIME)
    answer = root("retry", "r", "W", "--no-throttle")
    assert (answer.code, answer.json["spawned"][0]["attempt"]) == (0, 2)
    assert root("wait", "r").code == 0
    row = root.worker("r", "W")
    assert (row["attempt"], row["state"], row["verdict"]) == (2, "done", None)


def test_retry_archives_everything_of_the_first_attempt(root: Root) -> None:
    failed(root)
    flat = {
        name: (root.run_dir("r") / name).read_bytes() for name in ("log-W.out", ".run-W.sh", "result-W.json")
    }
    root("retry", "r", "W", "--no-throttle")
    root("wait", "r", "--timeout", "60")
    there = root.run_dir("r") / "attempts" / "W" / "1"
    assert (there / "log.out").read_bytes() == flat["log-W.out"] == b"try 1\n"
    assert (there / "run.sh").read_bytes() == flat[".run-W.sh"]
    assert (there / "result.json").read_bytes() == flat["result-W.json"]
    assert (there / "out" / "made").exists()
    assert {"brief.md", "prompt.txt", "pid.json", "log.err"} <= set(os.listdir(there))
    assert (root.run_dir("r") / "log-W.out").read_text() == "try 2\n"


def test_the_second_attempt_begins_with_an_empty_out_and_another_token(root: Root) -> None:
    failed(root)
    before = root.mark("r", "W")["token"]
    root("retry", "r", "W", "--no-throttle")
    root("wait", "r", "--timeout", "60")
    assert root.mark("r", "W")["token"] != before
    assert root.mark("r", "W")["attempt"] == root.result("r", "W")["attempt"] == 2


def test_explain_tells_every_attempt(root: Root) -> None:
    failed(root)
    root("retry", "r", "W", "--no-throttle")
    root("wait", "r", "--timeout", "60")
    attempts = root("explain", "r", "W").json["worker"]["attempts"]
    assert [(a["attempt"], a["verdict"], a["exit_code"]) for a in attempts] == [
        (1, "exit_code", 3),
        (2, "exit_code", 3),
    ]


def test_retry_without_names_takes_all_that_failed_and_no_other(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"A": FAILS, "B": FAILS, "Good": ["true"], "Long": FOREVER})
    root("wait", "r", "--keep-going", "--for", "A", "--for", "B", "--for", "Good")
    assert root("retry", "r", "--no-throttle").names("spawned") == ["A", "B"]


@pytest.mark.parametrize(("command", "state"), [(["true"], "done"), (FOREVER, "running")])
def test_who_has_not_failed_is_left_alone(root: Root, command: list[str], state: str) -> None:
    root.init("r")
    root.spawn("r", {"W": command})
    root("wait", "r", "--timeout", "60" if state == "done" else "0")
    answer = root("retry", "r", "W", "--no-throttle")
    assert (answer.code, answer.json["spawned"]) == (0, [])
    assert [(row["name"], row["state"]) for row in answer.json["already"]] == [("W", state)]
    assert root.worker("r", "W")["attempt"] == 1


def test_a_retry_can_be_deferred_and_the_next_spawn_picks_it_up(root: Root) -> None:
    root.init("r")
    row = {"name": "W", "brief": "b", "command": SECOND_TIME, "throttle": {"memory_available": "64TiB"}}
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]))
    root("wait", "r")
    answer = root("retry", "r", "W")
    assert (answer.code, answer.names("deferred")) == (4, ["W"])
    assert root.worker("r", "W")["state"] == "deferred"
    assert root("spawn", "r", "--no-throttle").names("spawned") == ["W"]
    assert root("wait", "r").code == 0


def test_a_command_that_was_mended_can_be_retried(root: Root) -> None:
    tool = root.path / "tool"
    root.init("r")
    assert root.spawn("r", {"W": [str(tool)]}).names("failed") == ["W"]
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    assert root("retry", "r", "W", "--no-throttle").names("spawned") == ["W"]
    assert root("wait", "r").code == 0


# --- stop ------------------------------------------------------------------------------------------


def test_stop_ends_a_worker_with_all_that_it_started(root: Root) -> None:
    root.init("r")
    script = f'setsid sleep {8_000_000 + os.getpid()} & echo $! >"$ORCHESTRA_OUT/kid"; wait'
    root.spawn("r", {"W": ["sh", "-c", script]})
    kid_file = root.run_dir("r") / "out-W" / "kid"
    kid = int(wait_until(lambda: kid_file.exists() and kid_file.read_text(), "the child"))
    launcher = root.mark("r", "W")["pid"]
    answer = root("stop", "r", "W")
    assert (answer.code, answer.json["stopped"]) == (
        0,
        [{"name": "W", "verdict": "stopped", "state": "failed"}],
    )
    assert not living(kid)
    assert not living(launcher)


def test_stop_without_names_ends_all_that_run(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"A": FOREVER, "B": FOREVER, "Good": ["true"]})
    root("wait", "r", "--for", "Good")
    answer = root("stop", "r")
    assert [row["name"] for row in answer.json["stopped"]] == ["A", "B"]
    assert root("status", "r").json["counts"]["running"] == 0
    assert root.worker("r", "Good")["state"] == "done"


def test_a_name_given_twice_is_stopped_once(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    answer = root("stop", "r", "W", "W")
    assert [row["name"] for row in answer.json["stopped"]] == ["W"]


@pytest.mark.parametrize("grace", ["0.2", "0", "1e-5"])
def test_who_is_deaf_to_TERM_is_killed_after_the_grace(root: Root, grace: str) -> None:
    root.init("r")
    root.spawn("r", {"W": DEAF})
    log = root.run_dir("r") / "log-W.out"
    wait_until(lambda: log.read_text(), "the trap")
    launcher = root.mark("r", "W")["pid"]
    answer = root("stop", "r", "W", "--grace", grace)
    assert answer.json["stopped"][0]["verdict"] == "stopped"
    assert root.worker("r", "W")["verdict"] == "stopped"
    assert not living(launcher)
    assert root.result("r", "W")["verdict"] == "stopped"


def test_stop_calls_a_deferred_worker_off(root: Root) -> None:
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["true"], "throttle": {"memory_available": "64TiB"}}
    root("spawn", "r", "--from", "-", stdin=json.dumps([row]))
    assert root("stop", "r", "W").json["stopped"][0]["verdict"] == "stopped"
    assert root("spawn", "r", "--no-throttle").json["spawned"] == []
    assert root.worker("r", "W")["verdict"] == "stopped"


def test_stop_of_who_has_ended_says_so(root: Root) -> None:
    failed(root)
    answer = root("stop", "r", "W")
    assert (answer.code, answer.json["stopped"]) == (0, [])
    assert [(row["name"], row["state"], row["note"]) for row in answer.json["already"]] == [
        ("W", "failed", "it had ended before")
    ]


def test_a_frozen_worker_can_be_stopped(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    launcher = root.mark("r", "W")["pid"]
    (worker,) = wait_until(lambda: children(launcher), "the worker")
    for pid in (launcher, worker):
        os.kill(pid, signal.SIGSTOP)
    answer = root("stop", "r", "W", "--grace", "0.5")
    assert answer.json["stopped"][0]["verdict"] == "stopped"
    assert not living(launcher)
    assert not living(worker)


def test_a_stopped_worker_can_be_retried_by_name(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    root("stop", "r", "W")
    answer = root("retry", "r", "W", "--no-throttle")
    assert (answer.names("spawned"), answer.json["spawned"][0]["attempt"]) == (["W"], 2)
    row = root.worker("r", "W")
    assert (row["state"], row["attempt"]) == ("running", 2)


def test_a_retried_worker_can_be_stopped_again(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    for attempt in (1, 2):
        assert root("stop", "r", "W").json["stopped"][0]["verdict"] == "stopped"
        assert root.worker("r", "W")["attempt"] == attempt
        if attempt == 1:
            root("retry", "r", "W", "--no-throttle")


@pytest.mark.parametrize("lives_on", [False, True], ids=["all gone", "the worker lives on"])
def test_who_was_to_be_stopped_and_was_killed_is_stopped_for_every_command(
    root: Root, lives_on: bool
) -> None:
    interrupted_stop(root, "300")
    launcher = root.mark("r", "W")["pid"]
    # The launcher has a helper of its own now and then, and its worker too.
    workers = [pid for pid in children(launcher) if Path(f"/proc/{pid}/comm").read_text() == "sh\n"]
    for pid in [launcher] if lives_on else [launcher, *workers]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not living(launcher), "the launcher's end")
    for answer in (root("status", "r"), root("wait", "r", "--for", "W"), root("status", "r")):
        row = next(row for row in answer.json["workers"] if row["name"] == "W")
        assert (row["state"], row["verdict"], row["retry"]) == ("failed", "stopped", "never")
    leftovers = [a["pids"] for a in root("status", "r").json["alerts"] if a["kind"] == "leftovers"]
    assert len(leftovers) == lives_on
    assert not lives_on or set(workers) <= set(leftovers[0])
    assert root("retry", "r").json["spawned"] == []  # nor is it run again by itself
    assert not any(living(pid) for pid in workers)
    assert root.result("r", "W")["verdict"] == "stopped"
    assert not list(root.tmp.glob(f"orc-{root.mark('r', 'W')['token']}"))


def interrupted_stop(root: Root, grace: str) -> None:
    """A stop of the deaf W that has told its launcher, and is interrupted then."""
    root.init("r")
    root.spawn("r", {"W": DEAF, "B": FOREVER})
    log = root.run_dir("r") / "log-W.out"
    wait_until(lambda: log.read_text(), "the trap")
    stopping = root.start("stop", "r", "W", "--grace", grace)
    wait_until((root.run_dir("r") / "attempts" / "W" / "1" / "grace").exists, "the word to the launcher")
    stopping.send_signal(signal.SIGINT)
    stopping.communicate()


def test_a_stop_after_an_interrupted_one_takes_the_shorter_grace_and_tells_its_end(root: Root) -> None:
    interrupted_stop(root, "300")
    answer = root("stop", "r", "W", "--grace", "0")
    assert answer.json["stopped"] == [{"name": "W", "verdict": "stopped", "state": "failed"}]
    assert answer.json["recovered"] == [{"what": "half_done_stop", "worker": "W"}]
    assert root.result("r", "W")["verdict"] == "stopped"


def test_a_stop_with_a_longer_grace_takes_nothing_back(root: Root) -> None:
    interrupted_stop(root, "4")
    answer = root("stop", "r", "W", "--grace", "300")
    assert [row["verdict"] for row in answer.json["stopped"]] == ["stopped"]


def test_a_half_done_stop_is_finished_along_with_the_stop_of_another(root: Root) -> None:
    interrupted_stop(root, "4")
    answer = root("stop", "r", "B", "--grace", "300")
    assert [row["name"] for row in answer.json["stopped"]] == ["B"]
    assert root.worker("r", "W")["verdict"] == "stopped"


def test_a_launcher_heeds_a_grace_that_is_cut_short(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["bash", "-c", "trap 'echo told' TERM; echo up; while :; do sleep 0.1; done"]})
    log = root.run_dir("r") / "log-W.out"
    wait_until(lambda: log.read_text(), "the trap")
    grace = root.run_dir("r") / "attempts" / "W" / "1" / "grace"
    grace.write_text("300\n")
    os.kill(root.mark("r", "W")["pid"], signal.SIGUSR1)
    wait_until(lambda: "told" in log.read_text(), "the TERM")
    grace.write_text("0.000\n")
    wait_until((root.run_dir("r") / "result-W.json").exists, "the end")
    assert root.result("r", "W")["verdict"] == "stopped"


# --- abandoned attempts ------------------------------------------------------------------------------

LATE: dict[str, Any] = {
    "worker": "W",
    "attempt": 1,
    "status": "done",
    "verdict": None,
    "reason": None,
    "exit_code": 0,
    "signal": None,
    "started_at": "2026-01-01T00:00:00.000Z",
    "ended_at": "2026-01-01T00:00:01.000Z",
}


@pytest.fixture
def abandoned(root: Root) -> Root:
    """W's first attempt was lost; its second one runs."""
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    lose(root)
    root("retry", "r", "W", "--no-throttle")
    return root


@pytest.mark.parametrize("place", ["attempts/W/1/result.json", "result-W.json"])
def test_a_late_result_of_an_abandoned_attempt_changes_nothing(abandoned: Root, place: str) -> None:
    (abandoned.run_dir("r") / place).write_text(json.dumps(LATE) + "\n")
    row = abandoned.worker("r", "W")
    assert (row["state"], row["attempt"]) == ("running", 2)
    assert abandoned("wait", "r", "--timeout", "0.2").code == 5
    abandoned("spawn", "r")
    assert abandoned.worker("r", "W")["state"] == "running"


def test_a_late_result_is_kept_where_it_is_and_reported(abandoned: Root) -> None:
    kept = abandoned.run_dir("r") / "attempts" / "W" / "1" / "result.json"
    kept.write_text(json.dumps(LATE) + "\n")
    alerts = abandoned("status", "r").json["alerts"]
    assert {"kind": "late_result", "worker": "W", "attempt": 1} in alerts
    abandoned("stop", "r")
    assert json.loads(kept.read_text()) == LATE


def test_a_launcher_of_an_abandoned_attempt_publishes_nothing(root: Root) -> None:
    """Started by hand, say: the mark of the second attempt stands, and it goes away."""
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", "sleep 0.2; exit 3"]})
    script = (root.run_dir("r") / ".run-W.sh").read_text()
    root("wait", "r")
    root("retry", "r", "W", "--no-throttle")
    root("wait", "r", "--timeout", "60")
    before = root.result("r", "W")
    copy = root.path / "late.sh"
    copy.write_text(script)
    late = subprocess.run(["bash", "-p", str(copy), "supervised"], timeout=60)
    assert late.returncode == 75
    assert root.result("r", "W") == before
