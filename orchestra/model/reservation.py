"""Reservations: what workers that have just started will still take, judged by what such workers took before.

A worker's use is learned from looks at its process tree. It is *settled* once its memory has not
risen for a while; only what settled workers used is taken for what such workers need. Until then
a worker holds the difference between that and what it uses already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from orchestra.model.likeness import same_command, same_program
from orchestra.model.throttle import MIB
from orchestra.model.usage import Usage

RATE_S = 60.0  # two looks that lie further apart make no rate
REMEMBERED = 16  # settled workers of one command count, the latest
WATCHED = 256  # of one command are told apart; who comes in beyond that pushes out who has settled
COMMANDS = 200  # so many, the latest
RISE = 1.1  # less than a tenth more is no rise
LONGEST_SETTLE_S = 60.0
LARGEST = 1e15


class Needs(NamedTuple):
    """What a worker takes: bytes at its peak, processes, CPUs; and how long it takes to get there."""

    memory: float
    processes: float
    cpus: float
    settle_s: float


UNKNOWN = Needs(400 * MIB, 4, 0.25, 10.0)
"""An agent of the usual kind, where nothing is known of a command."""


class Seen(NamedTuple):
    """What was seen of one worker so far. Ages are seconds since its start."""

    token: str
    memory: float
    processes: float
    cpus: float
    rose_s: float  # age at the last rise of its memory
    seen_s: float  # age at the last look

    @property
    def settled(self) -> bool:
        return self.seen_s - self.rose_s >= max(1.0, self.rose_s / 4)


Known = dict[str, list[list[Any]]]
"""What was seen of the latest workers, by command (`Seen` as a list)."""


def known_from(value: dict[str, Any]) -> Known:
    """What a note says, without what is no such thing."""
    return {
        key: [row for row in rows if _is_seen(row)] for key, rows in value.items() if isinstance(rows, list)
    }


def _is_seen(row: Any) -> bool:
    return (
        isinstance(row, list)
        and len(row) == len(Seen._fields)
        and isinstance(row[0], str)
        and all(map(is_figure, row[1:]))
    )


def is_figure(value: Any) -> bool:
    """Whether it is a number that can have been measured: any process may have written the note."""
    return type(value) in (int, float) and 0 <= value < LARGEST


class Hold(NamedTuple):
    """A worker that has just been started, or is about to be."""

    token: str
    command: tuple[str, ...]
    at: float  # seconds since the machine came up
    result: str  # the path of its result: once that is there, it holds nothing

    @property
    def program(self) -> str:
        return same_program(self.command)


def holds_from(note: dict[str, Any], now: float) -> list[Hold]:
    """Those that may still count, without what is no such thing; nor does what an earlier boot left count."""
    rows = note.get("holds")
    return [
        Hold(row["token"], tuple(row["command"]), row["at"], row["result"])
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, dict) and row.keys() >= set(Hold._fields)
        if isinstance(row["token"], str) and isinstance(row["result"], str) and is_figure(row["at"])
        if isinstance(row["command"], list) and all(isinstance(word, str) for word in row["command"])
        if 0 <= now - row["at"] <= LONGEST_SETTLE_S
    ]


def counters_from(note: dict[str, Any], now: float) -> tuple[float, dict[str, float]] | None:
    """(when, what had been counted by then) of the last look of anybody, if that was not long ago."""
    match note.get("counters"):
        case {"at": at, "totals": dict() as totals} if is_figure(at) and 0 <= now - at < RATE_S:
            return at, {key: total for key, total in totals.items() if is_figure(total)}
    return None


def learn(known: Known, command: Sequence[str], token: str, use: Usage, age_s: float) -> None:
    """One more look at a worker, `age_s` after its start."""
    keys = (same_command(command), same_program(command))
    for key in dict.fromkeys(keys):
        rows = known[key] = known.pop(key, [])  # the latest stand last
        before = next((Seen(*row) for row in rows if row[0] == token), Seen(token, 0, 0, 0, age_s, 0))
        rose = use.memory > before.memory * RISE
        seen = Seen(
            token,
            max(before.memory, use.memory),
            max(before.processes, use.processes),
            max(before.cpus, use.cpu_s / age_s if age_s >= 1 else 0),
            age_s if rose else before.rose_s,
            age_s,
        )
        rows[:] = [row for row in rows if row[0] != token] + [list(seen)]
        if len(rows) > WATCHED:  # not those that are on their way: nobody would ever be seen to settle
            del rows[next((at for at, row in enumerate(rows) if Seen(*row).settled), -1)]
    for key in list(known)[:-COMMANDS]:
        del known[key]


def needs_of(known: Known, command: Sequence[str]) -> Needs:
    """The most that the latest settled workers of this command took; else of its program; else a guess."""
    return needs_by(known, same_command(command), same_program(command))


def needs_by(known: Known, *keys: str) -> Needs:
    """By the first key under which something is known."""
    for key in keys:
        settled = [seen for row in known.get(key, ()) if (seen := Seen(*row)).settled][-REMEMBERED:]
        if settled:
            return Needs(
                max(seen.memory for seen in settled),
                max(seen.processes for seen in settled),
                max(seen.cpus for seen in settled),
                min(LONGEST_SETTLE_S, max(1.0, 1.25 * max(seen.rose_s for seen in settled))),
            )
    return UNKNOWN


def touched(needs: Needs, cpus: float) -> dict[str, float]:
    """Needs, by the limit that they count against, on a machine with so many CPUs."""
    return {
        "memory_available": needs.memory,
        "worker_processes": needs.processes,
        "pids_free": needs.processes,
        "load_per_cpu": needs.cpus / cpus,
    }


def outstanding(hold: Hold, needs: Needs, use: Usage | None, now: float) -> Needs | None:
    """What a worker will still take; None once it has settled."""
    age_s = now - hold.at
    if age_s > needs.settle_s or age_s < 0:  # of an earlier boot
        return None
    if use is None or not use.processes:
        return needs
    cpus = use.cpu_s / max(age_s, 0.1)
    return Needs(
        max(0.0, needs.memory - use.memory),
        max(0.0, needs.processes - use.processes),
        max(0.0, needs.cpus - cpus),
        needs.settle_s,
    )
