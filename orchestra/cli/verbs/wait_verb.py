"""orchestra wait"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Annotated

import typer

from orchestra.cli.options import MOST_ALERTS, Phase, Run, complete_worker, duration, session_of, truncated
from orchestra.cli.progress import Tally, in_words, working
from orchestra.cli.session import Session
from orchestra.engine.observe import Observer
from orchestra.engine.wait import Scope, WaitReport, wait
from orchestra.model.advice import verb_of
from orchestra.model.record import State
from orchestra.model.snapshot import WorkerView

USUAL_S = 100.0  # callers are often ended after two minutes
LOOK_S = 10.0  # whoever waits for less may only have looked
_STATUS = {"ended": 0, "failed": 1, "blocked": 4, "timeout": 5}


def wait_(
    ctx: typer.Context,
    run: Run,
    phase: Phase = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            metavar="NAME",
            help="Only this worker; may be given again.",
            autocompletion=complete_worker,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="S",
            parser=duration(),
            show_default=False,
            help="Seconds, or 10m (default 100); then exit status 5.",
        ),
    ] = USUAL_S,
    since: Annotated[
        int | None,
        typer.Option("--since", metavar="OP", min=0, help="Only what came after this operation counts."),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Wait for all, also when one fails.")
    ] = False,
    drain: Annotated[
        bool,
        typer.Option("--drain", help="Start deferred workers as soon as the host has room, oldest first."),
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Tell each change as it comes, one line each.")
    ] = False,
) -> int:
    """Wait until the named workers have ended, until one fails, or until the timeout.

    The answer says what changed since OP, and `next` carries the cursor for the next call. Without
    --since a failure that was told already ends it again at once: after a retry, wait from its op on.
    While orchestra run is at work, a wait for the whole run with --keep-going lasts until that has ended,
    or ends at once where it dies or is interrupted. Where it died before, and nobody is at work, another has
    ten seconds to begin.

    \b
    Examples:
      orchestra wait night-1 --phase research --timeout 110
      orchestra wait night-1 --follow --keep-going --timeout 12h      (a whole night, line by line)
    """
    session = session_of(ctx)
    layout = session.locate(run)
    observer = Observer(layout).open()

    gc.enable()  # unlike most calls, this one may last
    scope = Scope(tuple(only or ()), phase, since, keep_going, drain)
    if follow:
        tell_alerts(session, observer, since or 0)
    with working(session, "waiting") as show:
        tally = Tally()

        def tell(view: WorkerView, op: int) -> None:
            show(f"waiting: {tally.add(view)}")
            if follow:
                tell_line(session, view, op)

        if drain:
            report = drained(session, observer, scope, timeout, tell)
        else:
            report = wait(observer, scope, timeout_s=timeout, on_change=tell)
    snapshot = observer.snapshot()
    counts = {state.value: 0 for state in State}
    for view in report.views:
        counts[view.state] += 1
    if not (only or phase):
        counts[State.PLANNED] += snapshot.counts()[State.PLANNED]
    chosen = report.views if since is None else report.changed
    failed = {view.record.name for view in chosen if view.state == State.FAILED}
    rows = chosen[:MOST_ROWS]
    if any(view.state == State.DEFERRED for view in rows):
        from orchestra.engine.deferral import as_now  # asks the host

        rows, _ = as_now(observer, rows)
    steps = session.next_steps(observer, snapshot, failed)
    body = {
        "op": report.op,
        "outcome": report.outcome,
        "counts": counts,
        "workers": [view.to_json() for view in rows],
        "lock": snapshot.lock,
        "alerts": snapshot.alerts[:MOST_ALERTS],
        "truncated": truncated(workers=len(chosen) - MOST_ROWS, alerts=len(snapshot.alerts)),
    }

    def text() -> None:
        from orchestra.cli.text import show_alerts, show_workers

        show_workers(rows)
        print(f"{report.outcome}: {in_words(counts) or 'nothing was started yet'}")
        show_alerts(snapshot.present())

    again = wait_again(session.words, report.op, scope, timeout, follow=follow)
    over = f"orchestra status {session.words}"  # nothing is left to wait for
    session.answer(body, with_cursor(steps, again, report, over), text)
    return _STATUS[report.outcome]


MOST_ROWS = 100


def drained(
    session: Session,
    observer: Observer,
    scope: Scope,
    timeout_s: float,
    tell: Callable[[WorkerView, int], None],
) -> WaitReport:
    """The run is held only while workers are being started."""
    from orchestra.engine.caller import check_caller
    from orchestra.engine.conduct import conduct
    from orchestra.engine.fanout import FanOut
    from orchestra.engine.pickup import drain
    from orchestra.engine.room import Room
    from orchestra.engine.spawn import candidates

    check_caller(session.verb)

    def start(names: set[str], room: Room) -> bool:
        with conduct(observer.layout, session.narrator, before=observer) as conductor:
            waiting = [record for record in candidates(conductor) if record.name in names]
            return bool(FanOut(conductor, room).run(waiting).spawned)

    return drain(observer, scope, timeout_s=timeout_s, start=start, on_change=tell)


def tell_alerts(session: Session, observer: Observer, since: int) -> None:
    """What is wrong from the beginning, as that a dead narrator holds the run: no change will tell it."""
    snapshot = observer.snapshot()
    alerts = snapshot.present()
    if not alerts:
        return
    if session.as_json:
        steps = session.next_steps(observer, snapshot)
        body = {"op": since, "alerts": alerts[:MOST_ALERTS]}  # whoever goes on from here misses nothing
        session.line(session.envelope(body, [step for step in steps if verb_of(step) != "wait"]))
        return
    from orchestra.cli.text import show_alerts

    show_alerts(alerts)


def tell_line(session: Session, view: WorkerView, op: int) -> None:
    """One change, as it comes."""
    if session.as_json:
        session.line(session.envelope({"op": op, "worker": view.to_json()}, []))
        return
    from orchestra.cli.text import say

    say(view)


def with_cursor(steps: list[str], again: str, report: WaitReport, over: str) -> list[str]:
    """The cursor is in `next` whatever else there is to do, and first where waiting goes on."""
    rest = [step for step in steps if verb_of(step) != "wait"]
    at_work = any(view.at_work for view in report.views)
    if report.outcome == "timeout" or (at_work and report.outcome != "blocked"):
        urgent = [step for step in rest if verb_of(step) in _URGENT]
        return [*urgent, again, *(step for step in rest if step not in urgent)]
    if rest != steps and not at_work:  # others are
        return steps
    return [*(rest or [over]), again]


_URGENT = ("kill", "unlock", "stop")


def wait_again(words: str, op: int, scope: Scope, timeout_s: float, *, follow: bool) -> str:
    """The same wait, from here on."""
    parts = [f"orchestra wait {words} --since {op}"]
    parts += [f"--phase {scope.phase}"] if scope.phase else []
    parts += [f"--for {name}" for name in scope.names]
    parts += ["--keep-going"] if scope.keep_going else []
    parts += ["--drain"] if scope.drain else []
    parts += [f"--timeout {timeout_s:.12g}"] if timeout_s >= LOOK_S and timeout_s != USUAL_S else []
    parts += ["--follow"] if follow else []
    return " ".join(parts)
