"""The helper that starts launchers, when it is stopped, killed or short of descriptors."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Root, clean_environment, orchestra_argv, wait_until

from orchestra.engine.fanout import NO_HELPER
from orchestra.host import launch
from orchestra.host.launch import Starter


@pytest.fixture
def descriptors() -> Iterator[set[str]]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield set(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_one_that_is_stopped_takes_no_more_orders_and_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "TAKES_ORDERS_WITHIN_S", 0.2)
    starter = Starter((), "")
    os.kill(starter._pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError, match="takes no orders"):
        for _ in range(1000):
            starter.start("W", "/nowhere", "x" * 200, 0, "A=B")
    starter.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(starter._pid, os.WNOHANG)


def test_one_that_is_stopped_when_all_is_ordered_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "ENDS_WITHIN_S", 0.2)
    starter = Starter((), "")
    os.kill(starter._pid, signal.SIGSTOP)
    try:
        starter.close()
        with pytest.raises(ChildProcessError):
            os.waitpid(starter._pid, os.WNOHANG)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(starter._pid, signal.SIGKILL)


def test_its_pipes_may_have_numbers_beyond_a_thousand(descriptors: set[str]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("NOT RUN: so many descriptors may not be had here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1200, hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        starter = Starter((), "")
        try:
            starter.start("W", "/no/such/script", "/no/such/place/err", 0, "A=B")
            wait_until(lambda: [news for news in starter.news(1) if news.errno == errno.ENOENT], "its answer")
        finally:
            starter.close()
    finally:
        for fd in taken:
            os.close(fd)


@pytest.mark.parametrize("left", range(7))
def test_where_it_cannot_be_had_no_descriptor_is_lost(descriptors: set[str], left: int) -> None:
    """`left`: how many may still be opened."""
    filler = []
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 20, hard))
    try:
        while True:
            filler.append(os.dup(0))
    except OSError:
        for _ in range(left):
            os.close(filler.pop())
    try:
        starter = Starter((), "")
    except OSError:
        pass
    else:
        starter.close()
    finally:
        for fd in filler:
            os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_where_it_is_killed_nobody_fails_and_the_next_spawn_starts_the_rest(root: Root) -> None:
    root.init("r")
    names = [f"W{i:03}" for i in range(200)]
    line = 'echo "$ORCHESTRA_WORKER" >>"$ORCHESTRA_RUN_DIR/started"'
    rows = [{"name": name, "brief": "b", "command": ["bash", "-c", line]} for name in names]
    spawn = orchestra_argv("spawn", "r", "--no-throttle", "--from", "-")
    env = clean_environment(ORCHESTRA_ROOT=str(root.path))
    with subprocess.Popen(
        spawn, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as narrator:
        assert narrator.stdin is not None and narrator.stdout is not None
        narrator.stdin.write(json.dumps(rows))
        narrator.stdin.close()
        wait_until(lambda: helpers_of(narrator.pid), "the helper")
        wait_until((root.run_dir("r") / "started").exists, "the first worker")
        os.kill(helpers_of(narrator.pid)[0], signal.SIGKILL)
        answer = json.loads(narrator.stdout.read())
        assert narrator.wait(timeout=60) == 4
    assert answer["failed"] == []
    assert {row["reason"] for row in answer["deferred"]} == {NO_HELPER}
    assert answer["next"][-1] == "orchestra spawn r"
    root("spawn", "r", "--no-throttle")
    assert root("wait", "r", "--timeout", "60").code == 0
    assert sorted((root.run_dir("r") / "started").read_text().split()) == names


def helpers_of(narrator: int) -> list[int]:
    children = Path(f"/proc/{narrator}/task/{narrator}/children").read_text().split()
    return [int(pid) for pid in children if b"starter.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
