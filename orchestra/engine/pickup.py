"""Deferred workers are picked up as soon as there is room, oldest first.

The host is looked at on every end of a worker, and between them after pauses that grow and are
never quite alike, so that many who wait do not all come at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from orchestra.engine.admission import Refusal, forecast
from orchestra.engine.observe import Observer
from orchestra.engine.room import Room
from orchestra.engine.spawn import candidates
from orchestra.engine.wait import Heard, Scope, Teller, WaitReport, names_in_scope, pause, wait
from orchestra.errors import NarratorAlreadyActive
from orchestra.host import clock
from orchestra.model.record import State, WorkerRecord
from orchestra.model.throttle import never_met

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 2.0  # a look takes some milliseconds


class Patience:
    """The pauses between two looks at the host."""

    def __init__(self) -> None:
        self.pause_s = FIRST_PAUSE_S

    def next_s(self) -> float:
        pause_s = self.pause_s * random.uniform(0.75, 1.25)
        self.pause_s = min(LONGEST_PAUSE_S, self.pause_s * 1.5)
        return pause_s

    def start_over(self) -> None:
        self.pause_s = FIRST_PAUSE_S


def has_room(observer: Observer, room: Room | None, waiting: list[WorkerRecord]) -> bool:
    """Whether any of these could start now, or there is something to tell of one."""
    if room is None or any(record.state != State.DEFERRED for record in waiting):
        return bool(waiting)
    tried = forecast(observer.layout, room, observer.at_work(), waiting)
    return any(refusal is None or is_news(record, refusal) for record, refusal in tried)


def is_news(record: WorkerRecord, refusal: Refusal) -> bool:
    """Whether its limit is never met here since it was tried, or no longer so: that is told by trying."""
    told = never_met(record.deferral.signals) if record.deferral else None
    return (never_met(refusal.signals) is None) != (told is None)


def drain(
    observer: Observer,
    scope: Scope,
    *,
    timeout_s: float,
    start: Callable[[set[str], Room], bool],
    on_change: Teller | None = None,
) -> WaitReport:
    """Wait, and start what is deferred as soon as there is room.

    `start` takes names and the host to ask, holds the run's lock while it starts them, and tells whether it
    has started any. Where another narrator has the lock, that one is left to it. Raises as `wait` does, and
    NarratorAlreadyActive where another one sits in the run's seat.
    """
    deadline = clock.monotonic() + timeout_s
    room, patience, heard = Room(observer.layout.root), Patience(), Heard(scope.since or 0)
    while True:
        waiting = _waiting(observer, scope)
        room.read_settings()
        if waiting and has_room(observer, room, waiting):
            try:
                if start({record.name for record in waiting}, room):
                    patience.start_over()
            except NarratorAlreadyActive as error:
                if "seat" in error.details:
                    raise
            observer.refresh()
        report = wait(observer, scope, timeout_s=0, on_change=on_change, heard=heard)
        left_s = deadline - clock.monotonic()
        if report.outcome != "timeout" or left_s <= 0:
            return report
        pause_s = min(left_s, patience.next_s()) if _waiting(observer, scope) else left_s
        at_work = tuple(v.record.name for v in report.views if v.state in (State.RUNNING, State.STALLED))
        if not at_work:
            pause(observer, pause_s)
            continue
        change = Scope(at_work, since=observer.history.op, keep_going=True, first=True)
        if wait(observer, change, timeout_s=pause_s, on_change=on_change, heard=heard).outcome != "timeout":
            patience.start_over()


def _waiting(observer: Observer, scope: Scope) -> list[WorkerRecord]:
    names = set(names_in_scope(observer, scope))
    return [record for record in candidates(observer) if record.name in names]
