"""The spawn transaction: each worker tried in its own right, each in exactly one bucket.

intend ─► (host clear?) ─► brief ─► prompt ─► launcher ─► process ─► sign of life
   │            └─ no: deferred                └──── whatever fails: failed ────┘
   └─ durable in the log before the first file is written
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from orchestra.backend.base import Batch, Launch
from orchestra.engine.conduct import Conductor
from orchestra.engine.observe import Observer
from orchestra.errors import NameTaken, OrchestraError, Storage
from orchestra.host import clock
from orchestra.model.event import COMMANDS, OBSERVATIONS, Draft
from orchestra.model.history import State, WorkerRecord
from orchestra.model.launcher import LaunchOrder, names_prompt, render, takes_prompt_text
from orchestra.model.plan import WorkerEntry, entry_to_json
from orchestra.model.snapshot import WorkerView, ending, facts
from orchestra.model.throttle import HostLoad, Signal, describe, limits_from, pressure
from orchestra.model.trail import Result, parse_mark
from orchestra.model.verdict import Retry, Verdict
from orchestra.store.publish import publish, publish_all, read_text, write_all

SIGN_OF_LIFE_S = 30.0  # a launcher that shows none by then is ended
GRACE_S = 10.0
RESERVE = b" " * 4095 + b"\n"
MAX_ARGUMENT = 128 * 1024 - 1  # MAX_ARG_STRLEN of Linux, with its NUL


class Wanted(NamedTuple):
    """A worker that somebody asked for, everything filled in."""

    entry: WorkerEntry
    phase: str | None


class SpawnReport(NamedTuple):
    spawned: list[dict[str, Any]]
    deferred: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    already: list[dict[str, Any]]


class Outcome(NamedTuple):
    """Where one worker ended up, and the fact that says so."""

    bucket: str  # spawned, deferred, failed
    answer: dict[str, Any]
    draft: Draft | None


def sort_out(observer: Observer, wanted: Iterable[Wanted]) -> tuple[list[Wanted], list[WorkerRecord]]:
    """(new ones, those that are in the run already). Raises NameTaken, having written nothing."""
    new, known = [], []
    for want in wanted:
        record = observer.history.workers.get(want.entry.name)
        if record is None:
            new.append(want)
        elif (record.entry.brief, record.entry.command) == (want.entry.brief, want.entry.command):
            known.append(record)
        else:
            what = "brief" if record.entry.brief != want.entry.brief else "command"
            raise NameTaken(
                f"run {observer.layout.run_id} has a worker {record.name!r} already, with another {what}",
                hint="give the new one another name, or make the same call again with the old "
                f"{what}; orchestra explain RUN {record.name} shows it",
                worker=record.name,
            )
    return new, known


def intend(conductor: Conductor, new: list[Wanted]) -> None:
    """The intents, durable in the log before the first file is written."""
    conductor.record(
        [
            Draft(
                COMMANDS,
                "spawn_intended",
                {
                    "worker": want.entry.name,
                    "phase": want.phase,
                    "attempt": 1,
                    "token": os.urandom(8).hex(),
                    "entry": entry_to_json(want.entry),
                },
            )
            for want in new
        ]
    )


def spawn(
    conductor: Conductor,
    wanted: list[Wanted],
    *,
    throttled: bool = True,
    look: Callable[[], HostLoad] | None = None,
) -> SpawnReport:
    """Try what was deferred, oldest first, then what is new; answer for every one."""
    new, known = sort_out(conductor, wanted)
    conductor.settle()
    intend(conductor, new)
    report = FanOut(conductor, throttled=throttled, look=look).run(candidates(conductor))
    already = [conductor.view(conductor.record_of(r.name), conducted=False) for r in known]
    tried = {row["name"] for row in [*report.spawned, *report.deferred, *report.failed]}
    return report._replace(already=[already_row(v) for v in already if v.record.name not in tried])


def preview(observer: Observer, wanted: list[Wanted], *, throttled: bool) -> SpawnReport:
    """What `spawn` would do now; writes and starts nothing. Raises NameTaken."""
    new, known = sort_out(observer, wanted)
    views = observer.views(conducted=observer.conducted())
    at_work = sum(1 for view in views if view.state in (State.RUNNING, State.STALLED))
    again = [view.record for view in views if view.state == State.DEFERRED or view.gap]
    entries = [record.entry for record in again] + [want.entry for want in new]
    load = None
    if throttled and entries:
        from orchestra.host.load import look

        load = look()
    report = SpawnReport([], [], [], [])
    for entry in entries:
        spoke = pressure(load, at_work, limits_from(entry.throttle)) if load else []
        if spoke:
            signals = [s.to_json() for s in spoke]
            report.deferred.append({"name": entry.name, "reason": describe(spoke), "signals": signals})
        else:
            report.spawned.append({"name": entry.name})
            at_work += 1
    tried = {entry.name for entry in entries}
    rows = [already_row(view) for view in views if view.record in known and view.record.name not in tried]
    return report._replace(already=rows)


def already_row(view: WorkerView) -> dict[str, Any]:
    row: dict[str, Any] = {"name": view.record.name, "state": view.state, "attempt": view.record.attempt}
    if view.state == State.FAILED:
        row |= {"verdict": view.verdict, "reason": view.reason, "retry": view.retry}
    return row


def candidates(conductor: Conductor) -> list[WorkerRecord]:
    """What wants starting: deferred ones, oldest first, then intended ones in their order."""
    records = conductor.history.workers.values()
    deferred = sorted((r for r in records if r.state == State.DEFERRED), key=lambda r: (r.since, r.op))
    return deferred + [r for r in records if r.state == State.SPAWNING]


class FanOut:
    """One batch. Outcomes are recorded at its end, whatever happens in between."""

    def __init__(
        self, conductor: Conductor, *, throttled: bool, look: Callable[[], HostLoad] | None = None
    ) -> None:
        self.conductor = conductor
        self.layout = conductor.layout
        self.throttled = throttled
        self._look = look
        self.at_work = 0
        self.outcomes: dict[str, Outcome] = {}
        self.pending: dict[str, Pending] = {}
        self.batch: Batch | None = None

    def run(self, records: list[WorkerRecord]) -> SpawnReport:
        if records:
            self.at_work = sum(
                1
                for record in self.conductor.history.workers.values()
                if record.state == State.RUNNING
                and not self.conductor.view(record, conducted=False, stall=False).ended
            )
            try:
                for record in records:
                    self.attempt(record)
                    self.collect(0)
                self.await_signs()
            except BaseException as cut_short:
                self.excuse(records, cut_short)
                raise
            finally:
                if self.batch is not None:
                    self.batch.close()
                self.conductor.record([o.draft for o in self.outcomes.values() if o.draft])
        rows: dict[str, list[dict[str, Any]]] = {"spawned": [], "deferred": [], "failed": []}
        for record in records:
            outcome = self.outcomes[record.name]
            rows[outcome.bucket].append(outcome.answer)
        return SpawnReport(rows["spawned"], rows["deferred"], rows["failed"], [])

    # --- one worker, in its own right -----------------------------------------------------

    def attempt(self, record: WorkerRecord) -> None:
        try:
            spoke = self.pressure(record)
            if spoke:
                self.defer(record, describe(spoke), [s.to_json() for s in spoke])
                return
            self.conductor.check_still_mine()
            self.start(record)
            self.pending[record.name] = Pending(record, clock.monotonic() + SIGN_OF_LIFE_S)
            self.at_work += 1
        except OrchestraError as error:
            if not isinstance(error, Storage):
                raise
            self.fail(record, error.message, retry=Retry.LATER)
        except OSError as error:
            problem = Storage.from_os(f"write the trail of {record.name}", error.filename or "fork", error)
            self.fail(record, problem.message, retry=Retry.LATER)
        except ValueError as error:
            self.fail(record, str(error))

    def pressure(self, record: WorkerRecord) -> list[Signal]:
        if not self.throttled:
            return []
        if self._look is None:
            from orchestra.host.load import look  # psutil: only where it is used

            self._look = look
        return pressure(self._look(), self.at_work, limits_from(record.entry.throttle))

    def start(self, record: WorkerRecord) -> None:
        """Brief, prompt, launcher, process. Raises OSError, ValueError."""
        name, attempt, layout = record.name, record.attempt, self.layout
        entry = record.entry
        if attempt > 1:
            archive(self.conductor, record)
        order = launch_order(self.conductor, record)
        prompt = prompt_text(record, layout.out(name))
        check_fits(order.command, prompt)
        make_directories(
            f"{layout.run_dir}/attempts",
            os.path.dirname(layout.attempt(name, attempt)),
            layout.attempt(name, attempt),
            layout.out(name),
            order.tmp_dir,
        )
        for path in (layout.result(name), layout.sentinel(name)):  # a deferral's, or an earlier attempt's
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        reserve(layout.attempt_reserve(name, attempt))
        publish_all(
            [
                (layout.brief(name), encoded(entry.brief), 0o600),
                (layout.prompt(name), encoded(prompt), 0o600),
                (layout.launcher(name), render(order).encode("ascii"), 0o700),
            ]
        )
        if self.batch is None:
            self.batch = self.conductor.backend.batch()
        self.batch.launch(
            Launch(name, layout.launcher(name), layout.launcher_log(name, attempt), entry.timeout_s or 0)
        )

    # --- signs of life --------------------------------------------------------------------

    def collect(self, timeout_s: float) -> None:
        """Hear what is new of the launchers that were ordered."""
        for news in self.batch.news(timeout_s) if self.batch else ():
            pending = self.pending.get(news.name)
            if pending is None:
                continue
            if news.sign_of_life:
                del self.pending[news.name]
                self.succeed(pending.record)
            elif news.errno is not None:
                del self.pending[news.name]
                why = os.strerror(news.errno)
                self.fail(pending.record, f"no process could be had for it: {why}", retry=Retry.LATER)
            else:
                self.pending[news.name] = pending._replace(pid=news.pid)

    def await_signs(self) -> None:
        while self.pending and self.batch:
            self.collect(0.02)
            dead = [p.record for p in self.pending.values() if self.batch.ended(p.pid)]
            self.collect(0)  # a sign may have come just before the end
            for record in dead:
                if self.pending.pop(record.name, None):
                    self.settle_dead(record)
            for pending in [p for p in self.pending.values() if clock.monotonic() > p.deadline]:
                del self.pending[pending.record.name]
                self.give_up(pending.record)

    def succeed(self, record: WorkerRecord) -> None:
        text = read_text(self.layout.mark(record.name))
        mark = parse_mark(text) if text else None
        process = mark.process if mark else None
        draft = Draft(
            OBSERVATIONS,
            "spawned",
            {
                **who(record),
                **(process.to_json() if process else {}),
                "started_at": mark.started_at if mark else None,
            },
        )
        answer = {
            "name": record.name,
            "attempt": record.attempt,
            "pid": process.pid if process else None,
        }
        self.outcomes[record.name] = Outcome("spawned", answer, draft)

    def settle_dead(self, record: WorkerRecord) -> None:
        """A launcher ended without a sign: another had claimed the attempt, or it failed."""
        view = self.conductor.view(record, conducted=False)
        if view.state in (State.RUNNING, State.STALLED, State.DONE):
            self.outcomes[record.name] = Outcome(
                "spawned",
                {"name": record.name, "attempt": record.attempt, "pid": view.process and view.process.pid},
                next(iter(facts(view)), None),
            )
        elif view.ended:
            self.outcomes[record.name] = Outcome("failed", failed_row(view), facts(view)[0])
        else:
            said = read_text(self.layout.launcher_log(record.name, record.attempt), 4096) or "it said nothing"
            self.fail(record, f"its launcher died before any sign of life: {said.strip()}", retry=Retry.NOW)

    def give_up(self, record: WorkerRecord) -> None:
        text = read_text(self.layout.mark(record.name))
        mark = parse_mark(text) if text else None
        self.conductor.backend.end(record.token, mark.process if mark else None, grace_s=0.5)
        self.fail(record, f"no sign of life within {SIGN_OF_LIFE_S:g} s; ended", retry=Retry.NOW)

    # --- outcomes ---------------------------------------------------------------------------

    def defer(self, record: WorkerRecord, reason: str, signals: list[dict[str, Any]]) -> None:
        draft = Draft(OBSERVATIONS, "deferred", {**who(record), "reason": reason, "signals": signals})
        answer = {"name": record.name, "reason": reason, "signals": signals}
        self.outcomes[record.name] = Outcome("deferred", answer, draft)
        result = Result(record.name, record.attempt, "throttled", None, reason, None, None, None, clock.now())
        with contextlib.suppress(OSError):  # the log has it; the file is for people
            publish(self.layout.brief(record.name), encoded(record.entry.brief), durable=False)
            publish(self.layout.result(record.name), json_line(result.to_json()), durable=False)

    def fail(self, record: WorkerRecord, reason: str, *, retry: Retry = Retry.NEVER) -> None:
        view = WorkerView(
            record,
            State.FAILED,
            verdict=Verdict.SPAWN_ERROR,
            reason=reason,
            ended_at=clock.now(),
            retry=retry,
        )
        draft = Draft(OBSERVATIONS, "ended", {**who(record), **ending(view)})
        self.outcomes[record.name] = Outcome("failed", failed_row(view), draft)
        result = Result(
            record.name,
            record.attempt,
            "failed",
            Verdict.SPAWN_ERROR,
            reason,
            None,
            None,
            None,
            view.ended_at,
        )
        with contextlib.suppress(OSError):
            publish(self.layout.result(record.name), json_line(result.to_json()), durable=False)

    def excuse(self, records: list[WorkerRecord], cut_short: BaseException) -> None:
        """The batch was cut short: who was not tried is deferred; who was started is looked at next time."""
        why = type(cut_short).__name__ if not isinstance(cut_short, KeyboardInterrupt) else "an interrupt"
        for record in records:
            if record.name not in self.outcomes and record.name not in self.pending:
                self.defer(record, f"not tried: the spawn was cut short by {why}", [])


class Pending(NamedTuple):
    """A launcher that was ordered and has not shown a sign of life yet."""

    record: WorkerRecord
    deadline: float
    pid: int | None = None


def make_directories(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)


def reserve(path: str) -> None:
    """Space for the result: written over in place when the disk has none left."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, RESERVE)
    finally:
        os.close(fd)


