"""orchestra doctor"""

from __future__ import annotations

from typing import Annotated

import typer

from orchestra.cli.options import complete_run, session_of
from orchestra.model.checkup import Health, commands

IN_ORDER, SOMETHING_BAD = 0, 1


def doctor_(
    ctx: typer.Context,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="Its directory is looked at as well.", autocompletion=complete_run
        ),
    ] = None,
) -> int:
    """Check this machine (and a run's directory), and say what to mend. Changes nothing.

    Exit status: 0, or 1 where something is bad. What cannot be read is `unknown`, and never guessed.

    \b
    Examples:
      orchestra doctor
      orchestra doctor night-1
    """
    from orchestra.engine.doctor import agents, examine, machine
    from orchestra.engine.doctor_root import Place, of_runs
    from orchestra.engine.doctor_run import of_run

    session = session_of(ctx)
    layout = session.locate(run) if run is not None else None
    place = Place(session.root, session.given_root)
    own = of_run(layout, place) if layout is not None else []
    checks = examine([*machine(session.root), *of_runs(place), *own, agents()])

    def text() -> None:
        from orchestra.cli.text import show_checks

        show_checks(checks)

    session.answer({"checks": [check.to_json() for check in checks]}, commands(checks), text)
    return SOMETHING_BAD if any(check.verdict == Health.BAD for check in checks) else IN_ORDER
