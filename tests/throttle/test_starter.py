"""The helper that starts launchers, when it is stopped or short of descriptors."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator

import pytest
from conftest import wait_until

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
