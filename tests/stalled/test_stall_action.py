"""`stall_action: stop` ends just those that it should, and remembers what it was about."""

from __future__ import annotations

import json
import os
import shlex
import signal
from typing import Any

from conftest import Root, wait_until

SPIN = ["bash", "-c", "while :; do :; done"]
FOREVER = ["sleep", "300"]
STOPS = {"stall": "1s", "stall_action": "stop"}


def spawn(root: Root, workers: dict[str, list[str]], **entry: Any) -> None:
    rows = [{"name": n, "brief": "b", "command": c, **STOPS, **entry} for n, c in workers.items()]
    assert root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps(rows)).code in (0, 1)


def states(root: Root) -> dict[str, tuple[str, str | None]]:
    rows = root("status", "r", "--limit", "0").json["workers"]
    return {row["name"]: (row["state"], row["verdict"]) for row in rows}


def quiet_json(root: Root) -> dict[str, Any]:
    path = root.path / ".orchestra" / "quiet.json"
    table: dict[str, Any] = json.loads(path.read_text())["quiet"] if path.exists() else {}
    return table


def test_a_command_that_changes_the_run_ends_just_the_right_ones(root: Root) -> None:
    root.init("r")
    commands = {"Sleeps": FOREVER, "Spins": SPIN, "Warned": FOREVER}
    entries = [{"name": n, "brief": "b", "command": c, **STOPS} for n, c in commands.items()]
    entries[2]["stall_action"] = "warn"
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps(entries))
    quiet = ("Sleeps", "Warned")
    wait_until(lambda: (s := states(root)) and all(s[n][0] == "stalled" for n in quiet), "the stalls")
    told = root("wait", "r", "--timeout", "3").json
    assert told["counts"]["stalled"] == 2  # who only looks ends nobody
    assert told["next"][0] == "orchestra unlock r"
    answer = root("spawn", "r")
    assert {"what": "stalled_stop", "worker": "Sleeps"} in answer.json["recovered"]
    assert states(root) == {
        "Sleeps": ("failed", "stalled"),
        "Spins": ("running", None),
        "Warned": ("stalled", None),
    }
    row = root.worker("r", "Sleeps")
    assert row["retry"] == "later"
    assert "has shown no sign at all" in row["reason"]
    assert (root.result("r", "Sleeps")["verdict"], root.result("r", "Sleeps")["reason"]) == (
        "stalled", row["reason"]
    )  # fmt: skip
    assert root("explain", "r", "Sleeps").json["worker"]["meaning"]


def test_the_built_in_narrator_ends_it_and_goes_on(root: Root) -> None:
    plan = root.path / "plan.yaml"
    plan.write_text(
        "stall: 1s\nstall_action: stop\non_failure: continue\nphases:\n"
        "- {name: a, workers: [{name: Hangs, brief: b, command: [sleep, '300']},"
        " {name: Fine, brief: b, command: [sleep, '0.1']}]}\n"
        "- {name: b, workers: [{name: Next, brief: b, command: ['true']}]}\n"
    )
    assert root("run", str(plan), "--run", "r", "--no-throttle").code == 1
    assert states(root) == {"Hangs": ("failed", "stalled"), "Fine": ("done", None), "Next": ("done", None)}


def test_who_is_usually_as_quiet_is_not_ended(root: Root) -> None:
    where = root.path / ".orchestra"
    where.mkdir(parents=True)
    (where / "quiet.json").write_text('{"quiet": {"sleep 300": {"longest_s": 1000, "at": "x"}}}')
    root.init("r")
    spawn(root, {"Sleeps": FOREVER})
    wait_until(lambda: states(root)["Sleeps"][0] == "stalled", "the stall")
    assert root("spawn", "r").json["recovered"] == []
    reason = root.worker("r", "Sleeps")["reason"]
    assert "such workers were quiet for up to 16m40s before they ended well" in reason


def test_how_long_a_worker_was_quiet_is_remembered_when_it_ends_well(root: Root) -> None:
    go = root.path / "go"
    os.mkfifo(go)
    script = ["bash", "-c", f"read -r _ <'{go}'; echo well"]
    root.init("r")
    spawn(root, {"W": script}, stall_action="warn")
    with root.start("wait", "r", "--follow", "--timeout", "60") as watching:
        assert watching.stdout is not None
        for line in watching.stdout:
            if json.loads(line)["worker"]["state"] == "stalled":
                break
        go.write_text("go\n")
        watching.communicate()
    assert states(root)["W"] == ("done", None)
    assert quiet_json(root)[shlex.join(script)]["longest_s"] >= 1.0
    assert "quiet.json" not in root("list").stdout


def test_a_narrator_that_is_killed_as_it_ends_a_worker_leaves_it_to_the_next(root: Root) -> None:
    plan = root.path / "plan.yaml"
    stubborn = "trap '' TERM; while :; do sleep 300; done"
    plan.write_text(
        "stall: 1s\nstall_action: stop\nphases:\n"
        f'- {{name: a, workers: [{{name: W, brief: b, command: [bash, -c, "{stubborn}"]}}]}}\n'
    )
    events = root.run_dir("r") / "events.jsonl"
    with root.start("run", str(plan), "--run", "r", "--no-throttle") as narrator:
        wait_until(lambda: events.exists() and '"stop_intended"' in events.read_text(), "the intent")
        narrator.send_signal(signal.SIGKILL)
        narrator.communicate()
    assert root("unlock", "r").code == 0
    row = root.worker("r", "W")
    assert (row["state"], row["verdict"]) == ("failed", "stalled")
    assert "has shown no sign at all" in row["reason"]
    assert root.result("r", "W")["verdict"] == "stalled"


def test_who_is_stopped_by_name_is_stopped_though_it_was_to_be_ended_anyway(root: Root) -> None:
    root.init("r")
    spawn(root, {"W": FOREVER})
    wait_until(lambda: states(root)["W"][0] == "stalled", "the stall")
    assert [row["verdict"] for row in root("stop", "r", "W", "--grace", "1").json["stopped"]] == ["stopped"]
    assert root("retry", "r").names("spawned") == []
