"""orchestra logs"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from orchestra.cli.options import Name, Run, session_of
from orchestra.engine.observe import Observer
from orchestra.engine.printed import follow, tail

LIMIT_BYTES = 64 * 1024


def logs_(
    ctx: typer.Context,
    run: Run,
    name: Name,
    following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as it comes, until the worker has ended.")
    ] = False,
    stderr: Annotated[
        bool, typer.Option("--stderr", help="Standard error instead of standard output.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--tail", "-n", metavar="N", min=0, help="The last N lines, 64 KiB at most.")
    ] = 200,
) -> int:
    """What the worker printed.

    \b
    Example:
      orchestra logs night-1 Builder-2 --stderr --tail 20
    """
    session = session_of(ctx)
    observer = Observer(session.locate(run)).open()
    record = observer.record_of(name)
    stream = "stderr" if stderr else "stdout"
    path = (observer.layout.log_err if stderr else observer.layout.log_out)(name)
    if following:
        for piece in follow(observer, name, path):
            if session.as_json:
                session.line(session.envelope({"worker": name, "stream": stream, "text": piece}, []))
            else:
                sys.stdout.write(piece)
                sys.stdout.flush()
        return 0
    text, cut = tail(path, lines, LIMIT_BYTES)
    body = {
        "worker": name,
        "attempt": record.attempt,
        "stream": stream,
        "path": path,
        "text": text,
        "truncated": cut,
    }

    def show() -> None:
        sys.stdout.write(text)

    if session.as_json:
        session.answer(body, [])
    else:
        show()
    return 0
