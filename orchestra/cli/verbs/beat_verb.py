"""orchestra beat"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from orchestra.cli.options import session_of
from orchestra.engine.beat import beat
from orchestra.store.layout import Layout


def beat_(
    ctx: typer.Context,
    progress: Annotated[
        str | None, typer.Option("--progress", metavar="K/N", help="How far: K of N done.")
    ] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="What is going on.")] = None,
) -> int:
    """For workers, about themselves: say that you are alive, and how far.

    \b
    Example (inside a worker):
      orchestra beat --progress 3/10 --note "reading the third chapter"
    """
    session = session_of(ctx)
    data = beat(os.environ, progress=progress, note=note)
    if session.json or not prints_into_its_log():
        session.answer(data, [], lambda: None)
    return 0


def prints_into_its_log() -> bool:
    """Whether our answer would become part of what the worker printed."""
    log = Layout(os.environ["ORCHESTRA_RUN_DIR"]).log_out(os.environ["ORCHESTRA_WORKER"])
    try:
        return os.path.samestat(os.fstat(1), os.stat(log))
    except OSError:
        return False
