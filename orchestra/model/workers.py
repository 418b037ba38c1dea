"""The workers of a run by name, read from a checkpoint only as far as somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from orchestra.model.record import ENDED, State, WorkerRecord
from orchestra.model.verdict import Verdict


def is_going(record: WorkerRecord) -> bool:
    return record.state not in ENDED


def has_leftovers(record: WorkerRecord) -> bool:
    return bool(record.leftovers)


def has_abandoned(record: WorkerRecord) -> bool:
    """Whether an earlier attempt was given up, and may write a result all the same."""
    return any(failure["verdict"] in ABANDONED for failure in record.failures)


ABANDONED = (Verdict.LOST, Verdict.STOPPED, None)
TRAITS: dict[str, Callable[[WorkerRecord], bool]] = {
    "going": is_going,
    "leftovers": has_leftovers,
    "abandoned": has_abandoned,
}
"""What a command must know of every worker without reading each: the checkpoint lists who has it."""


class Saved(NamedTuple):
    """Workers as a checkpoint has them: each is read only when somebody asks for it."""

    states: Mapping[str, str]  # in the order in which they were first asked for; of who is going: as seen
    read: Callable[[str], WorkerRecord]
    rows: Callable[[], dict[str, bytes]]  # as they stand there, also of the plan's that nobody asked for
    traits: Mapping[str, list[str]]  # trait -> who has it
    loose: list[str]  # who may not have been put away for good


def _never(name: str) -> WorkerRecord:
    raise KeyError(name)


_NOTHING_SAVED = Saved({}, _never, dict, {trait: [] for trait in TRAITS}, [])


class Workers(Mapping[str, WorkerRecord]):
    """The workers by name: those that a checkpoint had, and over them what changed since."""

    def __init__(self, saved: Saved = _NOTHING_SAVED) -> None:
        self.saved = saved
        self.changed: dict[str, WorkerRecord] = {}
        self._read: dict[str, WorkerRecord] = {}

    def __getitem__(self, name: str) -> WorkerRecord:
        record = self.changed.get(name) or self._read.get(name)
        if record is None:
            if name not in self.saved.states:
                raise KeyError(name)
            record = self._read[name] = self.saved.read(name)
        return record

    def __setitem__(self, name: str, record: WorkerRecord) -> None:
        self.changed[name] = record

    def get(self, name: str, default: Any = None) -> Any:
        return self.changed.get(name) or (self[name] if name in self.saved.states else default)

    def __contains__(self, name: object) -> bool:
        return name in self.changed or name in self.saved.states

    def __iter__(self) -> Iterator[str]:
        saved = self.saved.states
        yield from saved
        yield from (name for name in self.changed if name not in saved)

    def __len__(self) -> int:
        saved = self.saved.states
        return len(saved) + sum(1 for name in self.changed if name not in saved)

    def waits_as_saved(self, name: str) -> bool:
        """Whether the checkpoint has it as deferred, and nothing has happened to it since."""
        return name not in self.changed and self.saved.states.get(name) == State.DEFERRED

    def states(self) -> dict[str, str]:
        """Everybody's state; of who was going already when the checkpoint was made, as it was seen then."""
        return {**self.saved.states, **{name: record.state for name, record in self.changed.items()}}

    def having(self, trait: str) -> list[WorkerRecord]:
        """Who has one of the TRAITS."""
        has, changed = TRAITS[trait], self.changed
        return [self[name] for name in self.saved.traits[trait] if name not in changed] + [
            record for record in changed.values() if has(record)
        ]

    def loose(self) -> list[str]:
        """Who has not ended, or has since the last command that put away what had."""
        return list(dict.fromkeys([*self.saved.loose, *self.changed]))
