"""The host as the throttle sees it: one look, no waiting for a sample.

Each figure stands under the name of its limit; what cannot be read here is left out.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from orchestra.host import cgroup, clock

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Counters(NamedTuple):
    """What only grows, with the moment of the look: two looks make a rate."""

    at: float  # seconds since the machine came up
    swapped_pages: float


def figures(run_dir: str, tmp_dir: str, before: Counters | None) -> tuple[dict[str, float], Counters | None]:
    """(figures, counters for the next look). `swap_rate` needs the counters of an earlier one."""
    counters = count()
    found: dict[str, float] = {}
    readers: dict[str, Callable[[], float | None]] = {
        "memory_available": memory_available,
        "disk_free": lambda: space_free(run_dir),
        "tmp_free": lambda: space_free(tmp_dir),
        "pids_free": pids_free,
        "files_free": files_free,
        "load_per_cpu": load_per_cpu,
        "cpu_pressure": lambda: stalled("cpu", "some"),
        "memory_pressure": lambda: stalled("memory", "some"),
        "io_pressure": lambda: stalled("io", "full"),
        "disk_queue": disk_queue,
        "swap_rate": lambda: swap_rate(before, counters),
    }
    for key, read in readers.items():
        with contextlib.suppress(OSError, ValueError, IndexError):
            value = read()
            if value is not None:
                found[key] = value
    return found, counters


def totals(run_dir: str, tmp_dir: str) -> dict[str, float]:
    """What there is in all of what must be available: a limit above that is never met here."""
    readers: dict[str, Callable[[], float]] = {
        "memory_available": cgroup.memory_limit,
        "disk_free": lambda: space_total(run_dir),
        "tmp_free": lambda: space_total(tmp_dir),
    }
    found = {}
    for key, read in readers.items():
        with contextlib.suppress(OSError):
            found[key] = read()
    return found


def memory_available() -> float:
    import psutil  # takes its time to come

    host = float(psutil.virtual_memory().available)
    ours = cgroup.memory()
    return host if ours is None else min(host, ours.left)


def space_free(path: str) -> float:
    """Bytes that we may still write there."""
    info = _file_system(path)
    return float(info.f_frsize * info.f_bavail)


def space_total(path: str) -> float:
    info = _file_system(path)
    return float(info.f_frsize * info.f_blocks)


def _file_system(path: str) -> os.statvfs_result:
    """At its nearest directory that is there."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return os.statvfs(path)


def pids_free() -> float:
    """Tasks that may still be started: by the kernel's table, our groups, and our user's limit."""
    tasks, ours = _tasks()[1], cgroup.pids()
    free = [float(_read("/proc/sys/kernel/pid_max")) - tasks, ours.left if ours else float("inf")]
    with contextlib.suppress(OSError):
        free.append(float(_read("/proc/sys/kernel/threads-max")) - tasks)
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid():  # the kernel does not hold root to it
        free.append(soft - _tasks_of_user(os.getuid()))
    return max(0.0, min(free))


def _tasks_of_user(uid: int) -> int:
    import psutil

    rows = (process.info for process in psutil.process_iter(["uids", "num_threads"]))
    return sum(row["num_threads"] or 1 for row in rows if row["uids"] and row["uids"].real == uid)


def files_free() -> float:
    """Files that may still be opened: by the whole machine, and by this process."""
    used, _, most = _read("/proc/sys/fs/file-nr").split()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    own = float("inf") if soft == resource.RLIM_INFINITY else soft - len(os.listdir("/proc/self/fd"))
    return min(float(most) - float(used), own)


def load_per_cpu() -> float:
    """Tasks that run or would like to, for each CPU; where the kernel does not tell, its load average."""
    cpus = os.cpu_count() or 1
    runnable, tasks = _tasks()
    if not tasks:
        return os.getloadavg()[0] / cpus
    return max(0, runnable - 1) / cpus  # this process is no burden


def _tasks() -> tuple[int, int]:
    """(runnable, all), of the whole machine."""
    runnable, _, total = _read("/proc/loadavg").split()[3].partition("/")
    return int(runnable), int(total)


def stalled(resource_name: str, share: str) -> float | None:
    """Percent of the last ten seconds in which `some` or all (`full`) tasks waited for it."""
    ours = cgroup.pressure_directory()
    path = f"{ours}/{resource_name}.pressure" if ours else f"/proc/pressure/{resource_name}"
    found = re.search(rf"^{share} avg10=([0-9.]+)", _read(path), re.MULTILINE)
    return float(found[1]) if found else None


def disk_queue() -> float:
    """Requests in flight on the busiest disk; psutil does not tell."""
    rows = (line.split() for line in _read("/proc/diskstats").splitlines())
    return max((float(row[11]) for row in rows if len(row) > 11 and _is_disk(row[2])), default=0.0)


@cache
def _is_disk(name: str) -> bool:
    return not name.startswith(("loop", "ram", "zram")) and os.path.isdir(f"/sys/block/{name}")


def count() -> Counters | None:
    with contextlib.suppress(OSError, ValueError):
        rows = dict(line.split() for line in _read("/proc/vmstat").splitlines() if line.startswith("pswp"))
        return Counters(clock.since_boot(), float(rows["pswpin"]) + float(rows["pswpout"]))
    return None


def swap_rate(before: Counters | None, now: Counters | None) -> float | None:
    """Bytes a second, in and out together, between two looks."""
    if before is None or now is None or now.at - before.at < 0.05 or now.swapped_pages < before.swapped_pages:
        return None
    return (now.swapped_pages - before.swapped_pages) * _PAGE / (now.at - before.at)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
