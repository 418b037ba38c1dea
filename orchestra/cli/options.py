"""The arguments and options that several verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import click
import typer

from orchestra.cli.session import Session
from orchestra.model.units import LONGEST_S, BadValue, format_duration, parse_duration

if TYPE_CHECKING:
    from orchestra.engine.observe import Observer

MOST_ALERTS = 10  # in one answer; `truncated` tells of more


def truncated(*, workers: int, alerts: int) -> dict[str, int] | bool:
    """How many of each are left out of an answer; False: none. `alerts`: how many there are."""
    left_out = {"workers": max(0, workers), "alerts": max(0, alerts - MOST_ALERTS)}
    return left_out if any(left_out.values()) else False


def complete_run(ctx: click.Context, args: list[str], incomplete: str) -> list[str]:
    from orchestra.engine.place import run_ids
    from orchestra.errors import OrchestraError

    session = ctx.find_object(Session) or Session()
    try:
        return [run for run in run_ids(session.root) if run.startswith(incomplete)]
    except OrchestraError:
        return []


def complete_worker(ctx: click.Context, args: list[str], incomplete: str) -> list[str]:
    observer = observer_for_completion(ctx)
    names = observer.names() if observer else []
    return [name for name in names if name.startswith(incomplete)]


def complete_phase(ctx: click.Context, args: list[str], incomplete: str) -> list[str]:
    observer = observer_for_completion(ctx)
    plan = observer.history.plan if observer else None
    return [phase.name for phase in (plan.phases if plan else ()) if phase.name.startswith(incomplete)]


def observer_for_completion(ctx: click.Context) -> Observer | None:
    from click.shell_completion import split_arg_string

    from orchestra.engine.observe import Observer
    from orchestra.engine.place import locate
    from orchestra.errors import OrchestraError

    session = ctx.find_object(Session) or Session()
    run = ctx.params.get("run")
    if not run:  # an option that still lacks its value has stopped the parser: RUN is the first word
        words = split_arg_string(os.environ.get("COMP_WORDS", ""))[2:]
        run = next((word for word in words if not word.startswith("-")), "")
    try:
        return Observer(locate(run, session.root)).open()
    except OrchestraError:
        return None


def duration(most_s: float = LONGEST_S) -> Callable[[str | float], float]:
    """Reads seconds, 0 as well, or a duration as in a plan: "10m", "1h30m"."""

    def read(text: str | float) -> float:
        try:
            seconds = float(text)
        except ValueError:
            try:
                seconds = parse_duration(text)
            except BadValue as error:
                raise typer.BadParameter(str(error)) from None
        if not 0 <= seconds <= most_s:  # nan is not either
            raise typer.BadParameter(f"{text} is not from 0 to {format_duration(most_s)}")
        return seconds

    return read


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
Phase = Annotated[
    str | None,
    typer.Option(
        "--phase", metavar="P", help="Only the workers of this phase.", autocompletion=complete_phase
    ),
]
NoThrottle = Annotated[bool, typer.Option("--no-throttle", help="Do not ask the host whether it has room.")]


def session_of(ctx: typer.Context) -> Session:
    session: Session = ctx.obj
    return session
