"""What to do now: the commands that an answer proposes, ready to run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from orchestra.model.plan import Plan
from orchestra.model.record import ENDED, NARRATION_FLAGS, Narration, Seat, State
from orchestra.model.snapshot import Snapshot, Views, WorkerView, ended_alike
from orchestra.model.throttle import VARIABLE, never_met
from orchestra.model.verdict import Verdict, may_gain

MOST_NAMES = 20
MOST_EXPLAINED = 3


class Standing:
    """What the rules look at."""

    def __init__(
        self,
        run: str,  # RUN as it must stand in a command
        snapshot: Snapshot,
        plan: Plan | None = None,
        about: Collection[str] = (),  # whom the answer is about, if not all alike
        seat: Seat = Seat.FREE,
        narration: Narration | None = None,
    ) -> None:
        self.run, self.snapshot, self.plan, self.about = run, snapshot, plan, about
        self.seat, self.narration = seat, narration
        self.states = set(snapshot.workers.states.values())
        self._among: dict[State, list[WorkerView]] = {}

    @property
    def free(self) -> bool:
        """Whether what changes the run is not refused to whoever asks."""
        return not self.snapshot.conducted and self.seat == Seat.FREE

    @property
    def unfinished(self) -> bool:
        return not self.states <= set(ENDED)

    def among(self, state: State) -> list[WorkerView]:
        """Each is looked at once, whatever the rules ask."""
        if state not in self._among:
            self._among[state] = self.snapshot.workers.among(state) if state in self.states else []
        return self._among[state]

    def present(self, kind: str) -> list[dict[str, Any]]:
        """Alerts of what is wrong at this moment."""
        return [alert for alert in self.snapshot.present() if alert["kind"] == kind]


def next_steps(standing: Standing) -> list[str]:
    """The lines of all rules, in their order; nothing that would be refused to whoever asks."""
    return [step for rule in RULES for step in rule(standing)]


def verb_of(step: str) -> str:
    """Which of orchestra's it is; of another program, that."""
    words = shlex.split(step)
    if words[0] == "env":
        words = words[2:]
    return words[1] if words[0] == "orchestra" else words[0]


def resumed(run: str, flags: Collection[str], throttle: str) -> str:
    """`orchestra run` with what it was told before."""
    variable = f"env {VARIABLE}={shlex.quote(throttle)} " if throttle else ""
    return " ".join([f"{variable}orchestra run --run", run, *(f for f in NARRATION_FLAGS if f in flags)])


def free_the_lock(s: Standing) -> Iterator[str]:
    """A lock that does not say whose it is: unlock."""
    if s.present("unreadable_lock"):
        yield f"orchestra unlock {s.run}"


def wake(s: Standing) -> Iterator[str]:
    """Who holds the lock is stopped, or are launchers: let them go on."""
    if pids := [str(a["pid"]) for kind in ("stopped_holder", "stopped_launcher") for a in s.present(kind)]:
        yield f"kill -CONT {' '.join(pids)}"


def after_a_death(s: Standing) -> Iterator[str]:
    """The built-in narrator died or was interrupted: it goes on with the plan. Another dead holder:
    any mutating command takes over, and unlock does only that; as it does for a log that was cut or damaged.
    """
    if s.free and s.unfinished and s.narration is not None and not s.narration.over:
        yield resumed(s.run, s.narration.flags, s.narration.throttle)
    elif s.free and any(map(s.present, ("dead_holder", "log_shortened", "log_damage"))):
        yield f"orchestra unlock {s.run}"


def look_closer(s: Standing) -> Iterator[str]:
    """Somebody is at work of whom the log knows nothing: spawn takes on whom the plan has; else doctor."""
    at_work = {str(alert["worker"]) for alert in s.present("unknown_worker") if alert["pids"]}
    phase = next_phase(s.snapshot.workers, s.plan)
    planned = {
        entry.name for p in (s.plan.phases if s.plan else ()) if p.name == phase for entry in p.workers
    }
    if s.free and at_work & planned:
        yield f"orchestra spawn {s.run} --phase {phase}"
    elif at_work:
        yield f"orchestra doctor {s.run}"


def end_leftovers(s: Standing) -> Iterator[str]:
    """Of lost workers: stop those."""
    if s.free and (left := [str(alert["worker"]) for alert in s.present("leftovers")]):
        yield f"orchestra stop {s.run} {' '.join(left[:MOST_NAMES])}"  # it ends the others' as well


def explain_first(s: Standing) -> Iterator[str]:
    """Failures that nobody asked for, a few: of those it is about; what only a person can mend goes first,
    then what ended as the attempt before, then the latest. And somebody who stalls.
    """
    failed = s.among(State.FAILED)
    ours = unasked([view for view in failed if view.record.name in s.about] or failed)
    ours.sort(key=lambda v: (may_gain(v.retry), worth_proposing(v), -v.record.op))
    shown = [view for view in ours if not worth_proposing(view)][:MOST_EXPLAINED] or ours[:1]
    for view in shown + s.among(State.STALLED)[:1]:
        yield f"orchestra explain {s.run} {view.record.name}"


def mend(s: Standing) -> Iterator[str]:
    """Failures that may gain by another attempt: retry."""
    if s.free:
        yield from retry_step(s.run, [v for v in s.among(State.FAILED) if worth_proposing(v)])


def end_the_quiet(s: Standing) -> Iterator[str]:
    """Whom the plan says to: any command that changes the run does, and unlock does only that."""
    if s.free and any(view.to_be_ended for view in s.among(State.STALLED)):
        yield f"orchestra unlock {s.run}"


