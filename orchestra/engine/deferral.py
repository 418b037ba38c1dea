"""What a deferred worker waits for, and how likely it is to start next."""

from __future__ import annotations

from typing import Any, NamedTuple

from orchestra.engine.admission import asks
from orchestra.engine.observe import Observer
from orchestra.engine.spawn import candidates
from orchestra.errors import BadConfig
from orchestra.host import clock
from orchestra.model.record import ENDED, WorkerRecord
from orchestra.model.throttle import describe

LATEST = 10  # ends by which the next one is guessed


class Outlook(NamedTuple):
    """`expected_s` is a guess, by how fast workers of this run have ended lately; None: no ground for one."""

    ahead: int  # how many are tried before it
    expected_s: float | None
    now: list[dict[str, Any]] | None  # what speaks at this moment; None: it cannot be asked for
    outlook: str  # that in words


def outlooks(observer: Observer, records: list[WorkerRecord]) -> dict[str, Outlook]:
    """Worker -> what keeps it waiting at this moment, and how likely it is to start next."""
    from orchestra.engine.room import Room  # asks the host

    places = {record.name: place for place, record in enumerate(candidates(observer))}
    at_work = observer.at_work()
    each_s = _seconds_for_each_end(observer) if at_work else None
    try:
        room = Room(observer.layout.root)
    except BadConfig as error:
        told = f"what speaks now is not known: {error.message}"
        return {r.name: _outlook(places.get(r.name, 0), each_s, None, told) for r in records}
    alike = {asks(record)[1]: record.entry for record in records}
    spoke = {question: room.ask(entry, at_work) for question, entry in alike.items()}
    found = {}
    for record in records:
        signals = spoke[asks(record)[1]]
        told = describe(signals) if signals else "there is room for it now"
        now = [signal.to_json() for signal in signals]
        found[record.name] = _outlook(places.get(record.name, 0), each_s, now, told)
    return found


def _outlook(ahead: int, each_s: float | None, now: list[dict[str, Any]] | None, told: str) -> Outlook:
    expected_s = None if each_s is None else round((ahead + 1) * each_s, 1)
    return Outlook(ahead, 0 if now == [] and not ahead else expected_s, now, told)


def deferral_story(observer: Observer, record: WorkerRecord) -> dict[str, Any]:
    """Since when and why, by its last answer; what speaks at this moment; how likely it is to start next."""
    deferral = record.deferral
    if deferral is None:
        return {}
    return {
        "since": deferral.since,
        "waited_s": _rounded(clock.seconds_since(deferral.since)),
        "times": deferral.times,
        "waits_for": deferral.signals,
        "reason": deferral.reason,
        **outlooks(observer, [record])[record.name]._asdict(),
    }


def _seconds_for_each_end(observer: Observer) -> float | None:
    ends = [r.ended_at for r in observer.history.workers.values() if r.state in ENDED and r.started_at]
    ages = sorted(age for end in ends if end and (age := clock.seconds_since(end)) is not None)[:LATEST]
    if len(ages) < 2:
        return None
    return max(ages) / len(ages)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