def who(record: WorkerRecord) -> dict[str, Any]:
    return {"worker": record.name, "attempt": record.attempt}


def failed_row(view: WorkerView) -> dict[str, Any]:
    at = {"line": view.sentinel.line, "command": view.sentinel.command} if view.sentinel else {}
    return {
        "name": view.record.name,
        "attempt": view.record.attempt,
        **at,
        "verdict": view.verdict,
        "reason": view.reason,
        "exit_code": view.exit_code,
        "retry": view.retry,
    }


def json_line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def launch_order(conductor: Conductor, record: WorkerRecord) -> LaunchOrder:
    entry = record.entry
    return LaunchOrder(
        worker=record.name,
        attempt=record.attempt,
        token=record.token,
        run_dir=conductor.layout.run_dir,
        cwd=entry.cwd or conductor.history.base,
        command=entry.command or (),
        env=entry.env,
        expect=tuple((e.file, e.min_bytes) for e in entry.expect),
        timeout_s=entry.timeout_s or 0,
        grace_s=GRACE_S,
        tmp_dir=os.path.join(os.environ.get("TMPDIR") or "/tmp", f"orc-{record.token}"),
    )


def prompt_text(record: WorkerRecord, out: str) -> str:
    """What the worker is really given: its brief, and where to put what is expected of it."""
    files = [e.file for e in record.entry.expect if e.file is not None]
    if not files:
        return record.entry.brief
    names = "".join(f"- {out}/{file}\n" for file in files)
    return f"{record.entry.brief.rstrip()}\n\nWhen you are done, these files must be there:\n{names}"


