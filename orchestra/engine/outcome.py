"""What becomes of each worker of a batch, and what of that is told."""

from __future__ import annotations

from typing import Any, NamedTuple

from orchestra.model.event import Draft
from orchestra.model.record import WorkerRecord
from orchestra.model.snapshot import WorkerView


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


def asks(record: WorkerRecord) -> tuple[object, object]:
    """(who must not be overtaken by the same limits, who asks the very same)."""
    limits = tuple(sorted(record.entry.throttle.items()))
    return limits, (limits, record.entry.command)


def asked_by(signals: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """What speaks, whatever is measured."""
    return [(signal["signal"], signal["limit"], signal.get("total")) for signal in signals]


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
