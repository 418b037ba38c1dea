"""orchestra stop"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestra.cli.options import Names, Run, duration, session_of
from orchestra.cli.progress import working
from orchestra.cli.session import Session
from orchestra.engine.conduct import conduct
from orchestra.engine.stop import stop, stop_unrecorded
from orchestra.errors import CorruptLog, NoSuchRun, Storage
from orchestra.model.launcher import GRACE_S
from orchestra.model.verdict import Verdict


def stop_(
    ctx: typer.Context,
    run: Run,
    names: Names = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            metavar="S",
            parser=duration(most_s=3600),
            show_default=False,
            help=f"From TERM to KILL: seconds, or 2m (default {GRACE_S:g}).",
        ),
    ] = GRACE_S,
) -> int:
    """End workers with everything that they started, wherever it hides. Deferred ones are called off.

    Where no worker is named, all of the run: also what its log does not know, or when that is gone.

    \b
    Example:
      orchestra stop night-1 Builder-2 --grace 3
    """
    session = session_of(ctx)
    layout = session.locate(run)
    try:
        with conduct(layout, session.narrator, stops=False) as conductor, working(session, "stopping"):
            report = stop(conductor, names or [], grace_s=grace)
    except (Storage, CorruptLog, NoSuchRun) as error:
        rows = stop_unrecorded(layout, names or [], grace_s=grace)
        if rows and isinstance(error, NoSuchRun):
            return of_a_run_that_is_gone(session, rows)
        if rows:
            error.message += f"; all the same, these were ended: {', '.join(map(in_words, rows))}"
            error.details["strays"] = rows
        raise
    steps = session.next_steps(conductor, conductor.standing())
    body = {
        "op": conductor.history.op,
        "stopped": report.stopped,
        "already": report.already,
        "still_alive": report.alive,
        "strays": report.strays,
        "recovered": conductor.recovered,
    }

    def text() -> None:
        from orchestra.cli.text import noted

        for row in report.stopped:
            ended = row["verdict"] == Verdict.STOPPED
            print(f"{row['name']}: {'stopped' if ended else in_full(row)}")
        for row in report.already:
            print(f"{row['name']}: {noted(row)}")
        for row in report.strays:
            print(f"{in_words(row)}: of no attempt at work, ended")
        for row in report.alive:
            where = f" on {row['host']}" if "host" in row else ""
            print(f"{row['name']}: could not be ended: pids {', '.join(map(str, row['pids']))}{where}")
        if not (report.stopped or report.already or report.strays):
            print("nothing was running")

    session.answer(body, steps, text)
    return 1 if report.alive else 0


def in_full(row: dict[str, Any]) -> str:
    """How one that was to be stopped has ended by itself."""
    verdict = f": {row['verdict']}" if row["verdict"] else ""
    return f"had just ended, {row['state']}{verdict}"


def of_a_run_that_is_gone(session: Session, rows: list[dict[str, Any]]) -> int:
    """Its directory is not there any more; what lived of it was ended."""
    alive = [{"name": row["worker"], "pids": row["still_alive"]} for row in rows if "still_alive" in row]
    body = {"stopped": [], "already": [], "still_alive": alive, "strays": rows, "recovered": []}

    def text() -> None:
        print(f"the run is gone; what lived of it was ended: {', '.join(map(in_words, rows))}")

    session.answer(body, [f"orchestra list{session.options}"], text)
    return 1 if alive else 0


def in_words(row: dict[str, Any]) -> str:
    return f"{row['worker']} (pids {', '.join(map(str, row['pids']))})"
