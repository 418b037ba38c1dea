"""What stands around a worker: its environment, the language, its output, a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, clean_environment, orchestra_argv, processes_of, wait_until
from grown import IMPATIENT_S, LONG, Trees

# --- the worker's environment ---------------------------------------------------------------


_LAUNCHER_WORDS = [
    *("worker", "attempt", "token", "run_dir", "tmp_dir", "prompt_file", "out", "stdin", "cwd", "argv"),
    *("expect", "reason", "why", "mark", "sentinel", "here", "supervised", "status", "pid", "host", "tree"),
]


def test_the_environment_reaches_the_worker_whatever_its_names(trees: Trees) -> None:
    given = {word: f"mine-{word}" for word in _LAUNCHER_WORDS}
    row = {"name": "W", "brief": "b", "command": ["env", "-0"]}
    answer = trees.root("spawn", "t", "--from", "-", "--no-throttle", stdin=json.dumps([row]), env=given)
    assert answer.code == 0
    trees.result()
    seen = (trees.run_dir / "log-W.out").read_text().split("\0")
    assert {f"{k}={v}" for k, v in given.items()} - set(seen) == set()


def test_the_plans_environment_does_not_change_what_the_launcher_does(trees: Trees) -> None:
    given = {word: f"mine-{word}" for word in _LAUNCHER_WORDS}
    answer = trees.root.spawn("t", {"W": ["env", "-0"]}, env=given)
    assert answer.code == 0
    assert trees.result()["status"] == "done"
    seen = dict(pair.split("=", 1) for pair in (trees.run_dir / "log-W.out").read_text().split("\0") if pair)
    assert given.items() <= seen.items()
    assert seen["ORCHESTRA_WORKER"] == "W"
    assert seen["ORCHESTRA_RUN_DIR"] == str(trees.run_dir)
    assert seen["ORCHESTRA_TOKEN"] == trees.root.mark("t", "W")["token"]


def _in_german(trees: Trees, command: list[str]) -> dict[str, Any]:
    row = {"name": "W", "brief": "b", "command": command}
    german = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "LANGUAGE": "de"}
    trees.root("spawn", "t", "--from", "-", "--no-throttle", stdin=json.dumps([row]), env=german)
    return trees.result()


def test_a_verdict_does_not_hang_on_the_language_of_bash(trees: Trees) -> None:
    result = _in_german(trees, ["bash", "-c", "exit 137"])
    assert (result["verdict"], result["exit_code"]) == ("exit_code", 137)


def test_a_command_that_cannot_be_executed_is_told_in_any_language(trees: Trees) -> None:
    bad = trees.path / "bad-interpreter"
    bad.write_text("#!/nonexistent/interpreter\n")
    bad.chmod(0o700)
    assert _in_german(trees, [str(bad)])["verdict"] == "spawn_error"


# --- output and disk ------------------------------------------------------------------------


def test_a_worker_may_print_a_great_deal_at_once(trees: Trees) -> None:
    size = 1_000_000_000 if LONG else 200_000_000
    log = trees.run_dir / "log-W.out"
    try:
        trees.grow(f"ready; yes 0123456789abcdef | head -c {size}; echo; echo end")
        assert trees.result()["status"] == "done"
        assert log.stat().st_size == size + len("\nend\n")
        began = time.monotonic()
        assert trees.root("logs", "t", "W", "--tail", "1").json["text"].strip() == "end"
        assert time.monotonic() - began < IMPATIENT_S
    finally:
        log.unlink(missing_ok=True)


class SmallDisk:
    """A tmpfs in a mount namespace of its own, held by a sleeping process."""

    def __init__(self, path: Path, size: str) -> None:
        path.mkdir()
        script = 'mount -t tmpfs -o "size=$1" none "$2" && echo up && exec -a "$2" sleep 600'
        self.holder = subprocess.Popen(
            ["unshare", "-m", "bash", "-c", script, "disk", size, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.holder.stdout is not None
        self.up = self.holder.stdout.readline() == "up\n"
        self.path = path

    def seen(self, *parts: str) -> Path:
        """A path on the disk, as it can be opened from outside."""
        return Path(f"/proc/{self.holder.pid}/root{self.path}", *parts)

    def __call__(self, *words: str, stdin: str = "") -> Answer:
        inside = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--"]
        done = subprocess.run(
            [*inside, *orchestra_argv(*words, "--root", str(self.path))],
            env=clean_environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Answer(done.returncode, json.loads(done.stdout or "{}"), done.stdout, done.stderr)

    def close(self) -> None:
        self.holder.kill()
        self.holder.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk", "2m")
    if not disk.up:
        disk.close()
        pytest.skip(
            "NOT RUN: a worker that fills a small disk (no tmpfs can be mounted with unshare -m here)"
        )
    yield disk
    for pid in processes_of(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    disk.close()


def _fill_and(last: str) -> list[dict[str, Any]]:
    script = f'cat /dev/zero >"$ORCHESTRA_OUT/fill"; : >"$ORCHESTRA_OUT/full"; {last}'
    return [{"name": "W", "brief": "b", "command": ["bash", "-c", script]}]


@pytest.mark.parametrize(("code", "verdict"), [(0, None), (3, "exit_code"), (137, "exit_code")])
def test_a_full_disk_does_not_silence_the_result(
    small_disk: SmallDisk, code: int, verdict: str | None
) -> None:
    assert small_disk("init", "t").code == 0
    rows = json.dumps(_fill_and(f"exit {code}"))
    assert small_disk("spawn", "t", "--from", "-", "--no-throttle", stdin=rows).code == 0
    wait_until(small_disk.seen("t", "attempts", "W", "1", "result.json").exists, "the result")
    worker = small_disk("status", "t").json["workers"][0]
    state = "failed" if code else "done"
    assert (worker["state"], worker["verdict"], worker["exit_code"]) == (state, verdict, code)
    answer = small_disk("wait", "t", "--timeout", "5")
    assert answer.json["outcome"] == ("failed" if code else "ended")


def test_a_worker_can_be_stopped_on_a_full_disk(small_disk: SmallDisk) -> None:
    assert small_disk("init", "t").code == 0
    rows = json.dumps(_fill_and("sleep 300"))
    assert small_disk("spawn", "t", "--from", "-", "--no-throttle", stdin=rows).code == 0
    wait_until(small_disk.seen("t", "out-W", "full").exists, "the full disk")
    small_disk("stop", "t", "--grace", "1")
    left = [pid for pid in processes_of(small_disk.path) if pid != small_disk.holder.pid]
    assert left == []
