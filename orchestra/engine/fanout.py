"""One batch of workers: each tried in its own right, each in exactly one bucket.

(host clear?) ─► brief ─► prompt ─► launcher ─► process ─► sign of life
   └─ no: deferred              └──── whatever fails: failed ────┘
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from orchestra.backend.base import Batch, Launch
from orchestra.engine.admission import Admission, Refusal
from orchestra.engine.burial import clear_away, read_mark, write_result
from orchestra.engine.conduct import Conductor
from orchestra.engine.outcome import (
    Outcome,
    Pending,
    SpawnReport,
    failed_row,
    is_told_lately,
    waits_alike,
    who,
)
from orchestra.engine.paper import Unfit, encoded, stage_trail, with_brief
from orchestra.engine.room import Room
from orchestra.engine.sighting import MARK_PATIENCE_S
from orchestra.errors import Storage, Superseded
from orchestra.host import clock
from orchestra.model.event import OBSERVATIONS, Draft
from orchestra.model.record import State, WorkerRecord
from orchestra.model.snapshot import WorkerView, ending, facts
from orchestra.model.trail import Result, parse_mark
from orchestra.model.verdict import Retry, Verdict
from orchestra.store.publish import Staging, publish, read_text

LOOK_S = 0.05  # between two looks at a claim that is being written
SIGN_OF_LIFE_S = 30.0  # a launcher that shows none by then is ended
GROUP = 8  # how many trails wait for the disk together
NO_HELPER = "the helper that starts launchers died, or took no orders"
FIRST_GROUP = 2  # few, so that the machine has launchers to run while the next trails are written


class FanOut:
    """One batch. Outcomes are recorded at its end, whatever happens in between."""

    def __init__(self, conductor: Conductor, room: Room | None) -> None:
        self.conductor = conductor
        self.layout = conductor.layout
        self.admission = Admission(conductor.layout, room, conductor.at_work())
        self.outcomes: dict[str, Outcome] = {}
        self.pending: dict[str, Pending] = {}
        self.batch: Batch | None = None

    def run(self, records: list[WorkerRecord]) -> SpawnReport:
        if records:
            try:
                for group in self.groups(records):
                    self.try_group(group)
                self.await_signs()
            except BaseException as cut_short:
                self.excuse(records, cut_short)
                raise
            finally:
                try:
                    self.conductor.record([o.draft for o in self.outcomes.values() if o.draft])
                finally:
                    if self.batch is not None:
                        self.batch.close()
        rows: dict[str, list[dict[str, Any]]] = {"spawned": [], "deferred": [], "failed": []}
        for record in records:
            outcome = self.outcomes[record.name]
            rows[outcome.bucket].append(outcome.answer)
        return SpawnReport(rows["spawned"], rows["deferred"], rows["failed"], [])

    # --- a few workers, each in its own right -------------------------------------------------

    def groups(self, records: list[WorkerRecord]) -> Iterator[list[WorkerRecord]]:
        """A few at a time. Who waits for what was refused to another waits on: of a thousand that is most."""
        group: list[WorkerRecord] = []
        size = FIRST_GROUP
        for record in records:
            if record.state == State.DEFERRED and (refusal := self.admission.known(record)):
                self.defer(record, refusal.reason, refusal.signals)
                continue
            group.append(record)
            if len(group) == size:
                yield group
                group, size = [], GROUP
        if group:
            yield group

    def try_group(self, records: list[WorkerRecord]) -> None:
        """Ask the host for each of a few workers; write their trails, wait once for the disk, start them."""
        self.conductor.check_still_mine()
        staged: list[WorkerRecord] = []
        with Staging() as staging:
            for record in records:
                if self.was_claimed(record):
                    continue
                with self.in_its_own_right(record):
                    refusal = self.admission.ask(record)
                    if refusal and (staged or self.pending):
                        # What speaks may be our own that will turn out not to run: first see what they do.
                        self.launch(staged, staging)
                        self.await_signs()
                        staged = []
                        refusal = self.admission.ask(record)
                    if refusal := self.admission.pace(record, refusal):
                        self.refuse(record, refusal)
                    else:
                        stage_trail(self.conductor, record, staging)
                        staged.append(record)
            self.launch(staged, staging)

    def was_claimed(self, record: WorkerRecord) -> bool:
        """Whether its attempt is at work, or was, and the log has lost that: then it is not started again."""
        text = read_text(self.layout.mark(record.name))
        mark = parse_mark(text) if text else None
        if mark is None or mark.attempt != record.attempt:
            return False
        with self.looking_at(record):
            return self.met(record)
        return True

    def launch(self, staged: list[WorkerRecord], staging: Staging) -> None:
        if staged:
            with contextlib.suppress(OSError):  # `start` meets it again, and says so
                self.open_batch()  # comes up while we wait for the disk
        errors = staging.publish()
        self.conductor.check_still_mine()
        for record in staged:
            with self.in_its_own_right(record):
                if record.name in errors:
                    raise errors[record.name]
                self.start(record)
        self.collect(0)

    def start(self, record: WorkerRecord) -> None:
        """Order its launcher. Raises OSError."""
        batch = self.open_batch()
        name, layout = record.name, self.layout
        log = layout.launcher_log(name, record.attempt)
        with contextlib.suppress(FileNotFoundError):  # of an earlier try
            os.unlink(log)
        try:
            batch.launch(Launch(name, layout.launcher(name), log, record.entry.timeout_s or 0, record.token))
        except OSError:
            self.defer(record, NO_HELPER, [])
            return
        self.pending[name] = Pending(record, clock.monotonic() + SIGN_OF_LIFE_S)

    def open_batch(self) -> Batch:
        """Raises OSError."""
        if self.batch is None:
            self.batch = self.conductor.backend.batch()
        return self.batch

    @contextlib.contextmanager
    def in_its_own_right(self, record: WorkerRecord) -> Iterator[None]:
        """What goes wrong with one worker is its own failure, and nobody else's."""
        try:
            yield
        except Storage as error:
            self.fail(record, error.message, retry=Retry.LATER)
        except OSError as error:
            path = error.filename2 or error.filename or self.layout.run_dir  # of a rename, where it was to go
            problem = Storage.from_os(f"start {record.name}", path, error)
            self.fail(record, problem.message, retry=Retry.LATER)
        except Unfit as error:
            self.fail(record, str(error))

    # --- signs of life --------------------------------------------------------------------

    def collect(self, timeout_s: float) -> None:
        """Hear what is new of the launchers that were ordered."""
        for news in self.batch.news(timeout_s) if self.batch else ():
            pending = self.pending.get(news.name)
            if pending is None:
                continue
            if news.errno is not None:
                del self.pending[news.name]
                why = os.strerror(news.errno)
                self.fail(pending.record, f"its launcher could not be started: {why}", retry=Retry.LATER)
                continue
            pending = pending._replace(
                pid=news.pid or pending.pid, signed=news.sign_of_life or pending.signed
            )
            self.pending[news.name] = pending
            if pending.signed and pending.pid is not None:
                del self.pending[news.name]
                with self.looking_at(pending.record):
                    self.succeed(pending.record, pending.pid)

    def await_signs(self) -> None:
        while self.pending and self.batch:
            self.collect(0.02)
            dead: list[Pending] = []
            for pending in list(self.pending.values()):
                with self.looking_at(pending.record):
                    dead += [pending] if self.batch.ended(pending.pid) else []
            self.collect(0)  # a sign may have come just before the end
            for pending in dead:
                if self.pending.pop(pending.record.name, None):
                    with self.looking_at(pending.record):
                        self.settle_dead(pending.record, pending.pid)
            for pending in [p for p in self.pending.values() if clock.monotonic() > p.deadline]:
                del self.pending[pending.record.name]
                with self.looking_at(pending.record):
                    self.give_up(pending)

    @contextlib.contextmanager
    def looking_at(self, record: WorkerRecord) -> Iterator[None]:
        """What cannot be looked at may be at work: it has not failed, and the next command looks again."""
        try:
            yield
        except OSError as error:
            self.pending.pop(record.name, None)
            self.defer(record, f"its launcher was ordered, and cannot be looked at: {error.strerror}", [])

    def succeed(self, record: WorkerRecord, pid: int) -> None:
        mark = read_mark(self.layout, record)
        told = mark.process if mark and mark.process.pid == pid else None
        process = told or self.conductor.backend.identify(pid)  # a worker may be quick to spoil its mark
        draft = Draft(
            OBSERVATIONS,
            "spawned",
            {
                **who(record),
                **(process.to_json() if process else {}),
                "started_at": mark.started_at if mark else None,
            },
        )
        answer = {"name": record.name, "attempt": record.attempt, "pid": process and process.pid}
        self.outcomes[record.name] = Outcome("spawned", answer, draft)

    def settle_dead(self, record: WorkerRecord, pid: int | None) -> None:
        """A launcher ended without a sign: another had claimed the attempt, or it failed."""
        said = self.words_of_launcher(record)
        view = self.conductor.view(record)
        lost_and_said_why = bool(said) and view.verdict == Verdict.LOST and not view.leftovers
        if not lost_and_said_why and self.met(record):
            return
        if self.batch is not None and pid is None:
            # Its helper died: the launcher may still come up, and then it claims its attempt.
            self.defer(record, NO_HELPER, [])
            return
        reason = f"its launcher died before any sign of life: {said or 'it said nothing'}"
        self.fail(record, reason, retry=Retry.LATER if said else Retry.NOW)

    def words_of_launcher(self, record: WorkerRecord) -> str:
        """What bash told first: that it could have no process or no file, say; what follows comes of that."""
        said = read_text(self.layout.launcher_log(record.name, record.attempt), 4096) or ""
        return next((line for line in said.splitlines() if line and ": warning: " not in line), "")

    def met(self, record: WorkerRecord) -> bool:
        """Whether it is found at work, or ended: then that is what became of it."""
        view = self.conductor.view(record)
        patience_s = MARK_PATIENCE_S  # a claim that is being written will say whose it is, or be nobody's
        while view.at_work and view.process is None and patience_s > 0:
            clock.pause(LOOK_S)
            patience_s -= LOOK_S
            view = self.conductor.view(record)
        if not (view.at_work or view.ended):
            return False
        fact = next(iter(facts(view)), None)
        if view.at_work and view.process is None:
            self.defer(record, "its attempt is claimed, and it is not known yet by whom", [])
        elif view.at_work or view.state == State.DONE:
            pid = view.process and view.process.pid
            answer = {"name": record.name, "attempt": record.attempt, "pid": pid}
            self.outcomes[record.name] = Outcome("spawned", answer, fact)
        else:
            self.outcomes[record.name] = Outcome("failed", failed_row(view), fact)
            self.admission.let_go(record)
        return True

    def give_up(self, pending: Pending) -> None:
        self.conductor.check_still_mine()
        record = pending.record
        view = self.conductor.view(record)
        unordered = pending.pid is None and view.process is None  # its helper is held up
        if pending.signed or view.ended or unordered:  # only what we heard of it is amiss
            self.settle_dead(record, pending.pid)
            return
        living = self.conductor.backend.end(record.token, view.process, grace_s=0.5)
        became = f"pids {', '.join(str(p.pid) for p in living)} live on" if living else "ended"
        said = self.words_of_launcher(record)
        reason = f"no sign of life within {SIGN_OF_LIFE_S:g} s; {became}. {said}".strip()
        left = tuple(p.pid for p in living)
        self.fail(record, reason, retry=Retry.LATER if said else Retry.NOW, leftovers=left)

    # --- outcomes ---------------------------------------------------------------------------

    def refuse(self, record: WorkerRecord, refusal: Refusal) -> None:
        self.admission.refuse(record, refusal)
        self.defer(record, refusal.reason, refusal.signals)

    def defer(self, record: WorkerRecord, reason: str, signals: list[dict[str, Any]]) -> None:
        answer = {"name": record.name, "reason": reason, "signals": signals}
        self.admission.let_go(record)
        if (before := record.deferral) and (
            waits_alike(before, signals) or is_told_lately(before, signals, clock.seconds_since(before.since))
        ):
            self.outcomes[record.name] = Outcome("deferred", answer, None)
            return
        draft = Draft(OBSERVATIONS, "deferred", {**who(record), "reason": reason, "signals": signals})
        self.outcomes[record.name] = Outcome("deferred", answer, draft)
        with contextlib.suppress(OSError, Unfit):  # the log has it; the file is for people
            brief = with_brief(self.conductor, record).entry.brief
            publish(self.layout.brief(record.name), encoded(brief), durable=False)
        write_result(
            self.layout,
            Result(record.name, record.attempt, "throttled", reason=reason, ended_at=clock.now()),
        )

    def fail(
        self,
        record: WorkerRecord,
        reason: str,
        *,
        retry: Retry = Retry.NEVER,
        leftovers: tuple[int, ...] = (),
    ) -> None:
        view = WorkerView(
            record,
            State.FAILED,
            verdict=Verdict.SPAWN_ERROR,
            reason=reason,
            ended_at=clock.now(),
            retry=retry,
            leftovers=leftovers,
        )
        draft = Draft(OBSERVATIONS, "ended", {**who(record), **ending(view)})
        self.outcomes[record.name] = Outcome("failed", failed_row(view), draft)
        self.admission.let_go(record)
        clear_away(self.layout, record)
        write_result(
            self.layout,
            Result(
                record.name,
                record.attempt,
                "failed",
                Verdict.SPAWN_ERROR,
                reason,
                ended_at=view.ended_at,
            ),
        )

    def excuse(self, records: list[WorkerRecord], cut_short: BaseException) -> None:
        """The batch was cut short: who was not tried is deferred; who was started is looked at next time."""
        if isinstance(cut_short, Superseded):
            return  # the run is somebody else's now
        why = type(cut_short).__name__ if not isinstance(cut_short, KeyboardInterrupt) else "an interrupt"
        for record in records:
            if record.name in self.outcomes or record.name in self.pending:
                continue
            if record.state == State.DEFERRED:
                self.admission.let_go(record)  # it waits on
            else:
                self.defer(record, f"not tried: the spawn was cut short by {why}", [])
