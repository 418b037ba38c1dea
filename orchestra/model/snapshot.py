"""A run at one moment: what the log says, corrected by what lies on disk and what lives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

from orchestra.model.event import OBSERVATIONS, Draft
from orchestra.model.quiet import Signs, is_stalled, is_to_be_ended, tell
from orchestra.model.record import ENDED, State, WorkerRecord
from orchestra.model.trail import TRAIL, Mark, Process, Result, Sentinel
from orchestra.model.verdict import Retry, Verdict, retry_advice

_NUMBER = re.compile(r"\d+([.]\d+)?")


class Sight(NamedTuple):
    """What one look at a worker's files and launcher showed, all of its current attempt."""

    sentinel: Sentinel | None = None
    result: Result | None = None
    mark: Mark | None = None
    process: Process | None = None  # the launcher, as far as it is known
    claimed: bool = False  # a mark is there, readable or not
    alive: bool = False  # the launcher
    stopped: bool = False  # it too: it lives, and does nothing
    leftovers: tuple[int, ...] = ()  # PIDs that carry the token though the launcher is gone
    trail: tuple[str, ...] = ()  # which of the paper trail is there; looked at only where it matters
    signs: Signs | None = None  # of progress; None: not looked at
    memory_kill: str | None = None  # what the kernel's log says of its end
    held_up: str | None = None  # what of it cannot be looked at, so that it counts as running
    claimant: str | None = (
        None  # the launcher's token, where the log has lost that and means the attempt anew
    )


def tell_stopped(launcher: int) -> str:
    return (
        f"its launcher (pid {launcher}) is stopped (SIGSTOP), so that nobody sees to its end "
        f"or its timeout: kill -CONT {launcher}"
    )


class WorkerView(NamedTuple):
    """One worker as every answer tells it."""

    record: WorkerRecord
    state: State
    verdict: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    process: Process | None = None
    started_at: str | None = None
    ended_at: str | None = None
    retry: str | None = None
    gap: str | None = None  # where the pipeline died, if it did
    leftovers: tuple[int, ...] = ()
    sentinel: Sentinel | None = None
    signs: Signs | None = None  # of one that runs, where they were looked at
    claimant: str | None = None  # as in Sight
    stopped: bool = False  # as in Sight

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def at_work(self) -> bool:
        return self.state in (State.RUNNING, State.STALLED)

    @property
    def to_be_ended(self) -> bool:
        """By the plan's `stall_action`, unless that has been begun."""
        return (
            self.state == State.STALLED
            and not self.record.stopping
            and self.signs is not None
            and is_to_be_ended(self.record.entry, self.signs)
        )

    def to_json(self) -> dict[str, Any]:
        record = self.record
        return {
            "name": record.name,
            "phase": record.phase,
            "attempt": record.attempt,
            "state": self.state,
            "verdict": self.verdict,
            "reason": self.reason,
            "pid": self.process.pid if self.process and not self.ended else None,
            "since": (self.ended and self.ended_at) or record.since,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "retry": self.retry,
        }


def judge(record: WorkerRecord, sight: Sight, *, conducted: bool) -> WorkerView:
    """What state a worker is in. The first rule that fits decides:

    1. The log says that this attempt ended: so it did.
    2. A sentinel, and no living launcher: it failed before the worker ran, `spawn_error`.
    3. A result, and no living launcher: as it says.
    4. The launcher lives: running; `stalled` when it shows no sign for longer than its plan allows;
       still `spawning` while a narrator is at work on it and has not said otherwise.
    5. A launcher was there (a mark, or a sign of life in the log) and is gone: `lost`; but
       `stopped`, where that was meant.
    6. Deferred by an earlier call: deferred.
    7. Neither: the narrator is still at it, or it died here, and the trail says where.
    """
    if record.state in ENDED:
        return _from_record(record)
    if sight.sentinel is not None:
        return _spawn_error(record, sight.sentinel)
    if sight.result is not None:
        return _from_result(record, sight.result, sight.memory_kill)
    if sight.alive:
        if record.state == State.SPAWNING and conducted:
            return WorkerView(record, State.SPAWNING, process=sight.process)
        return _running(record, sight, sight.process)
    if sight.claimed or record.state == State.RUNNING:
        if record.state == State.SPAWNING and conducted and sight.mark is None:
            return WorkerView(record, State.SPAWNING)
        return _lost(record, sight, sight.process)
    if record.state == State.DEFERRED:
        return WorkerView(record, State.DEFERRED, reason=record.reason)
    if conducted:
        return WorkerView(record, State.SPAWNING)
    gap = describe_gap(sight.trail)
    return WorkerView(record, State.SPAWNING, reason=f"its narrator died: {gap}", gap=gap)


