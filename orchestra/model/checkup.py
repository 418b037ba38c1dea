"""What a checkup finds of the kernel and its limits, and when a figure is worth a warning.

A check is a line: what was looked at, what was found, with its figure, and what to do where
something is to be done. A source that cannot be read is `unknown`, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from orchestra.model.units import format_bytes

GIB = 1 << 30
MIB = 1 << 20
INITIAL_PID_NS = 0xEFFFFFFC  # the kernel's own number for the namespace that it starts with


class Health(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BAD = "bad"
    UNKNOWN = "unknown"


class Check(NamedTuple):
    """`advice` is a command ready to run, or a sentence; None where nothing is to be done."""

    check: str
    found: str
    verdict: Health = Health.OK
    advice: str | None = None

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


def unknown(check: str, why: str, verdict: Health = Health.UNKNOWN) -> Check:
    return Check(check, f"unknown: {why}", verdict)


def hung(check: str, patience_s: float, verdict: Health) -> Check:
    found = unknown(check, f"no answer within {patience_s:g} s", verdict)
    if verdict != Health.BAD:
        return found
    return found._replace(
        advice="see whether the file system's server is gone (mount, dmesg), or go elsewhere"
    )


def commands(checks: Sequence[Check]) -> list[str]:
    """The advice that is a command of ours. What ends processes or removes files is for people."""
    advice = [c.advice for c in checks if c.advice and c.advice.startswith("orchestra ")]
    return list(dict.fromkeys(advice))


def some(names: Sequence[object], most: int = 5) -> str:
    """The first few of them, and how many more there are."""
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


# --- kernel ------------------------------------------------------------------------------


def kernel(release: str) -> Check:
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is None:
        return unknown("kernel", f"{release!r} is no version")
    if (int(match[1]), int(match[2])) < (5, 3):
        return Check(
            "kernel",
            f"Linux {release}: before 5.3, so without pidfds",
            Health.WARNING,
            "a newer kernel: without pidfds an end is seen a beat later, and a signal is a little less sure",
        )
    return Check("kernel", f"Linux {release}")


def pidfd(refusal: str | None) -> Check:
    """`refusal`: what the system said to pidfd_open, if it did not give one."""
    if refusal is None:
        return Check("pidfd", "pidfd_open works")
    advice = "allow pidfd_open (a container's seccomp profile?): without it ends are seen a beat later"
    return Check("pidfd", f"pidfd_open: {refusal}", Health.WARNING, advice)


def subreaper(refusal: str | None) -> Check:
    if refusal is None:
        return Check("subreaper", "PR_SET_CHILD_SUBREAPER works")
    advice = "allow prctl: without it a launcher finds what escaped its worker by the token alone"
    return Check("subreaper", f"PR_SET_CHILD_SUBREAPER: {refusal}", Health.WARNING, advice)


def proc(missing: Sequence[str]) -> Check:
    """`missing`: what a launcher reads of /proc and cannot."""
    if not missing:
        return Check("proc", "all that launchers read of /proc is readable")
    advice = "mount /proc whole (no subset=pid): a launcher cannot say who it is without it"
    return Check("proc", f"not readable: {some(missing)}", Health.BAD, advice)


def hidepid(option: str | None, *, root: bool) -> Check:
    if option is None or option in ("0", "off"):
        return Check("hidepid", "off: every process is seen")
    if root:
        return Check("hidepid", f"{option}: root sees every process all the same")
    return Check(
        "hidepid",
        f"{option}: only this user's processes are seen",
        Health.WARNING,
        "drive a run and start its workers as one user: what runs as another is not found",
    )


def children(there: bool) -> Check:
    if there:
        return Check("proc children", "/proc/PID/task/TID/children is there (CONFIG_PROC_CHILDREN)")
    return Check(
        "proc children",
        "no `children` files: a kernel without CONFIG_PROC_CHILDREN",
        Health.WARNING,
        "a worker's descendants that drop ORCHESTRA_TOKEN from their environment are not found at its end",
    )


def settings(problem: str | None, hint: str) -> Check:
    """`problem`: what is wrong with the config file, or with the limits in the environment."""
    if problem is not None:
        return Check("settings", f"every spawn and run is refused: {problem}", Health.BAD, hint)
    return Check("settings", "the config file, if there is one, and ORCHESTRA_THROTTLE are in order")


def pressure(averages: dict[str, float] | None, refusal: str) -> Check:
    """`averages`: cpu, io, memory -> per cent of the last 10 s in which some task waited."""
    if averages is None:
        advice = (
            "boot with psi=1 (or a kernel with CONFIG_PSI), to see pressure before it hurts; "
            "till then throttle {disk_busy: 95} in the plan hears of a disk that is always at work"
        )
        return Check("pressure", f"no pressure stall information: {refusal}", Health.WARNING, advice)
    figures = ", ".join(f"{name} {value:g} %" for name, value in averages.items())
    if averages.get("memory", 0) > 20:
        return Check(
            "pressure",
            f"{figures} (10 s): short of memory",
            Health.WARNING,
            "fewer workers at once: throttle {memory_available: …, max_workers: …} in the plan",
        )
    return Check("pressure", f"{figures} (10 s)")


class Cgroup(NamedTuple):
    """The tightest limit between our own cgroup and the highest that is seen. None: no limit."""

    version: str  # "1", "2", "1 and 2", or "none"
    memory_limit: int | None = None  # bytes
    memory_used: int | None = None
    cpus: float | None = None
    pids_limit: int | None = None
    pids_used: int | None = None


def cgroup(group: Cgroup) -> list[Check]:
    if group.version == "none":
        return [Check("cgroup", "none is mounted: no limits of that kind")]
    return [
        Check("cgroup", f"version {group.version}"),
        cgroup_memory(group.memory_limit, group.memory_used),
        Check("cgroup cpu", "no limit")
        if group.cpus is None
        else Check(
            "cgroup cpu",
            f"limited to {group.cpus:g} CPUs",
            Health.WARNING if group.cpus < 1 else Health.OK,
            "give it at least one CPU: launchers are slow to start" if group.cpus < 1 else None,
        ),
        room("cgroup pids", group.pids_used, group.pids_limit, "raise pids.max (docker: --pids-limit)"),
    ]


def cgroup_memory(limit: int | None, used: int | None) -> Check:
    if limit is None:
        return Check("cgroup memory", "no limit")
    if used is None:
        return unknown("cgroup memory", f"limit {format_bytes(limit)}, but not how much is used")
    found = f"{format_bytes(used)} of {format_bytes(limit)} used"
    if limit - used >= GIB:
        return Check("cgroup memory", found)
    advice = "raise memory.max (docker: --memory), or keep max_workers low: an agent takes about 400 MB"
    return Check("cgroup memory", found, Health.WARNING, advice)


def room(check: str, used: int | None, limit: int | None, advice: str) -> Check:
    """A count against its limit: 70 % is worth a warning, 95 % is bad."""
    if limit is None:
        return Check(check, "no limit" if used is None else f"{used} used, no limit")
    if used is None:
        return unknown(check, f"limit {limit}, but not how much is used")
    share = used / limit if limit else 1.0
    verdict = Health.BAD if share >= 0.95 else Health.WARNING if share >= 0.7 else Health.OK
    return Check(check, f"{used} of {limit} used", verdict, advice if verdict != Health.OK else None)


def pid_namespace(number: int, marker: str | None, zombies: int) -> list[Check]:
    """`marker`: the file that tells of a container; `zombies`: dead children that PID 1 has not reaped."""
    inside = f", in a container ({marker})" if marker else ""
    if not number:
        place = unknown("pid namespace", "/proc/self/ns/pid cannot be read")
    elif number == INITIAL_PID_NS:
        place = Check("pid namespace", f"the machine's own{inside}")
    else:
        found = f"one of its own{inside}: workers end with it, and are judged from inside alone"
        place = Check("pid namespace", found)
    found = f"dead children that PID 1 has not reaped: {zombies}"
    if zombies < 50:
        return [place, Check("reaping", found)]
    advice = "let PID 1 reap its children (docker: --init): each takes a PID"
    return [place, Check("reaping", found, Health.WARNING, advice)]


# --- limits ------------------------------------------------------------------------------


def inotify(kind: str, used: int | None, limit: int, refusal: str | None) -> Check:
    """`kind`: instances or watches, of this user. Each waiting command needs one of both.

    `refusal`: what the system said when one was asked for.
    """
    check, sysctl = f"inotify {kind}", f"fs.inotify.max_user_{kind}"
    advice = f"as root: sysctl -w {sysctl}={max(512, 4 * limit)}; until then ends are seen a beat later"
    if refusal is not None:
        return Check(check, f"none to be had of {limit}: {refusal}", Health.WARNING, advice)
    if used is None:
        return unknown(check, f"limit {limit}, but not how many are used")
    low = limit - used < 8
    return Check(
        check,
        f"{used} of {limit} used, one for each waiting command",
        Health.WARNING if low else Health.OK,
        advice if low else None,
    )


def open_files(soft: int | None, hard: int | None) -> Check:
    """RLIMIT_NOFILE of this shell. `wait` holds one for each worker, `spawn` some two dozen."""
    if soft is None:
        return Check("open files", "no limit")
    top = "no limit" if hard is None else str(hard)
    found = f"at most {soft} at once (ulimit -n; may be raised to {top})"
    if soft >= 256:
        return Check("open files", found)
    raised = 1024 if hard is None else min(1024, hard)
    advice = f"ulimit -n {raised}" if raised > soft else "raise the hard limit (limits.conf, LimitNOFILE=)"
    return Check("open files", found, Health.BAD if soft < 64 else Health.WARNING, advice)


def user_processes(used: int | None, soft: int | None, *, root: bool) -> Check:
    """RLIMIT_NPROC, which counts threads. A worker takes two at least, an agent some 20."""
    if root:
        return Check("user processes", f"{'?' if used is None else used} threads; no limit holds for root")
    return room(
        "user processes", used, soft, "ulimit -u, or limits.conf: a worker takes two, an agent some 20"
    )


def tasks(used: int, limit: int) -> Check:
    """All of the machine against pid_max and threads-max, whichever is less."""
    return room(
        "processes", used, limit, "as root: sysctl -w kernel.pid_max=4194304; or end what is not needed"
    )