def check_fits(command: tuple[str, ...], prompt: str) -> None:
    """A prompt in the argv is bounded by the kernel, whose own error would name no cause."""
    size = len(encoded(prompt))
    if takes_prompt_text(command) and size > MAX_ARGUMENT - max(map(len, command)):
        raise ValueError(
            f"its prompt has {size} bytes, more than one argument may have ({MAX_ARGUMENT}): "
            "use {prompt_file}, or leave {prompt} out and read standard input"
        )
    if names_prompt(command) and "\0" in prompt and takes_prompt_text(command):
        raise ValueError("its prompt holds a NUL byte, which no argument can: use {prompt_file}")


def archive(conductor: Conductor, record: WorkerRecord) -> None:
    """Move the files of the attempt before aside. Done twice, it does nothing more.

    A file whose place in the archive is taken was moved by an earlier try, so what has its
    flat name now belongs to the current attempt.
    """
    layout, before = conductor.layout, record.attempt - 1
    text = read_text(layout.mark(record.name))
    mark = parse_mark(text) if text else None
    if mark is not None and mark.attempt == record.attempt:
        return
    os.makedirs(layout.attempt(record.name, before), 0o700, exist_ok=True)
    for flat, aside in layout.archived(record.name, before):
        if not os.path.lexists(aside):
            with contextlib.suppress(FileNotFoundError):
                os.rename(flat, aside)
