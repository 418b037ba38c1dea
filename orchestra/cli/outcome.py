"""How a fan-out is answered: by spawn and by retry alike."""

from __future__ import annotations

import shlex
from typing import Any

from orchestra.cli.session import Session
from orchestra.engine.conduct import Conductor
from orchestra.engine.observe import Observer
from orchestra.engine.outcome import SpawnReport
from orchestra.model.advice import retry_step, unasked, verb_of
from orchestra.model.record import State

ALL_WELL, FAILED, DEFERRED = 0, 1, 4


def spawn_answer(session: Session, observer: Observer, report: SpawnReport, *, dry_run: bool = False) -> int:
    """Print the answer; returns the exit status."""
    views = observer.standing().workers
    for row in report.spawned if not dry_run else ():
        view = views.named(row["name"])
        if view.ended:  # it was quick
            row |= {"state": view.state, "verdict": view.verdict, "reason": view.reason}
    body: dict[str, Any] = {"op": observer.history.op, **report._asdict()}
    if dry_run:
        body["dry_run"] = True
    if isinstance(observer, Conductor):
        body["recovered"] = observer.recovered
    about = [row["name"] for row in [*report.failed, *report.spawned]]
    steps = session.next_steps(observer, observer.standing(), about)

    def proposed(verb: str) -> bool:
        return verb in map(verb_of, steps)

    failed = [views.named(row["name"]) for row in report.already if row["state"] == State.FAILED]
    # By name, whatever a retry is worth: they were asked for by name, and are not started again.
    if failed and session.verb == "spawn" and not proposed("retry"):
        look = [] if steps or unasked(failed) else [f"orchestra status {session.words}"]
        steps += look + retry_step(session.words, unasked(failed) or failed)
    if dry_run and any(report):  # else there is nothing that the call itself would do
        steps = [
            shlex.join(
                ["orchestra", *(word for word in session.argv if word != "--dry-run"), *command(session)]
            )
        ]
    elif report.spawned and not proposed("wait"):  # they have ended already: wait tells how
        steps.append(f"orchestra wait {session.words} --since {observer.history.op}")

    def text() -> None:
        from orchestra.cli.text import show_buckets

        nothing = (
            "no worker has failed" if session.verb == "retry" else "no worker was named and none is deferred"
        )
        show_buckets(report, dry_run=dry_run, nothing=nothing)

    session.answer(body, steps, text)
    return exit_status(report, unnamed=session.verb == "retry")


def command(session: Session) -> list[str]:
    """What stood behind the dashes, with them."""
    return [] if session.after_dashes is None else ["--", *session.after_dashes]


def exit_status(report: SpawnReport, *, unnamed: bool) -> int:
    """`unnamed`: nobody asked for those by name that were left alone."""
    left_failed = any(row["state"] == State.FAILED for row in report.already)
    if report.failed or (left_failed and not (unnamed and report.spawned)):
        return FAILED
    return DEFERRED if report.deferred or waiting(report) else ALL_WELL


def waiting(report: SpawnReport) -> bool:
    return any(row["state"] == State.DEFERRED for row in report.already)
