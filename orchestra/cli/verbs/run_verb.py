"""orchestra run"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Annotated

import click
import typer

from orchestra.cli.options import NoThrottle, complete_run, session_of
from orchestra.cli.progress import Tally, in_words, working
from orchestra.engine.conduct import conduct
from orchestra.engine.create import create
from orchestra.engine.narrate import Told, narrate
from orchestra.engine.settings import read_settings
from orchestra.engine.vigil import watch
from orchestra.errors import Usage
from orchestra.model.names import is_name


def run_(
    ctx: typer.Context,
    plan: Annotated[
        str | None,
        typer.Argument(
            metavar="[PLAN.yaml]",
            help="What is to be done; known to a run once made.",
            click_type=click.Path(),
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            metavar="RUN",
            help="The run. Default: named like the plan's file.",
            autocompletion=complete_run,
        ),
    ] = None,
    no_throttle: NoThrottle = False,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Go on with the next phase though workers failed."),
    ] = False,
) -> int:
    """The built-in narrator: all phases, in order, unattended.

    Deferred workers are picked up with back-off, failed ones get the attempts that the plan allows.
    Interrupted, it leaves the workers running; started again, it goes on where the run stands.
    In a pipe it says nothing before its one answer; from elsewhere it can be followed.

    \b
    Examples:
      orchestra run plan.yaml --run night-1
      orchestra run --run night-1                                     (go on)
      orchestra wait night-1 --follow --keep-going --timeout 12h      (follow it)
    """
    session = session_of(ctx)
    if plan is None and run is None:
        raise Usage("what shall be run?", hint="name a plan, or a run that is there: --run RUN")
    layout = session.locate(run or stem(plan or ""))
    with working(session, "looking at the lock") as show:
        watch(layout, show)  # unattended, it shall not fail for a host that is gone
    if not no_throttle:
        read_settings()  # refused before the run is made
    if plan is not None:
        create(layout, session.narrator, plan)

    gc.enable()  # unlike most calls, this one may last
    with conduct(layout, session.narrator) as conductor, working(session, "starting") as show:
        tell = silent if session.as_json else Teller(show)
        report = narrate(conductor, tell, throttled=not no_throttle, keep_going=keep_going)
    snapshot = conductor.standing()
    body = {
        "op": snapshot.op,
        "path": layout.run_dir,
        "finished": report.finished,
        "stopped_at": report.stopped_at,
        "failed": report.failed,
        "counts": snapshot.counts(),
        "recovered": conductor.recovered,
    }

    def text() -> None:
        if report.stopped_at:
            print(
                f"stopped after phase {report.stopped_at} (on_failure: stop, no --keep-going); "
                f"failed: {', '.join(report.failed)}"
            )
        elif report.failed:
            print(f"failed: {', '.join(report.failed)}")
        print(f"{layout.run_dir}: {in_words(snapshot.counts())}")

    about = report.failed if report.stopped_at else []
    session.answer(body, session.next_steps(conductor, snapshot, about), text)
    return 1 if report.failed else 0


def silent(told: Told) -> None:
    """Nothing but the answer is for a script."""


class Teller:
    """Tells people, as it happens; and how far the phase is, in the line that lives."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.show = show
        self.tally = Tally()

    def __call__(self, told: Told) -> None:
        from orchestra.cli.text import console, plain, say, say_phase

        if told.what == "phase":
            say_phase(told.phase)
            self.show(told.phase)
            self.tally = Tally()
        elif told.view is not None:
            say(told.view)
            self.show(f"{told.phase}: {self.tally.add(told.view)}")
        else:
            console.print(f"  deferred: {plain(told.text)}")


def stem(plan: str) -> str:
    name = os.path.splitext(os.path.basename(plan))[0]
    if not is_name(name):
        raise Usage(f"the plan's name {name!r} cannot name a run", hint="name it: --run RUN")
    return name
