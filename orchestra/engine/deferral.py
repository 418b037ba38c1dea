"""What a deferred worker waits for, and how likely it is to start next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from orchestra.engine.admission import Refusal, forecast
from orchestra.engine.observe import Observer
from orchestra.engine.room import Room
from orchestra.engine.spawn import candidates
from orchestra.errors import BadConfig
from orchestra.host import clock
from orchestra.model.record import State, WorkerRecord
from orchestra.model.snapshot import WorkerView
from orchestra.model.throttle import limit_of, never_met

LATELY_S = 3600.0  # ends before that say nothing of the next one


class Outlook(NamedTuple):
    """`expected_s` is a guess, by how fast workers of this run have ended lately; None: no ground for one."""

    ahead: int | None  # how many are tried before it; None: it cannot start here, or that is not known
    expected_s: float | None
    now: list[dict[str, Any]] | None  # what speaks at this moment; None: it cannot be asked for
    outlook: str  # that in words


def room_of(observer: Observer) -> Room:
    """The host by the limits of whoever is at work on the run: where that is `orchestra run`, of its call.

    Raises BadConfig.
    """
    narration = observer.history.narration
    narrated = narration is not None and observer.narrating()
    return Room(observer.layout.root, narration.throttle if narration and narrated else None)


def outlooks(observer: Observer, records: list[WorkerRecord]) -> dict[str, Outlook]:
    """Worker -> what keeps it waiting at this moment, and how likely it is to start next."""
    at_work, narrated = observer.at_work(), observer.narrating()
    each_s = _seconds_for_each_end(observer) if at_work else None
    try:
        room = room_of(observer)
    except BadConfig as error:
        told = f"what speaks now is not known: {error.message}"
        return {
            record.name: Outlook(None, None, None, f"{record.reason or 'deferred'}; {told}")
            for record in records
        }
    wanted = {record.name for record in records}
    found: dict[str, Outlook] = {}
    ahead = 0
    for record, refusal in forecast(observer.layout, room, at_work, candidates(observer)):
        hopeless = refusal is not None and never_met(refusal.signals) is not None
        if record.name in wanted:
            guess = None if hopeless or each_s is None else round((ahead + 1) * each_s, 1)
            if refusal is None:
                guess = 0.0 if narrated else None
            signals = [] if refusal is None else refusal.signals
            told = _in_words(observer, refusal, narrated=narrated)
            found[record.name] = Outlook(None if hopeless else ahead, guess, signals, told)
        ahead += not hopeless
    return found


def _in_words(observer: Observer, refusal: Refusal | None, *, narrated: bool) -> str:
    if refusal is None:
        start = "" if narrated else f": orchestra spawn {observer.layout.words} starts it"
        return f"there is room for it now{start}"
    kinds = {limit_of(signal["signal"]).kind for signal in refusal.signals}
    if kinds == {"soft"} and not any("worker" in signal for signal in refusal.signals):
        return f"{refusal.reason}; all the same it starts once nobody else of this run is at work"
    return refusal.reason


def as_now(observer: Observer, views: Sequence[WorkerView]) -> tuple[list[WorkerView], dict[str, Outlook]]:
    """(the views, in which whoever waits has as its reason what speaks now; their outlooks)."""
    waiting = [view.record for view in views if view.state == State.DEFERRED]
    found = outlooks(observer, waiting) if waiting else {}
    return [
        view._replace(reason=found[view.record.name].outlook) if view.record.name in found else view
        for view in views
    ], found


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
        **(found._asdict() if (found := outlooks(observer, [record]).get(record.name)) else {}),
    }


def _seconds_for_each_end(observer: Observer) -> float | None:
    ages = [age for end in observer.history.ends.values() if (age := clock.seconds_since(end)) is not None]
    lately = [age for age in ages if age < LATELY_S]
    return max(lately) / len(lately) if len(lately) > 1 else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
