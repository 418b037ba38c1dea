"""Samples of what running workers use, taken when somebody looks anyway: for what such workers will need."""

from __future__ import annotations

import os
from collections.abc import Iterable

from orchestra.host import clock, tree
from orchestra.model.reservation import known_from, learn
from orchestra.model.snapshot import WorkerView
from orchestra.store.layout import notes_of
from orchestra.store.note import Note

EVERY_S = 10.0  # for one root, whoever looks
SHARE = 300  # a sample costs at most this fraction of the time between two


class Sampler:
    """Samples the workers of one root, but never often."""

    def __init__(self, root: str) -> None:
        self.note = Note(notes_of(root).needs)
        self.next_at = 0.0  # by the monotonic clock

    def look(self, views: Iterable[WorkerView]) -> None:
        """Best effort: what cannot be read or written is let be."""
        began = clock.monotonic()
        if began < self.next_at:
            return
        self.next_at = began + EVERY_S
        if self._age_s() >= EVERY_S and (running := [v for v in views if v.process and not v.ended]):
            self._sample(running)
            self.next_at = max(self.next_at, began + (clock.monotonic() - began) * SHARE)

    def _age_s(self) -> float:
        try:
            return clock.wall() - os.stat(self.note.path).st_mtime
        except OSError:
            return float("inf")

    def _sample(self, running: list[WorkerView]) -> None:
        members = tree.members()
        with self.note.changing() as note:
            known = known_from(note)
            for view in running:
                record = view.record
                use = tree.usage(members.get(record.token, ()))
                age_s = clock.seconds_since(view.started_at or record.started_at or record.since)
                if use.processes and age_s is not None and age_s > 0:
                    learn(known, record.entry.command or (), record.token, use, age_s)
            note.clear()
            note.update(known)
