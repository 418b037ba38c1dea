"""Launchers that do not come up: each is named, with why, and what to try."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Root, clean_environment, orchestra_argv, processes_of


def false_bash(root: Root, script: str) -> dict[str, str]:
    """A PATH on which another bash comes first."""
    directory = root.path.parent / "bin"
    directory.mkdir()
    bash = directory / "bash"
    bash.write_text(f"#!/bin/sh\n{script}\n")
    bash.chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def spawn_through(root: Root, env: dict[str, str]) -> Answer:
    root.init("r")
    row = json.dumps([{"name": "W", "brief": "b", "command": ["true"]}])
    return root("spawn", "r", "--from", "-", "--no-throttle", stdin=row, env=env)


def test_spawned_is_said_only_after_the_sign_of_life(root: Root) -> None:
    slow = f'sleep 0.5; touch "{root.path}/awake"; exec /bin/bash "$@"'
    answer = spawn_through(root, false_bash(root, slow))
    assert answer.names("spawned") == ["W"]
    assert (root.path / "awake").exists()
    assert (root.run_dir("r") / ".pid-W.json").exists()


def test_a_launcher_that_dies_before_its_sign_of_life_has_failed(root: Root) -> None:
    answer = spawn_through(root, false_bash(root, "echo no bash today >&2; exit 1"))
    assert (answer.code, answer.names("failed")) == (1, ["W"])
    assert "no bash today" in answer.json["failed"][0]["reason"]
    assert root.worker("r", "W")["verdict"] == "spawn_error"


def test_a_host_without_bash_is_a_loud_failure(root: Root) -> None:
    answer = spawn_through(root, {"PATH": str(root.path)})
    assert (answer.code, answer.names("failed")) == (1, ["W"])
    assert "bash" in answer.json["failed"][0]["reason"]


_IMPATIENT = """
import sys
import orchestra.engine.fanout
from orchestra.cli.main import main
orchestra.engine.fanout.SIGN_OF_LIFE_S = 1.0
sys.argv[0] = "orchestra"
main()
"""


@pytest.mark.parametrize(("said", "retry"), [("", "now"), ("echo no room >&2; ", "later")])
def test_a_launcher_that_hangs_before_its_claim_is_ended_and_named(root: Root, said: str, retry: str) -> None:
    root.init("r")
    bash = false_bash(root, f"{said}trap '' TERM; sleep 297.1")
    env = clean_environment(ORCHESTRA_ROOT=str(root.path), **bash)
    done = subprocess.run(
        [sys.executable, "-c", _IMPATIENT, "spawn", "r", "--from", "-", "--no-throttle"],
        env=env,
        input=json.dumps([{"name": "W", "brief": "b", "command": ["true"]}]),
        capture_output=True,
        text=True,
        timeout=60,
    )
    row = json.loads(done.stdout)["failed"][0]
    assert (done.returncode, row["verdict"], row["retry"]) == (1, "spawn_error", retry)
    assert "no sign of life" in row["reason"]
    assert processes_of(root.path) == []


_ENDS_NOBODY = """
from orchestra.backend.local import Local
Local.end = lambda self, token, launcher, grace_s: self.leftovers(token)
"""


def test_what_lives_on_of_a_launcher_that_was_given_up_is_told_and_ended_by_the_next(root: Root) -> None:
    root.init("r")
    answer = patched(root, _ENDS_NOBODY + _IMPATIENT, ["W"], **false_bash(root, "sleep 297.2"))
    assert "live on" in answer["failed"][0]["reason"]
    (left,) = [alert for alert in root("status", "r").json["alerts"] if alert["kind"] == "leftovers"]
    assert left["worker"] == "W"
    assert root("unlock", "r").json["recovered"]
    assert processes_of(root.path) == []


_BLIND = """
from orchestra.backend.local import LocalBatch
def ended(self, pid):
    raise OSError(24, "Too many open files", f"/proc/{pid}/stat")
