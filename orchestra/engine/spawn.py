"""The spawn transaction: intend, then try each worker, then answer for every one.

The intents, with all that is needed to carry them out, are durable in the log before the
first file is written; so whoever comes next can finish what a dead narrator began.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from orchestra.engine.conduct import Conductor
from orchestra.engine.fanout import FanOut, SpawnReport
from orchestra.engine.observe import Observer
from orchestra.engine.room import Room
from orchestra.errors import NameTaken
from orchestra.model.brief import is_brief_of, long_brief_sha256
from orchestra.model.event import COMMANDS, Draft
from orchestra.model.plan import WorkerEntry, entry_to_json
from orchestra.model.record import State, WorkerRecord
from orchestra.model.snapshot import WorkerView
from orchestra.model.throttle import describe


class Wanted(NamedTuple):
    """A worker that somebody asked for, everything filled in."""

    entry: WorkerEntry
    phase: str | None


def sort_out(observer: Observer, wanted: Iterable[Wanted]) -> tuple[list[Wanted], list[WorkerRecord]]:
    """(new ones, those that are in the run already). Raises NameTaken, having written nothing."""
    new, known = [], []
    for want in wanted:
        record = observer.history.workers.get(want.entry.name)
        if record is None:
            new.append(want)
            continue
        same_brief = want.entry is record.entry or is_brief_of(record, want.entry.brief)
        if same_brief and record.entry.command == want.entry.command:
            known.append(record)
        else:
            what = "command" if same_brief else "brief"
            raise NameTaken(
                f"run {observer.layout.run_id} has a worker {record.name!r} already, with another {what}",
                hint="give the new one another name, or make the same call again with the old "
                f"{what}; to mend a failed one's command: "
                f"orchestra retry {observer.layout.run_id} {record.name} -- CMD",
                worker=record.name,
            )
    return new, known


def intend(conductor: Conductor, new: list[Wanted]) -> None:
    """The intents, durable in the log before the first file is written."""
    conductor.record(
        [
            Draft(
                COMMANDS,
                "spawn_intended",
                {
                    "worker": want.entry.name,
                    "phase": want.phase,
                    "attempt": 1,
                    "token": os.urandom(8).hex(),
                    "entry": entry_to_json(want.entry),
                    **({"brief_sha256": sha} if (sha := long_brief_sha256(want.entry.brief)) else {}),
                },
            )
            for want in new
        ]
    )


def spawn(
    conductor: Conductor,
    wanted: list[Wanted],
    *,
    throttled: bool = True,
) -> SpawnReport:
    """Try what was deferred, oldest first, then what is new; answer for every one."""
    new, known = sort_out(conductor, wanted)
    intend(conductor, new)
    report = FanOut(conductor, Room(conductor.layout.root) if throttled else None).run(candidates(conductor))
    already = [conductor.view(conductor.record_of(r.name)) for r in known]
    tried = {row["name"] for row in [*report.spawned, *report.deferred, *report.failed]}
    return report._replace(already=[already_row(v) for v in already if v.record.name not in tried])


def preview(observer: Observer, wanted: list[Wanted], *, throttled: bool) -> SpawnReport:
    """What `spawn` would do now; writes and starts nothing. Raises NameTaken."""
    new, known = sort_out(observer, wanted)
    views = observer.views(conducted=observer.conducted())
    at_work = len(views.among(State.RUNNING, State.STALLED))
    waiting = views.among(State.DEFERRED, State.SPAWNING)
    again = [view.record for view in waiting if view.state == State.DEFERRED or view.gap]
    entries = [record.entry for record in again] + [want.entry for want in new]
    room = Room(observer.layout.root) if throttled and entries else None
    report = SpawnReport([], [], [], [])
    starting: list[WorkerEntry] = []
    for entry in entries:
        spoke = room.ask(entry, at_work + len(starting), besides=starting) if room else []
        if spoke:
            signals = [s.to_json() for s in spoke]
            report.deferred.append({"name": entry.name, "reason": describe(spoke), "signals": signals})
        else:
            report.spawned.append({"name": entry.name})
            starting.append(entry)
    tried = {entry.name for entry in entries}
    rows = [already_row(views.named(record.name)) for record in known if record.name not in tried]
    return report._replace(already=rows)


def already_row(view: WorkerView) -> dict[str, Any]:
    row: dict[str, Any] = {"name": view.record.name, "state": view.state, "attempt": view.record.attempt}
    if view.state == State.FAILED:
        row |= {"verdict": view.verdict, "reason": view.reason, "retry": view.retry}
    return row


def candidates(observer: Observer) -> list[WorkerRecord]:
    """What wants starting: deferred ones, oldest first, then intended ones in their order."""
    records = sorted(observer.history.workers.having("going"), key=lambda r: r.op)
    deferred = sorted((r for r in records if r.state == State.DEFERRED), key=lambda r: (r.since, r.op))
    return deferred + [r for r in records if r.state == State.SPAWNING]
