"""orchestra takeover"""

from __future__ import annotations

import typer

from orchestra.cli.options import Run, session_of
from orchestra.engine.seat import takeover


def takeover_(ctx: typer.Context, run: Run) -> int:
    """Conduct a run in place of another narrator; from now on that one is refused.

    \b
    Example:
      orchestra takeover night-1 --narrator second-session
    """
    session = session_of(ctx)
    layout = session.locate(run)
    conductor = takeover(layout, session.narrator)
    steps = session.next_steps(conductor, conductor.standing())
    body = {"op": conductor.history.op, "seat": conductor.history.seat, "recovered": conductor.recovered}
    session.answer(body, steps, lambda: print(f"{conductor.history.seat} conducts {session.run}"))
    return 0
