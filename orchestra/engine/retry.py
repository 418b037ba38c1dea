"""Retry: a new attempt for what failed; the old one is made sure to be dead first."""

from __future__ import annotations

import os
from typing import Any

from orchestra.engine import losses, strays
from orchestra.engine.burial import clear_away, read_mark
from orchestra.engine.conduct import Conductor
from orchestra.engine.fanout import FanOut
from orchestra.engine.outcome import SpawnReport, failed_row
from orchestra.engine.room import Room
from orchestra.engine.settle import settle
from orchestra.engine.spawn import already_row
from orchestra.engine.stop import end_strays
from orchestra.errors import Usage
from orchestra.model.event import COMMANDS, Draft
from orchestra.model.record import State, WorkerRecord
from orchestra.model.snapshot import from_log
from orchestra.model.verdict import Retry, Verdict, may_gain

_NOTE = {
    State.DONE: "it has not failed: nothing was done",
    State.PLANNED: "nobody has asked for it yet: spawn starts it",
    State.DEFERRED: "it has not been started yet: spawn tries it again",
    State.FAILED: "a retry would end alike until it is mended: name it to retry all the same",
}


def note(record: WorkerRecord) -> str:
    """Why it is left alone."""
    if record.verdict == Verdict.STOPPED:
        return "somebody wanted it to end: name it to start it all the same"
    return _NOTE.get(record.state, "it has not ended: nothing was done")


def retry(
    conductor: Conductor,
    names: list[str],
    *,
    room: Room | None,
    command: tuple[str, ...] | None = None,
) -> SpawnReport:
    """Start failed ones again, with another `command` if one is given. Raises NoSuchWorker, Usage.

    `room`: the host to be asked for room; None: it is not asked.

    Where none is named: all but those for which a retry is said to be worth nothing.
    """
    for name in names:
        conductor.record_of(name)
    workers = conductor.history.workers
    if command and not names:
        raise Usage("a command was given, but no worker", hint="name who shall run it: retry RUN NAME -- CMD")
    every = [name for name, record in workers.items() if record.state == State.FAILED]
    chosen = names or every
    already: list[dict[str, Any]] = []
    failed = []
    records = [conductor.record_of(name) for name in chosen]
    if later := losses.later_attempts(conductor.layout, records):  # at work, or ended: not once more
        conductor.record(later)
        settle(conductor)
    for name in dict.fromkeys(chosen):
        record = conductor.record_of(name)
        if record.state == State.FAILED and (names or may_gain(record.retry)):
            failed.append(record)
        else:
            already.append({**already_row(conductor.view(record)), "note": note(record)})
    conductor.check_still_mine()
    end_others(conductor, {record.name for record in failed})
    stuck = [row for record in failed if (row := still_alive(conductor, record))]
    held = {row["name"] for row in stuck}
    failed = [record for record in failed if record.name not in held]
    for record in failed:
        clear_away(conductor.layout, record)
    conductor.record(
        [
            Draft(
                COMMANDS,
                "retry_intended",
                {
                    "worker": r.name,
                    "attempt": max([r.attempt, *conductor.layout.attempts_of(r.name)]) + 1,
                    "token": os.urandom(8).hex(),
                    **({"command": list(command)} if command else {}),
                },
            )
            for r in failed
        ]
    )
    again = [workers[record.name] for record in failed]
    report = FanOut(conductor, room).run(again)
    return report._replace(already=already, failed=[*stuck, *report.failed])


def end_others(conductor: Conductor, names: set[str]) -> None:
    """Attempts of these workers that nothing else tells of any more, as in a run put back from a copy."""
    known = {record.token for record in conductor.history.workers.values()}
    there = [s for s in strays.of_run(conductor.layout.run_dir, known) if s.worker in names]
    end_strays(conductor, there, grace_s=2.0)


def still_alive(conductor: Conductor, record: WorkerRecord) -> dict[str, Any] | None:
    """End what lives of the attempt before; the row of one of which something cannot be ended."""
    mark, launcher = read_mark(conductor.layout, record), record.process
    if launcher is None and mark is not None:  # which may be forged
        script = conductor.layout.launcher(record.name)
        launcher = mark.process if conductor.backend.runs(mark.process, script, record.token) else None
    living = conductor.backend.end(record.token, launcher, grace_s=2.0)
    if not living:
        return None
    pids = ", ".join(str(p.pid) for p in living)
    why = f"nothing was started: attempt {record.attempt} could not be ended: pids {pids} live on"
    view = from_log(record)._replace(reason=f"{why} (see what holds them: ps -o pid,stat,wchan)")
    return failed_row(view._replace(retry=Retry.LATER))
