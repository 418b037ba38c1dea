"""What the events say: the fold of a run's log.

Facts are keyed by worker, attempt and kind, so that a fact seen by two observers counts
once, and a late fact about an abandoned attempt changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from orchestra.model import event as log
from orchestra.model.brief import long_brief_sha256
from orchestra.model.event import ALERTS, COMMANDS, Event
from orchestra.model.plan import Plan, WorkerEntry, entry_from_json, plan_from_json
from orchestra.model.record import (
    ENDED,
    Deferral,
    Narration,
    Seat,
    State,
    StopMeant,
    WorkerRecord,
    check_attempt,
)
from orchestra.model.trail import process_from_json
from orchestra.model.verdict import Verdict
from orchestra.model.workers import Workers

_DEFERRED = State.DEFERRED
_make = tuple.__new__  # half as long as a NamedTuple takes by its own way
LATEST = 10  # ends, by which the next one is guessed

Draft = dict[str, Any]
"""A WorkerRecord's fields, in their order, while a row of events is folded into them.

What follows is folded a million times over for one long log; its speed counts.
"""


class History:
    """A run as its log has it. `apply` is the only thing that changes it."""

    def __init__(self) -> None:
        self.op = 0
        self.epoch = 0
        self.created: str | None = None
        self.plan_json: dict[str, Any] | bytes | None = None  # bytes: its JSON text, not yet read
        self.plan_sha256: str | None = None
        self.base = ""
        self.workers = Workers()
        self.seat: str | None = None
        self.seat_since: str | None = None
        self.unseated: set[str] = set()
        self.narration: Narration | None = None
        self.alerts: list[dict[str, Any]] = []
        self.ends: dict[str, str] = {}  # worker -> when, of the LATEST that ended after they had started
        self.odd: list[int] = []  # operations that say nothing that can be understood
        self.whole = True  # False: cut short in the middle of a fact, so that it must not be kept
        self._drafts: dict[str, Draft] = {}
        self._plan: Plan | None = None
        self._planned: dict[str, WorkerRecord] | None = None

    @property
    def plan(self) -> Plan | None:
        if self._plan is None and self.plan_json is not None:
            given = self.plan_json
            self._plan = plan_from_json(json.loads(given) if isinstance(given, bytes) else given)
        return self._plan

    def planned(self) -> dict[str, WorkerRecord]:
        """All that the plan has, as it was before anybody asked for it, in the plan's order."""
        if self._planned is None:
            created = self.created or ""
            self._planned = {
                entry.name: WorkerRecord(entry.name, phase.name, entry, 1, "", State.PLANNED, created, 0)
                for phase in (self.plan.phases if self.plan else ())
                for entry in phase.workers
            }
        return self._planned

    def apply(self, events: Iterable[Event]) -> History:
        self.whole = False
        drafts, facts = self._drafts, _FACTS.get
        done, failed = ENDED
        last, newest = self.op, self.epoch
        try:
            for event in events:
                op, at, topic, kind, epoch, data = event
                if op > last:
                    last = op
                if epoch > newest:
                    newest = epoch
                if topic == ALERTS:
                    self.alerts.append({"op": op, "at": at, "kind": kind, **in_short(data)})
                try:
                    if (fact := facts(kind)) is not None:
                        name = data.get("worker", "")
                        draft = drafts.get(name) or self._draft(name)
                        if draft is None or data.get("attempt") != draft["attempt"]:
                            continue
                        if (state := draft["state"]) is not done and state is not failed:
                            fact(draft, op, at, data)
                    elif (fold := _FOLDS.get(kind)) is not None:
                        fold(self, event)
                except (ValueError, LookupError, TypeError, AttributeError):
                    self.odd.append(op)
        finally:
            self.op, self.epoch = last, newest
            for name, draft in drafts.items():
                self.workers[name] = WorkerRecord._make(draft.values())
                if draft["started_at"] and type(end := draft["ended_at"]) is str:
                    self.ends[name] = end
            drafts.clear()
            if len(self.ends) > LATEST:
                self.ends = dict(sorted(self.ends.items(), key=lambda end: end[1])[-LATEST:])
        self.whole = True
        return self

    def _draft(self, name: str) -> Draft | None:
        """The worker's record, to be written on until `apply` is done."""
        if name not in self._drafts:
            record = self.workers.get(name)
            if record is None:
                return None
            self._begin(record)
        return self._drafts[name]

    def _begin(self, record: WorkerRecord) -> None:
        self._drafts[record.name] = dict(zip(WorkerRecord._fields, record, strict=True))

    def seat_for(self, narrator: str | None) -> Seat:
        if narrator in self.unseated:
            return Seat.LOST
        return Seat.FREE if narrator is None or self.seat in (None, narrator) else Seat.TAKEN

    def knows(self, draft: log.Draft) -> bool:
        """Whether a fact about a worker is in the log already, or is about an abandoned attempt."""
        if draft.topic == COMMANDS or "worker" not in draft.data:
            return False
        record = self.workers.get(draft.data["worker"])
        if record is None:
            return False
        attempt = draft.data.get("attempt", record.attempt)
        if attempt != record.attempt:
            return draft.topic != ALERTS
        if draft.kind in ("ended", "spawned", "deferred"):
            if record.state in ENDED:
                return True
            return draft.kind == "spawned" and record.state == State.RUNNING
        if draft.kind == "running_again":
            return not record.stalled
        return draft.kind == "stalled" and record.stalled


def in_short(alert: dict[str, Any]) -> dict[str, Any]:
    """As it is answered: of the places of damage, which may be many, their number."""
    places = alert.get("places")
    return {**alert, "places": len(places)} if isinstance(places, list) else alert


