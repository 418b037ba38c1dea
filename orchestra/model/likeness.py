"""Which workers are alike: of the same command, else of the same program."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

LONGEST = 300  # characters: a longer command carries its prompt with it


def same_command(command: Iterable[str] | None) -> str:
    """As the plan gives it; the program alone where that is too long, or there is nothing else."""
    words = list(command or ())
    joined = shlex.join(words)
    return joined if len(joined) <= LONGEST else same_program(words)


def in_short(command: Sequence[str]) -> tuple[str, ...]:
    """As much of a command as tells whom it is like."""
    return tuple(command) if len(shlex.join(command)) <= LONGEST else tuple(command[:1])


def same_program(command: Iterable[str] | None) -> str:
    """Wherever it lies."""
    return next(iter(command or ()), "").rpartition("/")[2]