LocalBatch.ended = ended
"""


def test_launchers_that_cannot_be_looked_at_cost_nobody_the_answer(root: Root) -> None:
    root.init("r")
    names = [f"W{i}" for i in range(12)]
    answer = patched(root, _BLIND + _IMPATIENT, names)
    told = [row["name"] for bucket in ("spawned", "deferred") for row in answer[bucket]]
    assert (sorted(told), answer["failed"]) == (sorted(names), [])
    assert all("Too many open files" in row["reason"] for row in answer["deferred"])
    assert root("spawn", "r", "--no-throttle").json["ok"]
    assert root("wait", "r").code == 0
    assert sorted((root.run_dir("r") / "started").read_text().split()) == sorted(names)


def patched(root: Root, program: str, names: list[str], **env: str) -> dict[str, Any]:
    """The answer of a spawn by a program that calls the command line in its own way."""
    line = 'echo "$ORCHESTRA_WORKER" >>"$ORCHESTRA_RUN_DIR/started"'
    rows = [{"name": name, "brief": "b", "command": ["bash", "-c", line]} for name in names]
    done = subprocess.run(
        [sys.executable, "-c", program, "spawn", "r", "--from", "-", "--no-throttle"],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path), **env),
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        timeout=60,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_what_the_host_is_to_blame_for_may_be_tried_again_later_and_a_typo_never(root: Root) -> None:
    root.init("r")
    (root.run_dir("r") / "log-Blocked.out").mkdir()
    answer = root.spawn("r", {"Typo": ["no-such-command"], "Blocked": ["true"]})
    retry = {row["name"]: row["retry"] for row in answer.json["failed"]}
    assert retry == {"Typo": "never", "Blocked": "later"}


@pytest.mark.parametrize("files", [8, 9, 10, 11])
def test_a_launcher_short_of_descriptors_says_so(root: Root, files: int) -> None:
    root.init("r")
    words = ("spawn", "r", "--no-throttle", "--worker", f"W={root.brief('W')}", "--", "true")
    nowhere = {"LC_ALL": "xx_YY.UTF-8"}  # which bash warns of, before all else
    (row,) = root(*words, limits=f"-n {files}", env=nowhere).json["failed"]
    assert (row["verdict"], row["retry"]) == ("spawn_error", "later")
    assert row["reason"].endswith("Too many open files")
    assert "\n" not in row["reason"]
    assert root("retry", "r", "W").names("spawned") == ["W"]


def test_what_lives_on_of_a_launcher_that_died_with_a_word_is_told(root: Root) -> None:
    """Its sign of life was lost, and its worker killed it."""
    bash = false_bash(root, 'echo a word >&2; exec 3>/dev/null; exec /bin/bash "$@"')
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["sh", "-c", "kill -KILL $PPID; sleep 300"]}
    answer = root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]), env=bash)
    assert answer.json["failed"][0]["verdict"] == "lost"
    (alert,) = [a for a in root("status", "r").json["alerts"] if a["kind"] == "leftovers"]
    assert alert["pids"]
    assert root("stop", "r").code == 0
    assert processes_of(root.path) == []


def test_only_the_words_of_the_last_try_are_told(root: Root) -> None:
    root.init("r")
    bash = false_bash(root, "echo old words >&2; exit 1")
    assert patched(root, _BLIND + _IMPATIENT, ["W"], **bash)["deferred"]
    Path(bash["PATH"].partition(":")[0], "bash").write_text("#!/bin/sh\necho new words >&2; exit 1\n")
    (row,) = root("spawn", "r", "--no-throttle", env=bash).json["failed"]
    assert (row["reason"], row["retry"]) == ("its launcher died before any sign of life: new words", "later")


_HELD_UP_HELPER = """
import os, signal
from orchestra.host import launch
init = launch.Starter.__init__
def held_up(self, *words):
    init(self, *words)
    os.kill(self._pid, signal.SIGSTOP)
launch.Starter.__init__ = held_up
"""


def test_a_helper_that_is_held_up_defers_whom_it_was_to_start(root: Root) -> None:
    root.init("r")
    names = [f"W{i}" for i in range(12)]
    answer = patched(root, _HELD_UP_HELPER + _IMPATIENT, names)
    assert [row["name"] for row in answer["deferred"]] == names
    assert root("spawn", "r", "--no-throttle").names("spawned") == names
    assert root("wait", "r").code == 0
    assert sorted((root.run_dir("r") / "started").read_text().split()) == sorted(names)


def test_an_environment_with_a_nameless_entry_is_no_bug(root: Root) -> None:
    root.init("r")
    words = ("spawn", "r", "--no-throttle", "--worker", f"W={root.brief('W')}", "--", "true")
    done = subprocess.run(
        ["env", "=nameless", *orchestra_argv(*words)],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert root("wait", "r").code == 0


def test_words_that_are_no_text_leave_a_result_that_is(root: Root) -> None:
    root.init("r")
    said = r"""printf '%s: line 1: x: \377\303 "bad"\n' "$ORCHESTRA_RUN_DIR/.run-W.sh" >&2; exit 126"""
    root.spawn("r", {"W": ["bash", "-c", said]})
    root("wait", "r")
    result = json.loads((root.run_dir("r") / "result-W.json").read_bytes())
    assert result["reason"] == 'the system could not execute: bash ( "bad")'


def test_what_the_kernel_said_is_in_the_reason(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true", *(["x" * 100_000] * 25)]})
    root("wait", "r")
    worker = root.worker("r", "W")
    assert worker["verdict"] == "spawn_error"
    assert "the system could not execute: true (Argument list too long)" in worker["reason"]
