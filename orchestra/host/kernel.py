"""What this kernel offers: features, cgroups, namespaces. Each asked for itself."""

from __future__ import annotations

import ctypes
import errno
import os

from orchestra.host.process import pid_namespace
from orchestra.model.checkup import Cgroup

# What launchers read, beside the files of processes.
NEEDED = (
    "/proc/self/stat",
    "/proc/self/status",
    "/proc/self/environ",
    "/proc/uptime",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/kernel/hostname",
)
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37
_NO_LIMIT = 1 << 60  # version 1 writes a number near 2**63 where there is none


def pidfd_refusal() -> str | None:
    """What the system says to pidfd_open; None: it gives one."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return error.strerror
    except AttributeError:
        return "this Python was built without it"
    return None


def subreaper_refusal() -> str | None:
    """Asked for in earnest, and then given back."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = ctypes.c_int(0)
    for option, argument in (
        (PR_GET_CHILD_SUBREAPER, ctypes.byref(before)),
        (PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1)),
        (PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(before.value)),
    ):
        if libc.prctl(option, argument, 0, 0, 0):
            return os.strerror(ctypes.get_errno())
    return None


def unreadable() -> list[str]:
    """What a launcher needs of /proc and could not read."""
    missing = []
    for path in NEEDED:
        try:
            with open(path, "rb") as file:
                file.read(1)
        except OSError:
            missing.append(path)
    return missing


def has_children_files() -> bool:
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def pressure() -> tuple[dict[str, float] | None, str]:
    """(cpu, io, memory -> per cent of 10 s in which some task waited, ""), or (None, why not)."""
    averages = {}
    for name in ("cpu", "io", "memory"):
        try:
            with open(f"/proc/pressure/{name}") as file:
                averages[name] = float(file.readline().split("avg10=")[1].split()[0])
        except FileNotFoundError:
            return None, "/proc/pressure is not there"
        except OSError as error:
            switched_off = error.errno == errno.EOPNOTSUPP
            return None, "switched off (psi=0)" if switched_off else error.strerror or str(error)
    return averages, ""


# --- cgroups -----------------------------------------------------------------------------


def cgroup() -> Cgroup:
    """The limits that hold for this process. Raises OSError where /proc does not tell its cgroup."""
    paths = {}  # controller, or "" for version 2 -> path within its hierarchy
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            paths.update(dict.fromkeys(controllers.split(","), path))
    v1: dict[str, list[str]] = {}
    v2: list[str] = []
    for point, root, kind, options in cgroup_mounts():
        if kind == "cgroup2" and "" in paths:
            v2 = chain(point, root, paths[""])
        for controller in set(options.split(",")) & set(paths) if kind == "cgroup" else ():
            v1[controller] = chain(point, root, paths[controller])
    nothing = (None, None)
    memory_limit, memory_used = (
        tightest(v2, "memory.max", "memory.current")
        or tightest(v1.get("memory", []), "memory.limit_in_bytes", "memory.usage_in_bytes")
        or nothing
    )
    pids_limit, pids_used = (
        tightest(v2, "pids.max", "pids.current")
        or tightest(v1.get("pids", []), "pids.max", "pids.current")
        or nothing
    )
    cpus = [quota_v2(place) for place in v2] + [quota_v1(place) for place in v1.get("cpu", [])]
    version = " and ".join([*(["1"] if v1 else []), *(["2"] if v2 else [])])
    return Cgroup(
        version or "none",
        memory_limit,
        memory_used,
        min((n for n in cpus if n is not None), default=None),
        pids_limit,
        pids_used,
    )


def cgroup_mounts() -> list[tuple[str, str, str, str]]:
    """(mount point, its root within the hierarchy, type, options)."""
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            kind, _, options = tail.split()[:3]
            if kind in ("cgroup", "cgroup2"):
                found.append((head.split()[4], head.split()[3], kind, options))
    return found


def chain(point: str, root: str, path: str) -> list[str]:
    """Our cgroup's directory and all above it, up to the mount; empty where it is not seen from here."""
    path = os.path.relpath(path, root) if root != "/" else path.lstrip("/")
    if path.startswith(".."):
        return [point] if os.path.isdir(point) else []  # we are above what is mounted here: a container
    place = os.path.normpath(os.path.join(point, path))
    found = []
    while os.path.isdir(place):
        found.append(place)
        if place == point:
            break
        place = os.path.dirname(place)
    return found


def tightest(places: list[str], limit: str, usage: str) -> tuple[int, int | None] | None:
    """(limit, used) of the place with the least room; None where none has a limit."""
    found = []
    for place in places:
        most = number(f"{place}/{limit}")
        if most is not None and most < _NO_LIMIT:
            found.append((most, number(f"{place}/{usage}")))
    return min(found, key=lambda pair: pair[0] - (pair[1] or 0), default=None)


def number(path: str) -> int | None:
    """None where there is no such file, or no number ("max") in it."""
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def quota_v2(place: str) -> float | None:
    try:
        with open(f"{place}/cpu.max") as file:
            quota, period = file.read().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def quota_v1(place: str) -> float | None:
    quota, period = number(f"{place}/cpu.cfs_quota_us"), number(f"{place}/cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


# --- namespaces --------------------------------------------------------------------------


def place_of_pids() -> tuple[int, str | None, int]:
    """(number of the PID namespace, what tells of a container, dead children that PID 1 left)."""
    markers = ("/.dockerenv", "/run/.containerenv")
    zombies = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b") ")[2].split()[:2]
        except (OSError, ValueError):
            continue
        zombies += state == b"Z" and parent == b"1"
    return pid_namespace(), next((path for path in markers if os.path.exists(path)), None), zombies
