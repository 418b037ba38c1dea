"""orchestra logs"""

from __future__ import annotations

import gc
import sys
from typing import Annotated

import typer

from orchestra.cli.options import Name, Run, session_of
from orchestra.engine.observe import Observer
from orchestra.engine.printed import follow, log_of, tail
from orchestra.errors import Usage
from orchestra.model.record import State, WorkerRecord
from orchestra.model.snapshot import WorkerView
from orchestra.model.verdict import Verdict

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
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="K", min=1, help="Of attempt K. Default: the last.")
    ] = None,
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
    check_attempt(record, attempt, following=following)
    path = log_of(observer.layout, record, attempt or record.attempt, stderr=stderr)
    if following:
        gc.enable()  # unlike most calls, this one may last
        for piece in follow(observer, name, path):
            if session.as_json:
                session.line(session.envelope({"worker": name, "stream": stream, "text": piece}, []))
            else:
                sys.stdout.write(piece)
                sys.stdout.flush()
        return 0
    text, cut = tail(path, lines, LIMIT_BYTES)
    view = observer.view(record) if record.state != State.PLANNED else WorkerView(record, State.PLANNED)
    of_the_last = attempt in (None, record.attempt)
    steps = steps_after(session.words, view) if of_the_last else []
    body = {
        "worker": name,
        "attempt": attempt or record.attempt,
        "stream": stream,
        "path": path,
        "text": text,
        "truncated": cut,
    }

    def show() -> None:
        sys.stdout.write(text)
        if not text:
            why = why_nothing(view) if of_the_last else f"printed nothing to {stream}"
            lines = [f"orchestra: {name} {why or f'has printed nothing to {stream}'}"]
            print("\n".join(lines + [f"next: {step}" for step in steps]), file=sys.stderr)

    if session.as_json:
        session.answer(body, steps)
    else:
        show()
    return 0


def why_nothing(view: WorkerView) -> str | None:
    """Why a worker cannot have printed anything, if that is so."""
    if view.verdict == Verdict.SPAWN_ERROR or (view.ended and view.started_at is None):
        return f"never ran: {view.verdict}: {view.reason}"
    return None if view.ended or view.at_work else f"was not started yet ({view.state})"


def steps_after(words: str, view: WorkerView) -> list[str]:
    name = view.record.name
    if view.at_work:
        return [f"orchestra logs {words} {name} --follow"]
    return [f"orchestra explain {words} {name}"] if view.state != State.DONE else []


def check_attempt(record: WorkerRecord, attempt: int | None, *, following: bool) -> None:
    """Raises Usage for one that never was, and for following one that is over."""
    if attempt is None or attempt == record.attempt:
        return
    if attempt > record.attempt:
        raise Usage(
            f"{record.name} has no attempt {attempt}: its last is {record.attempt}",
            hint="leave --attempt out for the last, or name an earlier one",
        )
    if following:
        gc.enable()  # unlike most calls, this one may last
        raise Usage(f"attempt {attempt} of {record.name} is over", hint="leave --follow out")
