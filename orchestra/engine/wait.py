"""Wait until something has to be done: all ended, one failed, or the time is up."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import NamedTuple

from orchestra.backend.base import Watch
from orchestra.engine.losses import lost
from orchestra.engine.observe import Observer
from orchestra.engine.sampling import Sampler
from orchestra.errors import Storage, Usage
from orchestra.host import clock
from orchestra.model.advice import hopeless
from orchestra.model.event import Draft
from orchestra.model.record import ENDED, State
from orchestra.model.snapshot import WorkerView, earlier_ends, facts
from orchestra.model.verdict import Verdict

BEAT_S = 2.0  # how long a hint that never came can keep us in the dark, but for what is said next
# Whose launcher is watched through a pidfd cannot end unseen, and what others record of it is in the
# log: all that a beat can find is that it was quiet for too long. So many of them are looked at in
# one beat, each in its turn: with n of them that takes BEAT_S * n / 32, a minute for a thousand.
WATCHED_A_BEAT = 32
START_PATIENCE_S = 10.0  # for `orchestra run` to begin, where somebody follows it from the start
_OF_WORKER = re.compile(r"(?:result-(.+)\.json|\.spawn-(.+)\.error|\.pid-(.+)\.json)")


class Scope(NamedTuple):
    """Which workers a wait is about; empty `names`: every one that was ever asked for."""

    names: tuple[str, ...] = ()
    phase: str | None = None
    since: int | None = None
    keep_going: bool = False
    drain: bool = False  # deferred workers are being started: to wait for them is no waste
    first: bool = False  # come back as soon as any one of them has ended


class Heard:
    """What was told of a run's workers so far, up to which operation; for several waits in a row."""

    def __init__(self, op: int) -> None:
        self.op = op
        self.told: dict[str, tuple[int, State]] = {}  # worker -> attempt and state


class WaitReport(NamedTuple):
    """How a wait came back.

    `outcome`: ended (with `first`: one of them), failed, blocked (what is left will not
    start by waiting, or whoever starts it is gone), timeout.
    """

    outcome: str
    views: list[WorkerView]  # of the whole scope
    changed: list[WorkerView]  # since the caller's cursor
    op: int


Recorder = Callable[[list[Draft]], object]
Teller = Callable[[WorkerView, int], None]
"""Hears of a change, with the cursor behind it: whoever asks from there misses and repeats nothing."""


def record_facts(observer: Observer) -> Recorder:
    """Append facts without lock or seat, under the log's own lock; never an error.

    Not beside a narrator on another host, which the log's lock may not keep out: it will see them too;
    nor behind what a log has lost: that comes first, with the next mutating command.
    """

    def record(drafts: list[Draft]) -> None:
        if observer.conducted_elsewhere() or lost(observer.layout, observer.history):
            return
        with contextlib.suppress(OSError), observer.log.exclusive() as appender:
            history = observer.history.apply(appender.news)
            if any(damage.torn for damage in appender.damage()):
                return  # the next mutating command repairs it first
            fresh = [draft for draft in drafts if not history.knows(draft)]
            history.apply(appender.append(fresh, at=clock.now(), epoch=history.epoch))

    return record


def names_in_scope(observer: Observer, scope: Scope) -> list[str]:
    names = list(dict.fromkeys(scope.names))
    for name in names:
        observer.record_of(name)  # raises NoSuchWorker
    if scope.phase is not None:
        names += [n for n in observer.phase_names(scope.phase) if n not in names]
    elif not names:
        names = list(observer.history.workers)
    return names


def wait(
    observer: Observer,
    scope: Scope,
    *,
    timeout_s: float,
    record: Recorder | None = None,
    on_change: Teller | None = None,
    heard: Heard | None = None,
) -> WaitReport:
    """Wait on an opened observer.

    Raises NoSuchWorker, NoSuchPhase, and Usage for a cursor that this run never gave out;
    KeyboardInterrupt passes through.
    """
    history = observer.history
    if scope.since is not None and scope.since > history.op and not lost(observer.layout, history):
        raise Usage(
            f"--since {scope.since} is behind the last operation of run {observer.layout.run_id}, "
            f"{history.op}: it is no cursor of this run",
            hint="take the cursor from this run's last answer (`op`), or leave --since out",
        )
    return _Wait(observer, scope, record or record_facts(observer), on_change, heard).until(timeout_s)


def pause(observer: Observer, seconds: float) -> None:
    """Where nobody is to be watched: time alone, and on each beat a look at the log and at who conducts."""
    deadline = clock.monotonic() + seconds
    while (left := deadline - clock.monotonic()) > 0:
        clock.pause(min(BEAT_S, left))
        with contextlib.suppress(Storage):
            observer.refresh()


