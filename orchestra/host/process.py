"""Processes of this machine: who they are, whether they live, ending all of an attempt's.

Read from /proc directly: psutil costs more at start-up than all of `orchestra status` may.
"""

from __future__ import annotations

import contextlib
import os
import signal
from functools import cache
from typing import NamedTuple

from orchestra.errors import PROVES_NOTHING
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
    with open(
        "/proc/sys/kernel/hostname", encoding="utf-8", errors="replace"
    ) as file:  # it may hold any bytes
        return file.read().strip()


@cache
def machine_id() -> str:
    """Empty where this machine has none (a container, most often)."""
    try:
        with open("/etc/machine-id") as file:
            text = file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if text and not text.strip("0123456789abcdef") else ""


def start_of(pid: int) -> int | None:
    """When the process with this PID started, in clock ticks after boot; None: dead or a zombie.

    One whose main thread alone has ended lives. Raises OSError where nothing is proved.
    """
    stat = read(pid, "stat")
    if not stat:
        return None
    fields = stat[stat.rfind(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        with contextlib.suppress(OSError):
            if len(os.listdir(f"/proc/{pid}/task")) > 1:
                return int(fields[19])
        return None
    return int(fields[19])


def is_stopped(process: Process) -> bool:
    """Whether it is stopped by a signal, and does nothing until another lets it go on."""
    stat = read(process.pid, "stat").rpartition(b")")[2].split()
    return bool(stat) and stat[0] == b"T" and lives(process) is True


def group_of(pid: int) -> int | None:
    """Its process group; None where there is no such process."""
    try:
        return os.getpgid(pid)
    except OSError:
        return None


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
    return Process(pid, start, boot_id(), host_name(), pid_namespace(), machine_id())


def lives(process: Process) -> bool | None:
    """Whether this very process lives; None where that cannot be seen from here."""
    return owner.lives(process, known(os.getpid(), 0), start_of(process.pid))


def runs(pid: int, script: str, token: str) -> bool:
    """Whether a process is the bash that runs this launcher, wherever it was called from.

    One that carries the token may be on its way there, as something that will become bash.
    """
    name = os.path.basename(os.fsencode(script))
    program, *words = read(pid, "cmdline").split(b"\0")
    if name not in map(os.path.basename, words) or b"-c" in words:
        return False
    return os.path.basename(program) == b"bash" or carries(pid, token)


def open_pidfd(process: Process) -> int | None:
    """A descriptor that becomes readable when the process ends; None where it has, or none can be had."""
    try:
        fd = os.pidfd_open(process.pid)
    except (OSError, AttributeError):
        return None
    same = False
    try:
        same = start_of(process.pid) == process.start  # else the PID was recycled before we opened it
    finally:
        if not same:
            os.close(fd)
    return fd if same else None


def send(process: Process, signum: int) -> bool:
    """Signal this very process, through a pidfd; False where it is gone, or may not be signalled by us."""
    if not lives(process):
        return False
    fd = open_pidfd(process)
    if fd is None:
        if not lives(process):
            return False
        try:
            os.kill(process.pid, signum)
        except (ProcessLookupError, PermissionError):
            return False
        return True
    try:
        signal.pidfd_send_signal(fd, signum)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(fd)
    return True


def carries(pid: int, token: str) -> bool:
    """Whether a process has TOKEN=token in its environment."""
    return f"{TOKEN}={token}".encode() in environment(pid).split(b"\0")


def read(pid: int, what: str) -> bytes:
    """A file of a process; empty where it is gone, or is not ours to read.

    Raises OSError where it may be there, and could not be looked at for want of a descriptor, say.
    """
    return _read(pid, what) or b""


def inherited() -> dict[str, str]:
    """Our environment, to be handed on; but for entries without a name, which Python refuses to."""
    return {name: value for name, value in os.environ.items() if name}


def environment(pid: int) -> bytes:
    """Empty too where it has none. One that is just becoming another program has none for a moment."""
    deadline, tries = None, 20
    while tries:
        text = _read(pid, "environ")
        if text or text is None:
            return text or b""
        # proc_pid_stat(5), from `state` on: 20 is the size of its memory, 24 the end of its code (it is set
        # last), 47 and 48 are where the environment begins and ends
        stat = read(pid, "stat").rpartition(b")")[2].split()
        deadline = deadline or clock.monotonic() + 1.0
        if len(stat) < 49 or stat[20] == b"0" or clock.monotonic() > deadline:
            return b""  # gone, or the kernel's own
        if stat[24] != b"0":
            if stat[47] == stat[48]:
                return b""
            tries -= 1  # it has come only now; or was thrown away by its process
    return b""


def _read(pid: int, what: str) -> bytes | None:
    try:
        fd = os.open(f"/proc/{pid}/{what}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in PROVES_NOTHING:
            raise
        return None
    try:
        text = os.read(fd, 1 << 16)
        while text and len(text) % (1 << 16) == 0 and (more := os.read(fd, 1 << 20)):
            text += more
        return text
    except OSError as error:
        if error.errno in PROVES_NOTHING:
            raise
        return None
    finally:
        os.close(fd)


def carriers(token: str) -> list[Process]:
    """Every living process that has TOKEN=token in its environment."""
    return all_carriers().get(token, [])


def all_carriers() -> dict[str, list[Process]]:
    """token -> the living processes that have it in their environment: one look for all attempts."""
    found: dict[str, list[Process]] = {}
    mark = f"{TOKEN}=".encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        text = environment(int(name))
        words = {word for word in text.split(b"\0") if word.startswith(mark)} if mark in text else ()
        start = start_of(int(name)) if words else None
        if start is not None:
            for word in words:
                found.setdefault(os.fsdecode(word[len(mark) :]), []).append(known(int(name), start))
    return found


class Bearer(NamedTuple):
    """A living process of this user that has some token, and what it was started with."""

    process: Process
    token: str
    words: list[str]
    environment: dict[str, str]
    sees_our_files: bool  # in the same mount namespace


def bearers() -> list[Bearer]:
    """All of them but for this process."""
    found = []
    our_mounts = os.stat("/proc/self/ns/mnt").st_ino
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid != os.geteuid():
                continue
            pairs = environment(int(name)).split(b"\0")
            if not any(pair.startswith(f"{TOKEN}=".encode()) for pair in pairs):
                continue
            words = [os.fsdecode(word) for word in read(int(name), "cmdline").split(b"\0")]
            sees = os.stat(f"/proc/{name}/ns/mnt").st_ino == our_mounts
        except OSError:
            continue
        who = identify(int(name))
        variables = dict(os.fsdecode(pair).partition("=")[::2] for pair in pairs if b"=" in pair)
        if who is not None:
            found.append(Bearer(who, variables[TOKEN], words, variables, sees))
    return found


Children = dict[int, list[tuple[int, int | None]]]
"""PID -> (PID, start; None: a zombie) of its children."""


def children() -> Children:
    """Of every process: one look for all attempts."""
    found: Children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(ValueError, IndexError):
                stat = read(int(name), "stat")
                parent = int(stat[stat.rfind(b")") + 2 :].split()[1])
                found.setdefault(parent, []).append((int(name), start_of(int(name))))
    return found


def descendants(root: Process, known_children: Children | None = None) -> list[Process]:
    """What descends from a living process, by parentage."""
    if not lives(root):
        return []
    below = children() if known_children is None else known_children
    found: list[Process] = []
    waiting = [root.pid]
    while waiting:
        for pid, start in below.get(waiting.pop(), ()):
            waiting.append(pid)
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
