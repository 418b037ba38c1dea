"""What a deferred worker waits for, and how likely it is to start next."""

from __future__ import annotations

from typing import Any, NamedTuple

from orchestra.engine.observe import Observer
from orchestra.engine.spawn import candidates
from orchestra.host import clock
from orchestra.model.record import ENDED, State, WorkerRecord
from orchestra.model.throttle import describe

LATEST = 10  # ends by which the next one is guessed


class Outlook(NamedTuple):
    """`expected_s` is a guess, by how fast workers of this run have ended lately; None: no ground for one."""

    ahead: int  # how many are tried before it
    expected_s: float | None


def outlooks(observer: Observer) -> dict[str, Outlook]:
    """Worker -> how likely it is to start next, of all that are deferred."""
    waiting = [record for record in candidates(observer) if record.state == State.DEFERRED]
    each_s = _seconds_for_each_end(observer) if waiting else None
    return {
        record.name: Outlook(ahead, None if each_s is None else round((ahead + 1) * each_s, 1))
        for ahead, record in enumerate(waiting)
    }


def deferral_story(observer: Observer, record: WorkerRecord) -> dict[str, Any]:
    """Since when and why, by its last answer; what speaks at this moment; how likely it is to start next."""
    from orchestra.engine.room import Room  # asks the host

    deferral = record.deferral
    if deferral is None:
        return {}
    outlook = outlooks(observer).get(record.name, Outlook(0, None))
    now = Room(observer.layout.root).ask(record.entry, observer.at_work())
    return {
        "since": deferral.since,
        "waited_s": _rounded(clock.seconds_since(deferral.since)),
        "times": deferral.times,
        "waits_for": deferral.signals,
        "reason": deferral.reason,
        "now": [signal.to_json() for signal in now],
        "outlook": describe(now) if now else "there is room for it now",
        "ahead": outlook.ahead,
        "expected_s": outlook.expected_s if now else 0,
    }


def _seconds_for_each_end(observer: Observer) -> float | None:
    ends = [r.ended_at for r in observer.history.workers.values() if r.state in ENDED and r.started_at]
    ages = sorted(age for end in ends if end and (age := clock.seconds_since(end)) is not None)[:LATEST]
    if len(ages) < 2 or not observer.at_work():
        return None
    return max(ages) / len(ages)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
