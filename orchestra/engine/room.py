"""Room on the host: whether one more worker may start, with what those before it will still take.

One look at the host serves the decisions of a moment. Who may start is held at once, under a lock
that all runs of the root share, so that two narrators cannot give the same room away twice.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from typing import Any, NamedTuple

from orchestra.engine.place import temporary
from orchestra.engine.settings import read_settings
from orchestra.errors import BadConfig
from orchestra.host import clock, load, tree
from orchestra.model.likeness import in_short, same_program
from orchestra.model.plan import Throttle, WorkerEntry
from orchestra.model.record import WorkerRecord
from orchestra.model.reservation import (
    RATE_S,
    Hold,
    Known,
    Needs,
    counters_from,
    holds_from,
    known_from,
    learn,
    needs_of,
    outstanding,
    touched,
)
from orchestra.model.throttle import NAMED, Figures, Signal, limits_from, out_of_reach, pressure
from orchestra.model.usage import Usage
from orchestra.store.layout import notes_of
from orchestra.store.note import Note

FRESH_S = 0.25  # for how long one look is good
NOTHING: Figures = {}
_NOTHING = Needs(0.0, 0.0, 0.0, 0.0)


class Look(NamedTuple):
    """The host at one moment."""

    at: float  # seconds since the machine came up
    figures: dict[str, float]
    rests: dict[str, Needs]  # by token: what each of those that have just started will still take
    named: set[str]  # tokens of those of them that are counted under their program's name already
    holds: list[Hold]


class Room:
    """The host, asked for the workers of the runs under one root."""

    def __init__(self, root: str, told: str | None = None) -> None:
        """`told`: the limits of a call, as its variable has them; None: of this one. Raises BadConfig."""
        self.root = root
        self.told = told
        self.settings = read_settings(told)
        self.needs = Note(notes_of(root).needs)
        self.holds = Note(notes_of(root).holds)
        self.known: Known = known_from(self.needs.read())
        self.cpus = load.cpus()
        self.counters: load.Counters | None = None
        self.seen: Look | None = None
        self.names: set[str] = set()  # of processes that some limit is about
        self.needs_by_command: dict[tuple[str, ...], Needs] = {}

    def read_settings(self) -> None:
        """As they are now; as they were, while they are wrong."""
        with contextlib.suppress(BadConfig):
            self.settings = read_settings(self.told)

    def limits(self, throttle: Throttle) -> dict[str, float | None]:
        """The defaults, over them the user's, over them the plan's and the worker's, then this call's."""
        return limits_from(self.settings.config, throttle, self.settings.environment)

    def ask(self, entry: WorkerEntry, at_work: int, *, promised: Figures = NOTHING) -> list[Signal]:
        """What speaks against one more worker, beside those of its run that are at work.

        `promised`: what those among these take that have not been started yet (see `share`).
        """
        holds = holds_from(self.holds.read(), clock.since_boot())
        return self._judge(entry, at_work, holds, promised)

    def share(self, entry: WorkerEntry) -> dict[str, float]:
        """What it needs, by the limit that it counts against."""
        program = NAMED + same_program(entry.command)
        return {**touched(self._needs(entry.command), self.cpus), program: 1.0, "max_workers": 1.0}

    def take(self, record: WorkerRecord, at_work: int, result: str) -> list[Signal]:
        """As `ask`; where nothing speaks, what it needs is held, until its result is there at the latest."""
        with self.holds.changing() as note:
            now = clock.since_boot()
            holds = holds_from(note, now)
            spoke = self._judge(record.entry, at_work, holds)
            note["counters"] = self.counters and self.counters._asdict()
            if not spoke:
                holds.append(Hold(record.token, in_short(record.entry.command or ()), now, result))
                note["holds"] = [hold._asdict() for hold in holds]
        return spoke

    def let_go(self, token: str) -> None:
        """It has not started after all."""
        with self.holds.changing() as note:
            holds = holds_from(note, clock.since_boot())
            note["holds"] = [hold._asdict() for hold in holds if hold.token != token]

    def _judge(
        self, entry: WorkerEntry, at_work: int, holds: list[Hold], promised: Figures = NOTHING
    ) -> list[Signal]:
        limits = self.limits(entry.throttle)
        seen = self.look(limits)
        now = clock.since_boot()
        started = promised.get("max_workers", 0.0)
        recent = sum(1 for hold in holds if 0 <= now - hold.at < 1.0)
        spoke = pressure(
            seen.figures | {"max_workers": float(at_work) - started, "starts_per_s": float(recent)},
            limits,
            first=at_work == 0,
            held=self._held(holds, seen, promised),
            needs=touched(self._needs(entry.command), self.cpus),
        )
        return out_of_reach(spoke, load.totals(self.root, temporary())) if spoke else spoke

    def _held(self, holds: list[Hold], seen: Look, promised: Figures) -> dict[str, float]:
        """What these will still take together, by the limit that it counts against."""
        held: dict[str, float] = defaultdict(float, promised)
        for hold in holds:
            rest = seen.rests.get(hold.token)
            if rest is None:  # it came after the look: it will take all that it needs
                rest = self._needs(hold.command)
            if hold.token not in seen.named:
                held[NAMED + hold.program] += 1
            for key, amount in touched(rest, self.cpus).items():
                held[key] += amount
        return held

    def _needs(self, command: tuple[str, ...] | None) -> Needs:
        known = self.needs_by_command
        command = command or ()
        if command not in known:
            known[command] = needs_of(self.known, command)
        return known[command]

    # --- looking ----------------------------------------------------------------------------

    def look(self, limits: dict[str, float | None], *, fresh: bool = False) -> Look:
        """The host as it is now, or was a moment ago."""
        now = clock.since_boot()
        wanted = {key.removeprefix(NAMED) for key in limits if key.startswith(NAMED)}
        unknown = not wanted <= self.names
        if self.seen is None or fresh or unknown or now - self.seen.at > FRESH_S:
            self.names |= wanted
            note = self.holds.read()
            figures, self.counters = load.figures(self.root, temporary(), self._counters_before(note, now))
            members = tree.carrying()
            figures["worker_processes"] = float(sum(map(len, members.values())))
            named = tree.named(self.names) if self.names else {}
            figures |= {NAMED + name: float(len(pids)) for name, pids in named.items()}
            holds = holds_from(note, now)
            rests = self._rests(holds, members, now)
            told = {
                hold.token
                for hold in holds
                if rests[hold.token] is _NOTHING
                or named.get(hold.program, set()).intersection(members.get(hold.token, ()))
            }
            self.seen = Look(now, figures, rests, told, holds)
        return self.seen

    def _counters_before(self, note: dict[str, Any], now: float) -> load.Counters | None:
        if self.counters is not None and now - self.counters.at < RATE_S:
            return self.counters
        told = counters_from(note, now)
        return load.Counters(*told) if told else None

    def _rests(self, holds: list[Hold], members: dict[str, list[int]], now: float) -> dict[str, Needs]:
        """What each hold will still take, by what its worker uses by now; and learn from that."""
        rests = {}
        learned: list[tuple[Hold, Usage]] = []
        for hold in holds:
            use = tree.usage(members.get(hold.token, ()))
            if use.processes:
                learned.append((hold, use))
            over = os.path.exists(hold.result)
            rest = None if over else outstanding(hold, self._needs(hold.command), use, now)
            rests[hold.token] = rest or _NOTHING
        if learned:
            with self.needs.changing() as note:
                self.known = known_from(note)
                for hold, use in learned:
                    learn(self.known, hold.command, hold.token, use, now - hold.at)
                note.clear()
                note.update(self.known)
            self.needs_by_command.clear()
        return rests
