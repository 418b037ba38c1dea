"""orchestra unlock"""

from __future__ import annotations

from typing import Annotated

import typer

from orchestra.cli.options import Run, session_of
from orchestra.cli.progress import working
from orchestra.engine.observe import Observer
from orchestra.engine.seat import unlock

_SAID = {
    "none": "the run was not locked",
    "unreadable": "freed a lock that did not say whose it was",
    "dead": "freed the lock of a dead narrator",
    "forced": "took the lock from a living narrator, by force",
}


def unlock_(
    ctx: typer.Context,
    run: Run,
    force: Annotated[
        bool, typer.Option("--force", help="Take the run from a holder that is alive. It will notice.")
    ] = False,
) -> int:
    """After a dead narrator: free the lock, put half-done spawns right, say what was found.

    Refuses while the holder is alive. On another host only its heartbeat can tell: that is watched until
    it beats, or has not for its time to live (a minute). Most often unlock is not needed: any command
    that changes the run takes over a dead holder's lock by itself. As the way out it
    does not ask who sits in the run's seat, and leaves them there: takeover is for that.

    \b
    Example:
      orchestra unlock night-1
    """
    session = session_of(ctx)
    layout = session.locate(run)
    with working(session, "looking at the lock") as show:
        result = unlock(layout, session.narrator, force=force, tell=show)
    observer = Observer(layout).open()
    steps = session.next_steps(observer, observer.snapshot())

    session.answer(
        {"op": observer.history.op, **result}, steps, lambda: print(_SAID[result["found"]["lock"]])
    )
    return 0
