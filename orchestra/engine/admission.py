"""Admission: who of those that wait may start now; for whoever starts them, and for whoever asks.

Room is asked for one worker at a time, in their order. What was refused to one is refused to all that
would ask the same; smaller ones may pass, so that no room stays empty, but nobody passes one with the same
limits that has waited for long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from orchestra.engine.room import Room
from orchestra.host import clock
from orchestra.model.plan import WorkerEntry
from orchestra.model.record import WorkerRecord
from orchestra.model.throttle import Signal, describe
from orchestra.store.layout import Layout

PACE_S = 0.05
MOST_PACING_S = 60.0  # in one command: who calls us may have two minutes
OVERTAKEN_S = 60.0  # for so long a deferred worker lets smaller ones pass
PACED = "starts_per_s"


class Refusal(NamedTuple):
    """What speaks against one who asked for room; or against one that it must let go before it."""

    reason: str
    signals: list[dict[str, Any]]  # as JSON has them

    @classmethod
    def of(cls, spoke: list[Signal]) -> Refusal:
        return cls(describe(spoke), [signal.to_json() for signal in spoke])

    def behind(self, name: str) -> Refusal:
        """As it is told to somebody who waits behind that one."""
        reason = f"waits behind {name}, which has waited long enough to be passed by nobody: {self.reason}"
        return Refusal(reason, [{**signal, "worker": name} for signal in self.signals])

    @property
    def only_paced(self) -> bool:
        return [signal["signal"] for signal in self.signals] == [PACED]


class Admission:
    """Of one batch, beside so many workers of the run that are at work already."""

    def __init__(self, layout: Layout, room: Room | None, at_work: int) -> None:
        self.layout = layout
        self.room = room  # None: the host is not asked
        self.at_work = at_work
        self.holding: set[str] = set()  # those of the batch that are at work, or will be
        self.refused: dict[object, Refusal] = {}  # by limits and command
        self.queues: dict[object, tuple[str, Refusal]] = {}  # by limits: who waits there, and for what
        self.patience_s = MOST_PACING_S

    def known(self, record: WorkerRecord) -> Refusal | None:
        """Of one who asked the same before it, or whom it must not pass."""
        limits = limits_of(record.entry)
        if refusal := self.refused.get((limits, record.entry.command)):
            return refusal
        if queue := self.queues.get(limits):
            name, refusal = queue
            return refusal.behind(name)
        return None

    def ask(self, record: WorkerRecord) -> Refusal | None:
        """None: the room is its own, until it is let go. Who is refused may ask again."""
        refusal = self.known(record) or self._ask(record)
        if refusal is None:
            self.holding.add(record.name)
        return refusal

    def _ask(self, record: WorkerRecord) -> Refusal | None:
        if self.room is None:
            return None
        result = self.layout.attempt_result(record.name, record.attempt)
        spoke = self.room.take(record, self.at_work + len(self.holding), result)
        return Refusal.of(spoke) if spoke else None

    def pace(self, record: WorkerRecord, refusal: Refusal | None) -> Refusal | None:
        """Too many starts at a time are spread, not deferred, as long as the caller may be kept waiting."""
        while refusal and refusal.only_paced and self.patience_s > 0:
            clock.pause(PACE_S)
            self.patience_s -= PACE_S
            refusal = self.ask(record)
        return refusal

    def refuse(self, record: WorkerRecord, refusal: Refusal) -> None:
        """For good in this batch; and all that ask the same."""
        limits = limits_of(record.entry)
        self.refused[(limits, record.entry.command)] = refusal
        if limits not in self.queues and has_waited(record):
            self.queues[limits] = (record.name, refusal)

    def let_go(self, record: WorkerRecord) -> None:
        """It does not run: the room that it was given is free again."""
        if record.name in self.holding:
            self.holding.discard(record.name)
            if self.room is not None:
                self.room.let_go(record.token)


class Forecast(Admission):
    """The same, with nothing taken."""

    def __init__(self, layout: Layout, room: Room | None, at_work: int) -> None:
        super().__init__(layout, room, at_work)
        self.promised: dict[str, float] = defaultdict(float)  # to those that would start, by limit

    def _ask(self, record: WorkerRecord) -> Refusal | None:
        if self.room is None:
            return None
        spoke = self.room.ask(record.entry, self.at_work + len(self.holding), promised=self.promised)
        if spoke and not (refusal := Refusal.of(spoke)).only_paced:
            return refusal
        for key, amount in self.room.share(record.entry).items():
            self.promised[key] += amount
        return None


def forecast(
    layout: Layout, room: Room | None, at_work: int, records: Iterable[WorkerRecord]
) -> Iterator[tuple[WorkerRecord, Refusal | None]]:
    """What would become of a batch at this moment, one after another."""
    admission = Forecast(layout, room, at_work)
    for record in records:
        if refusal := admission.ask(record):
            admission.refuse(record, refusal)
        yield record, refusal


def limits_of(entry: WorkerEntry) -> object:
    return tuple(sorted(entry.throttle.items()))


def has_waited(record: WorkerRecord) -> bool:
    """For so long that nobody younger with its limits is to pass."""
    waited_s = clock.seconds_since(record.deferral.since) if record.deferral else None
    return waited_s is not None and waited_s > OVERTAKEN_S