def describe_gap(trail: tuple[str, ...]) -> str:
    """Where the paper trail ends: "brief written, no launcher"."""
    written = [paper for paper in TRAIL if paper in trail]
    absent = next((f"no {paper}" for paper in TRAIL if paper not in trail), "not started")
    return f"{written[-1]} written, {absent}" if written else "intended, nothing written"


def _from_record(record: WorkerRecord) -> WorkerView:
    failed = record.state == State.FAILED
    return WorkerView(
        record,
        record.state,
        verdict=record.verdict,
        reason=record.reason,
        exit_code=record.exit_code,
        signal=record.signal,
        started_at=record.started_at,
        ended_at=record.ended_at,
        retry=record.retry if failed else None,
        leftovers=record.leftovers,
    )


def _spawn_error(record: WorkerRecord, sentinel: Sentinel) -> WorkerView:
    reason = f"{sentinel.reason} (launcher line {sentinel.line})"
    return WorkerView(
        record,
        State.FAILED,
        verdict=Verdict.SPAWN_ERROR,
        reason=reason,
        exit_code=sentinel.exit_code,
        ended_at=sentinel.at,
        retry=Retry.LATER if sentinel.retry == Retry.LATER else retry_advice(Verdict.SPAWN_ERROR),
        sentinel=sentinel,
    )


def _from_result(record: WorkerRecord, result: Result, memory_kill: str | None) -> WorkerView:
    if result.status == "done":
        return WorkerView(
            record,
            State.DONE,
            exit_code=result.exit_code,
            started_at=result.started_at,
            ended_at=result.ended_at,
        )
    verdict, reason = Verdict(result.verdict or Verdict.EXIT_CODE), result.reason
    if verdict == Verdict.STOPPED and record.stall_reason is not None:
        # The launcher knows only that it was asked to end its worker.
        verdict, reason = Verdict.STALLED, record.stall_reason
    if memory_kill is not None:
        verdict, reason = Verdict.OOM, memory_kill
    # Without its sentinel: that could not be written, so it was the disk.
    retry = Retry.LATER if verdict == Verdict.SPAWN_ERROR else retry_advice(verdict)
    return WorkerView(
        record,
        State.FAILED,
        verdict=verdict,
        reason=reason,
        exit_code=result.exit_code,
        signal=result.signal,
        started_at=result.started_at,
        ended_at=result.ended_at,
        retry=retry,
    )


def _running(record: WorkerRecord, sight: Sight, process: Process | None) -> WorkerView:
    started_at = sight.mark.started_at if sight.mark else record.started_at
    state, stalled = State.RUNNING, None
    if sight.signs is not None and is_stalled(record.entry, sight.signs):
        state, stalled = State.STALLED, tell(record.entry, sight.signs)
    stopped = tell_stopped(process.pid) if sight.stopped and process else None
    return WorkerView(
        record,
        state,
        reason="; ".join(filter(None, [stopped, stalled, sight.held_up])) or None,
        stopped=sight.stopped,
        process=process,
        started_at=started_at,
        signs=sight.signs,
        claimant=sight.claimant,
    )


def _lost(record: WorkerRecord, sight: Sight, process: Process | None) -> WorkerView:
    who = f"launcher (pid {process.pid}) is" if process else "launcher is"
    verdict, reason = Verdict.LOST, f"its {who} gone and left no result"
    if sight.claimed and sight.mark is None:
        reason = "its launcher died as it claimed the attempt"
    if record.stopping:
        verdict, reason = Verdict.STOPPED, "stopped on request"
    if record.stall_reason is not None:
        verdict, reason = Verdict.STALLED, record.stall_reason
    if sight.leftovers:
        pids = ", ".join(map(str, sight.leftovers))
        reason += f"; its processes {pids} lived on"
    return WorkerView(
        record,
        State.FAILED,
        verdict=verdict,
        reason=reason,
        retry=retry_advice(verdict),
        started_at=sight.mark.started_at if sight.mark else record.started_at,
        leftovers=sight.leftovers,
    )


