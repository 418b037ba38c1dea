"""orchestra status"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from orchestra.cli.options import MOST_ALERTS, Phase, Run, session_of, truncated
from orchestra.engine.beat import how_far
from orchestra.engine.observe import Observer
from orchestra.model.record import State
from orchestra.model.snapshot import WorkerView

if TYPE_CHECKING:
    from orchestra.engine.deferral import Outlook

_FIRST = (
    State.FAILED,
    State.STALLED,
    State.DEFERRED,
    State.SPAWNING,
    State.RUNNING,
    State.PLANNED,
    State.DONE,
)


def status_(
    ctx: typer.Context,
    run: Run,
    phase: Phase = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state", click_type=click.Choice([s.value for s in State]), help="Only these workers."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=0, help="At most this many workers; 0: all.")
    ] = 100,
) -> int:
    """Every worker, counts, lock, alerts and next steps. Works while another narrator holds the run.

    \b
    Example:
      orchestra status night-1 --state failed
    """
    session = session_of(ctx)
    layout = session.locate(run)
    observer = Observer(layout).open()
    snapshot = observer.snapshot()
    scope = snapshot
    if phase:
        scope = snapshot._replace(workers=snapshot.workers.only(set(observer.phase_names(phase))))
    states = {name: s for name, s in scope.workers.states.items() if state in (None, s)}
    shown = [scope.workers.named(name) for name in cut(states, limit)]
    hidden = len(states) - len(shown)
    far = how_far(layout, [view.record for view in shown])
    queue: dict[str, Outlook] = {}
    if any(view.state == State.DEFERRED for view in shown):
        from orchestra.engine.deferral import as_now  # asks the host

        shown, queue = as_now(observer, shown)
    body = {
        "op": snapshot.op,
        "counts": scope.counts(),
        "workers": [row(view, far, queue) for view in shown],
        "lock": snapshot.lock,
        "seat": snapshot.seat,
        "alerts": snapshot.alerts[:MOST_ALERTS],
        "truncated": truncated(workers=hidden, alerts=len(snapshot.alerts)),
    }

    def text() -> None:
        from orchestra.cli.text import show_status

        show_status(scope, shown, hidden, far, {n: o.ahead for n, o in queue.items() if o.ahead is not None})

    session.answer(body, session.next_steps(observer, snapshot), text)
    if at_work := snapshot.workers.among(State.RUNNING, State.STALLED):
        from orchestra.engine.sampling import Sampler

        Sampler(layout.root).look(at_work)
    return 0


def row(view: WorkerView, far: dict[str, Any], queue: dict[str, Outlook]) -> dict[str, Any]:
    """A worker's row; with how far it is by its own last word, or how likely it is to start next."""
    told, name = view.to_json(), view.record.name
    if name in far:
        told["progress"] = far[name]
    if view.state == State.DEFERRED and name in queue:
        told["deferred"] = queue[name]._asdict()
    return told


def cut(states: dict[str, str], limit: int) -> list[str]:
    """At most `limit` of them, those first that want attention, then again in their order."""
    names = list(states)
    if not limit or len(names) <= limit:
        return names
    kept = sorted(range(len(names)), key=lambda i: (_FIRST.index(State(states[names[i]])), i))[:limit]
    return [names[i] for i in sorted(kept)]
