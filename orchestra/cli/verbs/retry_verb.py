"""orchestra retry"""

from __future__ import annotations

import typer

from orchestra.cli.options import Names, NoThrottle, Run, session_of
from orchestra.cli.outcome import spawn_answer
from orchestra.cli.progress import working
from orchestra.engine.conduct import conduct
from orchestra.engine.request import check_command
from orchestra.engine.retry import retry
from orchestra.engine.room import Room


def retry_(ctx: typer.Context, run: Run, names: Names = None, no_throttle: NoThrottle = False) -> int:
    """A new attempt for failed workers: the old one is made sure to be dead, and archived, first.

    With no worker named: all but those for which a retry is worth nothing (`retry: never`). What stands
    behind -- mends the command of the named ones.

    \b
    Examples:
      orchestra retry night-1 Builder-2
      orchestra retry night-1 Scout -- claude -p
    """
    session = session_of(ctx)
    layout = session.locate(run)
    command = check_command(session.after_dashes)
    with conduct(layout, session.narrator) as conductor, working(session, "retrying"):
        room = None if no_throttle else Room(layout.root)  # refuses bad settings: nothing is done yet
        report = retry(conductor, names or [], room=room, command=command)
    return spawn_answer(session, conductor, report)
