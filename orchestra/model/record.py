"""One worker as the log has it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

from orchestra.model.plan import WorkerEntry
from orchestra.model.trail import Process


class State(StrEnum):
    PLANNED = "planned"
    DEFERRED = "deferred"
    SPAWNING = "spawning"
    RUNNING = "running"
    STALLED = "stalled"
    DONE = "done"
    FAILED = "failed"


ENDED = (State.DONE, State.FAILED)
MOST_ATTEMPTS = 99_999


class Seat(StrEnum):
    """How the run's seat stands for whoever asks."""

    FREE = "free"  # nobody sits there, or they do; without an ID it is not asked for
    TAKEN = "taken"  # by another, until they take over
    LOST = "lost"  # somebody took over from them


NARRATION_FLAGS = ("--keep-going", "--no-throttle")  # of `orchestra run`, that hold until its end


class Narration(NamedTuple):
    """How far the built-in narrator got when it was last at work."""

    over: bool  # False: it is at work, or was interrupted, or died
    stopped_for: tuple[str, ...]  # whose failures ended it before the plan's end
    op: int  # of its last word
    flags: tuple[str, ...] = ()  # with which it goes on, if it is not over
    throttle: str = ""  # the limits that its call had in its environment


class Deferral(NamedTuple):
    """Why a worker has not been started, in figures."""

    since: str  # of the first of this row of deferrals
    times: int
    reason: str
    signals: list[dict[str, Any]]


class StopMeant(NamedTuple):
    """Somebody meant to stop a worker: by which operation, when, and how long from TERM to KILL."""

    op: int
    at: str
    grace_s: float


class WorkerRecord(NamedTuple):
    """One worker as the log has it, in its current attempt."""

    name: str
    phase: str | None
    entry: WorkerEntry  # everything filled in; brief is the text itself, or taken out: see below
    attempt: int
    token: str
    state: State
    since: str
    op: int
    process: Process | None = None  # the launcher, once it showed a sign of life
    deferral: Deferral | None = None
    verdict: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    started_at: str | None = None
    ended_at: str | None = None
    retry: str | None = None
    failures: tuple[dict[str, Any], ...] = ()  # how earlier attempts ended
    stalled: bool = False
    stopping: tuple[StopMeant, ...] = ()  # each time that somebody meant to stop this attempt
    stall_reason: str | None = None  # why that is, where it is by the plan's stall_action
    leftovers: tuple[int, ...] = ()  # PIDs of a lost attempt that lived on, until they are ended
    asked_op: int = 0  # the operation that asked for it first: the log has its brief there
    brief_sha256: str | None = None  # of a long brief, which the entry has only until the first end

    @property
    def brief_is_out(self) -> bool:
        return self.brief_sha256 is not None and not self.entry.brief


def check_attempt(attempt: object, token: object) -> None:
    """Raises ValueError for what can be neither: whoever can write to a run's files can write anything."""
    if type(attempt) is not int or not 1 <= attempt <= MOST_ATTEMPTS or type(token) is not str:
        raise ValueError(f"{attempt!r} of {token!r} is no attempt")
