"""The kernel's log of memory kills, where it may be read and its PIDs are ours."""

from __future__ import annotations

import os

from orchestra.host import process
from orchestra.model.checkup import INITIAL_PID_NS
from orchestra.model.memory_kills import MemoryKill, parse_kernel_log

KERNEL_LOG = "/dev/kmsg"


def memory_kills() -> list[MemoryKill]:
    """All that the log still holds; empty where it cannot be read, or in another namespace of PIDs."""
    if process.pid_namespace() != INITIAL_PID_NS:
        return []
    try:
        fd = os.open(KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    records = []
    try:
        while True:
            try:
                record = os.read(fd, 8192)  # one at a time
            except BrokenPipeError:  # overwritten while we read: the next is the oldest that is left
                continue
            if b"illed process" in record or b"oom-kill:" in record:
                records.append(record.decode("utf-8", "replace"))
    except OSError:  # BlockingIOError: there is no more
        pass
    finally:
        os.close(fd)
    return parse_kernel_log(records)
