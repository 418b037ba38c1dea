"""The runs under a root, and the events of one."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from orchestra.engine.observe import Observer
from orchestra.engine.place import run_ids, told_by
from orchestra.errors import OrchestraError
from orchestra.host import clock
from orchestra.store.eventlog import EventLog
from orchestra.store.layout import Layout


def list_runs(root: str, limit: int) -> tuple[list[dict[str, Any]], int]:
    """(rows, how many runs there are), the one with the latest event first."""
    found = []
    for run in run_ids(root):
        for path in told_by(f"{root}/{run}"):
            with contextlib.suppress(OSError):
                found.append((os.stat(path).st_mtime, run))
                break
    found.sort(reverse=True)
    chosen = found[:limit] if limit else found
    root = os.path.realpath(root)
    return [row(root, run, changed) for changed, run in chosen], len(found)


def row(root: str, run: str, changed: float) -> dict[str, Any]:
    facts: dict[str, Any] = {"run": run, "changed_at": clock.stamp(changed)}
    observer = Observer(Layout(f"{root}/{run}"))
    try:
        snapshot = observer.open(above=0).snapshot()
    except OrchestraError as error:
        return {**facts, "error": {"code": error.code, "message": error.message}}
    return {
        **facts,
        "created_at": observer.history.created,
        "counts": snapshot.counts(),
        "conducted": snapshot.conducted,
        "seat": snapshot.seat,
        "alerts": len(snapshot.present()),  # what is over is in `status`
    }


def log_events(layout: Layout, *, telemetry: bool) -> EventLog:
    """A reader of the run's events, or of its telemetry (which may not be there yet)."""
    path = layout.telemetry if telemetry else layout.events
    return EventLog(path, layout.damaged, may_be_missing=telemetry)
