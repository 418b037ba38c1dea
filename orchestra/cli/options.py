"""The arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import click
import typer

from orchestra.cli.session import Session


def complete_run(ctx: click.Context, args: list[str], incomplete: str) -> list[str]:
    from orchestra.engine.place import run_ids
    from orchestra.errors import OrchestraError

    session = ctx.find_object(Session) or Session()
    try:
        return [run for run in run_ids(session.root) if run.startswith(incomplete)]
    except OrchestraError:
        return []


def complete_worker(ctx: click.Context, args: list[str], incomplete: str) -> list[str]:
    from orchestra.engine.observe import Observer
    from orchestra.engine.place import locate
    from orchestra.errors import OrchestraError

    session = ctx.find_object(Session) or Session()
    try:
        observer = Observer(locate(ctx.params.get("run") or "", session.root)).open()
    except OrchestraError:
        return []
    names = [*observer.history.workers, *observer.planned()]
    return [name for name in names if name.startswith(incomplete)]


def seconds(value: float) -> float:
    """`nan` passes every range, and no comparison with it ever comes true."""
    if value != value:
        raise typer.BadParameter("nan is no number of seconds")
    return value


Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run's id, or the path of its directory.", autocompletion=complete_run
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A worker.", autocompletion=complete_worker)]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Workers. Default: all.", autocompletion=complete_worker),
]
Phase = Annotated[str | None, typer.Option("--phase", metavar="P", help="Only the workers of this phase.")]
NoThrottle = Annotated[bool, typer.Option("--no-throttle", help="Do not ask the host whether it has room.")]


def session_of(ctx: typer.Context) -> Session:
    session: Session = ctx.obj
    return session
