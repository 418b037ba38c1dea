"""orchestra spawn"""

from __future__ import annotations

from typing import Annotated

import click
import typer

from orchestra.cli.options import NoThrottle, Run, complete_phase, session_of
from orchestra.cli.outcome import spawn_answer
from orchestra.cli.progress import working
from orchestra.engine.conduct import conduct
from orchestra.engine.observe import Observer
from orchestra.engine.outcome import SpawnReport
from orchestra.engine.request import Request, resolve
from orchestra.engine.spawn import preview, spawn


def spawn_(
    ctx: typer.Context,
    run: Run,
    phase: Annotated[
        str | None,
        typer.Option(
            "--phase",
            metavar="P",
            help="The workers of this phase of the plan.",
            autocompletion=complete_phase,
        ),
    ] = None,
    worker: Annotated[
        list[str] | None,
        typer.Option(
            "--worker", metavar="NAME=BRIEF", help="One more worker; BRIEF is a file. May be given again."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="A YAML or JSON list of workers; - is standard input.",
            click_type=click.Path(),
        ),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="WHAT",
            help="What must be there at the end: stdout, or a file in the worker's out; :N asks for N bytes. "
            "May be given again.",
        ),
    ] = None,
    no_throttle: NoThrottle = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would happen, also who would not start; write and start nothing."
        ),
    ] = False,
) -> int:
    """Start workers: from the plan's phase, from --worker, or from a list; behind -- stands the command of
    those that have none of their own.

    First it tries again what an earlier call deferred; with no worker named, only that. Each worker
    ends up spawned, deferred or failed. Making the same call twice is safe. In the
    command {prompt_file}, {prompt}, {out}, {run_dir} and {name} are filled in; where it names no prompt, that
    comes on standard input.

    \b
    Examples:
      orchestra spawn night-1 --phase research
      orchestra spawn night-1 --worker Scout=scout.md --expect report.md -- claude -p
    """
    session = session_of(ctx)
    layout = session.locate(run)
    request = Request(phase, worker or [], source, expect or [], session.after_dashes)
    observer = Observer(layout).open()
    wanted = resolve(observer, request)
    if dry_run:
        return spawn_answer(
            session, observer, preview(observer, wanted, throttled=not no_throttle), dry_run=True
        )
    with (
        conduct(layout, session.narrator, before=observer) as conductor,
        working(session, "spawning"),
    ):
        report: SpawnReport = spawn(conductor, wanted, throttled=not no_throttle)
    return spawn_answer(session, conductor, report)
