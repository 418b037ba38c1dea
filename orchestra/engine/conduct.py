"""Conduct: what every mutating command does around its own work.

Take the lock; read the log; put right what a dead predecessor left half-done; do the work;
write the derived state; let go. Recovery is no special path: it is how each command begins.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from orchestra.backend.base import Backend
from orchestra.engine import faults, losses
from orchestra.engine.caller import check_caller
from orchestra.engine.heart import Heart
from orchestra.engine.narrator import Narrator
from orchestra.engine.observe import Observer
from orchestra.engine.settle import settle
from orchestra.engine.vigil import Vigil, heartbeat_in_words
from orchestra.errors import NarratorAlreadyActive, OrchestraError, Storage, Superseded, Usage
from orchestra.host import clock, process
from orchestra.model.event import ALERTS, CONTROL, LOG_DAMAGED, Draft, Event
from orchestra.model.history import in_short
from orchestra.model.owner import LEAST_TTL_S, MOST_TTL_S, USUAL_TTL_S, Holder
from orchestra.model.record import Seat
from orchestra.model.snapshot import WorkerView
from orchestra.model.trail import Process
from orchestra.store import lock
from orchestra.store.eventlog import Repair
from orchestra.store.layout import Layout
from orchestra.store.publish import is_litter, publish

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
            self._clear_litter(freed.process.pid)
        told, headless_op = self._mend_ends()
        self.open()
        self.began_at = self.history.op
        self.saved_to = self.log.place.offset
        told += self._write_back(headless_op)
        if freed is not None:
            seen = process.lives(freed.process) is False
            reason = "its holder is dead" if seen else "its holder's heartbeat has stopped"
            told.append(Draft(ALERTS, "lock_taken_over", {"holder": freed.to_json(), "reason": reason}))
        self.begun = True
        events = self.record(told)
        events += self.record(self._untold_damage())
        self.recovered += [
            {"what": event.kind, **in_short(event.data)}
            for event in events
            if event.kind != "lock_taken_over"
        ]
        if freed is not None:
            self.recovered.append({"what": "lock_taken_over", "pid": freed.process.pid})

    def _write_back(self, headless_op: int | None) -> list[Draft]:
        """What the log has lost is written into it again; returns what is to be told of that.

        `headless_op`: the last operation of a log that had lost its beginning, before that came back.

        The lost operations' numbers are those of what is written back, and only what tells of it comes
        behind them: whoever is killed on the way leaves a log that is behind state.json still.
        """
        damaged = headless_op is not None or bool(self.log.damage)
        saved = losses.lost(self.layout, self.history, damaged=damaged)
        self.epoch = max(self.history.epoch, saved.epoch if saved else 0) + 1
        self.heart.sign(self.epoch)
        before = self.history.op if headless_op is None else headless_op
        if saved is not None:
            losses.write_back(self.layout, saved, self.history, self.record)
        if saved is not None or not os.path.exists(self.layout.state):
            self.record(losses.later_attempts(self.layout, self.history.workers.values()))
        if saved is None or saved.op <= before:
            return []
        self.log.last_op = max(self.log.last_op, saved.op)  # no operation is given twice
        return [Draft(ALERTS, "log_shortened", {"after_op": before, "up_to_op": saved.op})]

    def _clear_litter(self, pid: int) -> None:
        """Files that the dead holder was building."""
        for place in (self.layout.run_dir, self.layout.lock_notes):
            for name in os.listdir(place):
                if is_litter(name, pid):
                    with contextlib.suppress(OSError):
                        os.unlink(f"{place}/{name}")

    def _untold_damage(self) -> list[Draft]:
        """What was cut off the log by somebody who was killed or hindered before it was told."""
        told = {os.path.basename(str(alert.get("saved_as"))) for alert in self.history.alerts}
        try:
            names = os.listdir(self.layout.damaged)
        except (FileNotFoundError, NotADirectoryError):
            return []
        drafts = []
        for name in sorted(names):
            path = f"{self.layout.damaged}/{name}"
            if name.isascii() and name.isdigit() and name not in told and os.path.isfile(path):
                note = {"offset": int(name), "kept": os.stat(path).st_size, "saved_as": path}
                drafts.append(Draft(ALERTS, LOG_DAMAGED, note))
        return drafts

    def _mend_ends(self) -> tuple[list[Draft], int | None]:
        """Cut off a torn tail, and write back how the run began, where the log has lost that.

        Returns what is to be told of it; and where the beginning was lost, the last operation before that.
        """
        probe = Observer(self.layout, self.backend)
        try:
            with contextlib.suppress(FileNotFoundError):
                probe.read_log()
            headless = probe.history.created is None
            saved = losses.lost(self.layout, probe.history) if headless else None
            torn = any(damage.torn for damage in probe.log.damage)
            if not (saved or torn) or (headless and probe.history.op and not saved):
                # In order, but for its middle; or without its beginning, for `open` to say so as it is.
                if probe.log.place.offset:
                    self.log, self.history = probe.log, probe.history
                return [], None
            op = probe.history.op
            with probe.log.exclusive() as appender:
                probe.history.apply(appender.news)
                damage = log_damaged(appender.repair(torn=True))
                if saved is not None and saved.created is not None:
                    # How it began comes last: whoever is killed on the way leaves a log that still lacks it.
                    def append(drafts: list[Draft]) -> None:
                        probe.history.apply(appender.append(drafts, at=clock.now(), epoch=epoch))

                    epoch = saved.epoch + 1
                    losses.write_back(self.layout, saved, probe.history, append)
                    appender.append([losses.beginning(saved)], at=saved.created, epoch=epoch)
                    damage.append(Draft(ALERTS, "log_headless", {}))
        except OSError as error:
            raise faults.unreadable("repair the event log", self.layout, error) from error
        return damage, op if saved is not None else None

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
        going = self.history.workers.having("going")
        self.write_checkpoint({record.name: self.final.workers.named(record.name) for record in going})

    def write_checkpoint(self, views: dict[str, WorkerView]) -> None:
        """`views`: as they were just seen."""
        from orchestra.model.checkpoint import render

        history, log = self.history, self.log
        if not history.whole or history.op != log.last_op:
            return  # interrupted between the log and its fold
        with contextlib.suppress(OSError):
            data = render(self.layout.run_id, history, views, log.place, self.settled_op)
            publish(self.layout.state, data, durable=False)


def log_damaged(repair: Repair | None) -> list[Draft]:
    return [Draft(ALERTS, LOG_DAMAGED, repair.to_json())] if repair is not None else []


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
    may_also_take: May = nobody,
) -> Iterator[Conductor]:
    """Hold the run's lock and begin; `stops` is as in `settle`.

    Raises NarratorAlreadyActive, NoSuchRun, Storage, NestedSpawn, …
    """
    check_caller(who.command)
    if not os.path.isdir(layout.run_dir):
        raise faults.no_such_run(layout)
    with holding(layout, who, may_also_take) as (heart, freed):
        conductor = Conductor(layout, heart, backend)
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
