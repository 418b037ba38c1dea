"""Stop: end workers with everything that they started."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestra.engine import strays
from orchestra.engine.burial import bury, finish, read_mark, retell, write_result
from orchestra.engine.observe import Observer
from orchestra.errors import OrchestraError
from orchestra.host import clock
from orchestra.model.event import ALERTS, COMMANDS, Draft
from orchestra.model.launcher import GRACE_S
from orchestra.model.record import State, WorkerRecord
from orchestra.model.snapshot import WorkerView, facts
from orchestra.model.trail import Result
from orchestra.model.verdict import Verdict, retry_advice
from orchestra.store.layout import Layout
from orchestra.store.publish import publish

if TYPE_CHECKING:
    from orchestra.engine.conduct import Conductor

REPORT_PATIENCE_S = 5.0  # for the launcher to write its result once its worker is gone

_NOTE = {
    State.PLANNED: "nothing to stop yet: once its phase is spawned it starts all the same",
    State.DONE: "it had ended before",
    State.FAILED: "it had ended before",
}


class StopReport(NamedTuple):
    stopped: list[dict[str, Any]]
    already: list[dict[str, Any]]
    alive: list[dict[str, Any]]  # what could not be ended, with its PIDs
    strays: list[dict[str, Any]]  # what lived of no attempt that was going, and was ended


def stop(conductor: Conductor, names: list[str], *, grace_s: float) -> StopReport:
    """End these workers, and with them whom an earlier stop meant and did not live to end.

    Where none is named: all that have not ended. What lives of attempts that have, or that the log does
    not know, is ended too.
    Raises NoSuchWorker.
    """
    others = find_strays(conductor, names)
    unknown = {stray.worker for stray in others} - set(conductor.history.workers)
    named = [conductor.record_of(name) for name in dict.fromkeys(names) if name not in unknown]
    asked_for = named if names else conductor.history.workers.having("going")
    views = [conductor.view(record) for record in asked_for]
    going = [view for view in views if view.state not in _NOTE]
    already = [
        {"name": v.record.name, "state": v.state, "note": _NOTE[v.state]} for v in views if v.state in _NOTE
    ]
    conductor.record(
        [
            Draft(
                COMMANDS,
                "stop_intended",
                {"worker": v.record.name, "attempt": v.record.attempt, "grace_s": grace_s},
            )
            for v in going
        ]
    )
    stopped, alive = finish_stops(conductor)
    asked = {view.record.name for view in views}
    ended = end_strays(conductor, others, grace_s)
    alive += [{"name": row["worker"], "pids": row["still_alive"]} for row in ended if "still_alive" in row]
    stuck = [r for r in conductor.history.workers.having("leftovers") if r.name in names or not names]
    alive += [{"name": record.name, "pids": list(record.leftovers)} for record in stuck]
    return StopReport([row for row in stopped if row["name"] in asked], already, alive, ended)


def find_strays(conductor: Conductor, names: list[str]) -> list[strays.Stray]:
    """What lives of no attempt that is known to be going: of the whole run, or of these names."""
    going = {record.token for record in conductor.history.workers.having("going")}
    there = strays.of_run(conductor.layout.run_dir, going)
    return [stray for stray in there if stray.worker in names or not names]


def end_strays(conductor: Conductor, there: list[strays.Stray], grace_s: float) -> list[dict[str, Any]]:
    if not there:
        return []
    conductor.check_still_mine()
    rows = strays.end(conductor.backend, there, grace_s=grace_s)
    conductor.record([Draft(ALERTS, "strays_ended", {"strays": rows})])
    return rows


def finish_stops(conductor: Conductor) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """End whoever was meant to be stopped: (who was ended and how, what could not be ended)."""
    meant = [r for r in conductor.history.workers.having("going") if r.stopping]
    earlier = [r.name for r in meant if r.stopping[0].op <= conductor.began_at]
    stopped, alive = end_and_record(conductor, [conductor.view(record) for record in meant])
    stuck = {row["name"] for row in alive}
    conductor.recovered += [{"what": "half_done_stop", "worker": n} for n in earlier if n not in stuck]
    return stopped, alive


def grace_left_s(record: WorkerRecord, began_at: int) -> float:
    """What is left until the first KILL that was meant, whatever has become of the clock since.

    Of what was meant before operation `began_at`, that is: what this command means, it gives whole.
    """
    left = []
    for meant in record.stopping:
        since_s = clock.seconds_since(meant.at) if meant.op <= began_at else 0.0
        left.append(meant.grace_s - max(0.0, since_s or 0.0))
    return max(0.0, min(left, default=0.0))


def stop_stalled(conductor: Conductor, views: list[WorkerView]) -> list[str]:
    """End those that the plan's `stall_action` says to, and no other; returns their names.

    The intent comes first, with the evidence: if we are killed on the way, the next command that
    changes the run finishes it, and the verdict is the same.
    """
    chosen = [view for view in views if view.to_be_ended]
    conductor.record(
        [
            Draft(
                COMMANDS,
                "stop_intended",
                {
                    "worker": view.record.name,
                    "attempt": view.record.attempt,
                    "grace_s": GRACE_S,
                    "verdict": Verdict.STALLED,
                    "reason": view.reason,
                },
            )
            for view in chosen
        ]
    )
    meant = [view._replace(record=conductor.history.workers[view.record.name]) for view in chosen]
    if meant:
        end_and_record(conductor, meant)
    return [view.record.name for view in chosen]


def end_and_record(
    conductor: Conductor, views: list[WorkerView]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(who was ended and how, what could not be ended)."""
    for view in views:
        if not view.at_work and not view.ended:  # a launcher that comes up late finds this, and refrains
            write_result(conductor.layout, refusal(view.record))
    views = [view if view.at_work else conductor.view(view.record) for view in views]
    graces = {v.record.name: grace_left_s(v.record, conductor.began_at) for v in views}
    living = end_workers(conductor, views, graces)
    stopped, alive = [], []
    for view in views:
        record = view.record
        if view.process and conductor.backend.lives(view.process) is None:  # on another host: as it was
            alive.append({"name": record.name, "host": view.process.host, "pids": [view.process.pid]})
            continue
        pids = living[record.name]
        await_last_words(conductor, record)
        final = ended_view(conductor, record)._replace(leftovers=tuple(pids))
        conductor.record(facts(final))
        finish(conductor.layout, record)  # its launcher may have been ended amid its last words
        if not os.path.exists(conductor.layout.attempt_result(record.name, record.attempt)):
            bury(conductor.layout, conductor.history.workers[record.name])
        retell(conductor.layout, final)
        stopped.append({"name": record.name, "verdict": final.verdict, "state": final.state})
        if pids:
            alive.append({"name": record.name, "pids": pids})
    return stopped, alive


