"""Stalled or thinking: real workers of every kind, each told right, none ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Root, wait_until

from orchestra.host import process

SPIN = "while :; do :; done"
STALL = "4s"


@pytest.fixture
def mute_server() -> Iterator[int]:
    """A server that takes calls and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def sh(script: str) -> list[str]:
    return ["bash", "-c", script]


def calls(port: int) -> list[str]:
    script = f"import socket; socket.create_connection(('127.0.0.1', {port})).recv(1)"
    return [sys.executable, "-c", script]


def rows(root: Root) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in root("status", "r", "--limit", "0").json["workers"]}


def test_each_kind_of_worker_is_told_right_and_none_is_ended(root: Root, mute_server: int) -> None:
    quiet = {
        "Sleeps": ["sleep", "300"],
        "Stopped": sh("kill -STOP $$; sleep 300"),
        "Calls": calls(mute_server),
    }
    busy = {
        "Spins": sh(SPIN),
        "Writes": sh("while :; do echo x; sleep 0.3; done"),
        "Grandchild": sh(f"setsid bash -c '{SPIN}' & sleep 300"),
        "Cleared": sh(f"env -i setsid bash -c '{SPIN}' & sleep 300"),
        "Beats": sh('while :; do touch "$ORCHESTRA_HEARTBEAT"; read -rt 0.3 < <(sleep 300); done'),
        "Deep": sh(
            'mkdir -p "$ORCHESTRA_OUT/a/b"; while :; do echo x >>"$ORCHESTRA_OUT/a/b/c"; sleep 0.3; done'
        ),
    }
    root.init("r")
    root.spawn("r", {**quiet, **busy}, stall=STALL)
    found = wait_until(
        lambda: (r := rows(root)) and all(r[name]["state"] == "stalled" for name in quiet) and r, "the stalls"
    )
    assert {name for name, row in found.items() if row["state"] == "stalled"} == set(quiet)
    assert {row["state"] for row in found.values()} == {"stalled", "running"}
    stopped = root.mark("r", "Stopped")["pid"]
    assert "stopped (SIGSTOP): kill -CONT" in found["Stopped"]["reason"]
    assert str(stopped) not in found["Stopped"]["reason"]
    assert "wait on a socket" in found["Calls"]["reason"]
    assert "asleep" in found["Sleeps"]["reason"]
    status = root("status", "r").json
    assert {a["worker"] for a in status["alerts"] if a["kind"] == "stalled"} == set(quiet)
    root("wait", "r", "--timeout", "5")
    assert {name for name, row in rows(root).items() if row["state"] == "stalled"} == set(quiet)


def follow(root: Root, *words: str) -> Iterator[dict[str, Any]]:
    process = root.start("wait", "r", "--follow", "--timeout", "60", *words)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            yield json.loads(line)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


@pytest.mark.parametrize("progress", ["while :; do echo x; sleep 0.3; done", SPIN])
def test_a_stalled_worker_that_shows_progress_runs_again_and_both_are_told(root: Root, progress: str) -> None:
    go = root.path / "go"
    os.mkfifo(go)
    root.init("r")
    row = {"name": "W", "brief": "b", "command": sh(f"read -r _ <'{go}'; {progress}"), "stall": "2s"}
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]))
    told = []
    for line in follow(root):
        told.append(line["worker"]["state"])
        if told[-1] == "stalled":
            assert line["worker"]["reason"]
            go.write_text("go\n")
        elif "stalled" in told:
            break
    assert told[-2:] == ["stalled", "running"]
    kinds = [e["kind"] for e in root.events("r") if e.get("worker") == "W"]
    assert kinds[:4] == ["spawn_intended", "spawned", "stalled", "running_again"]


def test_the_next_look_knows_since_when_a_tree_is_idle(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": sh("for ((i = 0; i < 400000; i++)); do :; done; exec sleep 300")}, stall="4s")
    look = root.run_dir("r") / "attempts" / "W" / "1" / "look.json"
    wait_until(lambda: root.worker("r", "W") and look.exists(), "the first look")
    first = json.loads(look.read_text())
    row = wait_until(lambda: (w := root.worker("r", "W"))["state"] == "stalled" and w, "the stall")
    assert "s of CPU " in row["reason"]
    assert json.loads(look.read_text())["boot_id"] == first["boot_id"]


def test_a_look_that_a_worker_has_forged_does_not_break_anything(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": sh('mkfifo "${ORCHESTRA_HEARTBEAT%/*}/look.json"; sleep 300')}, stall="1s")
    wait_until(lambda: root.worker("r", "W")["state"] == "stalled", "the stall")


def test_who_never_began_is_named_early(root: Root) -> None:
    root.init("r")
    commands = {"Never": ["sleep", "300"], "Began": sh("echo x; sleep 300")}
    root.spawn("r", commands, stall="10m", first_sign="1s")
    row = wait_until(lambda: (w := rows(root))["Never"]["state"] == "stalled" and w, "the stall")
    assert "has shown no sign at all since its start" in row["Never"]["reason"]
    assert row["Began"]["state"] == "running"


def test_a_stopped_worker_is_told_at_once_when_asked_for(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": sh("kill -STOP $$; sleep 300")})
    told = wait_until(
        lambda: root("explain", "r", "W").json["worker"]["signs"]["told"], "what its processes do"
    )
    assert "stopped (SIGSTOP): kill -CONT" in told[0]


def stopped_launcher(root: Root, words: list[str], **entry: str) -> int:
    root.init("r")
    root.spawn("r", {"W": words}, **entry)
    launcher: int = root.mark("r", "W")["pid"]
    os.kill(launcher, signal.SIGSTOP)
    wait_until(
        lambda: process.is_stopped(process.known(launcher, process.start_of(launcher) or 0)), "its stop"
    )
    return launcher


def test_a_launcher_that_is_stopped_is_named_at_once(root: Root) -> None:
    launcher = stopped_launcher(root, ["sleep", "300"], timeout="3s")
    answer = root("status", "r").json
    row = answer["workers"][0]
    assert row["state"] == "running"
    assert f"its launcher (pid {launcher}) is stopped (SIGSTOP)" in row["reason"]
    assert row["reason"].endswith(f"kill -CONT {launcher}")
    assert {"kind": "stopped_launcher", "worker": "W", "pid": launcher} in answer["alerts"]
    assert answer["next"][0] == f"kill -CONT {launcher}"
    assert root("explain", "r", "W").json["next"][0] == f"kill -CONT {launcher}"
    os.kill(launcher, signal.SIGCONT)
    root("wait", "r")
    assert root.worker("r", "W")["verdict"] == "timeout"


def test_who_was_killed_before_it_was_to_be_stopped_was_not_stopped(root: Root) -> None:
    launcher = stopped_launcher(root, ["sleep", "300"])
    (pid,) = map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split())
    os.kill(pid, signal.SIGKILL)
    assert root.worker("r", "W")["reason"].endswith(f"kill -CONT {launcher}")
    assert root("stop", "r", "--grace", "30").json["stopped"][0]["verdict"] == "signal"
    assert (root.worker("r", "W")["signal"], root.worker("r", "W")["exit_code"]) == (9, None)


def test_a_passing_look_writes_nothing_where_it_may_not(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]}, stall="1s")
    there = root.run_dir("r") / "attempts" / "W" / "1"
    kept = there.rename(Path(f"{there}-kept"))
    try:
        wait_until(lambda: root.worker("r", "W")["state"] == "stalled", "the stall")
    finally:
        kept.rename(there)
