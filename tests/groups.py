"""Real control groups for tests, where this machine lets us make them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PLACE = Path("/sys/fs/cgroup")
LIMITS = {  # by controller: the file for one in version 1, and in version 2
    "memory": ("memory.limit_in_bytes", "memory.max"),
    "pids": ("pids.max", "pids.max"),
    "cpu": ("cpu.cfs_quota_us", "cpu.max"),  # microseconds of each 100,000
}


@contextlib.contextmanager
def group(controller: str, limit: int) -> Iterator[Path]:
    """A group with one limit, of the version that has this controller here. Gone at the end."""
    v1, v2 = LIMITS[controller]
    parent, limit_file = PLACE / controller, v1
    if not parent.is_dir():
        parent, limit_file = _unified(controller), v2
    place = parent / f"orchestra-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        place.mkdir()
    except OSError as error:
        pytest.skip(f"NOT RUN: no {controller} group can be made here ({error})")
    try:
        (place / limit_file).write_text(str(limit))
        yield place
    finally:
        for pid in (place / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (place.parent / "cgroup.procs").write_text(pid)
        deadline = time.monotonic() + 10
        while True:
            try:
                place.rmdir()
                break
            except OSError:
                assert time.monotonic() < deadline, "the group is still in use"
                time.sleep(0.02)


def _unified(controller: str) -> Path:
    """The tree of version 2, with this controller given to the groups that are made in it."""
    parent = PLACE / "unified" if (PLACE / "unified").is_dir() else PLACE
    with contextlib.suppress(OSError):
        (parent / "cgroup.subtree_control").write_text(f"+{controller}")
    return parent


def inside(place: Path, argv: list[str]) -> list[str]:
    """A command line that enters the group and becomes argv there."""
    return ["bash", "-c", f'echo $$ >"{place}/cgroup.procs" && exec "$@"', "bash", *argv]
