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

PLENTY = 10_000  # tasks that may still be started, at least: how many exactly is not worth a count
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Counters(NamedTuple):
    """What only grows, with the moment of the look: two looks make a rate."""

    at: float  # seconds since the machine came up
    totals: dict[str, float]


def figures(run_dir: str, tmp_dir: str, before: Counters | None) -> tuple[dict[str, float], Counters]:
    """(figures, counters for the next look). Rates need the counters of an earlier one."""
    counters = count()
    found = rates(before, counters)
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
        from orchestra.host import limits  # takes its time to come

        least = float(soft) - tasks  # as if all of the machine's were this user's: who is near counts them
        free.append(least if least > PLENTY else float(soft) - limits.user_processes()[0])
    return max(0.0, min(free))


def files_free() -> float:
    """Files that may still be opened: by the whole machine, and by this process."""
    used, _, most = _read("/proc/sys/fs/file-nr").split()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    own = float("inf") if soft == resource.RLIM_INFINITY else soft - len(os.listdir("/proc/self/fd"))
    return min(float(most) - float(used), own)


def cpus() -> float:
    """Those that `load_per_cpu` is about: the machine's, or as many as our quota gives us."""
    ours = cgroup.quota()
    return float(os.cpu_count() or 1) if ours is None else ours.cpus


def load_per_cpu() -> float:
    """Tasks that run or would like to, for each CPU; where the kernel does not tell, its load average.

    Under a quota it is those of the group that has it, for what it may use.
    """
    ours = cgroup.quota()
    if ours is not None:
        return cgroup.runnable(ours.group) / ours.cpus
    runnable, tasks = _tasks()
    if not tasks:
        return os.getloadavg()[0] / cpus()
    return max(0, runnable - 1) / cpus()  # this process is no burden


def _tasks() -> tuple[int, int]:
    """(runnable, all), of the whole machine."""
    runnable, _, total = _read("/proc/loadavg").split()[3].partition("/")
    return int(runnable), int(total)


def stalled(resource_name: str, share: str) -> float | None:
    """Percent of the last ten seconds in which `some` or all (`full`) tasks waited for it."""
    ours = cgroup.pressure_directory()
    if not ours and resource_name == "cpu" and cgroup.quota() is not None:
        return None  # the host has time to spare while we have none: see `rates`
    path = f"{ours}/{resource_name}.pressure" if ours else f"/proc/pressure/{resource_name}"
    found = re.search(rf"^{share} avg10=([0-9.]+)", _read(path), re.MULTILINE)
    return float(found[1]) if found else None


def disk_queue() -> float:
    """Requests in flight on the busiest disk; psutil does not tell."""
    return max((float(row[11]) for row in _disks()), default=0.0)


def _disks() -> list[list[str]]:
    """The fields of the kernel's Documentation/admin-guide/iostats.rst, behind number and name."""
    rows = (line.split() for line in _read("/proc/diskstats").splitlines())
    return [row for row in rows if len(row) > 12 and _is_disk(row[2])]


@cache
def _is_disk(name: str) -> bool:
    return not name.startswith(("loop", "ram", "zram")) and os.path.isdir(f"/sys/block/{name}")


def count() -> Counters:
    totals: dict[str, float] = {}
    for read in (_swapped, _disks_at_work, _periods):
        with contextlib.suppress(OSError, ValueError, LookupError):
            totals |= read()
    return Counters(clock.since_boot(), totals)


def rates(before: Counters | None, now: Counters) -> dict[str, float]:
    """What two looks tell together; nothing where there was no other, or one an instant ago."""
    span_s = now.at - before.at if before else 0.0
    if before is None or span_s < 0.05:
        return {}

    def grown(what: str) -> list[float]:
        """Of each counter that is called so: its own name stands behind that."""
        return [
            max(0.0, total - before.totals[key])
            for key, total in now.totals.items()
            if key.startswith(f"{what} ") and key in before.totals
        ]

    found = {}
    for pages in grown("swapped_pages"):
        found["swap_rate"] = pages * _PAGE / span_s
    if at_work := grown("disk_at_work_ms"):
        found["disk_busy"] = min(100.0, max(at_work) / span_s / 10)
    for periods, throttled in zip(grown("periods"), grown("periods_throttled"), strict=False):
        found["cpu_pressure"] = min(100.0, 100 * throttled / periods) if periods else 0.0
    return found


def _swapped() -> dict[str, float]:
    rows = dict(line.split() for line in _read("/proc/vmstat").splitlines() if line.startswith("pswp"))
    return {"swapped_pages all": float(rows["pswpin"]) + float(rows["pswpout"])}


def _disks_at_work() -> dict[str, float]:
    return {f"disk_at_work_ms {row[2]}": float(row[12]) for row in _disks()}


def _periods() -> dict[str, float]:
    """Of our quota, where we have one: those in which it was wanted, and those in which it was spent."""
    ours = cgroup.quota()
    if ours is None:
        return {}
    periods, throttled = cgroup.throttling(ours.group)
    return {f"periods {ours.group.path}": periods, f"periods_throttled {ours.group.path}": throttled}


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