def await_last_words(conductor: Conductor, record: WorkerRecord) -> None:
    """A launcher that was called under another name is none of those that were ended: it may be about to
    write its result.
    """
    deadline = clock.monotonic() + REPORT_PATIENCE_S
    while not os.path.exists(conductor.layout.attempt_result(record.name, record.attempt)):
        mark = read_mark(conductor.layout, record)
        if mark is None or not conductor.backend.lives(mark.process) or clock.monotonic() > deadline:
            return
        clock.pause(0.02)


def stop_unrecorded(layout: Layout, names: list[str], *, grace_s: float) -> list[dict[str, Any]]:
    """End workers of a run that cannot be read or written to; returns a row for each, as of `strays.end`.

    Their launchers keep space for their results. Nothing is done while a living narrator holds the run.
    """
    observer = Observer(layout)
    if observer.conducted():
        return []
    try:
        observer.open()
    except OrchestraError:
        there = [stray for stray in strays.of_run(layout.run_dir) if stray.worker in names or not names]
        return strays.end(observer.backend, there, grace_s=grace_s)
    workers = observer.history.workers
    going = [record for record in workers.having("going") if record.name in names or not names]
    views = [observer.view(record, conducted=False) for record in going]
    running = [view for view in views if view.process is not None and not view.ended]
    living = end_workers(observer, running, {view.record.name: grace_s for view in running})
    return [
        {
            "worker": (name := view.record.name),
            "pids": [view.process.pid] if view.process else [],
            **({"still_alive": living[name]} if living[name] else {}),
        }
        for view in running
    ]


def end_workers(
    observer: Observer, views: list[WorkerView], graces_s: dict[str, float]
) -> dict[str, list[int]]:
    """End these and all that is theirs; returns the PIDs that could not be ended, by worker."""
    running = [view for view in views if view.process is not None]
    for view in running:  # all at once, so that their graces run side by side
        tell_grace(observer, view.record, graces_s[view.record.name])
        if view.process is not None:
            observer.backend.ask_to_stop(view.process)
    await_results(observer, running, graces_s)
    living: dict[str, list[int]] = {}
    there = observer.backend.all_leftovers()
    for view in views:  # also of a launcher that has come up only now
        if view.record.token not in there and not (view.process and observer.backend.lives(view.process)):
            living[view.record.name] = []
            continue
        # Where something is at work and no launcher is known that would heed a grace, it is given here.
        grace_s = graces_s[view.record.name] if view.at_work and view.process is None else 0.0
        left = observer.backend.end(view.record.token, view.process, grace_s=grace_s)
        living[view.record.name] = [member.pid for member in left]
    return living


def refusal(record: WorkerRecord) -> Result:
    return Result(
        record.name,
        record.attempt,
        "failed",
        Verdict.STOPPED,
        "stopped before it was started",
        ended_at=clock.now(),
    )


def tell_grace(observer: Observer, record: WorkerRecord, grace_s: float) -> None:
    """The launcher ends its worker itself; it looks here for how long it may take."""
    with contextlib.suppress(OSError):
        path = observer.layout.grace(record.name, record.attempt)
        publish(path, f"{grace_s:.3f}\n".encode(), durable=False)


def await_results(observer: Observer, views: list[WorkerView], graces_s: dict[str, float]) -> None:
    """Until every launcher has ended; where a grace is over, KILL for what that one started."""
    began = clock.monotonic()
    killed: set[str] = set()
    while True:
        now_s = clock.monotonic() - began
        left = [
            view
            for view in views
            if view.process
            and observer.backend.lives(view.process)
            and now_s <= graces_s[view.record.name] + REPORT_PATIENCE_S
        ]
        if not left:
            return
        late = [v for v in left if v.record.name not in killed and now_s > graces_s[v.record.name]]
        if late:
            killed.update(view.record.name for view in late)
            observer.backend.kill_workers([(v.record.token, v.process) for v in late if v.process])
        clock.pause(0.02)


def ended_view(conductor: Conductor, record: WorkerRecord) -> WorkerView:
    """As it is seen to have ended; what shows no end is ended by our word."""
    view = conductor.view(record)
    if view.ended:
        return view._replace(ended_at=view.ended_at or clock.now())
    reason = "stopped before it was started" if record.state != State.RUNNING else "stopped on request"
    verdict = Verdict.STOPPED if record.stall_reason is None else Verdict.STALLED
    return WorkerView(
        record,
        State.FAILED,
        verdict=verdict,
        reason=record.stall_reason or reason,
        ended_at=clock.now(),
        retry=retry_advice(verdict),
        started_at=record.started_at,
    )
