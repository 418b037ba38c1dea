"""How much of what the kernel and this user may have is in use."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator
from typing import NamedTuple

IN_CREATE = 0x100


class Inotify(NamedTuple):
    """Of this user: in use (None: cannot be counted), limits, and what the system says to one more."""

    instances: int | None
    watches: int | None
    max_instances: int
    max_watches: int
    instance_refusal: str | None
    watch_refusal: str | None


def own_processes() -> Iterator[str]:
    """/proc/PID of every process of this user."""
    uid = os.geteuid()
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if entry.stat().st_uid == uid:
                        yield entry.path


def inotify(directory: str) -> Inotify:
    """Counts, and tries one more on a directory. Raises OSError where the limits cannot be read."""
    instance_refusal, watch_refusal = _try_one(directory)
    instances = watches = 0
    for place in own_processes():
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"{place}/fd"):
                if os.readlink(f"{place}/fd/{fd}") == "anon_inode:inotify":
                    instances += 1
                    with open(f"{place}/fdinfo/{fd}") as file:
                        watches += sum(line.startswith("inotify") for line in file)
    return Inotify(
        instances,
        watches,
        _number("/proc/sys/fs/inotify/max_user_instances"),
        _number("/proc/sys/fs/inotify/max_user_watches"),
        instance_refusal,
        watch_refusal,
    )


def _try_one(directory: str) -> tuple[str | None, str | None]:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0:
        return os.strerror(ctypes.get_errno()), None
    try:
        watch = libc.inotify_add_watch(fd, os.fsencode(directory), IN_CREATE)
        return None, None if watch >= 0 else os.strerror(ctypes.get_errno())
    finally:
        os.close(fd)


def _number(path: str) -> int:
    with open(path) as file:
        return int(file.read())


def open_files() -> tuple[int | None, int | None]:
    """RLIMIT_NOFILE, soft and hard; None: no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _finite(soft), _finite(hard)


def user_processes() -> tuple[int, int | None]:
    """(threads of this user, soft RLIMIT_NPROC; None: no limit)."""
    threads = 0
    for place in own_processes():
        with contextlib.suppress(OSError, ValueError), open(f"{place}/stat", "rb") as file:
            threads += int(file.read().rpartition(b") ")[2].split()[17])
    return threads, _finite(resource.getrlimit(resource.RLIMIT_NPROC)[0])


def _finite(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit


def tasks() -> tuple[int, int]:
    """(threads of the whole machine, how many there may be)."""
    with open("/proc/loadavg") as file:
        used = int(file.read().split()[3].partition("/")[2])
    return used, min(_number("/proc/sys/kernel/pid_max"), _number("/proc/sys/kernel/threads-max"))
