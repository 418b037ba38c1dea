"""orchestra init"""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import click
import typer

from orchestra.cli.options import Run, session_of
from orchestra.engine.create import create
from orchestra.engine.observe import Observer
from orchestra.errors import Usage


def init_(
    ctx: typer.Context,
    run: Run,
    plan: Annotated[
        str | None,
        typer.Option("--plan", metavar="PLAN.yaml", help="What is to be done.", click_type=click.Path()),
    ] = None,
) -> int:
    """Make a run: a directory that holds everything that is true about it.

    Asked again with the same plan it does nothing; with another plan it is an error.

    \b
    Example:
      orchestra init night-1 --plan plan.yaml
    """
    session = session_of(ctx)
    if plan is None and run.endswith((".yaml", ".yml")) and os.path.isfile(run):
        raise Usage(
            f"{run} is a file: a plan, it seems, not the name of a run",
            hint=f"orchestra init RUN --plan {shlex.quote(run)}",
        )
    layout = session.locate(run)
    made = create(layout, session.narrator, plan)
    observer = Observer(layout).open()
    steps = session.next_steps(observer, observer.snapshot())
    if not steps:
        steps = [f"orchestra status {session.words}"]
    body = {"created": made, "path": layout.run_dir, "op": observer.history.op}
    text = f"{'made' if made else 'there already:'} {layout.run_dir}"
    session.answer(body, steps, lambda: print(text))
    return 0
