"""What to do now: the commands that an answer proposes, ready to run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from orchestra.model.history import State
from orchestra.model.plan import Plan
from orchestra.model.snapshot import Snapshot, WorkerView
from orchestra.model.verdict import Retry

MOST_NAMES = 20


def next_steps(run: str, snapshot: Snapshot, plan: Plan | None, about: Sequence[str] = ()) -> list[str]:
    """`run` is RUN as it must stand in a command; `about`: whom the answer is about, if not all alike.

    The rules, each adding its line:

    1. A lock that does not say whose it is: unlock.
    2. A dead holder, leftovers: any mutating command puts them right; unlock does only that.
    3. Failures: explain the first (of those it is about); retry those that may gain by it.
       Somebody stalls: explain that.
    4. Something runs: wait, from this moment on.
    5. Something is deferred: spawn again.
    6. A phase is over and all was well (or the plan says to continue): spawn the next.
    """
    steps: list[str] = []
    kinds = {alert["kind"] for alert in snapshot.alerts if "op" not in alert}
    if kinds & {"unreadable_lock", "dead_holder", "leftovers"}:
        steps.append(f"orchestra unlock {run}")
    failed = [v for v in snapshot.workers if v.state == State.FAILED]
    stalled = [v for v in snapshot.workers if v.state == State.STALLED]
    ours = [v for v in failed if v.record.name in about]
    for view in (ours or failed)[:1] + stalled[:1]:
        steps.append(f"orchestra explain {run} {view.record.name}")
    again = [v.record.name for v in failed if v.retry != Retry.NEVER]
    if again:
        steps.append(f"orchestra retry {run} {' '.join(again) if len(again) <= MOST_NAMES else ''}".rstrip())
    at_work = [v for v in snapshot.workers if v.state in (State.RUNNING, State.STALLED)]
    if at_work or (snapshot.conducted and any(v.state == State.SPAWNING for v in snapshot.workers)):
        steps.append(f"orchestra wait {run} --since {snapshot.op}")
    if any(v.state == State.DEFERRED or v.gap for v in snapshot.workers):
        steps.append(f"orchestra spawn {run}")
    go_on = not failed or (plan is not None and plan.on_failure == "continue")
    phase = next_phase(snapshot.workers, plan) if go_on else None
    if phase is not None:
        steps.append(f"orchestra spawn {run} --phase {phase}")
    return steps


def next_phase(views: list[WorkerView], plan: Plan | None) -> str | None:
    """The first phase with workers that nobody asked for, if all before it are done."""
    by_name = {view.record.name: view for view in views}
    for phase in plan.phases if plan else ():
        states = {by_name[entry.name].state for entry in phase.workers if entry.name in by_name}
        if State.PLANNED in states:
            return phase.name
        if states - ({State.DONE, State.FAILED} if plan and plan.on_failure == "continue" else {State.DONE}):
            return None
    return None


def run_words(run: str, root: str | None) -> str:
    """RUN, and the root where it was given, as they must stand in the next command."""
    words = shlex.quote(run)
    return f"{words} --root {shlex.quote(root)}" if root else words
