"""`wait --follow`: each line is a change that happened, and its `op` a cursor that misses nothing."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from conftest import Root, wait_until

UNTIL = 'until [ -e "$ORCHESTRA_RUN_DIR/../go" ]; do sleep 0.05; done'


def followed(root: Root, *words: str) -> list[dict[str, Any]]:
    """The changes that were told."""
    lines = root("wait", "r", "--follow", "--timeout", "60", *words).stdout.splitlines()
    return [change for change in map(json.loads, lines) if "worker" in change]


def test_a_stalled_worker_does_not_run_again_by_being_ended(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]}, stall="1s")
    following = root.start("wait", "r", "--follow", "--timeout", "100")
    assert following.stdout is not None
    told: list[dict[str, Any]] = []
    while not told or told[-1]["worker"]["state"] != "stalled":
        told.append(json.loads(following.stdout.readline()))
    root("stop", "r", "--grace", "1")
    rest = [json.loads(line) for line in following.communicate()[0].splitlines()]
    assert [change["worker"]["state"] for change in rest if "worker" in change] == ["failed"]
    logged = {event["kind"]: event["op"] for event in root.events("r")}
    assert (told[-1]["op"], rest[0]["op"]) == (logged["stalled"], logged["ended"])


def test_the_cursor_never_falls(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"A": ["sh", "-c", UNTIL], "B": ["true"], "C": ["sh", "-c", UNTIL], "D": ["true"]})
    root("wait", "r", "--for", "B", "--for", "D")
    (root.path / "go").touch()
    root("wait", "r")
    changes = followed(root, "--since", "1")
    ops = [change["op"] for change in changes]
    assert ops == sorted(ops)
    for change in changes:
        rest = [later["worker"]["name"] for later in changes if later["op"] > change["op"]]
        assert [c["worker"]["name"] for c in followed(root, "--since", str(change["op"]))] == rest


PLAN = "command: [sleep, '300']\nphases:\n- {name: p, workers: [{name: W, brief: do it}]}\n"


def test_who_follows_a_run_whose_narrator_is_dead_hears_that_first(root: Root) -> None:
    root.init("r", PLAN)
    running = root.start("run", "--run", "r", "--no-throttle")
    wait_until(lambda: root.worker("r", "W")["state"] == "running", "the start")
    running.kill()
    running.communicate()
    following = root.start("wait", "r", "--follow", "--keep-going", "--timeout", "100")
    assert following.stdout is not None
    first = json.loads(following.stdout.readline())
    assert [alert["kind"] for alert in first["alerts"]] == ["dead_holder"]
    assert first["next"][0] == "orchestra run --run r --no-throttle"
    root("stop", "r", "--grace", "1")
    following.communicate()
    lines = root("wait", "r", "--follow", "--since", "1").stdout.splitlines()
    assert ["worker" in json.loads(line) for line in lines] == [True, False], "no alert, no line of alerts"


def test_many_alerts_before_all_else_give_no_cursor_away(root: Root) -> None:
    root.init("r")
    names = [f"W{i}" for i in range(14)]
    root.spawn("r", {name: ["sleep", "300"] for name in names})
    launchers = [root.mark("r", name)["pid"] for name in names]
    for pid in launchers:
        os.kill(pid, signal.SIGSTOP)
    answer = root("wait", "r", "--timeout", "0").json
    assert (len(answer["alerts"]), answer["truncated"]) == (10, {"workers": 0, "alerts": 4})
    assert answer["next"][0] == "kill -CONT " + " ".join(map(str, launchers))
    first, *rest = map(json.loads, root("wait", "r", "--follow", "--timeout", "0").stdout.splitlines())
    assert (first["op"], len(first["alerts"]), len(rest)) == (0, 10, 15)
    assert not any(step.startswith("orchestra wait") for step in first["next"])
    text = root("wait", "r", "--text", "--follow", "--timeout", "0").stdout.splitlines()
    assert "and 9 more" in text[0]
    assert text[0] in text[1:], "the same at the end"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "interrupted"])
def test_who_follows_the_whole_run_hears_at_once_that_its_narrator_is_gone(root: Root, signum: int) -> None:
    root.init("r", PLAN)
    running = root.start("run", "--run", "r", "--no-throttle")
    following = root.start("wait", "r", "--follow", "--keep-going", "--timeout", "100")
    assert following.stdout is not None
    while json.loads(following.stdout.readline())["worker"]["state"] != "running":
        pass
    running.send_signal(signum)
    running.communicate()
    answer = json.loads(following.communicate()[0].splitlines()[-1])
    assert (following.returncode, answer.get("outcome")) == (4, "blocked"), json.dumps(answer)
    assert answer["counts"]["running"] == 1
    assert answer["next"][0] == "orchestra run --run r --no-throttle"
    assert answer["next"][-1].startswith("orchestra wait r --since ")
    root("stop", "r", "--grace", "1")
