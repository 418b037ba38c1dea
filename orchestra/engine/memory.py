"""Whether want of memory ended a worker: the kernel's word, asked by whoever first sees the end.

The launcher says so itself where its cgroup's counter rose; what it cannot know is looked up here.
"""

from __future__ import annotations

from orchestra.engine.printed import last_lines
from orchestra.host import clock, memory_kills
from orchestra.model.memory_kills import evidence, may_be_memory, suspects
from orchestra.model.record import WorkerRecord
from orchestra.model.trail import Result
from orchestra.store.layout import Layout

LAST_LINES = 5  # of standard error, in which a shell tells of its child


def memory_kill(layout: Layout, record: WorkerRecord, result: Result) -> str | None:
    """The evidence, as a reason; None: there is none, which proves nothing."""
    if not may_be_memory(result):
        return None
    pids = suspects(result, "\n".join(last_lines(layout.log_err(record.name), LAST_LINES)))
    began = clock.seconds_since(result.started_at or "")
    ended = clock.seconds_since(result.ended_at or "")
    if not pids or began is None or ended is None:
        return None
    now = clock.monotonic()
    return evidence(memory_kills.memory_kills(), pids, now - began, now - ended)
