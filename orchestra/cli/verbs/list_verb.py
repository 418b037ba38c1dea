"""orchestra list"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from orchestra.cli.options import session_of
from orchestra.engine.listing import list_runs
from orchestra.engine.place import closed


def list_(
    ctx: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=0, help="At most this many; 0: all.")
    ] = 100,
) -> int:
    """The runs under the root, one row each, the latest first.

    \b
    Example:
      orchestra list --root ~/runs
    """
    session = session_of(ctx)
    rows, total = list_runs(session.root, limit)
    unreadable = closed(session.root)
    body = {
        "root": session.root,
        "runs": rows,
        "closed": unreadable,
        "truncated": {"runs": total - len(rows)} if total > len(rows) else False,
    }
    step = f"status {rows[0]['run']}" if rows else "init first"

    def text() -> None:
        from orchestra.cli.text import show_runs

        show_runs(rows)
        if len(rows) < total:
            print(f"… and {total - len(rows)} more (--limit 0 shows all)")
        if unreadable:
            print(f"not looked into (no permission): {', '.join(unreadable)}")
        if not rows:
            gone = "" if os.path.isdir(session.root) else ": there is no such directory"
            print(f"looked in {os.path.abspath(session.root)}{gone}")

    session.answer(body, [f"orchestra {step}{session.options}"], text)
    return 0
