"""What the events say: the fold of a run's log.

Facts are keyed by worker, attempt and kind, so that a fact seen by two observers counts
once, and a late fact about an abandoned attempt changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from orchestra.model.event import ALERTS, COMMANDS, Draft, Event
from orchestra.model.plan import Plan, entry_from_json, plan_from_json
from orchestra.model.record import ENDED, Deferral, Seat, State, StopMeant, WorkerRecord
from orchestra.model.trail import process_from_json
from orchestra.model.verdict import Verdict
from orchestra.model.workers import Workers


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
        self.alerts: list[dict[str, Any]] = []
        self.whole = True  # False: cut short in the middle of a fact, so that it must not be kept
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
        for event in events:
            if event.op > self.op:
                self.op = event.op
            if event.epoch > self.epoch:
                self.epoch = event.epoch
            if event.topic == ALERTS:
                self.alerts.append({"op": event.op, "at": event.at, "kind": event.kind, **event.data})
            fold = _FOLDS.get(event.kind)
            if fold is not None:
                fold(self, event)
        self.whole = True
        return self

    def seat_for(self, narrator: str | None) -> Seat:
        if narrator in self.unseated:
            return Seat.LOST
        return Seat.FREE if narrator is None or self.seat in (None, narrator) else Seat.TAKEN

    def knows(self, draft: Draft) -> bool:
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


def _run_created(history: History, event: Event) -> None:
    history.created = event.at
    history.base = event.data.get("base", "")
    history.plan_sha256 = event.data.get("plan_sha256")
    history.plan_json = event.data.get("plan")
    history._plan = history._planned = None


def _spawn_intended(history: History, event: Event) -> None:
    data = event.data
    name = data["worker"]
    if name in history.workers:
        return
    history.workers[name] = WorkerRecord(
        name,
        data.get("phase"),
        entry_from_json(data["entry"]),
        data["attempt"],
        data["token"],
        State.SPAWNING,
        event.at,
        event.op,
    )


def _retry_intended(history: History, event: Event) -> None:
    record = history.workers.get(event.data["worker"])
    if record is None or event.data["attempt"] != record.attempt + 1:
        return
    failure = {
        "attempt": record.attempt,
        "verdict": record.verdict,
        "reason": record.reason,
        "exit_code": record.exit_code,
        "signal": record.signal,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
    }
    command = event.data.get("command")
    history.workers[record.name] = WorkerRecord(
        record.name,
        record.phase,
        record.entry._replace(command=tuple(command)) if command else record.entry,
        event.data["attempt"],
        event.data["token"],
        State.SPAWNING,
        event.at,
        event.op,
        failures=(*record.failures, failure),
    )


def _with(record: WorkerRecord, **new: Any) -> WorkerRecord:
    """`_replace`, in half the time: a long log is folded in little else."""
    fields = list(record)
    for key, value in new.items():
        fields[_AT[key]] = value
    return WorkerRecord._make(fields)


_AT = {field: at for at, field in enumerate(WorkerRecord._fields)}


def _current(history: History, event: Event) -> WorkerRecord | None:
    record: WorkerRecord | None = history.workers.get(event.data.get("worker", ""))
    if record is None or event.data.get("attempt") != record.attempt or record.state in ENDED:
        return None
    return record


def _spawned(history: History, event: Event) -> None:
    if record := _current(history, event):
        history.workers[record.name] = _with(
            record,
            state=State.RUNNING,
            since=event.at,
            op=event.op,
            process=process_from_json(event.data) if event.data.get("pid") else None,
            started_at=event.data.get("started_at"),
            deferral=None,
            reason=None,
        )


def _deferred(history: History, event: Event) -> None:
    record = _current(history, event)
    if record is None:
        return
    before = record.deferral
    deferral = Deferral(
        before.since if before else event.at,
        before.times + 1 if before else 1,
        event.data.get("reason", ""),
        event.data.get("signals", []),
    )
    history.workers[record.name] = _with(
        record,
        state=State.DEFERRED,
        since=deferral.since,
        op=event.op,
        deferral=deferral,
        reason=deferral.reason,
    )


def _ended(history: History, event: Event) -> None:
    if record := _current(history, event):
        data = event.data
        history.workers[record.name] = _with(
            record,
            state=State.DONE if data.get("status") == "done" else State.FAILED,
            since=event.at,
            op=event.op,
            deferral=None,
            verdict=data.get("verdict"),
            reason=data.get("reason"),
            exit_code=data.get("exit_code"),
            signal=data.get("signal"),
            started_at=data.get("started_at") or record.started_at,
            ended_at=data.get("ended_at"),
            retry=data.get("retry"),
            leftovers=tuple(data.get("leftovers", ())),
        )


def _stop_intended(history: History, event: Event) -> None:
    if record := _current(history, event):
        meant = StopMeant(event.op, event.at, float(event.data.get("grace_s", 0)))
        by_plan = event.data.get("reason") if event.data.get("verdict") == Verdict.STALLED else None
        history.workers[record.name] = _with(
            record,
            stopping=(*record.stopping, meant),
            stall_reason=by_plan,
        )


def _leftovers_ended(history: History, event: Event) -> None:
    record = history.workers.get(event.data.get("worker", ""))
    if record is not None and record.attempt == event.data.get("attempt"):
        history.workers[record.name] = _with(record, leftovers=tuple(event.data.get("still_alive", ())))


def _stalled(history: History, event: Event) -> None:
    if record := _current(history, event):
        history.workers[record.name] = _with(record, stalled=True, op=event.op)


def _running_again(history: History, event: Event) -> None:
    if record := _current(history, event):
        history.workers[record.name] = _with(record, stalled=False, op=event.op)


def _seat_taken(history: History, event: Event) -> None:
    narrator = event.data["narrator"]
    if history.seat is not None and history.seat != narrator:
        history.unseated.add(history.seat)
    history.unseated.discard(narrator)
    history.seat = narrator
    history.seat_since = event.at


_FOLDS = {
    "run_created": _run_created,
    "spawn_intended": _spawn_intended,
    "retry_intended": _retry_intended,
    "spawned": _spawned,
    "deferred": _deferred,
    "ended": _ended,
    "stalled": _stalled,
    "running_again": _running_again,
    "leftovers_ended": _leftovers_ended,
    "stop_intended": _stop_intended,
    "seat_taken": _seat_taken,
}
