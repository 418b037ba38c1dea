"""What a place must be able to do for workers to run there."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from orchestra.model.trail import Process


class Launch(NamedTuple):
    script: str
    stderr: str  # what bash itself has to say goes here
    timeout_s: float  # 0: none


class Backend(Protocol):
    def launch(self, order: Launch, ready_fd: int) -> int:
        """Start a launcher; its sign of life comes through `ready_fd`. Returns its PID. Raises OSError."""

    def alive(self, process: Process) -> bool:
        """Whether this very process lives."""

    def leftovers(self, token: str) -> list[Process]:
        """What an attempt started and still lives, wherever it hides."""

    def end(self, token: str, launcher: Process | None, grace_s: float) -> list[Process]:
        """End all of an attempt; returns what could not be ended."""
