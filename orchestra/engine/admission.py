"""Admission: who of one batch may start now.

Room is asked for one worker at a time, in their order. What was refused to one is refused to all that
would ask the same; smaller ones may pass, so that no room stays empty, but not one that has waited for long.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from orchestra.engine.room import Room
from orchestra.host import clock
from orchestra.model.record import WorkerRecord
from orchestra.model.throttle import Signal, describe
from orchestra.store.layout import Layout

PACE_S = 0.05
MOST_PACING_S = 60.0  # in one command: who calls us may have two minutes
OVERTAKEN_S = 60.0  # for so long a deferred worker lets smaller ones pass


class Refusal(NamedTuple):
    """What speaks against one who asked for room."""

    reason: str
    signals: list[dict[str, Any]]  # as JSON has them

    @classmethod
    def of(cls, spoke: list[Signal]) -> Refusal:
        return cls(describe(spoke), [signal.to_json() for signal in spoke])


def asks(record: WorkerRecord) -> tuple[object, object]:
    """(who must not be overtaken by the same limits, who asks the very same)."""
    limits = tuple(sorted(record.entry.throttle.items()))
    return limits, (limits, record.entry.command)


class Admission:
    """Of one batch, beside so many workers of the run that are at work already."""

    def __init__(self, layout: Layout, room: Room | None, at_work: int) -> None:
        self.layout = layout
        self.room = room  # None: the host is not asked
        self.at_work = at_work
        self.holding: set[str] = set()  # those of the batch that are at work, or will be
        self.refused: dict[object, Refusal] = {}  # by what was asked
        self.patience_s = MOST_PACING_S

    def known(self, record: WorkerRecord) -> Refusal | None:
        """Of one who asked the same before it, or whom it must not overtake."""
        queue, question = asks(record)
        return self.refused.get(queue) or self.refused.get(question)

    def ask(self, record: WorkerRecord) -> Refusal | None:
        """None: the room is its own, until it is let go. Who is refused may ask again."""
        if refusal := self.known(record):
            return refusal
        if self.room is not None:
            result = self.layout.attempt_result(record.name, record.attempt)
            if spoke := self.room.take(record, self.at_work + len(self.holding), result):
                return Refusal.of(spoke)
        self.holding.add(record.name)
        return None

    def pace(self, record: WorkerRecord, refusal: Refusal | None) -> Refusal | None:
        """Too many starts at a time are spread, not deferred, as long as the caller may be kept waiting."""
        while refusal and [s["signal"] for s in refusal.signals] == ["starts_per_s"] and self.patience_s > 0:
            clock.pause(PACE_S)
            self.patience_s -= PACE_S
            refusal = self.ask(record)
        return refusal

    def refuse(self, record: WorkerRecord, refusal: Refusal) -> None:
        """For good in this batch; and all that ask the same."""
        queue, question = asks(record)
        self.refused[question] = refusal
        if queue not in self.refused and has_waited(record):
            self.refused[queue] = refusal

    def let_go(self, record: WorkerRecord) -> None:
        """It does not run: the room that it was given is free again."""
        if record.name in self.holding:
            self.holding.discard(record.name)
            if self.room is not None:
                self.room.let_go(record.token)


def has_waited(record: WorkerRecord) -> bool:
    """For so long that nobody younger with its limits is to pass."""
    waited_s = clock.seconds_since(record.deferral.since) if record.deferral else None
    return waited_s is not None and waited_s > OVERTAKEN_S
