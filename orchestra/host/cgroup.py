"""The control groups that we run in: in a container its limits count, not the host's.

Both versions: v2 has one tree, v1 one for each controller. A group is held by its ancestors'
limits as well, as far up as they can be seen from here.
"""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple

_MEMORY = {
    "cgroup2": ("memory.max", "memory.current", "inactive_file"),
    "cgroup": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


class Group(NamedTuple):
    """A directory of the cgroup file system, and of which version it is."""

    path: str
    version: str  # cgroup2, cgroup


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
        limit_file, usage_file, cache_key = _MEMORY[group.version]
        limit, used = _number(group, limit_file), _number(group, usage_file)
        if limit is not None and used is not None and limit < _physical_memory():
            found.append(Room(limit, used - _stat(group).get(cache_key, 0.0)))
    return min(found, key=lambda room: room.left, default=None)


def memory_limit() -> float:
    """In bytes: the lowest of all that hold us, the machine's own memory included."""
    limits = (_number(group, _MEMORY[group.version][0]) for group in lineage("memory"))
    return min([_physical_memory(), *(limit for limit in limits if limit is not None)])


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


def cpus() -> float | None:
    """CPUs' worth of time under the tightest quota; None: no quota."""
    found = []
    for group in lineage("cpu"):
        if group.version == "cgroup2":
            quota, period = [*_read(group, "cpu.max").split(), "", ""][:2]
        else:
            quota, period = (
                _read(group, "cpu.cfs_quota_us").strip(),
                _read(group, "cpu.cfs_period_us").strip(),
            )
        if quota.isdigit() and period.isdigit() and int(period):
            found.append(int(quota) / int(period))
    return min(found) if found else None


def pressure_directory() -> str:
    """Where pressure stall information speaks of us: our own group's, if it is limited; else the host's."""
    for group in lineage("memory") + lineage("cpu"):
        limited = any(_number(group, name) is not None for name in ("memory.max", "memory.high"))
        if group.version == "cgroup2" and (
            limited or _read(group, "cpu.max").split()[:1] not in ([], ["max"])
        ):
            return group.path
    return ""


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


def _stat(group: Group) -> dict[str, float]:
    pairs = (line.split() for line in _read(group, "memory.stat").splitlines())
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
