"""orchestra logs"""

from __future__ import annotations

import gc
import sys
from typing import Annotated, Any

import typer

from orchestra.cli.options import Name, Run, session_of
from orchestra.cli.session import Session
from orchestra.engine.observe import Observer
from orchestra.engine.printed import follow, log_of, tail
from orchestra.errors import Usage
from orchestra.model.record import State, WorkerRecord
from orchestra.model.snapshot import Snapshot, WorkerView
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
    told = {"worker": name, "stream": stream}
    if following:
        if not follow_it(session, observer, told, path):
            tell_why_nothing(session, observer, told, {"text": ""})
        return 0
    text, cut = tail(path, lines, LIMIT_BYTES)
    body = {"attempt": attempt or record.attempt, "path": path, "text": text, "truncated": cut}
    if not text and lines and attempt in (None, record.attempt):
        tell_why_nothing(session, observer, told, body)
        return 0
    if session.as_json:
        steps = [] if attempt else steps_after(session, observer, observer.snapshot(), name, printed=True)
        session.answer({**told, **body}, steps)
    else:
        sys.stdout.write(text)
        if not text and lines:
            print(f"orchestra: attempt {attempt} of {name} printed nothing to {stream}", file=sys.stderr)
    return 0


def follow_it(session: Session, observer: Observer, told: dict[str, str], path: str) -> bool:
    """Each piece as it comes; returns whether there was any."""
    gc.enable()  # unlike most calls, this one may last
    any_at_all = False
    for piece in follow(observer, told["worker"], path):
        any_at_all = True
        if session.as_json:
            session.line(session.envelope({**told, "text": piece}, []))
        else:
            sys.stdout.write(piece)
            sys.stdout.flush()
    return any_at_all


def tell_why_nothing(
    session: Session, observer: Observer, told: dict[str, str], body: dict[str, Any]
) -> None:
    name, snapshot = told["worker"], observer.snapshot()
    why = why_nothing(snapshot.workers.named(name), told["stream"])
    steps = steps_after(session, observer, snapshot, name, printed=False)
    if session.as_json:
        session.answer({**told, **body, "why": why}, steps)
    else:
        rows = [f"orchestra: {told['worker']} {why}", *(f"next: {step}" for step in steps)]
        print("\n".join(rows), file=sys.stderr)


def why_nothing(view: WorkerView, stream: str) -> str:
    if view.verdict == Verdict.SPAWN_ERROR or (view.ended and view.started_at is None):
        return f"never ran: {view.verdict}: {view.reason}"
    if view.ended or view.at_work:
        return f"has printed nothing to {stream}"
    return f"was not started yet ({view.state})"


def steps_after(
    session: Session, observer: Observer, snapshot: Snapshot, name: str, *, printed: bool
) -> list[str]:
    """Whoever has read what one that failed printed may come from its story, and is not sent back to it."""
    view, words = snapshot.workers.named(name), session.words
    if view.at_work:
        return [f"orchestra logs {words} {name} --follow"]
    story = f"orchestra explain {words} {name}"
    told = printed or view.state == State.DONE
    return [*([] if told else [story]), *(s for s in session.next_steps(observer, snapshot) if s != story)]


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
        raise Usage(f"attempt {attempt} of {record.name} is over", hint="leave --follow out")
