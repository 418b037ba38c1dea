"""The control groups that we run in: in a container its limits count, not the host's.

Both versions: v2 has one tree, v1 one for each controller. A group is held by its ancestors'
limits as well, as far up as they can be seen from here.
"""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple

from orchestra.host.process import read

_MEMORY_LIMITS = {"cgroup2": ("memory.max", "memory.high"), "cgroup": ("memory.limit_in_bytes",)}
_MEMORY_USAGE = {
    "cgroup2": ("memory.current", "inactive_file"),
    "cgroup": ("memory.usage_in_bytes", "total_inactive_file"),
}


class Group(NamedTuple):
    """A directory of the cgroup file system, and of which version it is."""

    path: str
    version: str  # cgroup2, cgroup


class Quota(NamedTuple):
    """CPUs' worth of time that a group may have."""

    group: Group
    cpus: float


class Room(NamedTuple):
    """The tightest limit between our own group and the highest that is seen, and what is used of it."""

    limit: float
    used: float

    @property
    def left(self) -> float:
        return max(0.0, self.limit - self.used)


def memory() -> Room | None:
    """In bytes; file cache that is not in use counts as free. None: no limit."""
    found = []
    for group in lineage("memory"):
        usage_file, cache_key = _MEMORY_USAGE[group.version]
        limit, used = _memory_limit(group), _number(group, usage_file)
        if limit is not None and used is not None and limit < _physical_memory():
            found.append(Room(limit, used - _pairs(group, "memory.stat").get(cache_key, 0.0)))
    return min(found, key=lambda room: room.left, default=None)


def memory_limit() -> float:
    """In bytes: the lowest of all that hold us, the machine's own memory included."""
    limits = map(_memory_limit, lineage("memory"))
    return min([_physical_memory(), *(limit for limit in limits if limit is not None)])


def _memory_limit(group: Group) -> float | None:
    """Above `high` a group is not killed but slowed down, until nothing moves in it."""
    limits = (_number(group, file) for file in _MEMORY_LIMITS[group.version])
    return min((limit for limit in limits if limit is not None), default=None)


def kill_counter() -> str:
    """The file in which the kernel counts those of our group that it kills for want of memory ("oom_kill 3").

    Empty where there is none that can be read.
    """
    for group in lineage("memory")[:1]:
        path = f"{group.path}/{'memory.events' if group.version == 'cgroup2' else 'memory.oom_control'}"
        if os.access(path, os.R_OK):
            return path
    return ""


def pids() -> Room | None:
    """In tasks. None: no limit."""
    found = []
    for group in lineage("pids"):
        limit, used = _number(group, "pids.max"), _number(group, "pids.current")
        if limit is not None and used is not None:
            found.append(Room(limit, used))
    return min(found, key=lambda room: room.left, default=None)


def versions() -> str:
    """Those that hold us: "1", "2", "1 and 2", or "none"."""
    kinds = {group.version for name in ("memory", "pids", "cpu") for group in lineage(name)}
    named = [number for kind, number in (("cgroup", "1"), ("cgroup2", "2")) if kind in kinds]
    return " and ".join(named) or "none"


def quota() -> Quota | None:
    """The tightest. None: no limit."""
    found = []
    for group in lineage("cpu"):
        if group.version == "cgroup2":
            words = _read(group, "cpu.max").split()
        else:
            words = [_read(group, f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        if len(words) == 2 and all(map(str.isdigit, words)) and int(words[1]):
            found.append(Quota(group, int(words[0]) / int(words[1])))
    return min(found, key=lambda quota: quota.cpus, default=None)


def throttling(group: Group) -> tuple[float, float]:
    """(periods so far in which it wanted a CPU, those of them in which its quota was spent)."""
    stat = _pairs(group, "cpu.stat")
    return stat.get("nr_periods", 0.0), stat.get("nr_throttled", 0.0)


def runnable(group: Group) -> int:
    """How many processes of a group, and of those below it, run or would like to; without this one."""
    count = 0
    for place, _, _ in os.walk(group.path):
        for pid in _read(Group(place, group.version), "cgroup.procs").split():
            text = read(int(pid), "stat") if int(pid) != os.getpid() else b""
            count += text[text.rfind(b")") + 2 :].startswith(b"R")
    return count


def pressure_directory() -> str:
    """Where pressure stall information speaks of us: our own group's, if it is limited; else the host's."""
    limited = [group for group in lineage("memory") if _memory_limit(group) is not None]
    limited += [found.group] if (found := quota()) else []
    return next((group.path for group in limited if group.version == "cgroup2"), "")


@cache
def lineage(controller: str) -> list[Group]:
    """Our group for this controller and its ancestors, nearest first; empty where there is none."""
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",") if controllers else []
        if controller in names:
            return _ancestors(path, "cgroup", controller)
    for line in _lines("/proc/self/cgroup"):
        if line.startswith("0::"):
            return _ancestors(line.removeprefix("0::"), "cgroup2", "")
    return []


def _ancestors(path: str, version: str, controller: str) -> list[Group]:
    for line in _lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        root, mount_point = before.split()[3:5]
        kind, _, options = [*after.split(), "", "", ""][:3]
        if kind != version or (controller and controller not in options.split(",")):
            continue
        # In a container the mount may show only a part of the tree, or not our place in it.
        inside = os.path.relpath(path, root) if _within(path, root) else "."
        place = os.path.normpath(f"{mount_point}/{inside}")
        if not os.path.isdir(place):
            place = mount_point
        found = [Group(place, version)]
        while place != mount_point and _within(place, mount_point):
            place = os.path.dirname(place)
            found.append(Group(place, version))
        return found
    return []


def _within(path: str, root: str) -> bool:
    return root == "/" or path == root or path.startswith(f"{root}/")


@cache
def _physical_memory() -> float:
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _number(group: Group, file: str) -> float | None:
    text = _read(group, file).strip()
    return float(text) if text.isdigit() else None  # "max", or not there


def _pairs(group: Group, file: str) -> dict[str, float]:
    pairs = (line.split() for line in _read(group, file).splitlines())
    return {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2}


def _read(group: Group, file: str) -> str:
    try:
        with open(f"{group.path}/{file}") as opened:
            return opened.read()
    except OSError:
        return ""


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []
