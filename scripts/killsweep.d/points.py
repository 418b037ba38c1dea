"""Where a command can be hit: a system call, and which one of its kind."""

from __future__ import annotations

import re
from typing import NamedTuple

FAULTS = ("KILL", "ENOSPC", "EIO")
CHANGES = """
    write pwrite64 writev pwritev pwritev2 ftruncate fallocate rename renameat renameat2 link linkat symlink
    symlinkat mkdir mkdirat rmdir unlink unlinkat fsync fdatasync sync syncfs clone clone3 fork vfork
"""
BEFORE_EXEC = "setsid dup2 dup3"  # what only a launcher's process does before it is one
NO_DISK = {"starter": f"{BEFORE_EXEC} write".split()}  # pipes and sessions know no full disk
_CALL = re.compile(r"^(?:(\d+) +)?([a-z0-9_]+)\(")


class Sweep(NamedTuple):
    command: str  # spawn, retry, init
    target: str  # who is hit: narrator, starter, launcher, tree
    faults: tuple[str, ...]
    every: int  # --short takes each so-manieth point

    @property
    def name(self) -> str:
        return f"{self.command}/{self.target}"


SWEEPS = (
    Sweep("spawn", "narrator", FAULTS, 9),
    Sweep("spawn", "starter", FAULTS, 4),
    Sweep("spawn", "launcher", FAULTS, 5),
    Sweep("spawn", "tree", ("KILL",), 4),
    Sweep("retry", "narrator", FAULTS, 23),
    Sweep("init", "narrator", FAULTS, 17),
)


class Point(NamedTuple):
    sweep: Sweep
    fault: str
    call: str
    when: int

    def __str__(self) -> str:
        return f"{self.sweep.name}/{self.fault}/{self.call}/{self.when}"

    def inject(self) -> str:
        how = "signal=SIGKILL" if self.fault == "KILL" else f"error={self.fault}"
        return f"inject={self.call}:{how}:when={self.when}"


def traced(sweep: Sweep) -> str:
    """The calls as strace wants them; `?`: where the architecture has no such call, nothing is said."""
    words = f"{CHANGES} {BEFORE_EXEC}" if sweep.target == "starter" else CHANGES
    return ",".join(f"?{word}" for word in words.split())


def most_calls(trace: str) -> dict[str, int]:
    """How often each call was made, by the process that made it most often."""
    counts: dict[tuple[str, str], int] = {}
    for line in trace.splitlines():
        if match := _CALL.match(line):
            key = match[2], match[1] or ""
            counts[key] = counts.get(key, 0) + 1
    most: dict[str, int] = {}
    for (call, _), number in counts.items():
        most[call] = max(most.get(call, 0), number)
    return most


def was_hit(trace: str) -> bool:
    return "INJECTED" in trace or "killed by SIGKILL" in trace


def hit_no_disk(trace: str) -> bool:
    """Whether the error went to what knows no full disk and no bad one: nothing that could happen."""
    return re.search(r"\(\d+<(?:/dev/null|pipe:\[\d+\])>.*\(INJECTED\)", trace) is not None


def points_of(sweep: Sweep, counts: dict[str, int], faults: list[str]) -> list[Point]:
    return [
        Point(sweep, fault, call, when)
        for fault in sweep.faults
        if fault in faults
        for call, most in sorted(counts.items())
        if fault == "KILL" or call not in NO_DISK.get(sweep.target, ())
        for when in range(1, most + 1)
    ]


def beyond(points: list[Point]) -> list[Point]:
    """For each call, the point behind its last one."""
    last = {(point.sweep, point.fault, point.call): point for point in points}
    return [point._replace(when=point.when + 1) for point in last.values()]


def parse_point(word: str) -> Point:
    try:
        command, target, fault, call, when = word.split("/")
        found = next(s for s in SWEEPS if s.name == f"{command}/{target}")
        return Point(found, fault, call, int(when))
    except (ValueError, StopIteration):
        raise SystemExit(
            f"killsweep: {word!r} is no point: SWEEP/FAULT/CALL/N, as --list shows them"
        ) from None
