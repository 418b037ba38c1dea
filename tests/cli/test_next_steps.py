"""What an answer proposes helps, and is not refused to whoever asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from conftest import Root, wait_until

STOPS = """\
phases:
- name: p
  workers:
  - {name: Typo, brief: b, command: [no-such-command]}
  - {name: Three, brief: b, command: [sh, -c, exit 3]}
- name: q
  workers: [{name: Last, brief: b, command: ['true']}]
"""
QUIET = "command: [sleep, '300']\nphases:\n- {name: p, workers: [{name: W, brief: do it}]}\n"


def test_where_a_plan_stopped_what_helps_comes_before_going_on(root: Root) -> None:
    root.init("r", STOPS.replace("phases", "retries: 1\nphases", 1))
    steps = root("run", "--run", "r", "--no-throttle").json["next"]
    assert steps == [
        "orchestra explain r Typo",
        "orchestra explain r Three",
        "orchestra spawn r --phase q",
        "orchestra run --run r --keep-going",
    ]
    root("retry", "r", "Typo", "--", "true")
    root("retry", "r", "Three", "--", "true")
    assert root("run", "--run", "r", "--no-throttle").json["counts"]["done"] == 3


def test_status_offers_what_the_built_in_narrator_offered_until_something_was_done(root: Root) -> None:
    root.init("r", STOPS)
    told = root("run", "--run", "r", "--no-throttle").json["next"]
    assert root("status", "r").json["next"] == told
    for _ in range(2):  # it ends just like that again
        root("retry", "r", "Three")
        root("wait", "r", "--for", "Three")
    assert "orchestra retry r Three" not in root("status", "r").json["next"]
    root("retry", "r", "Typo", "--", "true")
    root("retry", "r", "Three", "--", "true")
    root("wait", "r")
    assert root("status", "r").json["next"] == ["orchestra spawn r --phase q", "orchestra run --run r"]
    root("spawn", "r", "--phase", "q", "--no-throttle")
    root("wait", "r")
    assert root("status", "r").json["next"] == []


def test_a_failure_that_nobody_asked_for_is_explained_first_and_an_end_that_was_asked_for_never(
    root: Root,
) -> None:
    root.init("r")
    root.spawn("r", {"Stopped": ["sleep", "300"]})
    assert not [s for s in root("stop", "r", "--grace", "1").json["next"] if "explain" in s]
    root.spawn("r", {"Old": ["false"]})
    root("wait", "r", "--for", "Old")
    root.spawn("r", {"New": ["false"]})
    root("wait", "r", "--for", "New")
    assert root("status", "r").json["next"][0] == "orchestra explain r New"


def test_a_limit_that_is_never_met_here_is_told_so_with_the_ways_out(root: Root) -> None:
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["true"], "throttle": {"memory_available": "64TiB"}}
    answer = root("spawn", "r", "--from", "-", stdin=json.dumps([row]))
    [deferred] = answer.json["deferred"]
    assert "never met here" in deferred["reason"]
    [signal_] = deferred["signals"]
    assert signal_["value"] < signal_["total"] < signal_["limit"]
    assert answer.json["next"] == ["orchestra explain r W"]
    way_out = root("explain", "r", "W").json["worker"]["way_out"]
    assert all(word in way_out for word in ("memory_available", "--no-throttle", "orchestra stop r W"))
    assert root("spawn", "r", env={"ORCHESTRA_THROTTLE": "{memory_available: 1B}"}).names("spawned") == ["W"]


def test_while_the_narrator_waits_for_what_never_comes_the_way_out_begins_with_its_end(root: Root) -> None:
    root.init("r", "throttle: {memory_available: 64TiB}\n" + QUIET)
    running = root.start("run", "--run", "r")
    wait_until(lambda: root("status", "r").json["counts"]["deferred"], "the deferral")
    assert root("status", "r").json["next"] == ["orchestra explain r W"]
    way_out = root("explain", "r", "W").json["worker"]["way_out"]
    assert way_out.startswith("once the narrator at work has let go")
    running.terminate()
    running.communicate()


def test_a_deferral_that_came_of_a_limit_that_was_changed_is_told_anew(root: Root) -> None:
    root.init("r")
    brief = root.brief("W")
    for limit in ("64TiB", "1TiB", "64TiB"):
        env = {"ORCHESTRA_THROTTLE": f"{{memory_available: {limit}}}"}
        root("spawn", "r", "--worker", f"W={brief}", "--", "true", env=env)
        told = root("explain", "r", "W").json["worker"]["deferred"]
        assert f"at least {limit} wanted" in told["reason"]
    events = len(root.events("r"))
    root("spawn", "r", env=env)
    assert len(root.events("r")) == events


def test_an_error_names_the_root_and_the_narrator_of_the_call(root: Root, tmp_path: Path) -> None:
    options = ("--root", str(tmp_path / "else where"), "--narrator", "me")
    answer = root("status", "nosuch", *options)
    words = f" --root '{tmp_path}/else where' --narrator me"
    assert answer.json["next"] == [f"orchestra list{words}"]
    assert f"orchestra init RUN{words}" in answer.json["error"]["hint"]
    assert root("list", *options).json["next"] == [f"orchestra init first{words}"]


def test_people_are_told_what_is_next_after_an_error_too(root: Root) -> None:
    root.init("r", QUIET)
    running = root.start("run", "--run", "r", "--text", stderr=subprocess.PIPE)
    wait_until(lambda: root("status", "r").json["counts"]["running"], "the worker to run")
    running.send_signal(signal.SIGINT)
    assert running.communicate()[1].splitlines()[-1] == "next: orchestra run --run r"
    assert root("status", "r").json["next"][0] == "orchestra run --run r"
    root("stop", "r", "--grace", "1")


def test_who_is_not_in_the_seat_is_not_sent_to_take_it(root: Root) -> None:
    """That is for a person to say: the refusal has it in its hint."""
    root.init("z")
    root.spawn("z", {"Fails": ["false"]}, "--narrator", "anna")
    root("wait", "z")
    looks = {"bob": ["status", "z"], "carl": ["explain", "z", "Fails"], "dora": ["unlock", "z"]}
    for who, words in looks.items():
        steps = root(*words, "--narrator", who).json["next"]
        assert not [step for step in steps if "takeover" in step]
        for step in steps:
            assert root(*step.split()[1:]).json["ok"], step
    assert "orchestra takeover z" in root("spawn", "z", "--narrator", "bob").json["error"]["hint"]


def test_who_was_replaced_is_not_told_to_take_it_back(root: Root) -> None:
    root.init("z")
    root.spawn("z", {"Fails": ["false"]}, "--narrator", "anna")
    root("wait", "z")
    root("takeover", "z", "--narrator", "bob")
    assert root("status", "z", "--narrator", "anna").json["next"] == [
        "orchestra explain z --narrator anna Fails"
    ]


def test_a_dead_built_in_narrator_is_followed_by_another(root: Root) -> None:
    root.init("r", QUIET)
    running = root.start("run", "--run", "r")
    wait_until(lambda: root("status", "r").json["counts"]["running"], "the worker to run")
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    assert root("status", "r").json["next"][0] == "orchestra run --run r"
    assert root("unlock", "r").json["next"][0] == "orchestra run --run r"
    assert root("status", "r").json["next"][0] == "orchestra run --run r"
    root("stop", "r", "--grace", "1")


def test_explain_proposes_what_helps_this_very_worker(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"Typo": ["no-such-command"], "Fails": ["false"], "Done": ["true"]})
    root("wait", "r", "--keep-going")
    assert root("explain", "r", "Typo").json["next"] == ["orchestra retry r Fails"]
    assert root("explain", "r", "Fails").json["next"] == ["orchestra retry r Fails"]
    assert root("explain", "r", "Done").json["next"] == ["orchestra retry r Fails"]


def test_who_follows_what_is_proposed_does_not_go_round(root: Root) -> None:
    """Always the first line: a narrator that thinks of nothing by itself comes to an end."""
    root.init("r", STOPS.replace("phases", "retries: 1\nphases", 1))
    step, steps = "orchestra run --run r --no-throttle", list[str]()
    while step:
        steps.append(step)
        assert len(steps) < 10, steps
        step = next(iter(root(*step.split()[1:]).json["next"]), "")
    assert steps[-1] == "orchestra explain r Typo"
    assert root("explain", "r", "Typo").json["worker"]["way_out"]
    assert root.worker("r", "Last")["state"] == "done"  # what could go on without it has


def test_a_night_that_goes_on_goes_on_as_it_was_begun(root: Root) -> None:
    root.init("r", QUIET)
    running = root.start("run", "--run", "r", "--keep-going", "--no-throttle")
    wait_until(lambda: root("status", "r").json["counts"]["running"], "the worker to run")
    running.send_signal(signal.SIGINT)
    step = "orchestra run --run r --keep-going --no-throttle"
    assert json.loads(running.communicate(timeout=60)[0])["next"] == [step]
    assert root("status", "r").json["next"][0] == step
    (root.run_dir("r") / "state.json").unlink()  # it is in the log
    assert root("unlock", "r").json["next"][0] == step
    other = root.start("run", "--run", "r")
    wait_until(lambda: root("status", "r").json["lock"]["held"], "it to begin")
    wait_until(
        lambda: root("events", "r", "--topic", "control").stdout.count("narration_began") == 2, "its word"
    )
    other.send_signal(signal.SIGINT)
    other.communicate(timeout=60)
    assert root("status", "r").json["next"][0] == "orchestra run --run r"
    root("stop", "r", "--grace", "1")


def test_an_end_that_was_asked_for_holds_up_no_phase(root: Root) -> None:
    root.init("r", STOPS.replace("no-such-command", "sleep, '300'").replace("exit 3", "exit 0"))
    root("spawn", "r", "--phase", "p", "--no-throttle")
    root("wait", "r", "--for", "Three")
    assert root("stop", "r", "Typo", "--grace", "1").json["next"] == ["orchestra spawn r --phase q"]
    assert "orchestra retry" not in str(root("status", "r").json["next"])
    stopped = root("run", "--run", "r", "--no-throttle").json
    assert (stopped["stopped_at"], stopped["failed"]) == ("p", ["Typo"])
    assert stopped["next"][-1] == "orchestra run --run r --keep-going"
    went_on = root("run", "--run", "r", "--no-throttle", "--keep-going").json
    assert (went_on["stopped_at"], went_on["counts"]["done"], went_on["next"]) == (None, 2, [])


def test_a_wait_that_is_over_does_not_propose_itself_first(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"Short": ["true"], "Long": ["sleep", "300"]})
    over = root("wait", "r", "--for", "Short").json
    assert over["next"] == [f"orchestra wait r --since {over['op']}"]  # on the other
    root("stop", "r", "--grace", "1")


def test_the_refusal_of_a_living_holder_names_what_is_not_refused(root: Root) -> None:
    root.init("r", QUIET)
    running = root.start("run", "--run", "r")
    wait_until(lambda: root("status", "r").json["counts"]["running"], "the worker to run")
    assert "orchestra unlock r --force" in root("spawn", "r").json["error"]["hint"]
    running.terminate()
    running.communicate()
    root("stop", "r", "--grace", "1")


def test_what_is_deferred_with_nothing_at_work_is_waited_for_before_it_is_tried_again(root: Root) -> None:
    busy = root.path / f"busy-{os.getpid()}"
    busy.symlink_to("/bin/sleep")
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["true"], "throttle": {"processes": {busy.name: 1}}}
    others = [subprocess.Popen([str(busy), "300"]) for _ in range(2)]
    try:
        answer = root("spawn", "r", "--from", "-", stdin=json.dumps([row])).json
        assert answer["next"] == [f"orchestra wait r --since {answer['op']} --drain", "orchestra spawn r"]
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert root(*answer["next"][0].split()[1:]).json["counts"]["done"] == 1
