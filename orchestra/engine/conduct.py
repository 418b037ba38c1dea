"""Conduct: what every mutating command does around its own work.

Take the lock; read the log; put right what a dead predecessor left half-done; do the work;
write the derived state; let go. Recovery is no special path: it is how each command begins.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from orchestra.backend.base import Backend
from orchestra.engine import faults
from orchestra.engine.caller import check_caller
from orchestra.engine.heart import Heart
from orchestra.engine.mend import clear_litter, log_damaged, mend_ends, restore_losses, untold_damage
from orchestra.engine.narrator import Narrator
from orchestra.engine.observe import Observer
from orchestra.engine.settle import settle
from orchestra.engine.vigil import Vigil, heartbeat_in_words
from orchestra.errors import NarratorAlreadyActive, OrchestraError, Storage, Superseded, Usage
from orchestra.host import clock, process
from orchestra.model.event import ALERTS, CONTROL, Draft, Event
from orchestra.model.history import in_short
from orchestra.model.owner import LEAST_TTL_S, MOST_TTL_S, USUAL_TTL_S, Holder
from orchestra.model.record import Seat, State
from orchestra.model.snapshot import WorkerView
from orchestra.model.trail import Process
from orchestra.store import lock
from orchestra.store.layout import Layout
from orchestra.store.publish import publish

CHECKPOINT_BYTES = 8 << 20  # of the log, in one command


class Conductor(Observer):
    """An observer that holds the lock, and so may act and record."""

    def __init__(self, layout: Layout, heart: Heart, backend: Backend | None = None) -> None:
        super().__init__(layout, backend)
        self.heart = heart
        self.epoch = 0
        self.settled_op = 0  # the last operation before it was seen that all who had ended are put away
        self.saved_to = 0  # how far into the log state.json was last meant to speak
        self.began_at = 0  # the last operation before this command's own
        self.begun = False  # what the log has lost is written back; till then damage stays in sight
        self.untold: list[Draft] = []  # damage that was set aside, and could not be told in the log yet
        self.before: Observer | None = None  # the run as this command saw it before it had the lock
        self.recovered: list[dict[str, object]] = []  # what was put right, for the answer

    @property
    def holder(self) -> Holder:
        return self.heart.holder

    def conducted(self) -> bool:
        """By somebody else: no, by us."""
        return False

    def losses(self) -> list[dict[str, object]]:
        """None: they have been written back."""
        return []

    def attend(self, views: list[WorkerView]) -> list[str]:
        if not any(view.to_be_ended for view in views):
            return []
        from orchestra.engine.stop import stop_stalled  # seldom needed

        return stop_stalled(self, views)

    def lock_sight(self) -> lock.LockSight:
        """Ours does not count."""
        return lock.FREE

    def check_still_mine(self) -> None:
        if lock.is_lost(self.layout, self.holder.token):
            raise Superseded(
                f"this command lost the lock of run {self.layout.run_id} while it ran: "
                "somebody forced it open, or took it for dead when its heartbeat had stopped",
                hint=f"orchestra status {self.layout.words} shows who conducts now",
            )

    def refresh(self) -> None:
        """Raises Superseded too: one who only waits would not hear of it otherwise."""
        self.check_still_mine()
        super().refresh()

    def _read_news(self) -> None:
        """Nobody takes a write of ours back: a log that changed under us was changed from outside."""
        self.read_log()

    def record(self, drafts: list[Draft]) -> list[Event]:
        """Append facts that are not known yet. Raises Storage and Superseded, recording nothing."""
        if not drafts and not self.untold and not (self.begun and self.log.damage):
            return []
        try:
            with self.log.exclusive() as appender:
                self.check_still_mine()
                self.history.apply(appender.news)
                # Somebody died in an append since we began.
                self.untold += log_damaged(appender.repair(torn=True))
                if self.begun:
                    self.untold += log_damaged(appender.repair(torn=False))
                fresh = self.untold + [draft for draft in drafts if not self.history.knows(draft)]
                events = appender.append(fresh, at=clock.now(), epoch=self.epoch)
                self.untold = []
        except OSError as error:
            raise faults.unreadable("append to the event log", self.layout, error) from error
        self.history.apply(events)
        # A long command's log, too, is not to be read whole.
        if self.log.place.offset - self.saved_to > CHECKPOINT_BYTES:
            self.saved_to = self.log.place.offset
            self.write_checkpoint({})
        return events

    # --- the beginning and the end of each command ----------------------------------------

    def begin(self, freed: Holder | None) -> None:
        """Read and repair the log; write back what it has lost; clear up after a dead holder."""
        if freed is not None:
            clear_litter(self.layout, freed.process.pid)
        told, headless_op = mend_ends(self)
        self.open()
        self.began_at = self.history.op
        self.saved_to = self.log.place.offset
        told += restore_losses(self, headless_op)
        if freed is not None:
            seen = process.lives(freed.process) is False
            reason = "its holder is dead" if seen else "its holder's heartbeat has stopped"
            told.append(Draft(ALERTS, "lock_taken_over", {"holder": freed.to_json(), "reason": reason}))
        self.begun = True
        events = self.record(told)
        events += self.record(untold_damage(self.layout, self.history))
        self.recovered += [
            {"what": event.kind, **in_short(event.data)}
            for event in events
            if event.kind != "lock_taken_over"
        ]
        if freed is not None:
            self.recovered.append({"what": "lock_taken_over", "pid": freed.process.pid})

    def sit(self, narrator: str | None) -> None:
        """Look at the seat, where the caller goes by an ID."""
        if narrator is None:
            return
        claim = self.history.seat_for(narrator)
        seat, since = self.history.seat, self.history.seat_since
        sit_anew = f"orchestra takeover {self.layout.words}"
        if claim == Seat.LOST:
            raise Superseded(
                f"narrator {seat!r} took over run {self.layout.run_id} at {since}: "
                f"{narrator!r} conducts it no more",
                hint=f"if that was wrong: {sit_anew}",
                seat=seat,
                since=since,
            )
        if claim == Seat.TAKEN:
            raise NarratorAlreadyActive(
                f"run {self.layout.run_id} is conducted by narrator {seat!r} since {since}",
                hint=f"if it is gone for good: {sit_anew}",
                seat=seat,
                since=since,
            )
        self.take_seat(narrator)

    def take_seat(self, narrator: str) -> None:
        before = self.history.seat
        if before != narrator:
            self.record([Draft(CONTROL, "seat_taken", {"narrator": narrator, "from": before})])

    def write_state(self) -> None:
        """Rewrite state.json from what the log and the files say. Never the truth, so never an error."""
        self.final = self.snapshot()
        workers, seen = self.history.workers, self.final.workers
        views = {record.name: seen.named(record.name) for record in workers.having("going")}
        for name in seen.states:
            if seen.states[name] == State.DEFERRED and workers.waits_as_saved(name):
                views.pop(name, None)  # its line stands there already
        self.write_checkpoint(views)

    def write_checkpoint(self, views: dict[str, WorkerView]) -> None:
        """`views`: as they were just seen."""
        from orchestra.model.checkpoint import render

        history, log = self.history, self.log
        if not history.whole or history.op != log.last_op:
            return  # interrupted between the log and its fold
        with contextlib.suppress(OSError):
            data = render(self.layout.run_id, history, views, log.place, self.settled_op)
            publish(self.layout.state, data, durable=False)


May = Callable[[lock.LockSight], bool]


def nobody(sight: lock.LockSight) -> bool:
    """Who loses the lock although not proved dead."""
    return False


@contextlib.contextmanager
def conduct(
    layout: Layout,
    who: Narrator,
    *,
    backend: Backend | None = None,
    seated: bool = True,
    stops: bool = True,
    before: Observer | None = None,
    may_also_take: May = nobody,
) -> Iterator[Conductor]:
    """Hold the run's lock and begin; `stops` is as in `settle`. `before`: the run as it was seen without it.

    Raises NarratorAlreadyActive, NoSuchRun, Storage, NestedSpawn, …
    """
    check_caller(who.command)
    if not os.path.isdir(layout.run_dir):
        raise faults.no_such_run(layout)
    with holding(layout, who, may_also_take) as (heart, freed):
        conductor = Conductor(layout, heart, backend)
        conductor.before = before
        conductor.begin(freed)
        if seated:
            conductor.sit(who.id)
        try:
            settle(conductor, stops=stops)
            yield conductor
        except Superseded:  # the run is somebody else's now
            raise
        except BaseException:
            with contextlib.suppress(OSError, OrchestraError):  # what went wrong is told, and nothing else
                conductor.write_state()
            raise
        conductor.write_state()


@contextlib.contextmanager
def holding(
    layout: Layout, who: Narrator, may_also_take: May = nobody
) -> Iterator[tuple[Heart, Holder | None]]:
    """The lock alone: yields its beating heart, and the dead holder that it was freed from."""
    vigil = Vigil(layout)
    holder = Holder(
        process.this_process(), who.command, who.id, os.urandom(8).hex(), 0, clock.now(), lock_ttl_s()
    )
    freed: Holder | None = None

    def may(sight: lock.LockSight) -> bool:
        nonlocal freed
        freed = sight.holder if vigil.dead(sight) else None
        return freed is not None or may_also_take(sight)

    try:
        taken = lock.take(layout, holder, may, is_gone)
    except OSError as error:
        raise Storage.from_os("take the run's lock", layout.lock, error) from error
    if isinstance(taken, lock.LockSight):
        raise already_active(layout, taken, vigil)
    heart = Heart(taken.record, taken.holder)
    try:
        yield heart, freed if taken.before.held else None
    finally:
        heart.stop()
        lock.release(layout, taken.holder.token, is_gone)


def is_gone(who: Process) -> bool:
    """Whether a process is proved gone, so that it will never wake up."""
    return process.lives(who) is False


def lock_ttl_s() -> float:
    """How long a lock outlives the last beat of its holder, for observers on other hosts. Raises Usage."""
    text = os.environ.get("ORCHESTRA_LOCK_TTL")
    if not text:
        return USUAL_TTL_S
    try:
        ttl_s = float(text)
    except ValueError:
        ttl_s = 0.0
    if not LEAST_TTL_S <= ttl_s <= MOST_TTL_S:
        raise Usage(
            f"ORCHESTRA_LOCK_TTL={text} is not a number of seconds from {LEAST_TTL_S:g} to {MOST_TTL_S:g}",
            hint=f"unset it: {USUAL_TTL_S:g} is right for most",
        )
    return ttl_s


def already_active(layout: Layout, sight: lock.LockSight, vigil: Vigil) -> NarratorAlreadyActive:
    details = vigil.describe(sight)
    if sight.holder is None:
        return NarratorAlreadyActive(
            f"run {layout.run_id} is locked, and the lock ({layout.lock}) does not say by whom",
            hint=f"if no orchestra command is at work on it: orchestra unlock {layout.words}",
            pid=None,
            holder=details,
        )
    pid, host = sight.holder.process.pid, sight.holder.process.host
    health = vigil.health(sight.holder)
    stopped = vigil.stopped(sight) is not None
    cont = f" and is stopped (kill -CONT {pid} lets it go on)" if stopped else ""
    return NarratorAlreadyActive(
        f"another narrator (pid {pid} on {host}, orchestra {sight.holder.command}) "
        f"has held run {layout.run_id} since {sight.holder.acquired_at}{heartbeat_in_words(health)}{cont}",
        hint=f"wait for it, or end it ({ending(pid, stopped=stopped)}): its workers run on; "
        f"only if you are sure that it must lose the run: orchestra unlock {layout.words} --force"
        if health.left_s is None
        else f"wait for it, or end it there (kill {pid} on {host}); if it is gone, ask again "
        f"in {health.left_s + 1:.0f} s, or let orchestra unlock {layout.words} watch its heartbeat",
        pid=pid,
        holder=details,
    )


def ending(pid: int, *, stopped: bool) -> str:
    """The command that ends a narrator; one that is stopped hears it only once it goes on."""
    return f"kill {pid}; kill -CONT {pid}" if stopped else f"kill {pid}"
