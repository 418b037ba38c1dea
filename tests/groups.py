"""Real control groups for tests, where this machine lets us make them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

V1 = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def group(controller: str, limit_file: str, limit: int) -> Iterator[Path]:
    """A group of version 1 with one limit; `enter` moves a process in. Gone at the end."""
    place = V1 / controller / f"orchestra-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        place.mkdir()
    except OSError as error:
        pytest.skip(f"NOT RUN: no {controller} group of version 1 can be made here ({error})")
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


def inside(place: Path, argv: list[str]) -> list[str]:
    """A command line that enters the group and becomes argv there."""
    return ["bash", "-c", f'echo $$ >"{place}/cgroup.procs" && exec "$@"', "bash", *argv]
