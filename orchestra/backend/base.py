"""What a place must be able to do for workers to run there."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from orchestra.model.trail import Process


class Launch(NamedTuple):
    worker: str
    script: str
    stderr: str  # what bash itself has to say goes here
    timeout_s: float  # 0: none
    token: str  # by which all of the attempt is found again, the launcher included


class News(Protocol):
    """What is new of one launcher: it has a PID, or could not be started, or showed a sign of life."""

    @property
    def name(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def errno(self) -> int | None: ...
    @property
    def sign_of_life(self) -> bool: ...


class Batch(Protocol):
    """Launchers started together."""

    def launch(self, order: Launch) -> None:
        """Order a launcher; news of it will come. Raises OSError."""

    def news(self, timeout_s: float) -> list[News]:
        """What came since the last call; waits at most `timeout_s` for the first."""

    def ended(self, pid: int | None) -> bool:
        """Whether a launcher of this batch has ended, or (None) can no longer be started."""

    def close(self) -> None:
        """Let go of them; they run on."""


class Watch(Protocol):
    """What the place tells of at once. All of it is a hint, and hints can be lost."""

    def follow(self, key: str, process: Process) -> bool:
        """Watch a process under the caller's key; False where it cannot be watched, or has ended."""

    def wait(self, timeout_s: float) -> tuple[set[str], set[str]]:
        """(keys of processes that ended, names of files that came); both empty at the timeout."""

    def __enter__(self) -> Watch: ...
    def __exit__(self, *_: object) -> None: ...


class Backend(Protocol):
    """A place where workers run."""

    def batch(self) -> Batch:
        """Raises OSError."""

    def identify(self, pid: int) -> Process | None:
        """Who has this PID now; None where nobody, or a zombie, has it."""

    def lives(self, process: Process) -> bool | None:
        """Whether this very process lives; None where that cannot be seen from here."""

    def is_stopped(self, process: Process) -> bool:
        """Whether this very process lives, and does nothing until it is let go on."""

    def runs(self, process: Process, script: str, token: str) -> bool:
        """Whether this process runs that launcher of that attempt."""

    def leftovers(self, token: str) -> list[Process]:
        """What an attempt started and still lives, wherever it hides."""

    def all_leftovers(self) -> dict[str, list[Process]]:
        """token -> its leftovers, of all attempts at the cost of one."""

    def watch(self, directory: str) -> Watch:
        """Be told of files that come into a directory, and of processes that end."""

    def ask_to_stop(self, launcher: Process) -> None:
        """Tell a launcher to end its worker, as this was asked for, and to report."""

    def kill_workers(self, attempts: list[tuple[str, Process]]) -> None:
        """KILL all of each attempt (token, launcher) but the launcher, which reports then."""

    def end(self, token: str, launcher: Process | None, grace_s: float) -> list[Process]:
        """End all of an attempt; returns what could not be ended."""
