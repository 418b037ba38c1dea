"""What to do now: the commands that an answer proposes, ready to run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from orchestra.model.plan import Plan
from orchestra.model.record import ENDED, Narration, Seat, State
from orchestra.model.snapshot import Snapshot, Views, WorkerView, ended_alike
from orchestra.model.throttle import never_met
from orchestra.model.verdict import Retry, Verdict, may_gain

MOST_NAMES = 20


def next_steps(
    run: str,
    snapshot: Snapshot,
    plan: Plan | None,
    about: Sequence[str] = (),
    *,
    seat: Seat = Seat.FREE,
    narration: Narration | None = None,
) -> list[str]:
    """`run` is RUN as it must stand in a command; `about`: whom the answer is about, if not all alike.

    The rules, each adding its line (only what is not refused to whoever asks):

    1. A lock that does not say whose it is: unlock. Another's seat: take over.
    2. The built-in narrator died or was interrupted: it goes on with the plan. Another dead holder: any
       mutating command takes over, and unlock does only that. Leftovers of lost workers: stop those.
    3. Failures that nobody asked for: explain the first (of those it is about; one that only a person can
       mend goes first, then the latest); retry those that may gain by it, or what else helps those that
       ended the built-in narrator. Somebody stalls: explain that. Whom the plan says to: stop.
    4. Something runs: wait, from this moment on.
    5. Something is deferred: spawn again; where a limit is never met on this host: explain that first.
    6. A phase is over and all was well (or the plan says to continue): spawn the next. What has
       ended the built-in narrator is mended: run on.
    """
    steps: list[str] = []
    free = is_free(snapshot, seat)
    present = {alert["kind"]: alert for alert in snapshot.alerts if "op" not in alert}
    if "unreadable_lock" in present:
        steps.append(f"orchestra unlock {run}")
    if seat == Seat.TAKEN and not snapshot.conducted:
        steps.append(f"orchestra takeover {run}")
    workers = snapshot.workers
    there = set(workers.states.values())
    unfinished = not there <= set(ENDED)
    if free and unfinished and narration is not None and not narration.over:
        steps.append(f"orchestra run --run {run}")
    elif free and "dead_holder" in present:
        steps.append(f"orchestra unlock {run}")
    if free and (left := [str(alert["worker"]) for alert in snapshot.alerts if alert["kind"] == "leftovers"]):
        steps.append(f"orchestra stop {run} {' '.join(left[:MOST_NAMES])}")  # it ends the others' as well
    failed = workers.among(State.FAILED)
    stalled = workers.among(State.STALLED)
    ours = [v for v in failed if v.record.name in about] or failed
    unasked = [v for v in ours if v.verdict != Verdict.STOPPED]
    for view in sorted(unasked, key=lambda v: (may_gain(v.retry), -v.record.op))[:1] + stalled[:1]:
        steps.append(f"orchestra explain {run} {view.record.name}")
    stopped_for = [v for v in failed if narration is not None and has_ended(narration, v)]
    if free:
        steps += mend_steps(run, [v for v in failed if v in stopped_for or worth_proposing(v)])
    if free and (over := [v.record.name for v in stalled if v.to_be_ended]):
        steps.append(f"orchestra stop {run} {' '.join(over[:MOST_NAMES])}")
    at_work = there & {State.RUNNING, State.STALLED}
    if at_work or (snapshot.conducted and State.SPAWNING in there):
        steps.append(f"orchestra wait {run} --since {snapshot.op}")
    deferred = [v.record for v in workers.among(State.DEFERRED)] if free else []
    if hopeless := [r.name for r in deferred if r.deferral and never_met(r.deferral.signals)]:
        steps.append(f"orchestra explain {run} {hopeless[0]}")
    if deferred or (free and any(v.gap for v in workers.among(State.SPAWNING))):
        steps.append(f"orchestra spawn {run}")
    go_on = free and (not failed or (plan is not None and plan.on_failure == "continue"))
    phase = next_phase(workers, plan) if go_on else None
    if phase is not None:
        steps.append(f"orchestra spawn {run} --phase {phase}")
    if free and narration is not None and narration.stopped_for and (unfinished or stopped_for):
        steps.append(f"orchestra run --run {run}")
    return steps


def has_ended(narration: Narration, view: WorkerView) -> bool:
    """Whether this failure ended the built-in narrator, and nothing was done about it since."""
    return view.record.name in narration.stopped_for and view.record.op <= narration.op


def is_free(snapshot: Snapshot, seat: Seat) -> bool:
    """Whether what changes the run is not refused to whoever asks."""
    return not snapshot.conducted and seat == Seat.FREE


def mend_steps(run: str, failed: Sequence[WorkerView]) -> list[str]:
    """What helps failed ones: another command where the command is to blame, else another attempt."""
    typos = [v for v in failed if v.verdict == Verdict.SPAWN_ERROR and v.retry == Retry.NEVER]
    others = [v.record.name for v in failed if v not in typos]
    steps = [f"orchestra retry {run} {view.record.name} -- CMD" for view in typos[:MOST_NAMES]]
    if others:
        steps.append(
            f"orchestra retry {run} {' '.join(others) if len(others) <= MOST_NAMES else ''}".rstrip()
        )
    return steps


def worth_proposing(view: WorkerView) -> bool:
    """Whether to propose another attempt: not where the last one ended just like that before it.

    Stricter than `may_gain`, by which a command that was given decides: whoever follows what is
    proposed would go round for ever.
    """
    record = view.record
    if not may_gain(view.retry):
        return False
    return record.attempt <= (record.entry.retries or 0) or not ended_alike(view)


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
