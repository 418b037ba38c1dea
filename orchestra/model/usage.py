"""What a worker's process tree uses."""

from __future__ import annotations

from typing import NamedTuple


class Usage(NamedTuple):
    """One look at a tree: bytes of memory, living processes, seconds of CPU time so far."""

    memory: int
    processes: int
    cpu_s: float
