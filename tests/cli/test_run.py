"""The built-in narrator: whatever happens to it, the run goes on, and nothing runs twice."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest
from conftest import Answer, Root, processes_of, wait_until, watches

from orchestra.engine.conduct import conduct
from orchestra.engine.narrator import Narrator
from orchestra.engine.observe import Observer
from orchestra.engine.wait import Scope, _Wait, record_facts
from orchestra.model.snapshot import WorkerView
from orchestra.store.layout import Layout

GATE = 'until [ -e "$ORCHESTRA_RUN_DIR/../go" ]; do sleep 0.05; done'
RAN = 'echo "$ORCHESTRA_WORKER" >>"$ORCHESTRA_RUN_DIR/../ran"'
CALM = {"load_per_cpu": "off", "disk_queue": "off", "memory_available": "1B"}


def write_plan(root: Root, phases: dict[str, dict[str, str]], **more: Any) -> str:
    """A plan of shell scripts by phase and worker; returns its path."""
    plan = {
        "throttle": CALM,
        **more,
        "phases": [
            {
                "name": phase,
                "workers": [
                    {"name": n, "brief": "b", "command": ["sh", "-c", s]} for n, s in workers.items()
                ],
            }
            for phase, workers in phases.items()
        ],
    }
    path = root.path.parent / "night.yaml"
    path.write_text(json.dumps(plan))
    return str(path)


def ran(root: Root) -> list[str]:
    file = root.path / "ran"
    return file.read_text().split() if file.exists() else []


def answer_of(process: subprocess.Popen[str]) -> Answer:
    out, err = process.communicate(timeout=60)
    return Answer(process.returncode, json.loads(out.splitlines()[-1]), out, err)


def test_all_phases_run_in_order(root: Root) -> None:
    plan = write_plan(root, {"one": {"A": RAN, "B": f"sleep 0.2; {RAN}"}, "two": {"C": RAN}})
    answer = root("run", plan)
    assert (answer.code, answer.json["run"]) == (0, "night")
    assert (answer.json["finished"], answer.json["stopped_at"]) == (["one", "two"], None)
    assert answer.json["counts"]["done"] == 3
    assert sorted(ran(root)[:2]) == ["A", "B"]
    assert ran(root)[2:] == ["C"]


def test_run_again_finds_everything_done(root: Root) -> None:
    plan = write_plan(root, {"one": {"A": RAN}})
    root("run", plan)
    assert root("run", plan).code == 0
    assert ran(root) == ["A"]


def test_a_failed_worker_gets_the_attempts_that_the_plan_allows(root: Root) -> None:
    plan = write_plan(root, {"one": {"A": f"{RAN}; exit 3"}}, retries=2)
    answer = root("run", plan)
    assert (answer.code, answer.json["failed"]) == (1, ["A"])
    assert ran(root) == ["A"] * 3
    assert root.worker("night", "A")["attempt"] == 3


def test_a_worker_that_succeeds_the_second_time_is_no_failure(root: Root) -> None:
    plan = write_plan(root, {"one": {"A": '[ "$ORCHESTRA_ATTEMPT" = 2 ]'}, "two": {"B": RAN}}, retries=1)
    answer = root("run", plan)
    assert (answer.code, answer.json["failed"]) == (0, [])
    assert ran(root) == ["B"]


def test_what_would_never_succeed_is_not_tried_again(root: Root) -> None:
    plan = write_plan(root, {"one": {"A": f"{RAN}; echo 'invalid api key' >&2; exit 1"}}, retries=5)
    assert root("run", plan).code == 1
    assert ran(root) == ["A"]


@pytest.mark.parametrize(("on_failure", "later"), [("stop", []), ("continue", ["C"])])
def test_on_failure_says_whether_the_next_phase_comes(root: Root, on_failure: str, later: list[str]) -> None:
    phases = {"one": {"A": "exit 3", "B": f"sleep 0.2; {RAN}"}, "two": {"C": RAN}}
    answer = root("run", write_plan(root, phases, on_failure=on_failure))
    assert (answer.code, answer.json["failed"]) == (1, ["A"])
    assert answer.json["stopped_at"] == ("one" if on_failure == "stop" else None)
    assert ran(root) == ["B", *later]


def test_deferred_workers_are_picked_up_until_all_have_run(root: Root) -> None:
    phases = {"one": {name: RAN for name in "ABC"}}
    answer = root("run", write_plan(root, phases, throttle={**CALM, "max_workers": 1}))
    assert (answer.code, answer.json["counts"]["done"]) == (0, 3)
    assert sorted(ran(root)) == ["A", "B", "C"]
    assert any(event["kind"] == "deferred" for event in root.events("night"))


def test_killed_in_the_middle_and_started_again_it_goes_on_and_nothing_runs_twice(root: Root) -> None:
    phases = {"one": {"A": RAN, "B": f"{RAN}; {GATE}"}, "two": {"C": RAN}}
    plan = write_plan(root, phases)
    first = root.start("run", plan)
    wait_until(lambda: sorted(ran(root)) == ["A", "B"], "the first phase")
    first.kill()
    first.communicate()
    second = root.start("run", plan)
    wait_until(
        lambda: root("status", "night").json["lock"].get("pid") == second.pid, "the second narrator's turn"
    )
    (root.path / "go").touch()
    answer = answer_of(second)
    assert (answer.code, answer.json["finished"]) == (0, ["one", "two"])
    assert sorted(ran(root)) == ["A", "B", "C"]
    alerts = root("status", "night").json["alerts"]
    assert [a["holder"]["pid"] for a in alerts if a["kind"] == "lock_taken_over"] == [first.pid]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_the_workers_running(root: Root, signum: signal.Signals) -> None:
    plan = write_plan(root, {"one": {"A": f"{RAN}; {GATE}"}, "two": {"B": RAN}})
    first = root.start("run", plan)
    wait_until(lambda: ran(root) == ["A"], "the worker")
    first.send_signal(signum)
    answer = answer_of(first)
    assert (answer.code, answer.json["ok"]) == (130, False)
    assert "Traceback" not in answer.stderr
    assert root.worker("night", "A")["state"] == "running"
    assert root("status", "night").json["lock"] == {"held": False}
    (root.path / "go").touch()
    assert root("run", plan).code == 0
    assert ran(root) == ["A", "B"]


def test_a_second_run_of_the_same_run_is_refused_while_the_first_lives(root: Root) -> None:
    plan = write_plan(root, {"one": {"A": f"{RAN}; {GATE}"}})
    first = root.start("run", plan)
    wait_until(lambda: ran(root) == ["A"], "the worker")
    second = root("run", plan)
    assert (second.code, second.json["error"]["code"]) == (3, "narrator_already_active")
    assert second.json["error"]["pid"] == first.pid
    (root.path / "go").touch()
    assert answer_of(first).code == 0


def test_who_loses_the_lock_by_force_stops_conducting(root: Root) -> None:
    plan = write_plan(root, {"one": {"A": f"{RAN}; {GATE}"}, "two": {"B": RAN}})
    first = root.start("run", plan)
    wait_until(lambda: ran(root) == ["A"], "the worker")
    refused = root("unlock", "night")
    assert (refused.code, refused.json["error"]["code"]) == (3, "holder_alive")
    assert root("unlock", "night", "--force").json["found"] == {"lock": "forced", "pid": first.pid}
    (root.path / "go").touch()
    answer = answer_of(first)
    assert (answer.code, answer.json["error"]["code"]) == (3, "superseded")
    assert ran(root) == ["A"]


def test_workers_of_a_phase_that_ended_meanwhile_are_found(root: Root) -> None:
    plan = write_plan(
        root, {"one": {"A": f"{RAN}; {GATE}; exit 3"}, "two": {"B": RAN}}, on_failure="continue"
    )
    first = root.start("run", plan)
    wait_until(lambda: ran(root) == ["A"], "the worker")
    first.kill()
    first.communicate()
    (root.path / "go").touch()
    wait_until((root.run_dir("night") / "result-A.json").exists, "the worker's end, seen by nobody")
    answer = root("run", plan)
    assert (answer.code, answer.json["failed"], ran(root)) == (1, ["A"], ["A", "B"])


def test_a_plan_whose_name_is_no_run_id_needs_a_run(root: Root) -> None:
    plan = root.path.parent / "my plan.yaml"
    plan.write_text("command: ['true']\nphases: [{name: p, workers: [{name: A, brief: b}]}]\n")
    refused = root("run", str(plan))
    assert (refused.code, refused.json["error"]["code"]) == (2, "usage")
    assert "--run" in refused.json["error"]["hint"]
    assert root("run", str(plan), "--run", "mine", "--no-throttle").json["run"] == "mine"


def test_who_follows_the_whole_run_hears_all_of_it_and_ends_with_it(root: Root) -> None:
    first = f'{GATE}; if [ "$ORCHESTRA_ATTEMPT" = 1 ]; then exit 3; fi'
    plan = write_plan(root, {"one": {"A": first}, "two": {"B": RAN}}, retries=1)
    root("init", "night", "--plan", plan)
    following = root.start(
        "wait", "night", "--follow", "--keep-going", "--timeout", "60", stdout=subprocess.PIPE
    )
    running = root.start("run", "--run", "night", stdout=subprocess.PIPE)
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["worker"]["name"] == "A"
    (root.path / "go").touch()
    lines = [json.loads(line) for line in following.communicate(timeout=60)[0].splitlines()]
    ends = [
        (row["name"], row["attempt"], row["state"])
        for row in (line["worker"] for line in lines if "worker" in line)
        if row["state"] in ("done", "failed")
    ]
    assert ends == [("A", 1, "failed"), ("A", 2, "done"), ("B", 1, "done")]
    assert (following.returncode, lines[-1]["outcome"]) == (0, "ended")
    assert answer_of(running).code == 0


def test_who_follows_hears_of_a_failure_that_was_tried_again_before_they_looked(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"A": ["sh", "-c", "exit 3"]})
    layout = Layout(str(root.run_dir("r")))
    told: list[tuple[int, str]] = []
    observer = Observer(layout).open()

    def tell(view: WorkerView, op: int) -> None:
        told.append((view.record.attempt, view.state))

    waiting = _Wait(observer, Scope(keep_going=True), record_facts(observer), tell)
    assert root("wait", "r").code == 1
    waiting.look(["A"])
    assert told == [(1, "failed")]
    for _ in range(2):
        assert root("retry", "r", "A", "--no-throttle").code in (0, 1)
        assert root("wait", "r", "--for", "A").code == 1
    waiting.look(["A"])
    assert told == [(1, "failed"), (2, "failed"), (3, "failed")]


def test_a_brief_that_is_gone_is_told_before_anything_is_started(root: Root) -> None:
    brief = root.path.parent / "b.md"
    brief.write_text("do it")
    plan = "command: ['true']\nphases:\n- {name: one, workers: [{name: A, brief: b}]}\n"
    root.init("r", plan + "- {name: two, workers: [{name: B, brief: b.md}]}\n")
    brief.unlink()
    answer = root("run", "--run", "r")
    error = answer.json["error"]
    assert (answer.code, error["code"], error["file"]) == (2, "bad_plan", str(brief))
    assert "line" not in error and ":0" not in error["message"]
    assert root("status", "r").json["counts"]["planned"] == 2
    brief.write_text("do it")
    assert root("run", "--run", "r").json["counts"]["done"] == 2


def test_a_brief_that_goes_while_it_runs_can_come_back(root: Root) -> None:
    brief = root.path.parent / "b.md"
    brief.write_text("do it")
    removes = "phases:\n- {name: one, workers: [{name: A, brief: b, command: [rm, B]}]}\n"
    root.init(
        "r",
        removes.replace("B]", f"'{brief}']")
        + "- {name: two, workers: [{name: B, brief: b.md, command: ['true']}]}\n",
    )
    assert root("run", "--run", "r").json["error"]["code"] == "bad_plan"
    assert root("status", "r").json["next"][0] == "orchestra run --run r"
    brief.write_text("do it")
    assert root("run", "--run", "r").json["counts"]["done"] == 2


def test_who_waits_for_the_whole_run_hears_that_its_narrator_died_before_the_end(root: Root) -> None:
    plan = write_plan(root, {"one": {"A": GATE}, "two": {"B": RAN}})
    root("init", "night", "--plan", plan)
    running = root.start("run", "--run", "night", stdout=subprocess.PIPE)
    wait_until(lambda: root("status", "night").json["counts"]["running"], "the worker")
    following = root.start("wait", "night", "--keep-going", "--timeout", "60", stdout=subprocess.PIPE)
    wait_until(lambda: watches(following.pid), "the watch")
    running.kill()
    running.communicate()
    (root.path / "go").touch()
    answer = answer_of(following)
    assert (answer.code, answer.json["outcome"]) == (4, "blocked")
    assert answer.json["next"][0] == "orchestra run --run night"


def test_only_the_built_in_narrator_keeps_a_wait_for_the_whole_run(root: Root) -> None:
    root.init("r", QUIET_PLAN)
    running = root.start("run", "--run", "r")
    wait_until(lambda: root("status", "r").json["counts"]["running"], "the worker")
    running.kill()
    running.communicate()
    layout = Layout(str(root.run_dir("r")))
    told = []
    for verb in ("stop", "run"):
        with conduct(layout, Narrator(verb)):
            told.append(Observer(layout).open().narrating())
    assert told == [False, True]
    root("stop", "r", "--grace", "1")


QUIET_PLAN = "command: [sleep, '300']\nphases:\n- {name: p, workers: [{name: W, brief: do it}]}\n"


def test_what_a_lost_worker_left_does_not_outlive_the_night(root: Root) -> None:
    lost = "setsid sleep 297.3 & sleep 0.3; kill -9 $PPID; exec sleep 297.3"
    root.init(
        "night", f"phases:\n- {{name: p, workers: [{{name: W, brief: b, command: [sh, -c, '{lost}']}}]}}\n"
    )
    answer = root("run", "--run", "night", "--no-throttle").json
    assert (answer["failed"], root.worker("night", "W")["verdict"]) == (["W"], "lost")
    assert "leftovers_ended" in [row["what"] for row in answer["recovered"]]
    assert processes_of(root.path) == []
