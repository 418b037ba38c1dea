"""File systems: where a path is mounted, how much room there is, and what they can do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator

from orchestra.model.checkup_disk import Mount, Space, Trial

WRITES = 9
BUDGET_S = 1.0  # for all of them: a slow disk is known by fewer


def nearest(path: str) -> str:
    """The path itself, or the nearest directory above it that is there."""
    path = os.path.realpath(path)
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


def mount_of(path: str) -> Mount:
    """Where a path that is there is mounted. Raises OSError where /proc does not tell."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    best: tuple[bool, int, Mount] | None = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            _, _, at, _, point, options = head.split(" ")[:6]
            point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), point)
            if path != point and not path.startswith(point.rstrip("/") + "/"):
                continue
            kind, _, more = tail.rstrip("\n").split(" ", 2)
            mount = Mount(point, kind, frozenset(options.split(",") + more.split(",")))
            # The deepest counts, of two on one place the later. btrfs shows other numbers in `stat`.
            rank = (at == number, len(point))
            if best is None or rank >= best[:2]:
                best = (*rank, mount)
    if best is None:
        raise OSError(f"no mount of {path} in /proc/self/mountinfo")
    return best[2]


def is_read_only(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def refuses_us(path: str) -> bool:
    return not os.access(path, os.W_OK | os.X_OK)


def space(path: str) -> Space:
    """What this user still gets there."""
    found = os.statvfs(path)
    inodes = (found.f_ffree if os.geteuid() == 0 else found.f_favail) if found.f_files else None
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, inodes)


def probe_names() -> tuple[str, str]:
    """Names that are known for litter, should even a SIGKILL leave them behind."""
    return f".doctor.{os.getpid()}.new", f".doctor-too.{os.getpid()}.new"


def trial(directory: str, stop: threading.Event) -> Trial:
    """Make a probe file, do with it what orchestra does, and remove it; until told to stop.

    Raises OSError where not even that file can be made or written.
    """
    one, other = (f"{directory}/{name}" for name in probe_names())
    fd = os.open(one, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        flock = _refusal(lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
        link = _refusal(lambda: os.link(one, other))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(other)
        rename = _refusal(lambda: os.rename(one, other))
        took = list(_durable_writes(fd, stop))
        ahead_s = os.fstat(fd).st_mtime - time.time()
    finally:
        os.close(fd)
        for path in (one, other):
            with contextlib.suppress(OSError):
                os.unlink(path)
    return Trial(link, rename, flock, statistics.median(took) * 1000, len(took), ahead_s)


def _durable_writes(fd: int, stop: threading.Event) -> Iterator[float]:
    """Seconds of each: a line, as the event log has them, and the wait for the disk."""
    began = time.monotonic()
    for _ in range(WRITES):
        at = time.monotonic()
        os.write(fd, b" " * 255 + b"\n")
        os.fdatasync(fd)
        yield time.monotonic() - at
        if stop.is_set() or time.monotonic() - began > BUDGET_S:
            return


def _refusal(act: Callable[[], object]) -> str | None:
    try:
        act()
    except OSError as error:
        return error.strerror or str(error)
    return None


def newest_below(root: str) -> float | None:
    """When the newest of a directory's entries, and of theirs, was changed; None where there is none."""
    newest = None
    with os.scandir(root) as entries:
        for entry in entries:
            places = [entry.path, f"{entry.path}/events.jsonl"]
            for path in places if entry.is_dir(follow_symlinks=False) else places[:1]:
                with contextlib.suppress(OSError):
                    newest = max(newest or 0.0, os.lstat(path).st_mtime)
    return newest


def size_of(path: str) -> int:
    """Bytes of a file, or of all files below a directory, as far as they can be seen."""
    total = 0
    with contextlib.suppress(OSError):
        total = os.lstat(path).st_blocks * 512
    for place, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{place}/{name}").st_blocks * 512
    return total


def booted_at() -> float | None:
    """Seconds after the epoch, by the clock of now."""
    with open("/proc/stat") as file:
        return next((float(line.split()[1]) for line in file if line.startswith("btime ")), None)
