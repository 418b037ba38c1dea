"""Quiet: whether a living worker still shows signs of progress, and how that is told.

The signs, judged together: output, heartbeat, files in `out`, CPU time of the whole tree. What
was seen of the tree is remembered from look to look, as CPU time tells nothing by itself.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from orchestra.model.plan import WorkerEntry

# A tree is idle while it uses less than this of one CPU. Event loops that only tick (a spinner
# on a terminal, a keep-alive, a poll for a child) use 0.1 to 0.8 %; whoever computes, even one of
# a hundred on two CPUs, gets more.
IDLE_SHARE = 0.01
# What may come on top in any one stretch: a garbage collection, a tick counted late.
IDLE_BURST_S = 0.1
# What an agent's CLI takes to come up (the heaviest of eight: 8 s): up to there it has done nothing yet.
START_UP_CPU_S = 10.0
# From this part of `stall` on the tree is looked at, so that it is known since when it is idle.
FIRST_LOOK = 0.25
# A worker is ended only when quiet for so much longer than any like it that ended well.
BEYOND_BEFORE = 1.5


class Look(NamedTuple):
    """One look at a tree's CPU time, and what the looks before it have taught.

    Times are seconds of the machine's monotonic clock, good within one boot: it stands still
    while the machine sleeps, as the workers do.
    """

    boot_id: str
    at: float
    cpu_s: float
    since: float  # idle since then, as far as is known
    since_cpu_s: float
    idle: bool
    was_busy: bool = False  # some look found it at work: before `since` it was not idle
    longest_s: float = 0.0  # for which the worker has been quiet so far, by all signs

    @property
    def idle_s(self) -> float:
        return self.at - self.since


def look_again(before: Look, at: float, cpu_s: float) -> Look:
    """What is known after another look."""
    idle = _idles(cpu_s - before.cpu_s, at - before.at)
    idle = idle and _idles(cpu_s - before.since_cpu_s, at - before.since)
    if idle:
        return before._replace(at=at, cpu_s=cpu_s, idle=True)
    return before._replace(at=at, cpu_s=cpu_s, since=at, since_cpu_s=cpu_s, idle=False, was_busy=True)


def look_first(boot_id: str, at: float, cpu_s: float, *, ran_s: float, idle: bool) -> Look:
    """With no earlier look: `idle` is what two looks an instant apart have shown."""
    if not idle:
        return Look(boot_id, at, cpu_s, at, cpu_s, False, was_busy=True)
    if _idles(cpu_s, ran_s):  # over its whole life
        return Look(boot_id, at, cpu_s, at - ran_s, 0.0, True)
    return Look(boot_id, at, cpu_s, at, cpu_s, True)


def _idles(used_s: float, span_s: float) -> bool:
    """Less than nothing was used where processes have ended that nobody waited for: that is a change."""
    return 0 <= used_s <= IDLE_BURST_S + IDLE_SHARE * span_s


class Signs(NamedTuple):
    """How long a running worker has shown nothing, sign by sign, in seconds; None: that sign never came."""

    ran_s: float
    output_s: float | None = None
    heartbeat_s: float | None = None
    out_s: float | None = None
    seen: bool = False  # its processes were looked for
    look: Look | None = None  # none where they cannot be seen from here
    states: dict[int, str] = {}  # noqa: RUF012 - never changed in place. PID -> state, but for the launcher
    waits: dict[int, str] = {}  # noqa: RUF012 - likewise. PID -> the kernel's word for where it waits
    before_s: float | None = None  # for how long such workers were quiet before they ended well

    @property
    def never(self) -> bool:
        """Whether it has neither printed nor beaten nor made a file."""
        return self.output_s is None and self.heartbeat_s is None and self.out_s is None

    @property
    def files_s(self) -> float:
        """How long it has been quiet, by what it leaves."""
        seen = [s for s in (self.output_s, self.heartbeat_s, self.out_s) if s is not None]
        return min([self.ran_s, *seen])

    @property
    def known_s(self) -> float:
        """For how long it is known to have been quiet by all signs."""
        return min(self.files_s, self.look.idle_s) if self.look and self.look.idle else 0.0


def look_in(entry: WorkerEntry, files_s: float, *, never: bool) -> float:
    """Seconds until its processes may have to be looked at, if no sign comes."""
    limits = [s for s in (entry.stall_s, entry.first_sign_s if never else None) if s is not None]
    return min((s * FIRST_LOOK for s in limits), default=float("inf")) - files_s


def is_stalled(entry: WorkerEntry, signs: Signs) -> bool:
    return shows_no_sign(entry, signs) or (
        entry.stall_s is not None and signs.files_s > entry.stall_s and _rests(signs, entry.stall_s)
    )


def shows_no_sign(entry: WorkerEntry, signs: Signs) -> bool:
    """Whether it never did anything beyond coming up, and should have by now."""
    if entry.first_sign_s is None or not signs.never or signs.ran_s <= entry.first_sign_s:
        return False
    used_s = signs.look.cpu_s if signs.look else 0.0
    return used_s <= START_UP_CPU_S + IDLE_SHARE * signs.ran_s and _rests(signs, 0.0)


def _rests(signs: Signs, limit_s: float) -> bool:
    """Whether its processes speak against its being at work; where they cannot be seen, the files decide.

    Of one that no look has found at work, nothing is known against its having been idle all the time.
    """
    look = signs.look
    if look is None:
        return signs.seen
    return look.idle and (not look.was_busy or look.idle_s > limit_s)


def is_to_be_ended(entry: WorkerEntry, signs: Signs) -> bool:
    """By `stall_action: stop`: only where it is known, and not usual for such workers."""
    if entry.stall_action != "stop" or entry.stall_s is None or not is_stalled(entry, signs):
        return False
    return signs.known_s > max(entry.stall_s, BEYOND_BEFORE * (signs.before_s or 0.0))


# --- how it is told ----------------------------------------------------------------------------


def tell(entry: WorkerEntry, signs: Signs) -> str:
    """The evidence, as one line: which signs, how long, CPU time since, what its processes do."""
    from orchestra.model.units import format_duration as short

    each = (("output", signs.output_s), ("heartbeat", signs.heartbeat_s), ("out", signs.out_s))
    if signs.never:
        said = f"has shown no sign at all since its start {short(signs.ran_s)} ago"
        said += ": no output, no heartbeat, no file"
    else:
        by_sign = ", ".join(f"{what} {'never' if s is None else short(s)}" for what, s in each)
        said = f"quiet for {short(quiet_s(signs))} ({by_sign})"
    parts = [said, tell_cpu(signs), *tell_processes(signs)]
    if signs.before_s is not None:
        parts.append(f"such workers were quiet for up to {short(signs.before_s)} before they ended well")
    if shows_no_sign(entry, signs) and (entry.stall_s is None or signs.files_s <= entry.stall_s):
        parts.append(f"first_sign: {short(entry.first_sign_s or 0)}")
    elif entry.stall_s is not None:
        parts.append(f"stall: {short(entry.stall_s)}")
    if is_to_be_ended(entry, signs):
        parts.append("stall_action: stop, so the next command that changes the run ends it")
    return "; ".join(part for part in parts if part)


def quiet_s(signs: Signs) -> float:
    look = signs.look
    return min(signs.files_s, look.idle_s) if look and look.was_busy else signs.files_s


def tell_cpu(signs: Signs) -> str:
    from orchestra.model.units import format_duration as short

    look = signs.look
    if look is None:
        return "its processes cannot be seen from here" if signs.seen else ""
    if not look.idle:
        return "its processes are at work"
    used = f"{max(0.0, look.cpu_s - look.since_cpu_s):.1f} s of CPU"
    if look.idle_s <= 0:
        return f"no CPU in two looks an instant apart, {look.cpu_s:.1f} s before (no earlier look to go by)"
    if look.idle_s >= signs.ran_s - 1:
        return f"{used} since its start"
    return f"{used} in the last {short(look.idle_s)}"


_WAITS = (
    # (in the kernel's name for where a process waits, what that means)
    ("wait_woken", "on a socket"),
    ("sk_wait", "on a socket"),
    ("skb_wait", "on a socket"),
    ("unix_stream", "on a socket"),
    ("accept", "for a connection"),
    ("epoll", "for events"),
    ("ep_poll", "for events"),
    ("poll_schedule", "for events"),
    ("do_select", "for events"),
    ("pipe", "on a pipe"),
    ("futex", "on a lock or a thread"),
    ("lock", "on a locked file"),
    ("nanosleep", "for time to pass (asleep)"),
    ("sigsuspend", "for a signal"),
    ("tty", "on a terminal"),
)


def tell_processes(signs: Signs) -> list[str]:
    """What the processes do, as far as it helps: stopped, stuck in the kernel, waiting, and for what."""
    told = []
    stopped = [pid for pid, state in signs.states.items() if state == "T"]
    stuck = [pid for pid, state in signs.states.items() if state == "D"]
    traced = [pid for pid, state in signs.states.items() if state == "t"]
    whole = len(signs.states)
    if stopped:
        who = "its processes are" if len(stopped) == whole else f"{len(stopped)} of its {whole} processes are"
        told.append(f"{who} stopped (SIGSTOP): kill -CONT {_pids(stopped)}")
    if traced:
        told.append(f"held by a debugger: pid {_pids(traced)}")
    if stuck:
        told.append(f"in a wait that nothing interrupts (disk, network file system): pid {_pids(stuck)}")
    if signs.look and signs.seen and not signs.states:
        told.append("no process of it but its launcher is left")
    if not told and (waits := sorted({_in_words(word) for word in signs.waits.values()} - {""})):
        told.append("its processes wait " + ", ".join(waits))
    return told


def _in_words(word: str) -> str:
    return next((said for part, said in _WAITS if part in word), "")


def _pids(pids: list[int]) -> str:
    return " ".join(map(str, sorted(pids)[:8])) + (" …" if len(pids) > 8 else "")


# --- the file in which a look is remembered -----------------------------------------------------


def look_to_json(look: Look) -> str:
    return json.dumps(look._asdict()) + "\n"


def parse_look(text: str | None, boot_id: str, now: float) -> Look | None:
    """None for what is no look of this boot: a worker can write anything here."""
    try:
        data: dict[str, Any] = json.loads(text or "")
        numbers = [float(data[key]) for key in ("at", "cpu_s", "since", "since_cpu_s") if not _odd(data[key])]
        at, cpu_s, since, since_cpu_s = numbers
        longest_s = data["longest_s"]
        if data["boot_id"] != boot_id or not since <= at <= now or _odd(longest_s) or longest_s < 0:
            return None
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    flags = data.get("idle") is True, data.get("was_busy") is True
    return Look(boot_id, at, cpu_s, since, since_cpu_s, *flags, float(longest_s))


def _odd(value: object) -> bool:
    """Whether it is no finite number."""
    return isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15
