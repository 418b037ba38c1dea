"""Settle: what happened meanwhile is recorded, what a dead narrator left half-done is put right.

What ended is recorded; what was lost is ended for good; what was to be stopped is stopped; what
was intended and shows no launcher is deferred, so that the next spawn starts it. A launcher that
comes up late still claims its attempt first, so it cannot be started twice.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from orchestra.engine.burial import bury, finish, retell
from orchestra.model.event import ALERTS, RECONCILIATION, Draft
from orchestra.model.record import ENDED, State, WorkerRecord
from orchestra.model.snapshot import WorkerView, facts
from orchestra.model.verdict import Verdict

if TYPE_CHECKING:
    from orchestra.engine.conduct import Conductor


def settle(conductor: Conductor, *, stops: bool = True) -> None:
    """Without `stops` for a command that finishes what was to be stopped along with its own.

    Raises Storage, Superseded.
    """
    workers = conductor.history.workers
    loose = workers.loose()
    look_around(conductor, loose, stops=stops)
    for record in workers.having("leftovers"):
        end_leftovers(conductor, record)
    if stops and any(record.stopping for record in workers.having("going")):
        from orchestra.engine.stop import finish_stops  # seldom needed

        finish_stops(conductor)
    for record in map(workers.__getitem__, loose):
        silent = record.verdict in (Verdict.LOST, Verdict.STOPPED, Verdict.STALLED)
        if silent and not os.path.exists(conductor.layout.result(record.name)):
            bury(conductor.layout, record)
    conductor.settled_op = conductor.history.op


def look_around(conductor: Conductor, loose: list[str], *, stops: bool) -> None:
    """Record what every worker shows that has not been put away for good; end who is to be, if it `stops`."""
    drafts, views = [], []
    conductor.signs.prepare(conductor.history.workers.having("going"))
    for view in with_leftovers(conductor, [conductor.view(conductor.history.workers[n]) for n in loose]):
        record = view.record
        views.append(view)
        if view.ended:  # also of what `wait` was the first to see
            finish(conductor.layout, record)
            retell(conductor.layout, view)
        if view.gap and record.state == State.SPAWNING:
            who = {"worker": record.name, "attempt": record.attempt}
            drafts.append(Draft(RECONCILIATION, "deferred", {**who, "reason": view.reason, "signals": []}))
            conductor.recovered.append({"what": "half_done_spawn", "worker": record.name, "gap": view.gap})
        drafts += facts(view)
    conductor.record(drafts)
    conductor.signs.remember_ends(view for view in views if view.record.state not in ENDED)
    ended = conductor.attend(views) if stops else []
    conductor.recovered += [{"what": "stalled_stop", "worker": name} for name in ended]


def with_leftovers(conductor: Conductor, views: list[WorkerView]) -> list[WorkerView]:
    """A launcher ends all that it started before it tells of the end; another hand may write that."""
    if not any(view.ended and view.record.state not in ENDED for view in views):
        return views
    there = conductor.backend.all_leftovers()

    def pids(view: WorkerView) -> tuple[int, ...]:
        fresh = view.ended and view.record.state not in ENDED
        return view.leftovers or tuple(p.pid for p in (there.get(view.record.token, ()) if fresh else ()))

    return [view._replace(leftovers=pids(view)) for view in views]


def end_leftovers(conductor: Conductor, record: WorkerRecord) -> None:
    """Of an attempt that was lost: its processes lived on."""
    conductor.check_still_mine()
    living = conductor.backend.end(record.token, None, grace_s=2.0)
    if sorted(p.pid for p in living) == sorted(record.leftovers):
        return  # told already: nothing of it can be ended
    note = {"worker": record.name, "attempt": record.attempt, "pids": list(record.leftovers)}
    if living:
        note["still_alive"] = [p.pid for p in living]
    conductor.record([Draft(ALERTS, "leftovers_ended", note)])
    conductor.recovered.append({"what": "leftovers_ended", **note})
