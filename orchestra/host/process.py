"""Processes of this machine: who they are, whether they live, ending all of an attempt's.

Read from /proc directly: psutil costs more at start-up than all of `orchestra status` may.
"""

from __future__ import annotations

import contextlib
import os
import signal
from functools import cache

from orchestra.host import clock
from orchestra.model import owner
from orchestra.model.trail import Process

TOKEN = "ORCHESTRA_TOKEN"  # in the environment of all that belongs to one attempt


@cache
def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


@cache
def host_name() -> str:
    with open("/proc/sys/kernel/hostname") as file:
        return file.read().strip()


def start_of(pid: int) -> int | None:
    """When the process with this PID started, in clock ticks after boot; None: dead or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None
    fields = stat[stat.rfind(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def identify(pid: int) -> Process | None:
    """Who has this PID now; None where nobody, or a zombie, has it."""
    start = start_of(pid)
    return None if start is None else known(pid, start)


@cache
def pid_namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


@cache
def clock_id() -> str:
    """Which monotonic clock this is: of one boot, and of one time namespace."""
    try:
        return f"{boot_id()}/{os.stat('/proc/self/ns/time').st_ino}"
    except OSError:
        return boot_id()


def this_process() -> Process:
    return known(os.getpid(), start_of(os.getpid()) or 0)


def known(pid: int, start: int) -> Process:
    """A process of this machine, as it is told of elsewhere."""
    return Process(pid, start, boot_id(), host_name(), pid_namespace())


def lives(process: Process) -> bool | None:
    """Whether this very process lives; None where that cannot be seen from here."""
    return owner.lives(process, known(os.getpid(), 0), start_of(process.pid))


def runs(pid: int, script: str) -> bool:
    """Whether a process was started with this file among its words, wherever it was called from."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    name = os.path.basename(os.fsencode(script))
    return any(os.path.basename(word) == name for word in words)


def open_pidfd(process: Process) -> int | None:
    """A descriptor that becomes readable when the process ends; None where it has, or none can be had."""
    try:
        fd = os.pidfd_open(process.pid)
    except (OSError, AttributeError):
        return None
    if start_of(process.pid) != process.start:  # the PID was recycled before we opened it
        os.close(fd)
        return None
    return fd


def send(process: Process, signum: int) -> bool:
    """Signal this very process, through a pidfd; False where it is gone, or cannot be seen from here."""
    if not lives(process):
        return False
    fd = open_pidfd(process)
    if fd is None:
        if not lives(process):
            return False
        os.kill(process.pid, signum)
        return True
    try:
        signal.pidfd_send_signal(fd, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def carriers(token: str) -> list[Process]:
    """Every living process that has TOKEN=token in its environment."""
    needle = f"{TOKEN}={token}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if needle not in file.read().split(b"\0"):
                    continue
        except OSError:
            continue
        start = start_of(int(name))
        if start is not None:
            found.append(known(int(name), start))
    return found


def descendants(root: Process) -> list[Process]:
    """What descends from a living process, by parentage."""
    if not lives(root):
        return []
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with (
                contextlib.suppress(OSError, ValueError, IndexError),
                open(f"/proc/{name}/stat", "rb") as file,
            ):
                stat = file.read()
                parents.setdefault(int(stat[stat.rfind(b")") + 2 :].split()[1]), []).append(int(name))
    found: list[Process] = []
    waiting = [root.pid]
    while waiting:
        for pid in parents.pop(waiting.pop(), []):
            waiting.append(pid)
            start = start_of(pid)
            if start is not None:
                found.append(known(pid, start))
    return found


def end_all(
    token: str, launcher: Process | None, *, grace_s: float, patience_s: float = 10.0
) -> list[Process]:
    """End everything of an attempt: TERM, then KILL after the grace.

    Returns what lives on after KILL and `patience_s` more seconds (a process in an
    uninterruptible sleep): empty where all is well.
    """

    def living() -> list[Process]:
        family = {p: None for p in carriers(token)}
        if launcher is not None:
            family.update({p: None for p in descendants(launcher)})
            if lives(launcher):
                family[launcher] = None
        return list(family)

    deadline = clock.monotonic() + grace_s
    told: set[Process] = set()
    while family := living():
        late = clock.monotonic() >= deadline
        for process in family:
            if late or process not in told:
                send(process, signal.SIGKILL if late else signal.SIGTERM)
                send(process, signal.SIGCONT)
                told.add(process)
        if clock.monotonic() >= deadline + patience_s:
            return family
        clock.pause(0.02)
    return []