def wait_on(s: Standing) -> Iterator[str]:
    """Something runs, or may start once there is room: wait, from this moment on."""
    at_work = s.states & {State.RUNNING, State.STALLED} or (
        s.snapshot.conducted and State.SPAWNING in s.states
    )
    drain = s.free and any(not hopeless(view) for view in s.among(State.DEFERRED))
    if at_work or drain:
        yield f"orchestra wait {s.run} --since {s.snapshot.op}{' --drain' if drain else ''}"


def pick_up(s: Standing) -> Iterator[str]:
    """Something is deferred or half-done: spawn again; but explain a limit that is never met here."""
    deferred = s.among(State.DEFERRED)
    if never := [view.record.name for view in deferred if hopeless(view)]:
        yield f"orchestra explain {s.run} {never[0]}"
    if s.free and (len(deferred) > len(never) or any(view.gap for view in s.among(State.SPAWNING))):
        yield f"orchestra spawn {s.run}"


def hopeless(view: WorkerView) -> bool:
    """Whether it waits for a limit that is above all that this host has."""
    deferral = view.record.deferral
    return deferral is not None and bool(never_met(deferral.signals))


def begin_next_phase(s: Standing) -> Iterator[str]:
    """A phase is over, and nothing in it would gain by another attempt as it is, or the plan says to
    continue: spawn the next.
    """
    failed = s.among(State.FAILED)
    well = s.plan is not None and (s.plan.on_failure == "continue" or not any(map(worth_proposing, failed)))
    if s.present("unknown_worker"):
        return  # the same spawn comes first, or nothing is known of where the run is
    if s.free and well and (phase := next_phase(s.snapshot.workers, s.plan)) is not None:
        yield f"orchestra spawn {s.run} --phase {phase}"


def begin(s: Standing) -> Iterator[str]:
    """Nobody was ever asked for, and there is no plan: what a spawn takes."""
    if s.free and not s.states and not s.snapshot.alerts:
        yield "orchestra spawn --help"


def run_on(s: Standing) -> Iterator[str]:
    """What has ended the built-in narrator before the plan's end is mended, or would gain by no other
    attempt as it is: run.
    """
    stopped_for = s.narration.stopped_for if s.narration is not None else ()
    if not (s.free and stopped_for and s.unfinished):
        return
    standing = [view for view in s.among(State.FAILED) if view.record.name in stopped_for]
    if not any(map(worth_proposing, standing)):
        yield f"orchestra run --run {s.run}{' --keep-going' if standing else ''}"


RULES: tuple[Callable[[Standing], Iterator[str]], ...] = (
    free_the_lock,
    wake,
    after_a_death,
    look_closer,
    end_leftovers,
    explain_first,
    mend,
    end_the_quiet,
    wait_on,
    pick_up,
    begin_next_phase,
    begin,
    run_on,
)


def unasked(failed: Sequence[WorkerView]) -> list[WorkerView]:
    """Without those that somebody wanted to end."""
    return [view for view in failed if view.verdict != Verdict.STOPPED]


def retry_step(run: str, failed: Sequence[WorkerView]) -> list[str]:
    """Another attempt for these, in one call; for too many to be named, of all that may gain by it."""
    names = [view.record.name for view in failed]
    shown = names if len(names) <= MOST_NAMES else []
    return [" ".join(["orchestra retry", run, *shown])] if names else []


def worth_proposing(view: WorkerView) -> bool:
    """Whether to propose another attempt: not where the last one ended just like that before it.

    Stricter than `may_gain`, by which a command that was given decides: whoever follows what is
    proposed would go round for ever.
    """
    record = view.record
    if not may_gain(view.retry):
        return False
    return record.attempt <= (record.entry.retries or 0) or not ended_alike(view)


def after_error(
    error: dict[str, Any],
    verb: str,
    run: str,
    options: str,
    call: Collection[str] = (),
    throttle: str = "",
) -> list[str]:
    """What makes sense after an error; `run` and `options` as they must stand in a command, or nothing.

    `call`: the words of the one that was made; `throttle`: the limits that it had in its environment.
    """
    code = error["code"]
    if code == "usage":
        return [f"orchestra {verb} --help" if verb else "orchestra --help"]
    if code == "no_such_run" and not error.get("pids"):
        return [f"orchestra list{options}"]
    if not run:
        return []
    if code == "no_such_run":
        return [f"orchestra stop {run}"]
    if code == "interrupted" and verb == "run":
        return [resumed(run, call, throttle)]
    if code == "corrupt_log" and error.get("copy"):
        return [f"orchestra unlock {run}"]
    if code in ("corrupt_log", "storage") and verb == "status":
        return [f"orchestra doctor {run}"]
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
    "corrupt_log",
    "interrupted",
)


def next_phase(views: Views, plan: Plan | None) -> str | None:
    """The first phase with workers that nobody asked for, if all before it are over."""
    for phase in plan.phases if plan else ():
        states = {views.states[entry.name] for entry in phase.workers if entry.name in views.states}
        if State.PLANNED in states:
            return phase.name
        if not states <= set(ENDED):
            return None
    return None


def option_words(root: str | None, narrator: str | None) -> str:
    """Root and narrator where they were given, as the next command needs them, each behind a space."""
    options = (("--root", root), ("--narrator", narrator))
    return "".join(f" {word} {shlex.quote(value)}" for word, value in options if value)


def run_words(run: str, root: str | None, narrator: str | None) -> str:
    """RUN, with those."""
    return shlex.quote(run) + option_words(root, narrator)