def _run_created(history: History, event: Event) -> None:
    history.created = event.at
    history.base = event.data.get("base", "")
    history.plan_sha256 = event.data.get("plan_sha256")
    history.plan_json = event.data.get("plan")
    history._plan = history._planned = None


def _spawn_intended(history: History, event: Event) -> None:
    data = event.data
    name = data["worker"]
    if name in history._drafts or name in history.workers:
        return
    check_attempt(data["attempt"], data["token"])
    entry = entry_from_json(data["entry"])
    history._begin(
        WorkerRecord(
            name,
            data.get("phase"),
            entry,
            data["attempt"],
            data["token"],
            State.SPAWNING,
            event.at,
            event.op,
            asked_op=event.op,
            brief_sha256=data.get("brief_sha256") or long_brief_sha256(entry.brief),
        )
    )


def _retry_intended(history: History, event: Event) -> None:
    data = event.data
    before = history._draft(data["worker"])
    if before is None or data["attempt"] <= before["attempt"]:
        return
    check_attempt(data["attempt"], data["token"])
    failure = {key: before[key] for key in _FAILURE}
    if before["started_at"] and type(end := before["ended_at"]) is str:
        history.ends[before["name"]] = end
    command = data.get("command")
    entry: WorkerEntry = before["entry"]
    history._begin(
        WorkerRecord(
            before["name"],
            before["phase"],
            entry._replace(command=tuple(command)) if command else entry,
            data["attempt"],
            data["token"],
            State.SPAWNING,
            event.at,
            event.op,
            failures=(*before["failures"], failure),
            asked_op=before["asked_op"],
            brief_sha256=before["brief_sha256"],
        )
    )


_FAILURE = ("attempt", "verdict", "reason", "exit_code", "signal", "started_at", "ended_at")


def _leftovers_ended(history: History, event: Event) -> None:
    draft = history._draft(event.data.get("worker", ""))
    if draft is not None and draft["attempt"] == event.data.get("attempt"):
        draft["leftovers"] = tuple(event.data.get("still_alive", ()))


def _seat_taken(history: History, event: Event) -> None:
    narrator = event.data["narrator"]
    if history.seat is not None and history.seat != narrator:
        history.unseated.add(history.seat)
    history.unseated.discard(narrator)
    history.seat = narrator
    history.seat_since = event.at


def _narration_began(history: History, event: Event) -> None:
    tell = event.data.get
    history.narration = Narration(False, (), event.op, tuple(tell("flags", ())), str(tell("throttle", "")))


def _narration_ended(history: History, event: Event) -> None:
    history.narration = Narration(True, tuple(event.data.get("stopped_for", ())), event.op)


_FOLDS: dict[str, Callable[[History, Event], None]] = {
    "run_created": _run_created,
    "spawn_intended": _spawn_intended,
    "retry_intended": _retry_intended,
    "leftovers_ended": _leftovers_ended,
    "seat_taken": _seat_taken,
    "narration_began": _narration_began,
    "narration_ended": _narration_ended,
}


# --- what happens to a worker's current attempt, which has not ended ----------------------------


def _spawned(draft: Draft, op: int, at: str, data: dict[str, Any]) -> None:
    draft["state"], draft["since"], draft["op"] = State.RUNNING, at, op
    draft["process"] = process_from_json(data) if data.get("pid") else None
    draft["started_at"] = data.get("started_at")
    draft["token"] = data.get("token") or draft["token"]
    draft["deferral"] = draft["reason"] = None


def _deferred(draft: Draft, op: int, at: str, data: dict[str, Any]) -> None:
    since, times, _, _ = draft["deferral"] or (at, 0, "", [])
    tell = data.get
    draft["since"], draft["op"], draft["reason"] = since, op, (reason := tell("reason", ""))
    draft["state"] = _DEFERRED
    draft["deferral"] = _make(Deferral, (since, times + 1, reason, tell("signals", [])))


def _ended(draft: Draft, op: int, at: str, data: dict[str, Any]) -> None:
    tell = data.get
    draft["state"] = State.DONE if tell("status") == "done" else State.FAILED
    draft["since"], draft["op"] = at, op
    draft["deferral"] = None
    draft["verdict"], draft["reason"] = tell("verdict"), tell("reason")
    draft["exit_code"], draft["signal"] = tell("exit_code"), tell("signal")
    draft["started_at"] = tell("started_at") or draft["started_at"]
    draft["ended_at"], draft["retry"] = tell("ended_at"), tell("retry")
    draft["leftovers"] = tuple(tell("leftovers", ()))
    if draft["brief_sha256"] is not None and draft["entry"].brief:
        draft["entry"] = draft["entry"]._replace(brief="")  # of 10,000 such briefs few are asked for again


def _stop_intended(draft: Draft, op: int, at: str, data: dict[str, Any]) -> None:
    draft["stopping"] += (StopMeant(op, at, float(data.get("grace_s", 0))),)
    draft["stall_reason"] = data.get("reason") if data.get("verdict") == Verdict.STALLED else None


def _stalled(draft: Draft, op: int, at: str, data: dict[str, Any]) -> None:
    draft["stalled"], draft["op"] = True, op


def _running_again(draft: Draft, op: int, at: str, data: dict[str, Any]) -> None:
    draft["stalled"], draft["op"] = False, op


_FACTS: dict[str, Callable[[Draft, int, str, dict[str, Any]], None]] = {
    "spawned": _spawned,
    "deferred": _deferred,
    "ended": _ended,
    "stop_intended": _stop_intended,
    "stalled": _stalled,
    "running_again": _running_again,
}
