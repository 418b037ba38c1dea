"""Room on the host: whether one more worker may start, with what those before it will still take.

One look at the host serves the decisions of a moment. Who may start is held at once, under a lock
that all runs of the root share, so that two narrators cannot give the same room away twice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from orchestra.engine.place import temporary
from orchestra.engine.settings import read_settings
from orchestra.host import clock, load, tree
from orchestra.model.plan import Throttle, WorkerEntry
from orchestra.model.record import WorkerRecord
from orchestra.model.reservation import (
    LONGEST_SETTLE_S,
    Hold,
    Known,
    Needs,
    known_from,
    learn,
    needs_of,
    outstanding,
    touched,
)
from orchestra.model.throttle import NAMED, Signal, limits_from, out_of_reach, pressure
from orchestra.model.usage import Usage
from orchestra.store.layout import notes_of
from orchestra.store.note import Note

FRESH_S = 0.25  # for how long one look is good
RATE_S = 60.0  # two looks that lie further apart make no rate
_FIELDS = {"token": str, "command": list, "at": float, "result": str}  # of a hold in the note
_NOTHING = Needs(0.0, 0.0, 0.0, 0.0)


class Sight(NamedTuple):
    """The host at one moment."""

    at: float  # seconds since the machine came up
    figures: dict[str, float]
    rests: dict[str, Needs]  # by token: what each of those that have just started will still take
    holds: list[Hold]


class Room:
    """The host, asked for the workers of the runs under one root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.settings = read_settings()
        self.needs = Note(notes_of(root).needs)
        self.holds = Note(notes_of(root).holds)
        self.known: Known = known_from(self.needs.read())
        self.cpus = load.cpus()
        self.counters: load.Counters | None = None
        self.sight: Sight | None = None

    def limits(self, throttle: Throttle) -> dict[str, float | None]:
        """The defaults, over them the user's, over them the plan's and the worker's, then this call's."""
        return limits_from(self.settings.config, throttle, self.settings.environment)

    def ask(self, entry: WorkerEntry, at_work: int, *, besides: Sequence[WorkerEntry] = ()) -> list[Signal]:
        """What speaks against one more worker, beside those of its run that are at work.

        `besides`: those among them that have not been started yet.
        """
        rows = [{"token": "", "command": e.command, "at": -1.0} for e in besides]
        return self._judge(entry, at_work, _rows(self.holds.read()) + rows)

    def take(self, record: WorkerRecord, at_work: int, result: str) -> list[Signal]:
        """As `ask`; where nothing speaks, what it needs is held, until its result is there at the latest."""
        with self.holds.changing() as note:
            rows = _rows(note)
            spoke = self._judge(record.entry, at_work, rows)
            note["counters"] = self.counters and self.counters._asdict()
            if not spoke:
                rows.append(
                    {
                        "token": record.token,
                        "command": list(record.entry.command or ()),
                        "at": clock.since_boot(),
                        "result": result,
                    }
                )
                note["holds"] = rows
        return spoke

    def let_go(self, token: str) -> None:
        """It has not started after all."""
        with self.holds.changing() as note:
            note["holds"] = [row for row in _rows(note) if row["token"] != token]

    def _judge(self, entry: WorkerEntry, at_work: int, rows: list[dict[str, Any]]) -> list[Signal]:
        limits = self.limits(entry.throttle)
        sight = self.look(limits)
        now = clock.since_boot()
        recent = sum(1 for row in rows if 0 <= now - row["at"] < 1.0)
        held: dict[str, float] = {}
        for row in rows:
            rest = sight.rests.get(row["token"])
            if rest is None:  # it came after the look: it will take all that it needs
                rest = self._needs(row["command"])
                name = NAMED + os.path.basename((row["command"] or [""])[0])
                held[name] = held.get(name, 0.0) + 1
            for key, amount in touched(rest, self.cpus).items():
                held[key] = held.get(key, 0.0) + amount
        spoke = pressure(
            sight.figures | {"max_workers": float(at_work), "starts_per_s": float(recent)},
            limits,
            first=at_work == 0,
            held=held,
            needs=touched(self._needs(entry.command), self.cpus),
        )
        return out_of_reach(spoke, load.totals(self.root, temporary())) if spoke else spoke

    def _needs(self, command: Any) -> Needs:
        return needs_of(self.known, command or ())

    # --- looking ----------------------------------------------------------------------------

    def look(self, limits: dict[str, float | None], *, fresh: bool = False) -> Sight:
        """The host as it is now, or was a moment ago."""
        now = clock.since_boot()
        if self.sight is None or fresh or now - self.sight.at > FRESH_S:
            before = self.counters or _counters(self.holds.read())
            figures, self.counters = load.figures(self.root, temporary(), before)
            members = tree.carrying()
            figures["worker_processes"] = float(sum(map(len, members.values())))
            names = {key.removeprefix(NAMED) for key in limits if key.startswith(NAMED)}
            for name, count in (tree.named(names) if names else {}).items():
                figures[NAMED + name] = count
            holds = [
                Hold(row["token"], tuple(row["command"]), row["at"], row["result"])
                for row in _rows(self.holds.read())
            ]
            self.sight = Sight(now, figures, self._rests(holds, members, now), holds)
        return self.sight

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
                note |= self.known
        return rests


def _rows(note: dict[str, Any]) -> list[dict[str, Any]]:
    """The holds that may still count; what was left from before the machine came up does not."""
    now = clock.since_boot()
    rows = note.get("holds")
    return [
        row
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, dict) and _FIELDS.keys() <= row.keys()
        if all(isinstance(row[key], kind) for key, kind in _FIELDS.items())
        if 0 <= now - row["at"] <= LONGEST_SETTLE_S
    ]


def _counters(note: dict[str, Any]) -> load.Counters | None:
    """Of the last look, if that was not long ago."""
    match note.get("counters"):
        case {"at": int() | float() as at, "totals": dict() as totals}:
            if 0 <= clock.since_boot() - at < RATE_S:
                return load.Counters(at, {k: n for k, n in totals.items() if isinstance(n, int | float)})
    return None
