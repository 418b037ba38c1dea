"""The spawn transaction: intend, then try each worker, then answer for every one.

The intents, with all that is needed to carry them out, are durable in the log before the
first file is written; so whoever comes next can finish what a dead narrator began.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from orchestra.engine import losses
from orchestra.engine.admission import forecast
from orchestra.engine.conduct import Conductor
from orchestra.engine.fanout import FanOut
from orchestra.engine.observe import Observer
from orchestra.engine.outcome import SpawnReport
from orchestra.engine.paper import Unfit, check_fits, prompt_text, with_brief
from orchestra.engine.room import Room
from orchestra.errors import NameTaken
from orchestra.model.brief import is_brief_of, long_brief_sha256
from orchestra.model.event import COMMANDS, Draft
from orchestra.model.launcher import no_command, no_directory, program_of
from orchestra.model.plan import WorkerEntry, entry_to_json
from orchestra.model.record import State, WorkerRecord
from orchestra.model.snapshot import WorkerView
from orchestra.model.verdict import Verdict

SETTINGS = {
    "cwd": "cwd",
    "env": "env",
    "timeout": "timeout_s",
    "stall": "stall_s",
    "first_sign": "first_sign_s",
    "stall_action": "stall_action",
    "retries": "retries",
    "expect": "expect",
    "throttle": "throttle",
}
"""The keys of a plan that the same call may give anew, and where an entry has them."""


class Wanted(NamedTuple):
    """A worker that somebody asked for, everything filled in."""

    entry: WorkerEntry
    phase: str | None
    as_it_is: bool = False  # in the run already, with whatever brief and command it has there


def sort_out(observer: Observer, wanted: Iterable[Wanted]) -> tuple[list[Wanted], list[Wanted]]:
    """(new ones, those that are in the run already). Raises NameTaken, having written nothing."""
    new, known = [], []
    for want in wanted:
        record = observer.history.workers.get(want.entry.name)
        if record is None:
            if other := losses.standing_otherwise(observer.layout, want.entry):
                raise name_taken(observer, want.entry.name, other)
            new.append(want)
            continue
        same_brief = want.as_it_is or is_brief_of(record, want.entry.brief)
        if same_brief and (want.as_it_is or record.entry.command == want.entry.command):
            known.append(want)
        else:
            raise name_taken(observer, record.name, "command" if same_brief else "brief")
    return new, known


def name_taken(observer: Observer, name: str, what: str) -> NameTaken:
    return NameTaken(
        f"run {observer.layout.run_id} has a worker {name!r} already, with another {what}",
        hint=f"give the new one another name, or make the same call again with the old {what}; "
        f"to mend a failed one's command: orchestra retry {observer.layout.words} {name} -- CMD",
        worker=name,
    )


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
                    "attempt": losses.first_attempt(conductor.layout, want.entry.name),
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
    room = Room(conductor.layout.root) if throttled else None  # refuses bad settings: nothing is meant yet
    intend(conductor, new)
    report = FanOut(conductor, room).run(candidates(conductor))
    tried = {row["name"] for row in [*report.spawned, *report.deferred, *report.failed]}
    return report._replace(already=already_rows(conductor, [w for w in known if w.entry.name not in tried]))


def preview(observer: Observer, wanted: list[Wanted], *, throttled: bool) -> SpawnReport:
    """What `spawn` would do now; writes and starts nothing. Raises NameTaken."""
    new, known = sort_out(observer, wanted)
    views = observer.views(conducted=observer.conducted())
    at_work = len(views.among(State.RUNNING, State.STALLED))
    waiting = {view.record.name: view for view in views.among(State.DEFERRED, State.SPAWNING)}
    again = [
        record
        for record in candidates(observer)
        if (view := waiting.get(record.name)) and (view.state == State.DEFERRED or view.gap)
    ]
    records = again + [as_intended(want) for want in new]
    room = Room(observer.layout.root) if throttled and records else None
    report = SpawnReport([], [], [], [])
    problems = {record.name: problem for record in records if (problem := cannot_start(observer, record))}
    for name, problem in problems.items():
        report.failed.append({"name": name, "verdict": Verdict.SPAWN_ERROR, "reason": problem})
    able = [record for record in records if record.name not in problems]
    for record, refusal in forecast(observer.layout, room, at_work, able):
        if refusal is None:
            report.spawned.append({"name": record.name})
        else:
            report.deferred.append({"name": record.name, **refusal._asdict()})
    tried = {record.name for record in records}
    return report._replace(already=already_rows(observer, [w for w in known if w.entry.name not in tried]))


def as_intended(want: Wanted) -> WorkerRecord:
    """As the log would have it."""
    return WorkerRecord(want.entry.name, want.phase, want.entry, 1, "", State.SPAWNING, "", 0)


def cannot_start(observer: Observer, record: WorkerRecord) -> str | None:
    """Why its launcher would not get as far as the worker, as far as that can be seen beforehand."""
    try:
        entry = with_brief(observer, record).entry
        cwd, command = entry.cwd or ".", entry.command or ("",)
        check_fits(command, prompt_text(entry, observer.layout.out(entry.name)))
    except (Unfit, OSError) as error:
        return str(error)
    if not (os.path.isdir(cwd) and os.access(cwd, os.X_OK)):
        return no_directory(cwd)
    program = program_of(command)
    if program is None:
        return None
    path = entry.env.get("PATH", os.environ.get("PATH", ""))
    places = [""] if "/" in program else path.split(":")
    files = [os.path.join(cwd, place, program) for place in places]
    if not any(os.path.isfile(file) and os.access(file, os.X_OK) for file in files):
        return no_command(command)
    return None


def already_rows(observer: Observer, known: list[Wanted]) -> list[dict[str, Any]]:
    """How they stand; with a note where other settings were asked for than they have."""
    rows = []
    for entry in [want.entry for want in known]:
        row = already_row(observer.view(record := observer.record_of(entry.name)))
        other = [
            key for key, field in SETTINGS.items() if getattr(entry, field) != getattr(record.entry, field)
        ]
        rows.append(row | ({"note": f"it keeps what it had of {', '.join(other)}"} if other else {}))
    return rows


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
