"""What becomes of each worker of a batch, and what of that is told."""

from __future__ import annotations

from typing import Any, NamedTuple

from orchestra.model.event import Draft
from orchestra.model.record import Deferral, WorkerRecord
from orchestra.model.snapshot import WorkerView
from orchestra.model.throttle import never_met

RETOLD_S = 60.0


class SpawnReport(NamedTuple):
    spawned: list[dict[str, Any]]
    deferred: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    already: list[dict[str, Any]]


class Pending(NamedTuple):
    """A launcher that was ordered and has not shown a sign of life yet."""

    record: WorkerRecord
    deadline: float
    pid: int | None = None
    signed: bool = False  # its sign of life has come


class Outcome(NamedTuple):
    """Where one worker ended up, and the fact that says so."""

    bucket: str  # spawned, deferred, failed
    answer: dict[str, Any]
    draft: Draft | None


def waits_alike(before: Deferral, signals: list[dict[str, Any]]) -> bool:
    """Whether what speaks is what spoke before, whatever is measured."""
    return bool(signals) and _limits(before.signals) == _limits(signals)


def is_told_lately(before: Deferral, signals: list[dict[str, Any]], waited_s: float | None) -> bool:
    """Whether it is too soon to tell the log that a worker waits for something else now.

    It is told after 1, 3, 6, 10, … minutes at the earliest: of a thousand that wait for this and for that by
    turns, a night would fill the log else. What is no want of room is always told, and what somebody has
    changed: a limit, or that it is never met here.
    """
    if not (signals and before.signals) or never_met(signals) != never_met(before.signals):
        return False
    known = {str(signal): limit for signal, limit, _ in _limits(before.signals)}
    if any(known.get(str(signal), limit) != limit for signal, limit, _ in _limits(signals)):
        return False
    return waited_s is not None and waited_s < RETOLD_S * before.times * (before.times + 1) / 2


def _limits(signals: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """Of those that are signals: anybody may have written in the log."""
    told = [signal for signal in signals if isinstance(signal, dict)]
    return [(signal.get("signal"), signal.get("limit"), signal.get("total")) for signal in told]


def who(record: WorkerRecord) -> dict[str, Any]:
    return {"worker": record.name, "attempt": record.attempt}


def failed_row(view: WorkerView) -> dict[str, Any]:
    at = {"line": view.sentinel.line, "command": view.sentinel.command} if view.sentinel else {}
    return {
        "name": view.record.name,
        "attempt": view.record.attempt,
        **at,
        "verdict": view.verdict,
        "reason": view.reason,
        "exit_code": view.exit_code,
        "retry": view.retry,
    }