def facts(view: WorkerView) -> list[Draft]:
    """What a view adds to the log."""
    record = view.record
    who = {"worker": record.name, "attempt": record.attempt}
    if view.ended and record.state not in ENDED:
        return [Draft(OBSERVATIONS, "ended", {**who, **ending(view)})]
    drafts = []
    starting = record.state in (State.SPAWNING, State.DEFERRED)
    if starting and view.process and view.state in (State.RUNNING, State.STALLED):
        claimant = {"token": view.claimant} if view.claimant else {}
        started = {**view.process.to_json(), "started_at": view.started_at, **claimant}
        drafts.append(Draft(OBSERVATIONS, "spawned", {**who, **started}))
    if view.state == State.STALLED and not record.stalled:
        drafts.append(Draft(OBSERVATIONS, "stalled", {**who, "reason": view.reason}))
    if view.state == State.RUNNING and record.stalled and view.signs is not None:
        drafts.append(Draft(OBSERVATIONS, "running_again", who))
    return drafts


def ending(view: WorkerView) -> dict[str, Any]:
    """The death certificate, or the happy end."""
    return {
        "status": "done" if view.state == State.DONE else "failed",
        "verdict": view.verdict,
        "reason": view.reason,
        "exit_code": view.exit_code,
        "signal": view.signal,
        "started_at": view.started_at,
        "ended_at": view.ended_at,
        "retry": view.retry,
        **({"leftovers": list(view.leftovers)} if view.leftovers else {}),
    }


def ended_alike(view: WorkerView) -> bool:
    """Whether the attempt before it ended in the very same way, whatever PIDs and seconds its reason has."""
    earlier = view.record.failures[-1:]
    how = (view.verdict, view.exit_code, view.signal, _NUMBER.sub("", view.reason or ""))
    return any(
        (e["verdict"], e["exit_code"], e["signal"], _NUMBER.sub("", e["reason"] or "")) == how
        for e in earlier
    )


def earlier_ends(record: WorkerRecord) -> list[WorkerView]:
    """How each attempt before the current one has ended."""
    return [
        WorkerView(
            record._replace(attempt=failure["attempt"]),
            State.FAILED,
            verdict=failure["verdict"],
            reason=failure["reason"],
        )
        for failure in record.failures
    ]


def from_log(record: WorkerRecord) -> WorkerView:
    """A worker as the log alone has it."""
    if record.state in ENDED:
        return _from_record(record)
    return WorkerView(record, record.state, reason=record.reason, process=record.process)


class Views(Sequence[WorkerView]):
    """Every worker's view, in the order of the plan; made when somebody asks for it."""

    def __init__(self, states: Mapping[str, str], make: Callable[[str], WorkerView]) -> None:
        self.states = states  # values are States, or their text
        self.named = make

    @overload
    def __getitem__(self, at: int) -> WorkerView: ...
    @overload
    def __getitem__(self, at: slice) -> list[WorkerView]: ...
    def __getitem__(self, at: int | slice) -> WorkerView | list[WorkerView]:
        names = list(self.states)[at]
        return self.named(names) if isinstance(names, str) else [self.named(name) for name in names]

    def __iter__(self) -> Iterator[WorkerView]:
        return map(self.named, self.states)

    def __len__(self) -> int:
        return len(self.states)

    def among(self, *states: State) -> list[WorkerView]:
        return [self.named(name) for name, state in self.states.items() if state in states]

    def only(self, names: set[str]) -> Views:
        return Views({name: state for name, state in self.states.items() if name in names}, self.named)


class Snapshot(NamedTuple):
    """The whole run. `workers` has the planned ones too, in the order of the plan."""

    op: int
    workers: Views
    conducted: bool  # by somebody else, at this moment
    lock: dict[str, Any]
    seat: str | None
    alerts: list[dict[str, Any]]

    def present(self) -> list[dict[str, Any]]:
        """Alerts of what is wrong at this moment; what is over has its operation."""
        return [alert for alert in self.alerts if "op" not in alert]

    def counts(self) -> dict[str, int]:
        counted = Counter(self.workers.states.values())
        return {state.value: counted[state] for state in State}
