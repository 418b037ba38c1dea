"""What this kernel offers: features, cgroups, namespaces. Each asked for itself."""

from __future__ import annotations

import ctypes
import errno
import os

from orchestra.host import cgroup as limits_of
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
    """The limits that hold for this process."""
    memory, pids, quota = limits_of.memory(), limits_of.pids(), limits_of.quota()
    return Cgroup(
        limits_of.versions(),
        memory and int(memory.limit),
        memory and int(memory.used),
        quota and quota.cpus,
        pids and int(pids.limit),
        pids and int(pids.used),
    )


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
