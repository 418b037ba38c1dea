"""The built-in narrator: all phases, in order, unattended, with no silence anywhere.

Started again, it goes on where the run stands: what is done stays done, what runs is
waited for, what is deferred is picked up, what failed gets the attempts it has left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from orchestra.engine.conduct import Conductor
from orchestra.engine.fanout import FanOut
from orchestra.engine.pickup import Patience, has_room
from orchestra.engine.request import wanted_of
from orchestra.engine.retry import retry
from orchestra.engine.room import Room
from orchestra.engine.settings import told_here
from orchestra.engine.settle import end_leftovers
from orchestra.engine.spawn import candidates, intend, sort_out
from orchestra.engine.wait import Scope, pause, wait
from orchestra.errors import Usage
from orchestra.host import clock
from orchestra.model.event import CONTROL, Draft
from orchestra.model.plan import Phase, Plan
from orchestra.model.record import ENDED, NARRATION_FLAGS, State, WorkerRecord
from orchestra.model.snapshot import WorkerView, earlier_ends
from orchestra.model.verdict import Retry, may_gain

LONGEST_REST_S = 30.0  # before another attempt of what failed through the host's fault


class Told(NamedTuple):
    """Something that a watcher of the narrator may want to see."""

    what: str  # phase, worker, deferred
    phase: str
    view: WorkerView | None = None
    text: str = ""


Tell = Callable[[Told], None]


class NarrateReport(NamedTuple):
    finished: list[str]  # phases
    stopped_at: str | None  # the phase whose failures ended the run
    failed: list[str]  # workers


def narrate(
    conductor: Conductor, tell: Tell, *, throttled: bool = True, keep_going: bool = False
) -> NarrateReport:
    """Drive the plan to its end; with `keep_going` also where workers fail, whatever the plan says.

    A KeyboardInterrupt leaves the workers running. Raises Usage for a run without a plan, BadPlan for
    a brief that is gone.
    """
    plan = conductor.history.plan
    if plan is None:
        run = conductor.layout.run_id
        raise Usage(
            f"run {run} has no plan: there is nothing to conduct",
            hint=f"start workers with orchestra spawn {conductor.layout.words} --worker NAME=BRIEF -- CMD",
        )
    for phase in plan.phases:
        wanted_of(conductor, phase)  # a brief that is gone is told before anything is done
    given = (keep_going, not throttled)
    flags = [flag for flag, is_set in zip(NARRATION_FLAGS, given, strict=True) if is_set]
    before = conductor.history.narration
    told = told_here() if throttled else ""
    if before is None or before.over or (list(before.flags), before.throttle) != (flags, told):
        conductor.record([Draft(CONTROL, "narration_began", {"flags": flags, "throttle": told})])
    stops = plan.on_failure == "stop" and not keep_going
    report = _narrate(conductor, plan, tell, throttled=throttled, stops=stops)
    for record in conductor.history.workers.having("leftovers"):
        end_leftovers(conductor, record)
    stopped_for = report.failed if report.stopped_at else []
    conductor.record([Draft(CONTROL, "narration_ended", {"stopped_for": stopped_for})])
    return report


def _narrate(conductor: Conductor, plan: Plan, tell: Tell, *, throttled: bool, stops: bool) -> NarrateReport:
    finished: list[str] = []
    failed: list[str] = []
    room = Room(conductor.layout.root) if throttled else None
    for phase in plan.phases:
        tell(Told("phase", phase.name))
        unmended = _Phase(conductor, phase, tell, room).drive()
        failed += unmended
        if unmended and stops:
            return NarrateReport(finished, phase.name, failed)
        finished.append(phase.name)
    return NarrateReport(finished, None, failed)


class _Phase:
    def __init__(self, conductor: Conductor, phase: Phase, tell: Tell, room: Room | None) -> None:
        self.conductor = conductor
        self.phase = phase
        self.tell = tell
        self.room = room
        self.patience = Patience()
        self.told: set[tuple[str, int, State]] = set()
        self.deferred: dict[str, tuple[str, ...]] = {}  # what spoke against a worker when that was last told

    def drive(self) -> list[str]:
        """Until every worker of the phase has ended for good; returns who failed."""
        conductor = self.conductor
        new, _ = sort_out(conductor, wanted_of(conductor, self.phase))
        intend(conductor, new)
        names = dict.fromkeys(entry.name for entry in self.phase.workers)
        self.told.update(  # by whoever drove it before
            key
            for name in names
            for key, view in self.ends(name)
            if view.record.op <= conductor.began_at or view.record.attempt < self.record(name).attempt
        )
        while True:
            self.start(names)
            self.try_again(names)
            self.catch_up(names)
            ended = all(self.record(name).state in ENDED for name in names)
            if ended and not self.retriable(names):
                return [name for name in names if self.record(name).state == State.FAILED]
            self.await_change(names)

    def record(self, name: str) -> WorkerRecord:
        return self.conductor.history.workers[name]

    def start(self, names: dict[str, None]) -> None:
        waiting = [r for r in candidates(self.conductor) if r.name in names]
        if self.room is not None:
            self.room.read_settings()
        if not has_room(self.conductor, self.room, waiting):
            self.tell_deferred(
                [
                    {
                        "name": record.name,
                        "reason": record.deferral.reason,
                        "signals": record.deferral.signals,
                    }
                    for record in waiting
                    if record.deferral is not None
                ]
            )
            return
        report = FanOut(self.conductor, self.room).run(waiting)
        for row in [*report.spawned, *report.failed]:
            self.say(row["name"])
        if report.spawned:
            self.patience.start_over()
        self.tell_deferred(report.deferred)

    def tell_deferred(self, rows: list[dict[str, Any]]) -> None:
        """Not at every try, and who waits for the same in one line."""
        news: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in rows:
            signals = tuple(signal["signal"] for signal in row["signals"])
            if self.deferred.get(row["name"]) != signals:
                news.setdefault(signals, []).append(row)
            self.deferred[row["name"]] = signals
        for alike in news.values():
            more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
            text = f"{alike[0]['name']}{more}: {alike[0]['reason']}"
            self.tell(Told("deferred", self.phase.name, None, text))

    def retriable(self, names: dict[str, None]) -> list[str]:
        """Who failed, has attempts left, and may gain by another."""
        return [
            name
            for name in names
            if (r := self.record(name)).state == State.FAILED
            and may_gain(r.retry)
            and r.attempt <= (r.entry.retries or 0)
        ]

    def try_again(self, names: dict[str, None]) -> None:
        ready = [name for name in self.retriable(names) if self.rested(name)]
        if ready:
            report = retry(self.conductor, ready, room=self.room)
            for row in [*report.spawned, *report.failed]:
                self.say(row["name"])

    def rested(self, name: str) -> bool:
        """`later` wants a rest first, longer with each attempt."""
        record = self.record(name)
        if record.retry != Retry.LATER:
            return True
        quiet = clock.seconds_since(record.since)
        return quiet is None or quiet >= min(LONGEST_REST_S, 5.0 * 2 ** (record.attempt - 1))

    def await_change(self, names: dict[str, None]) -> None:
        waiting = any(self.record(n).state == State.DEFERRED for n in names) or self.retriable(names)
        timeout_s = self.patience.next_s() if waiting else 3600.0
        running = tuple(n for n in names if self.record(n).state == State.RUNNING)
        if not running:
            pause(self.conductor, timeout_s)
            return
        scope = Scope(names=running, since=self.conductor.history.op, first=bool(waiting))
        report = wait(
            self.conductor,
            scope,
            timeout_s=timeout_s,
            record=self.conductor.record,
            on_change=lambda view, _: self.say_view(view),
        )
        if report.outcome != "timeout":
            self.patience.start_over()

    def say(self, name: str) -> None:
        record = self.record(name)
        self.say_view(WorkerView(record, record.state, verdict=record.verdict, reason=record.reason))

    def say_view(self, view: WorkerView) -> None:
        key = (view.record.name, view.record.attempt, view.state)
        if key not in self.told:
            self.told.add(key)
            self.tell(Told("worker", self.phase.name, view))

    def catch_up(self, names: dict[str, None]) -> None:
        """Tell of every end: also of one that was recorded on the way to something else."""
        for name in names:
            for _, view in self.ends(name):
                self.say_view(view)

    def ends(self, name: str) -> list[tuple[tuple[str, int, State], WorkerView]]:
        """How each attempt of a worker has ended so far, with the key under which it is told."""
        record = self.record(name)
        views = earlier_ends(record)
        if record.state in ENDED:
            views.append(WorkerView(record, record.state, verdict=record.verdict, reason=record.reason))
        return [((name, view.record.attempt, view.state), view) for view in views]
