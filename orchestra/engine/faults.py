"""The errors of a run that cannot be read: no such run, a log without its beginning, a disk that fails."""

from __future__ import annotations

import os
from typing import Any

from orchestra.engine import strays
from orchestra.engine.losses import lost
from orchestra.engine.place import run_ids
from orchestra.errors import CorruptLog, NoSuchRun, OrchestraError, Storage
from orchestra.model.history import History
from orchestra.model.names import or_nearest
from orchestra.store.eventlog import LogChanged
from orchestra.store.layout import Layout


def unreadable(tried: str, layout: Layout, error: OSError) -> OrchestraError:
    """What to tell where the event log could not be read or written."""
    if isinstance(error, LogChanged) and not os.path.isdir(layout.run_dir):
        return no_such_run(layout)
    if isinstance(error, LogChanged):
        return CorruptLog(
            f"could not {tried} ({layout.events}): {error.strerror}",
            hint=f"what is at work runs on: orchestra status {layout.words} shows what is left of it",
            path=layout.events,
        )
    return Storage.from_os(tried, error.filename or layout.events, error)


def headless(layout: Layout, history: History) -> CorruptLog:
    """Of a log that does not say any more how the run began. `details`: `copy`, where that is known yet."""
    what = f"the first lines of {layout.events} are damaged or gone"
    if not os.path.lexists(layout.events):
        what = f"the event log of run {layout.run_id} is gone: {layout.events}"
    if lost(layout, history):
        return CorruptLog(
            f"{what}; {layout.state} still has what they said",
            hint=f"orchestra unlock {layout.words} writes it back",
            path=layout.events,
            copy=layout.state,
        )
    return CorruptLog(
        f"{what}: what this run is cannot be read",
        hint=f"restore events.jsonl from a copy, or begin anew: orchestra init NEW --plan {layout.plan}; "
        f"orchestra stop {layout.words} ends what still runs of it",
        path=layout.events,
    )


def never_made_whole(layout: Layout) -> NoSuchRun:
    return NoSuchRun(
        f"{layout.run_dir} was never made whole: its log has no beginning",
        hint="make the same orchestra init call again",
        path=layout.run_dir,
    )


def no_such_run(layout: Layout) -> NoSuchRun:
    try:
        others = run_ids(layout.root)
    except Storage:
        others = []
    rootless = "" if os.path.isdir(layout.root) else f" (nor is there a directory {layout.root})"
    shown = f"orchestra list{layout.options} shows the runs; orchestra init RUN{layout.options} makes one"
    hint = or_nearest(layout.run_id, others, shown)
    details: dict[str, Any] = {"path": layout.run_dir}
    if there := strays.of_run(layout.run_dir):
        details["pids"] = [pid for stray in there for pid in stray.pids]
        rootless += f"; of one that was there processes live: {', '.join(map(str, details['pids']))}"
        hint = f"orchestra stop {layout.words} ends them"
    return NoSuchRun(f"there is no run at {layout.run_dir}{rootless}", hint=hint, **details)
