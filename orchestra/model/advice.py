"""What to do now: the commands that an answer proposes, ready to run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from orchestra.model.history import State
from orchestra.model.plan import Plan
from orchestra.model.snapshot import Snapshot, Views, WorkerView
from orchestra.model.verdict import Retry

MOST_NAMES = 20


def next_steps(run: str, snapshot: Snapshot, plan: Plan | None, about: Sequence[str] = ()) -> list[str]:
    """`run` is RUN as it must stand in a command; `about`: whom the answer is about, if not all alike.

    The rules, each adding its line (while somebody conducts the run, only what is not refused):

    1. A lock that does not say whose it is: unlock.
    2. A dead holder, leftovers: any mutating command puts them right; unlock does only that.
    3. Failures: explain the first (of those it is about; one that only a person can mend goes first);
       retry those that may gain by it. Somebody stalls: explain that.
    4. Something runs: wait, from this moment on.
    5. Something is deferred: spawn again.
    6. A phase is over and all was well (or the plan says to continue): spawn the next.
    """
    steps: list[str] = []
    kinds = {alert["kind"] for alert in snapshot.alerts if "op" not in alert}
    if kinds & {"unreadable_lock", "dead_holder", "leftovers"}:
        steps.append(f"orchestra unlock {run}")
    workers = snapshot.workers
    failed = workers.among(State.FAILED)
    stalled = workers.among(State.STALLED)
    ours = [v for v in failed if v.record.name in about] or failed
    for view in sorted(ours, key=lambda v: v.retry != Retry.NEVER)[:1] + stalled[:1]:
        steps.append(f"orchestra explain {run} {view.record.name}")
    again = [v.record.name for v in failed if may_gain(v)]
    free = not snapshot.conducted  # else these would be refused
    if again and free:
        steps.append(f"orchestra retry {run} {' '.join(again) if len(again) <= MOST_NAMES else ''}".rstrip())
    there = set(workers.states.values())
    at_work = there & {State.RUNNING, State.STALLED}
    if at_work or (snapshot.conducted and State.SPAWNING in there):
        steps.append(f"orchestra wait {run} --since {snapshot.op}")
    if free and (State.DEFERRED in there or any(v.gap for v in workers.among(State.SPAWNING))):
        steps.append(f"orchestra spawn {run}")
    go_on = free and (not failed or (plan is not None and plan.on_failure == "continue"))
    phase = next_phase(workers, plan) if go_on else None
    if phase is not None:
        steps.append(f"orchestra spawn {run} --phase {phase}")
    return steps


def may_gain(view: WorkerView) -> bool:
    """Whether another attempt is worth proposing: not where the last one ended just like that before it."""
    record = view.record
    if view.retry == Retry.NEVER:
        return False
    if record.attempt <= (record.entry.retries or 0) or not record.failures:
        return True
    before = record.failures[-1]
    return (before["verdict"], before["reason"]) != (view.verdict, view.reason)


def after_error(code: str, verb: str, run: str) -> list[str]:
    """What makes sense after an error; `run` as it must stand in a command, or nothing."""
    if code == "no_such_run":
        return ["orchestra list"]
    if not run:
        return []
    if code == "interrupted" and verb == "run":
        return [f"orchestra run --run {run}"]
    if code in _LOOK_FIRST:
        return [f"orchestra status {run}"]
    return []


_LOOK_FIRST = (
    "narrator_already_active",
    "superseded",
    "holder_alive",
    "no_such_phase",
    "no_such_worker",
    "name_taken",
    "storage",
    "interrupted",
)


def next_phase(views: Views, plan: Plan | None) -> str | None:
    """The first phase with workers that nobody asked for, if all before it are done."""
    for phase in plan.phases if plan else ():
        states = {views.states[entry.name] for entry in phase.workers if entry.name in views.states}
        if State.PLANNED in states:
            return phase.name
        if states - ({State.DONE, State.FAILED} if plan and plan.on_failure == "continue" else {State.DONE}):
            return None
    return None


def run_words(run: str, root: str | None, narrator: str | None) -> str:
    """RUN, and root and narrator where they were given, as they must stand in the next command."""
    options = (("--root", root), ("--narrator", narrator))
    return " ".join([shlex.quote(run), *(f"{word} {shlex.quote(value)}" for word, value in options if value)])
