"""orchestra host"""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated, Any

import typer

from orchestra.cli.options import complete_run, session_of
from orchestra.cli.session import Session
from orchestra.engine.deferral import room_of
from orchestra.engine.host_report import host_report
from orchestra.engine.observe import Observer
from orchestra.engine.room import Room
from orchestra.host import clock

EVERY_S = 2.0


def host_(
    ctx: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="With the limits of this run's plan. Default: your own, or orchestra's.",
            autocompletion=complete_run,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help=f"Look again every {EVERY_S:g} s, until interrupted.")
    ] = False,
) -> int:
    """The host as the throttle sees it: every signal, its limit, the verdict; what would start now.

    \b
    Examples:
      orchestra host
      orchestra host night-1 --follow
    """
    session = session_of(ctx)
    observer = Observer(session.locate(run)).open() if run else None
    root = observer.layout.root if observer else os.path.realpath(session.root)
    room = room_of(observer) if observer else Room(root)
    if not follow:
        tell(session, look(room, observer))
        return 0
    gc.enable()
    if session.as_json or not sys.stdout.isatty():
        while True:
            if not session.as_json:
                print(f"\n{clock.now()}")
            tell(session, look(room, observer))
            clock.pause(EVERY_S)
    from rich.live import Live

    from orchestra.cli.text import console, host_table

    with Live(console=console, screen=False, auto_refresh=False) as live:
        while True:
            live.update(host_table(look(room, observer)), refresh=True)
            clock.pause(EVERY_S)


def look(room: Room, observer: Observer | None) -> dict[str, Any]:
    if observer is not None:
        observer.refresh()
    plan, at_work = (observer.history.plan, observer.at_work()) if observer else (None, 0)
    return host_report(room, plan, at_work)


def tell(session: Session, report: dict[str, Any]) -> None:
    def text() -> None:
        from orchestra.cli.text import console, host_table

        console.print(host_table(report))

    session.answer(report, [f"orchestra status {session.words}"] if session.run else [], text)
