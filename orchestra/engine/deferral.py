"""What a deferred worker waits for, and how likely it is to start next."""

from __future__ import annotations

from typing import Any

from orchestra.engine.observe import Observer
from orchestra.engine.room import Room
from orchestra.engine.spawn import candidates
from orchestra.host import clock
from orchestra.model.record import ENDED, State, WorkerRecord
from orchestra.model.throttle import describe

LATEST = 10  # ends by which the next one is guessed


def deferral_story(observer: Observer, record: WorkerRecord) -> dict[str, Any]:
    """Since when and why, by its last answer; what speaks at this moment; who stands before it.

    `expected_s` is a guess, by how fast workers of this run have ended lately; None: no ground for one.
    """
    deferral = record.deferral
    if deferral is None:
        return {}
    ahead = [other.name for other in candidates(observer)]
    place = ahead.index(record.name) if record.name in ahead else 0
    at_work = sum(1 for other in observer.history.workers.having("going") if other.state == State.RUNNING)
    now = Room(observer.layout.root).ask(record.entry, at_work)
    return {
        "since": deferral.since,
        "waited_s": _rounded(clock.seconds_since(deferral.since)),
        "times": deferral.times,
        "waits_for": deferral.signals,
        "reason": deferral.reason,
        "now": [signal.to_json() for signal in now],
        "outlook": describe(now) if now else "there is room for it now",
        "ahead": place,
        "expected_s": 0 if not now else _expected_s(observer, place, at_work),
    }


def _expected_s(observer: Observer, ahead: int, at_work: int) -> float | None:
    ends = [r.ended_at for r in observer.history.workers.values() if r.state in ENDED and r.started_at]
    ages = sorted(age for end in ends if end and (age := clock.seconds_since(end)) is not None)[:LATEST]
    if len(ages) < 2 or not at_work:
        return None
    return _rounded((ahead + 1) * max(ages) / len(ages))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
