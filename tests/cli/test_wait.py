"""Waiting: when it comes back, with which exit status, and what it tells."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Root, clean_environment, wait_until, watches

from orchestra.engine.observe import Observer
from orchestra.engine.wait import Scope, record_facts, wait
from orchestra.model.event import OBSERVATIONS, Draft
from orchestra.model.record import WorkerRecord
from orchestra.model.snapshot import WorkerView
from orchestra.store.layout import Layout

FOREVER = ["sleep", "300"]
GATED = ["sh", "-c", 'until [ -e "$ORCHESTRA_RUN_DIR/../go" ]; do sleep 0.05; done']
FAILS = ["sh", "-c", "exit 3"]
PLAN = """\
command: ['true']
phases:
  - {name: a, workers: [{name: A, brief: b}]}
  - {name: b, workers: [{name: B, brief: b}]}
"""


def spawned(root: Root, workers: dict[str, list[str]], run: str = "r") -> None:
    if not root.run_dir(run).exists():
        root.init(run)
    answer = root.spawn(run, workers)
    assert answer.names("spawned") == list(workers), answer


def children(pid: int) -> list[int]:
    return [int(kid) for kid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill_attempt(root: Root, run: str, name: str) -> None:
    """SIGKILL for launcher and worker, so that nothing of them can write any more."""
    launcher = root.mark(run, name)["pid"]
    workers = wait_until(lambda: children(launcher), "the worker's process")
    for pid in (launcher, *workers):
        os.kill(pid, signal.SIGKILL)


def waiting(root: Root, *words: str) -> subprocess.Popen[str]:
    """A wait in the background that certainly has begun."""
    process = root.start("wait", *words)
    wait_until(lambda: watches(process.pid), "the watch")
    return process


WITHOUT_A_BEAT = """
import sys
import orchestra.engine.wait
from orchestra.cli.main import main
assert orchestra.engine.wait.BEAT_S
orchestra.engine.wait.BEAT_S = 3600.0
sys.argv[0] = "orchestra"
main()
"""


def waiting_without_a_beat(root: Root, *words: str) -> subprocess.Popen[str]:
    """A wait that is told, or never comes to know."""
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_A_BEAT, "wait", *words],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: watches(process.pid), "the watch")
    return process


def answer_of(process: subprocess.Popen[str]) -> Answer:
    out, err = process.communicate(timeout=60)
    return Answer(process.returncode, json.loads(out.splitlines()[-1]), out, err)


def states(answer: Answer) -> dict[str, Any]:
    return {row["name"]: row["state"] for row in answer.json["workers"]}


# --- exit status -------------------------------------------------------------------------------


def test_all_ended_well_is_0(root: Root) -> None:
    spawned(root, {"A": ["true"], "B": ["true"]})
    answer = root("wait", "r")
    assert (answer.code, answer.json["outcome"], states(answer)) == (0, "ended", {"A": "done", "B": "done"})


def test_one_failure_is_1_at_once_while_others_run_on(root: Root) -> None:
    spawned(root, {"Bad": FAILS, "Long": FOREVER})
    answer = root("wait", "r", "--timeout", "60")
    assert (answer.code, answer.json["outcome"]) == (1, "failed")
    assert states(answer) == {"Bad": "failed", "Long": "running"}


def test_keep_going_waits_for_the_others_and_is_still_1(root: Root) -> None:
    spawned(root, {"Bad": FAILS, "Gated": GATED})
    assert root("wait", "r").code == 1
    process = waiting(root, "r", "--keep-going", "--timeout", "60")
    assert process.poll() is None
    (root.path / "go").touch()
    answer = answer_of(process)
    assert (answer.code, states(answer)) == (1, {"Bad": "failed", "Gated": "done"})


def test_still_running_at_the_timeout_is_5(root: Root) -> None:
    spawned(root, {"Long": FOREVER})
    answer = root("wait", "r", "--timeout", "0.2")
    assert (answer.code, answer.json["outcome"], states(answer)) == (5, "timeout", {"Long": "running"})
    assert answer.json["next"][0] == f"orchestra wait r --since {answer.json['op']}"


def test_a_timeout_of_0_only_looks(root: Root) -> None:
    spawned(root, {"Long": FOREVER})
    assert root("wait", "r", "--timeout", "0").code == 5


def test_nothing_but_deferred_ones_is_4_at_once(root: Root) -> None:
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["true"], "throttle": {"memory_available": "64TiB"}}
    root("spawn", "r", "--from", "-", stdin=json.dumps([row]))
    answer = root("wait", "r", "--timeout", "60")
    assert (answer.code, answer.json["outcome"], states(answer)) == (4, "blocked", {"W": "deferred"})
    assert answer.json["next"][0] == "orchestra explain r W"


def test_an_interrupt_is_130_and_ends_no_worker(root: Root) -> None:
    spawned(root, {"Long": FOREVER})
    process = waiting(root, "r")
    process.send_signal(signal.SIGINT)
    answer = answer_of(process)
    assert (answer.code, answer.json["ok"]) == (130, False)
    assert root.worker("r", "Long")["state"] == "running"


def test_where_nobody_was_started_waiting_will_not_help(root: Root) -> None:
    root.init("r")
    assert root("wait", "r").code == 4


# --- scope ---------------------------------------------------------------------------------------


def test_for_waits_only_for_those_named(root: Root) -> None:
    spawned(root, {"Bad": FAILS, "Good": ["true"], "Long": FOREVER})
    answer = root("wait", "r", "--for", "Good")
    assert (answer.code, states(answer)) == (0, {"Good": "done"})


def test_a_name_given_twice_counts_once(root: Root) -> None:
    spawned(root, {"Good": ["true"]})
    answer = root("wait", "r", "--for", "Good", "--for", "Good")
    assert answer.json["counts"]["done"] == 1
    assert len(answer.json["workers"]) == 1


def test_phase_waits_only_for_its_workers(root: Root) -> None:
    root.init("r", PLAN)
    root("spawn", "r", "--phase", "a", "--no-throttle")
    spawned(root, {"Long": FOREVER})
    answer = root("wait", "r", "--phase", "a")
    assert (answer.code, states(answer)) == (0, {"A": "done"})


@pytest.mark.parametrize("scope", [["--phase", "b"], ["--for", "B"]], ids=["phase", "for"])
def test_what_nobody_has_asked_for_yet_will_not_end_by_waiting(root: Root, scope: list[str]) -> None:
    root.init("r", PLAN)
    answer = root("wait", "r", *scope, "--timeout", "60")
    assert (answer.code, states(answer)) == (4, {"B": "planned"})


# --- the cursor ------------------------------------------------------------------------------------


def test_without_a_cursor_a_failure_that_was_told_ends_it_again(root: Root) -> None:
    spawned(root, {"Bad": FAILS, "Long": FOREVER})
    assert root("wait", "r").code == 1
    assert root("wait", "r", "--timeout", "60").code == 1


def test_with_a_cursor_a_failure_that_was_told_does_not_end_it_again(root: Root) -> None:
    spawned(root, {"Bad": FAILS, "Long": FOREVER})
    told = root("wait", "r")
    answer = root("wait", "r", "--since", str(told.json["op"]), "--timeout", "0.2")
    assert (answer.code, states(answer)) == (5, {})


def test_with_a_cursor_a_new_failure_does(root: Root) -> None:
    late = ["sh", "-c", f"{GATED[2]}; exit 4"]
    spawned(root, {"Bad": FAILS, "Late": late})
    told = root("wait", "r")
    process = waiting(root, "r", "--since", str(told.json["op"]), "--timeout", "60")
    (root.path / "go").touch()
    answer = answer_of(process)
    assert (answer.code, states(answer)) == (1, {"Late": "failed"})


def test_with_a_cursor_all_ended_is_0_where_the_failures_were_told(root: Root) -> None:
    spawned(root, {"Bad": FAILS})
    told = root("wait", "r")
    assert root("wait", "r", "--since", str(told.json["op"])).code == 0


@pytest.mark.parametrize("command", [["true"], FAILS, FOREVER], ids=["done", "failed", "running"])
def test_next_always_carries_the_cursor(root: Root, command: list[str]) -> None:
    spawned(root, {"W": command})
    answer = root("wait", "r", "--timeout", "0.5" if command == FOREVER else "60")
    again = f"orchestra wait r --since {answer.json['op']}"
    assert [step for step in answer.json["next"] if step.startswith(again)]


def test_a_long_night_is_waited_on_for_as_it_was_begun(root: Root) -> None:
    spawned(root, {"W": ["true"]})
    words = ("--keep-going", "--timeout", "12h", "--follow")
    assert root("wait", "r", *words).json["next"][-1].endswith(" --keep-going --timeout 43200 --follow")


def test_every_change_is_after_the_cursor_that_came_before_it(root: Root) -> None:
    spawned(root, {"A": ["true"], "Gated": GATED})
    first = root("wait", "r", "--for", "A")
    (root.path / "go").touch()
    second = root("wait", "r", "--since", str(first.json["op"]), "--timeout", "60")
    assert second.json["op"] > first.json["op"]
    assert states(second) == {"Gated": "done"}


def test_an_end_that_another_was_the_first_to_record_is_told_as_recorded(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned(root, {"W": FOREVER})
    kill_attempt(root, "r", "W")
    wait_until(lambda: root.worker("r", "W")["verdict"] == "lost", "the end of both")
    observer, other = (Observer(Layout(str(root.run_dir("r")))).open() for _ in range(2))
    ended = {"worker": "W", "attempt": 1, "status": "failed", "verdict": "signal", "reason": "it was TERM"}
    look = observer.view

    def look_and_be_late(record: WorkerRecord, **more: Any) -> WorkerView:
        view = look(record, **more)
        record_facts(other)([Draft(OBSERVATIONS, "ended", ended)])
        return view

    monkeypatch.setattr(observer, "view", look_and_be_late)
    (view,) = wait(observer, Scope(), timeout_s=0).views
    assert (view.verdict, view.reason) == ("signal", "it was TERM")


# --- seconds, not hours --------------------------------------------------------------------------------


def test_a_worker_killed_with_its_launcher_is_lost_at_once_and_not_on_the_beat(root: Root) -> None:
    spawned(root, {"W": FOREVER})
    process = waiting_without_a_beat(root, "r", "--timeout", "300")
    kill_attempt(root, "r", "W")
    answer = answer_of(process)
    assert (answer.code, answer.json["workers"][0]["verdict"]) == (1, "lost")


def test_a_launcher_that_fails_while_we_wait_is_told_at_once(root: Root) -> None:
    spawned(root, {"W": GATED})
    process = waiting_without_a_beat(root, "r", "--timeout", "300")
    assert root.spawn("r", {"Typo": ["no-such-command"]}).code == 1
    answer = answer_of(process)
    assert (answer.code, answer.json["workers"][1]["verdict"]) == (1, "spawn_error")


def test_a_worker_spawned_while_we_wait_counts_as_well(root: Root) -> None:
    spawned(root, {"W": GATED})
    process = waiting(root, "r", "--timeout", "60")
    spawned(root, {"Bad": FAILS})
    answer = answer_of(process)
    assert (answer.code, states(answer)["Bad"]) == (1, "failed")


# --- what it writes and tells ------------------------------------------------------------------------


def test_what_two_waits_see_at_once_is_recorded_once(root: Root) -> None:
    spawned(root, {f"W{i}": GATED for i in range(3)})
    both = [waiting(root, "r", "--timeout", "60") for _ in range(2)]
    (root.path / "go").touch()
    assert [answer_of(process).code for process in both] == [0, 0]
    ended = [event["worker"] for event in root.events("r") if event["kind"] == "ended"]
    assert sorted(ended) == ["W0", "W1", "W2"]


def test_follow_tells_each_change_on_a_line_of_its_own(root: Root) -> None:
    spawned(root, {"A": GATED, "B": GATED})
    process = waiting(root, "r", "--follow", "--timeout", "60")
    (root.path / "go").touch()
    answer = answer_of(process)
    *changes, last = [json.loads(line) for line in answer.stdout.splitlines()]
    assert {c["worker"]["name"] for c in changes if c["worker"]["state"] == "done"} == {"A", "B"}
    assert all({"ok", "command", "run", "as_of", "op", "next"} <= set(change) for change in changes)
    assert (last["outcome"], last["counts"]["done"]) == ("ended", 2)


def test_follow_names_the_operation_of_each_change(root: Root) -> None:
    spawned(root, {"A": ["true"]})
    lines = root("wait", "r", "--follow", "--since", "1").stdout.splitlines()
    change = next(c for c in map(json.loads, lines) if "worker" in c and c["worker"]["state"] == "done")
    event = next(e for e in root.events("r") if e["kind"] == "ended")
    assert change["op"] == event["op"]


def test_it_needs_no_lock(root: Root) -> None:
    spawned(root, {"A": ["true"]})
    (root.run_dir("r") / ".narrator.lock").mkdir()
    assert root("wait", "r").code == 0


def test_it_does_not_look_at_the_seat(root: Root) -> None:
    spawned(root, {"A": ["true"]})
    root("spawn", "r", "--narrator", "first")
    assert root("wait", "r", "--narrator", "second").code == 0


def test_a_wait_writes_nothing_behind_what_is_damaged(root: Root) -> None:
    spawned(root, {"W": ["true"]})
    wait_until((root.run_dir("r") / "result-W.json").exists, "its end")
    log = root.run_dir("r") / "events.jsonl"
    log.write_bytes(log.read_bytes() + b'{"op":9')
    damaged = log.read_bytes()
    assert states(root("wait", "r")) == {"W": "done"}
    assert log.read_bytes() == damaged


@pytest.mark.parametrize("files", [12, 20, 30])
def test_a_wait_with_few_descriptors_watches_whom_it_can_and_looks_at_the_rest(
    root: Root, files: int
) -> None:
    names = [f"W{i}" for i in range(20)]
    spawned(root, {name: FOREVER for name in names})

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    waiting = root.start("wait", "r", "--timeout", "60", preexec_fn=few)
    os.kill(root.mark("r", names[-1])["pid"], signal.SIGTERM)
    answer = json.loads(waiting.communicate(timeout=90)[0])
    assert (answer.get("outcome"), answer.get("counts", {}).get("running")) == ("failed", 19), answer
    root("stop", "r", "--grace", "1")
