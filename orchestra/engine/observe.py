"""Observe: fold the events, then look at what the workers left and at their processes.

Nothing here writes. Where the log and the workers' files disagree, the files win.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from orchestra.backend.base import Backend
from orchestra.backend.local import Local
from orchestra.engine import faults, losses
from orchestra.engine.sighting import Sighting, shows_nothing
from orchestra.errors import NoSuchPhase, NoSuchWorker
from orchestra.host import clock
from orchestra.model.history import History
from orchestra.model.memory_kills import may_be_memory
from orchestra.model.names import or_nearest
from orchestra.model.record import ENDED, State, WorkerRecord
from orchestra.model.snapshot import Sight, Snapshot, Views, WorkerView, judge
from orchestra.model.trail import parse_result
from orchestra.model.workers import ABANDONED
from orchestra.store import lock
from orchestra.store.eventlog import CHECKED_WHOLE, EventLog, LogChanged
from orchestra.store.layout import MOST_STATE, Layout
from orchestra.store.publish import open_regular, read_text

if TYPE_CHECKING:
    from orchestra.engine.signs import SignReader
    from orchestra.engine.vigil import Vigil


class Observer:
    """A run, seen. `refresh` reads what is new in the log; `view` looks at one worker."""

    def __init__(self, layout: Layout, backend: Backend | None = None) -> None:
        self.layout = layout
        self.backend: Backend = backend or Local()
        self.log = EventLog(layout.events, layout.damaged)
        self.history = History()
        self.final: Snapshot | None = None  # how the run stood when the command had done its work

    # Imported by who needs them, as start-up counts: a lock that is held, workers that run.

    @cached_property
    def vigil(self) -> Vigil:
        from orchestra.engine.vigil import Vigil

        return Vigil(self.layout)

    @cached_property
    def signs(self) -> SignReader:
        from orchestra.engine.signs import SignReader

        return SignReader(self.layout)

    def standing(self) -> Snapshot:
        """How the run stands, for the answer: not looked at twice."""
        return self.final or self.snapshot()

    def open(self, *, above: int = CHECKED_WHOLE) -> Observer:
        """Read the log, on from its checkpoint where it is long. Raises NoSuchRun, CorruptLog, Storage."""
        try:
            self.read_log(above=above)
        except FileNotFoundError:
            if os.path.isdir(self.layout.attempts) or losses.lost(self.layout, self.history):
                raise faults.headless(self.layout, self.history) from None
            raise faults.no_such_run(self.layout) from None
        except OSError as error:
            raise faults.unreadable("read the event log", self.layout, error) from error
        if self.history.created is None:
            if not self.log.damage and not os.path.isdir(self.layout.attempts):
                raise faults.never_made_whole(self.layout)
            raise faults.headless(self.layout, self.history)
        return self

    def read_log(self, *, above: int = CHECKED_WHOLE) -> None:
        """Raises OSError. `above`: only for a log of more bytes than this a checkpoint counts."""
        if self.log.place.offset == 0:
            self._resume(above)
        self.log.feed(self.history.apply)

    def _resume(self, above: int) -> None:
        try:
            if os.stat(self.layout.events).st_size <= above:
                return
            from orchestra.model.checkpoint import parse as parse_checkpoint  # of long logs only

            with open_regular(self.layout.state, MOST_STATE) as file:
                saved = parse_checkpoint(file.read())
        except OSError:
            return
        if saved and self.log.resume(saved.place, saved.history.op, above=above):
            self.history = saved.history

    def refresh(self) -> None:
        """Read what is new in the log. Raises CorruptLog, Storage."""
        try:
            self._read_news()
        except OSError as error:
            raise faults.unreadable("read the event log", self.layout, error) from error

    def _read_news(self) -> None:
        """All anew where a write that failed was taken back. Raises OSError."""
        try:
            self.read_log()
        except LogChanged:
            anew = Observer(self.layout, self.backend)
            anew.read_log()
            if not set(self.history.workers) <= set(anew.history.workers):
                raise
            self.log, self.history = anew.log, anew.history

    def losses(self) -> list[dict[str, object]]:
        """Alerts of what the log has lost."""
        return losses.alerts(self)

    # --- one worker ---------------------------------------------------------------------

    def names(self) -> list[str]:
        """Of all workers, the planned ones too."""
        return list({**self.history.planned(), **self.history.workers})

    def record_of(self, name: str) -> WorkerRecord:
        record = self.history.workers.get(name) or self.history.planned().get(name)
        if record is None:
            hint = f"orchestra status {self.layout.words} lists the workers"
            raise NoSuchWorker(
                f"run {self.layout.run_id} has no worker {name!r}",
                hint=or_nearest(name, self.names(), hint),
                worker=name,
            )
        return record

    def view(self, record: WorkerRecord, *, conducted: bool | None = None, stall: bool = True) -> WorkerView:
        """One worker as it stands. `conducted`: whether somebody else is at work on it, if known."""
        if conducted is None:
            conducted = self.conducted()
        if record.state in ENDED:
            return judge(record, Sight(), conducted=conducted)
        if record.state == State.PLANNED:
            return WorkerView(record, State.PLANNED)
        if record.state == State.DEFERRED and shows_nothing(record, self.layout):  # of a thousand that wait
            return judge(record, Sight(), conducted=conducted)
        sight = Sighting(record, self.layout, self.backend).sight()
        if sight.result is not None and may_be_memory(sight.result):
            from orchestra.engine.memory import memory_kill  # seldom needed

            sight = sight._replace(memory_kill=memory_kill(self.layout, record, sight.result))
        if stall and sight.alive:
            sight = self.signs.add_to(record, sight)
        return self._overdue(judge(record, sight, conducted=conducted), sight)

    def _overdue(self, view: WorkerView, sight: Sight) -> WorkerView:
        """One past its timeout is told so while its launcher ends it (or cannot: then that is told)."""
        timeout_s = view.record.entry.timeout_s
        if not timeout_s or view.ended or sight.held_up or sight.stopped:
            return view
        if (clock.seconds_since(view.started_at or "") or 0) <= timeout_s:
            return view
        told = [f"past its timeout ({timeout_s:g} s), being ended", view.reason]
        return view._replace(reason="; ".join(filter(None, told)))

    def at_work(self) -> int:
        """How many workers of the run are: by the log, but for those that have ended since."""
        going = self.history.workers.having("going")
        return sum(1 for r in going if r.state == State.RUNNING and not self.view(r, stall=False).ended)

    def attend(self, views: list[WorkerView]) -> list[str]:
        """What the plan says to do about them, for who may; returns whom it was done to."""
        return []

    # --- the whole run ------------------------------------------------------------------

    def lock_sight(self) -> lock.LockSight:
        return lock.look(self.layout)

    def lock_state(self) -> tuple[lock.LockSight, bool]:
        """What the lock shows, and whether its holder is proved dead."""
        sight = self.lock_sight()
        dead = sight.held and self.vigil.dead(sight)
        if dead and (again := self.lock_sight()) != sight:  # it let go before it ended
            return again, self.vigil.dead(again)
        return sight, dead

    def conducted(self) -> bool:
        """Whether some narrator is at work on the run at this moment."""
        sight, dead = self.lock_state()
        return sight.held and not dead

    def narrating(self) -> bool:
        """Whether the built-in narrator is, and has more of its plan to see to."""
        narration = self.history.narration
        sight, dead = self.lock_state()
        at_work = sight.holder is not None and sight.holder.command == "run" and not dead
        return narration is not None and not narration.over and at_work

    def conducted_elsewhere(self) -> bool:
        """Whether a narrator that cannot be seen from here, as on another host, is at work on the run."""
        sight, dead = self.lock_state()
        return not dead and sight.holder is not None and self.vigil.health(sight.holder).left_s is not None

    def views(self, *, conducted: bool | None = None) -> Views:
        """Looks at everybody who has not ended, and at nobody else."""
        if conducted is None:
            conducted = self.conducted()
        workers = self.history.workers
        if any(record.state == State.RUNNING for record in workers.having("going")):
            self.signs.prepare(workers.having("going"))
        seen = {record.name: self.view(record, conducted=conducted) for record in workers.having("going")}
        states: dict[str, str] = dict.fromkeys(self.history.planned(), State.PLANNED)
        states |= workers.states()
        states |= {name: view.state for name, view in seen.items()}

        def view(name: str) -> WorkerView:
            return seen.get(name) or self.view(self.record_of(name), conducted=conducted)

        return Views(states, view)

    def snapshot(self) -> Snapshot:
        sight, dead = self.lock_state()
        conducted = sight.held and not dead
        views = self.views(conducted=conducted)
        return Snapshot(
            self.history.op,
            views,
            conducted,
            self.vigil.describe(sight) if sight.held else {"held": False},
            self.history.seat,
            [*self._present_alerts(sight, dead, views), *reversed(self.history.alerts)],
        )

    def _present_alerts(self, sight: lock.LockSight, dead: bool, views: Views) -> list[dict[str, object]]:
        alerts: list[dict[str, object]] = []
        stopped = self.vigil.stopped(sight) if sight.held else None
        for kind, holder in (("dead_holder", sight.holder if dead else None), ("stopped_holder", stopped)):
            if holder is not None:
                alerts.append({"kind": kind, "pid": holder.process.pid, "command": holder.command})
        if sight.held and sight.holder is None:
            alerts.append({"kind": "unreadable_lock", "path": self.layout.lock})
        alerts += self.losses()
        alerts += [{"kind": "odd_event", "at_op": op} for op in self.history.odd]
        alerts += [
            {"kind": "log_damage", "offset": d.offset, "size": d.size, "torn": d.torn}
            for d in self.log.damage
            if not (d.torn and sight.held and not dead)  # somebody may be writing that very line
        ]
        alerts += [
            {"kind": "gap", "worker": view.record.name, "gap": view.gap}
            for view in views.among(State.SPAWNING)
            if view.gap
        ]
        for view in views.among(State.STALLED, State.RUNNING):
            name, process = view.record.name, view.process
            if view.stopped and process:
                alerts.append({"kind": "stopped_launcher", "worker": name, "pid": process.pid})
            if view.state == State.STALLED:
                alerts.append({"kind": "stalled", "worker": name, "reason": view.reason})
            elif view.reason and not view.stopped:  # one that runs has it only where something is wrong
                alerts.append({"kind": "held_up", "worker": name, "reason": view.reason})
        left = [(record.name, record.leftovers) for record in self.history.workers.having("leftovers")]
        for record in self.history.workers.having("going"):
            left.append((record.name, views.named(record.name).leftovers))
        alerts += [{"kind": "leftovers", "worker": name, "pids": list(pids)} for name, pids in left if pids]
        alerts += [
            {"kind": "late_result", "worker": name, "attempt": attempt}
            for name, attempt in self.late_results()
        ]
        return alerts

    def late_results(self) -> list[tuple[str, int]]:
        """Results that attempts wrote after they had been given up: kept, reported, not believed."""
        late = []
        for record in self.history.workers.having("abandoned"):
            for failure in record.failures:
                path = self.layout.attempt_result(record.name, failure["attempt"])
                abandoned = failure["verdict"] in ABANDONED
                text = read_text(path) if abandoned else None
                result = parse_result(text) if text else None
                if result is not None and result.verdict != failure["verdict"]:
                    late.append((record.name, failure["attempt"]))
        return late

    def phase_names(self, phase: str) -> list[str]:
        """The workers of a phase, planned and real. Raises NoSuchPhase."""
        plan = self.history.plan
        phases = [p for p in (plan.phases if plan else ()) if p.name == phase]
        planned = [entry.name for found in phases for entry in found.workers]
        real = [name for name, record in self.history.workers.items() if record.phase == phase]
        if not phases and not real:
            known = [p.name for p in plan.phases] if plan else []
            hint = f"its phases: {', '.join(known) if known else 'none: the run has no plan'}"
            raise NoSuchPhase(
                f"run {self.layout.run_id} has no phase {phase!r}",
                hint=or_nearest(phase, known, hint),
                phase=phase,
            )
        return list(dict.fromkeys([*planned, *real]))
