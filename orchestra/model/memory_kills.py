"""Memory kills: whom the kernel ended for want of memory, as its log tells it.

    4,1234,3340430734,-;oom-kill:constraint=CONSTRAINT_MEMCG,…,task_memcg=/x,task=python3,pid=32437,uid=0
    3,1235,3340430754,-;Memory cgroup out of memory: Killed process 32437 (python3) total-vm:58712kB, …

Those are records of /dev/kmsg: priority, number, microseconds since the machine came up, flags; text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orchestra.model.trail import Result
from orchestra.model.verdict import Verdict

SIGKILL = 9
# The log's clock and the one that processes see drift apart.
TOLERANCE_S = 5.0

# Compiled when needed: every command imports this module.
_KILLED = r"Killed process ([0-9]+) \("
_CHOSEN = r"oom-kill:.*,pid=([0-9]+),uid="
_TOLD = r"(?:^|\s)([0-9]+) +Killed(?:\s|$)"


class MemoryKill(NamedTuple):
    """`at` in seconds since the machine came up; `text` is the kernel's line."""

    pid: int
    at: float
    text: str


def parse_kernel_log(records: Iterable[str]) -> list[MemoryKill]:
    """Of records that may hold anything: any program with the right can write there."""
    found = []
    for record in records:
        head, semicolon, text = record.partition(";")
        text = text.partition("\n")[0]
        match = (re.search(_KILLED, text) or re.match(_CHOSEN, text)) if semicolon else None
        fields = head.split(",")
        # Facility 0 is the kernel's own.
        if match and len(fields) >= 3 and fields[0].isdigit() and fields[2].isdigit() and int(fields[0]) < 8:
            found.append(MemoryKill(int(match[1]), int(fields[2]) / 1e6, text))
    return found


def may_be_memory(result: Result) -> bool:
    """Whether it ended as one does whom, or whose child, the kernel has killed."""
    return (result.verdict == Verdict.SIGNAL and result.signal == SIGKILL) or (
        result.verdict == Verdict.EXIT_CODE
    )


def suspects(result: Result, stderr_tail: str) -> set[int]:
    """PIDs of the attempt that are known to have been killed: the worker, those that its shell told of."""
    told = {int(pid) for pid in re.findall(_TOLD, stderr_tail)}
    ended = result.signal == SIGKILL or result.exit_code == 128 + SIGKILL
    return told | ({result.worker_pid} if ended and result.worker_pid else set())


def evidence(kills: Sequence[MemoryKill], pids: set[int], began_at: float, ended_at: float) -> str | None:
    """What the kernel's log says of these PIDs in that time, as a worker's reason; None: nothing."""
    for kill in reversed(kills):  # of two lines about one process, the later says more
        if kill.pid in pids and began_at - TOLERANCE_S <= kill.at <= ended_at + TOLERANCE_S:
            return f"ended for want of memory; the kernel's log says: {kill.text}"
    return None
