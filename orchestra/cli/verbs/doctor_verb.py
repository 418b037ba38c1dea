"""orchestra doctor"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from orchestra.cli.options import complete_run, session_of
from orchestra.model.checkup import Check, Health, commands

IN_ORDER, SOMETHING_BAD = 0, 1

_HEALTH = {
    Health.OK: ("green", "✓"),
    Health.WARNING: ("yellow", "!"),
    Health.BAD: ("bold red", "✗"),
    Health.UNKNOWN: ("cyan", "?"),
}


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
    run_dir = layout.run_dir if layout is not None else None
    place = Place(session.root, session.given_root, session.given_narrator, run_dir)
    own = of_run(layout, place) if layout is not None else []
    checks = examine([*own, *machine(session.root), *of_runs(place), agents()])
    body = {"checks": [check.to_json() for check in checks]}
    session.answer(body, commands(checks), lambda: show(checks))
    return SOMETHING_BAD if any(check.verdict == Health.BAD for check in checks) else IN_ORDER


def show(checks: Sequence[Check]) -> None:
    from orchestra.cli.text import console, plain, table

    made = table("", "check", "found")
    join = "\n→ " if sys.stdout.isatty() else " → "  # elsewhere each check is one line
    for check in checks:
        style, sign = _HEALTH[check.verdict]
        found = plain(check.found) + (f"[{style}]{join}{plain(check.advice)}[/]" if check.advice else "")
        made.add_row(f"[{style}]{sign} {check.verdict}[/]", plain(check.check), found)
    console.print(made)
    counts = {health: sum(check.verdict == health for check in checks) for health in Health}
    console.print(", ".join(f"{n} {health}" for health, n in counts.items() if n))