class _Wait:
    def __init__(
        self,
        observer: Observer,
        scope: Scope,
        record: Recorder,
        on_change: Teller | None,
        heard: Heard | None = None,
    ) -> None:
        self.observer = observer
        self.scope = scope
        self.record = record
        self.on_change = on_change
        self.names = names_in_scope(observer, scope)
        self.views: dict[str, WorkerView] = {}
        self.since = scope.since or 0
        self.heard = heard or Heard(self.since)
        self.sampler = Sampler(observer.layout.root)
        self.narrated = False  # by the built-in narrator, when we last looked
        self.turn = 0  # whose among the names it is to be looked at, though watched
        self.began_s = clock.monotonic()
        self.beat_at = self.began_s + BEAT_S

    def until(self, timeout_s: float) -> WaitReport:
        deadline = clock.monotonic() + timeout_s
        self.look(self.names)
        outcome = self.outcome()
        if outcome is None and timeout_s > 0:
            with self.observer.backend.watch(self.observer.layout.run_dir) as watch:
                self.look(self.names)  # what happened before the watch stood
                while (outcome := self.outcome()) is None:
                    left = deadline - clock.monotonic()
                    if left <= 0:
                        break
                    self.wait_once(watch, left)
        views = [self.views[name] for name in self.names]
        changed = [view for view in views if view.record.op > self.since or not _recorded(view)]
        return WaitReport(outcome or "timeout", views, changed, self.observer.history.op)

    def wait_once(self, watch: Watch, timeout_s: float) -> None:
        unwatched, gone = set(), []
        for name in self.names:
            view = self.views[name]
            if not view.ended and (view.process is None or not watch.follow(name, view.process)):
                unwatched.add(name)
                if view.process is not None:
                    gone.append(name)
        if gone:  # or not to be watched here
            self.look(gone)
        if self.outcome() is not None:
            return
        ended, files = watch.wait(max(0.0, min(timeout_s, self.beat_at - clock.monotonic())))
        hinted = ended | {found for file in files if (found := worker_of(file)) is not None}
        if files:
            self.refresh()
        if hinted or files:
            self.look([name for name in self.names if name in hinted], beat=False)
        if clock.monotonic() >= self.beat_at:
            self.refresh()
            self.look(self.due(unwatched))
            self.sampler.look(self.views.values())
            self.beat_at = clock.monotonic() + BEAT_S

    def due(self, unwatched: set[str]) -> list[str]:
        """Whom to look at in a beat: who is not watched, or may have become quiet, and some of the rest."""
        names, rest = [], []
        for at, name in enumerate(self.names):
            seen = self.views.get(name)
            if seen is None or seen.record is not self.observer.record_of(name):
                names.append(name)
            elif name not in unwatched and seen.at_work and not self.observer.signs.is_due(seen.record):
                rest.append(at)
            elif seen.record.state not in ENDED:
                names.append(name)
        turn = [at for at in rest if at >= self.turn] + [at for at in rest if at < self.turn]
        turn = turn[:WATCHED_A_BEAT]
        self.turn = turn[-1] + 1 if turn else 0
        return names + [self.names[at] for at in turn]

    def look(self, names: list[str], *, beat: bool = True) -> None:
        """Look at these workers and at all of whom the log has news; record and tell what is new."""
        if beat:
            self.refresh()
        looked: dict[str, None] = {}
        while more := [name for name in dict.fromkeys([*names, *self.in_the_news()]) if name not in looked]:
            self.observe(more)
            looked.update(dict.fromkeys(more))
        self.tell(list(looked))

    def in_the_news(self) -> list[str]:
        """Of whom the log has something that was not looked at yet.

        Where no worker was named, those that come while we wait count as well.
        """
        workers = self.observer.history.workers
        everybody = not self.scope.names and self.scope.phase is None
        if everybody and (new := [name for name in workers if name not in self.views]):
            self.names = list(dict.fromkeys([*self.names, *new]))
        return [
            name
            for name in self.names
            if (record := workers.get(name)) is not None
            and ((view := self.views.get(name)) is None or view.record is not record)
        ]

    def observe(self, names: list[str]) -> None:
        """See these workers as they stand; record what is new of them."""
        conducted = self.observer.conducted()
        drafts: list[Draft] = []
        self.observer.signs.prepare(self.observer.record_of(name) for name in names)
        for name in names:
            record = self.observer.record_of(name)
            view = self.observer.view(record, conducted=conducted)
            self.views[name] = view
            drafts += facts(view)
        if drafts:
            self.record(drafts)
            for name in {str(draft.data["worker"]) for draft in drafts}:
                known, view = self.observer.history.workers[name], self.views[name]
                if known.state in ENDED:  # perhaps by another's word, and with more to it
                    self.views[name] = self.observer.view(known, conducted=conducted)
                elif known.attempt == view.record.attempt:
                    self.views[name] = view._replace(record=known)
            ended = [str(draft.data["worker"]) for draft in drafts if draft.kind == "ended"]
            self.observer.signs.remember_ends([self.views[name] for name in ended])
        for name in self.observer.attend([self.views[name] for name in names]):
            self.views[name] = self.observer.view(self.observer.record_of(name), conducted=conducted)

    def refresh(self) -> None:
        try:
            self.observer.refresh()
        except Storage:
            if not self.views:
                raise

    def tell(self, names: list[str]) -> None:
        """In the order of the log; what has no event of its own comes behind what was told already."""
        for view in sorted((self.views[name] for name in names), key=lambda view: view.record.op):
            name, now = view.record.name, (view.record.attempt, view.state)
            if (before := self.heard.told.get(name)) == now:
                continue
            self.heard.told[name] = now
            if self.on_change is None or not (before or view.record.op > self.since):
                continue
            for end in self.missed(view, before) if before else ():
                self.on_change(end, self.heard.op)
            self.heard.op = max(self.heard.op, view.record.op)
            self.on_change(view, self.heard.op)

    def missed(self, view: WorkerView, before: tuple[int, State]) -> list[WorkerView]:
        """Ends of attempts that were followed by another since we looked."""
        return [
            end
            for end in earlier_ends(view.record)
            if before[0] <= end.record.attempt and before != (end.record.attempt, end.state)
        ]

    def outcome(self) -> str | None:
        """Why waiting is over, if it is."""
        views = [self.views[name] for name in self.names]
        failed = [view for view in views if view.state == State.FAILED and self.counts(view)]
        if any(map(self.is_a_surprise, failed)) and not self.scope.keep_going:
            return "failed"
        waiting = [view for view in views if not view.ended]
        if not views:  # nobody was ever asked for
            return None if self.observer.narrating() or self.more_to_come() else "blocked"
        if self.is_deserted(waiting):
            return "blocked"
        if not waiting:
            if self.more_to_come():
                return None
            return "failed" if failed else "blocked" if self.left_behind() else "ended"
        if self.scope.first and any(view.ended and self.counts(view) for view in views):
            return "ended"
        if all(map(self.is_idle, waiting)):
            return None if self.observer.conducted() or self.more_to_come() else "blocked"
        return None

    def is_a_surprise(self, failed: WorkerView) -> bool:
        """Whoever called one off wants the others started all the same."""
        return not (self.scope.drain and failed.verdict == Verdict.STOPPED)

    def is_idle(self, view: WorkerView) -> bool:
        """Whether it will not start by waiting."""
        if self.scope.drain and not hopeless(view):
            return view.state == State.PLANNED
        return view.state in (State.DEFERRED, State.PLANNED) or bool(view.gap)

    def is_deserted(self, waiting: list[WorkerView]) -> bool:
        """Whether the built-in narrator was at work, and is gone with something left to do: told at once."""
        if not self.for_the_whole_run():
            return False
        if self.observer.narrating():
            self.narrated = True
        elif self.narrated:
            self.refresh()  # it says that it is done before it lets go
            narration = self.observer.history.narration
            is_open = narration is not None and not narration.over
            return is_open and not self.observer.narrating() and (bool(waiting) or self.left_behind())
        return False

    def more_to_come(self) -> bool:
        """Whether the built-in narrator is at work on all that is waited for, and may add to it; or may
        have been called in the same breath, to begin or to go on.
        """
        if not self.for_the_whole_run() or self.observer.history.plan is None:
            return False
        young = clock.monotonic() - self.began_s < START_PATIENCE_S
        return self.observer.narrating() or (young and (not self.names or self.left_behind()))

    def left_behind(self) -> bool:
        """Whether the built-in narrator died, or was interrupted, before it came to all of its plan."""
        history = self.observer.history
        is_open = history.narration is not None and not history.narration.over
        to_come = any(name not in history.workers for name in history.planned())
        return self.for_the_whole_run() and is_open and (to_come or self.has_idle())

    def has_idle(self) -> bool:
        return any(view.state == State.DEFERRED for view in self.views.values())

    def for_the_whole_run(self) -> bool:
        scope = self.scope
        return scope.keep_going and not (scope.first or scope.names or scope.phase)

    def counts(self, view: WorkerView) -> bool:
        """With a cursor, only what came after it; a fact that could not be recorded counts always."""
        return self.scope.since is None or view.record.op > self.since or not _recorded(view)


def _recorded(view: WorkerView) -> bool:
    return view.record.state == view.state


def worker_of(file: str) -> str | None:
    """Whose file this is, by its name."""
    match = _OF_WORKER.fullmatch(file)
    return next((group for group in match.groups() if group), None) if match else None
