"""What running workers show: their files and heartbeat, and the CPU time of their processes.

What must stay true: nobody is looked at more often than it could have become quiet for too long;
and the looks together cost at most 1/300 of one CPU, however many workers there are. So one pass
over /proc serves all, and the pause before the next grows with what it has cost.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from orchestra.host import clock, process, tree
from orchestra.model.precedent import Table, longest_before, table_from, with_longest
from orchestra.model.quiet import (
    Look,
    Signs,
    is_stalled,
    look_again,
    look_first,
    look_in,
    look_to_json,
    parse_look,
    tell_processes,
)
from orchestra.model.record import State, WorkerRecord
from orchestra.model.snapshot import Sight, WorkerView
from orchestra.model.trail import Process
from orchestra.store.layout import Layout, notes_of
from orchestra.store.note import Note
from orchestra.store.publish import publish, read_text

COSTS_TO_PAUSE = 300  # so many times what a look at all who need one has cost
INSTANT_S = 0.08  # between two looks at who was never looked at: eight ticks of the kernel's clock
FRESH_S = 1.0  # for which one pass over /proc serves
MOST_ENTRIES = 1000  # of an `out`, the most recently changed directories first
WRITE_EVERY_S = 60.0  # a look that taught nothing new

Key = tuple[str, int]


class Subject(NamedTuple):
    """A running worker to be looked at."""

    record: WorkerRecord
    started_at: str
    launcher: int | None

    @property
    def key(self) -> Key:
        return self.record.name, self.record.attempt


class SignReader:
    """The signs of a run's workers; remembers for as long as the command lasts, and from one to the next."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._signs: dict[Key, Signs] = {}
        self._due: dict[Key, float] = {}
        self._looks: dict[Key, Look] = {}
        self._written: dict[Key, Look] = {}
        self._quiet = Note(notes_of(layout.root).quiet)
        self._members: dict[str, list[int]] = {}
        self._table: Table | None = None
        self._passed_at = float("-inf")
        self._next_pass_at = 0.0

    def add_to(self, record: WorkerRecord, sight: Sight) -> Sight:
        """A sight of a living launcher, with what its worker shows."""
        if self.is_due(record):  # seldom
            started_at = (sight.mark and sight.mark.started_at) or record.started_at or record.since
            self.look([Subject(record, started_at, _pid_here(sight.process))])
        signs = self._signs.get((record.name, record.attempt))
        return sight._replace(signs=signs) if signs else sight

    def is_due(self, record: WorkerRecord) -> bool:
        """Whether it is time to look at it: it may have become quiet, or go on."""
        return clock.monotonic() >= self._due.get((record.name, record.attempt), 0.0)

    def prepare(self, records: Iterable[WorkerRecord]) -> None:
        """Look at all of them at once, before each is asked for."""
        self.look(
            Subject(record, record.started_at or record.since, _pid_here(record.process))
            for record in records
            if record.state == State.RUNNING
        )

    def look(self, subjects: Iterable[Subject]) -> None:
        """Look at those of them for whom it is time, all at once."""
        now, began = clock.monotonic(), clock.cpu()
        needing: list[tuple[Subject, Signs]] = []
        for subject in subjects:
            key, entry = subject.key, subject.record.entry
            if now < self._due.get(key, 0.0):
                continue
            ran_s = clock.seconds_since(subject.started_at) or 0.0
            if (left_s := look_in(entry, ran_s, never=True)) > 0:
                self._due[key] = now + left_s
                continue
            signs = self._by_files(subject, ran_s)
            left_s = look_in(entry, signs.files_s, never=signs.never)
            if left_s > 0:
                self._signs[key] = signs
                self._due[key] = now + left_s
            elif now < self._next_pass_at and now - self._passed_at > FRESH_S:
                self._due[key] = self._next_pass_at
            else:
                needing.append((subject, signs))
        if not needing:
            return
        self._look_at_trees(needing)
        self._next_pass_at = now + COSTS_TO_PAUSE * (clock.cpu() - began)
        self._due.update((subject.key, self._next_pass_at) for subject, _ in needing)

    def in_detail(self, view: WorkerView) -> dict[str, Any]:
        """All that a running worker shows at this moment, for who asks about it alone."""
        started_at = view.started_at or view.record.since
        subject = Subject(view.record, started_at, _pid_here(view.process))
        signs = self._by_files(subject, clock.seconds_since(started_at) or 0.0)
        self._members, self._passed_at = tree.members(), clock.monotonic()
        cpu_s, states = self._of_tree(subject)
        signs = _with_tree(signs, None, states, subject.launcher)._replace(waits=tree.waits(states))
        return {
            "quiet_s": {"output": signs.output_s, "heartbeat": signs.heartbeat_s, "out": signs.out_s},
            "ran_s": signs.ran_s,
            "cpu_s": cpu_s,
            "processes": [
                {"pid": pid, "state": state, "waits": signs.waits.get(pid)} for pid, state in states.items()
            ],
            "told": tell_processes(signs),
        }

    def remember_ends(self, views: Iterable[WorkerView]) -> None:
        """For how long those were quiet that have ended well: a precedent for their like. Best effort."""
        for view in views:
            key = view.record.name, view.record.attempt
            if view.state != State.DONE or not os.path.exists(self._layout.look(*key)):
                continue
            look = self._looks.get(key) or self._remembered(key, clock.monotonic())
            if look is None or not look.longest_s:
                continue
            command, longest_s = view.record.entry.command, look.longest_s
            with self._quiet.changing() as note:
                table = with_longest(table_from(note), command, longest_s, clock.now())
                if table is not None:
                    note["quiet"] = table

    # --- files ------------------------------------------------------------------------------

    def _by_files(self, subject: Subject, ran_s: float) -> Signs:
        (name, attempt), layout, now = subject.key, self._layout, clock.wall()
        started = now - ran_s
        output = [_changed(path, filled=True) for path in (layout.log_out(name), layout.log_err(name))]
        printed = max((at for at in output if at is not None), default=None)
        beaten = _changed(layout.heartbeat(name, attempt))
        made = newest_in(layout.out(name), started)

        def ago(at: float | None) -> float | None:
            return None if at is None else max(0.0, now - at)

        return Signs(ran_s, ago(printed), ago(beaten), ago(made))

    # --- processes --------------------------------------------------------------------------

    def _look_at_trees(self, needing: list[tuple[Subject, Signs]]) -> None:
        now = clock.monotonic()
        self._table = None
        if now - self._passed_at > FRESH_S:
            self._members, self._passed_at = tree.members(), now
        new = []
        for subject, signs in needing:
            cpu_s, states = self._of_tree(subject)
            at = clock.monotonic()
            before = self._looks.get(subject.key) or self._remembered(subject.key, at)
            if states and before is None:
                new.append((subject, signs, cpu_s, states))
            else:
                look = look_again(before, at, cpu_s) if states and before else None
                self._judge(subject, signs, look, states)
        if not new:
            return
        clock.pause(INSTANT_S)
        for subject, signs, cpu_before_s, states_before in new:
            cpu_s, states = self._of_tree(subject)
            runs = any(state == "R" == states.get(pid) for pid, state in states_before.items())
            idle = cpu_s == cpu_before_s and not runs
            at = clock.monotonic()
            look = look_first(process.boot_id(), at, cpu_s, ran_s=signs.ran_s, idle=idle) if states else None
            self._judge(subject, signs, look, states)

    def _of_tree(self, subject: Subject) -> tuple[float, dict[int, str]]:
        pids = self._members.get(subject.record.token, [])
        if subject.launcher and subject.launcher not in pids:  # run by hand, it does not carry the token
            pids = [*pids, subject.launcher]
        return tree.cpu_and_states(pids)

    def _judge(self, subject: Subject, signs: Signs, look: Look | None, states: dict[int, str]) -> None:
        key, entry = subject.key, subject.record.entry
        signs = _with_tree(signs, look, states, subject.launcher)
        if look is not None:
            look = look._replace(longest_s=max(look.longest_s, signs.known_s))
            signs = signs._replace(look=look)
            self._remember(key, look)
        if is_stalled(entry, signs):
            if self._table is None:
                self._table = table_from(self._quiet.read())
            before_s = longest_before(self._table, entry.command)
            signs = signs._replace(waits=tree.waits(signs.states), before_s=before_s)
        self._signs[key] = signs

    # --- from look to look ------------------------------------------------------------------

    def _remembered(self, key: Key, now: float) -> Look | None:
        look = parse_look(read_text(self._layout.look(*key), 4096), process.boot_id(), now)
        if look is not None:
            self._written[key] = look
        return look

    def _remember(self, key: Key, look: Look) -> None:
        """In a file where it taught something; best effort, as the run may not be ours to write to."""
        self._looks[key] = look
        told = self._written.get(key)
        if (
            told is None
            or told.since != look.since
            or look.longest_s > 1.1 * told.longest_s + 1
            or look.at - told.at > WRITE_EVERY_S
        ):
            self._written[key] = look
            with contextlib.suppress(OSError):
                publish(self._layout.look(*key), look_to_json(look).encode(), durable=False)


def _pid_here(who: Process | None) -> int | None:
    """A launcher's PID, where it counts: on another host, or in another container, it is a stranger's."""
    here = who and who.boot_id == process.boot_id() and who.pid_ns in (0, process.pid_namespace())
    return who.pid if who and here else None


def _with_tree(signs: Signs, look: Look | None, states: dict[int, str], launcher: int | None) -> Signs:
    rest = {pid: state for pid, state in states.items() if pid != launcher}
    return signs._replace(seen=True, look=look, states=rest)


def _changed(path: str, *, filled: bool = False) -> float | None:
    """When a file was last changed, in seconds of the wall clock; None: not there, or not filled."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return None if filled and not info.st_size else _when(info)


def _when(info: os.stat_result) -> float:
    """Who sets a file's time, as tar and touch can, sets none that is yet to come."""
    return min(info.st_mtime, info.st_ctime)


def newest_in(directory: str, started: float) -> float | None:
    """When anything below was last changed, in seconds of the wall clock; None: nothing since `started`.

    Bounded: of what is too large to be seen whole, the parts that changed last are seen.
    """
    at = _changed(directory)
    latest = at if at is not None and at > started else None  # it is made just before the start
    waiting, left = [(at or 0.0, directory)], MOST_ENTRIES
    while waiting and left > 0:
        waiting.sort()
        try:
            with os.scandir(waiting.pop()[1]) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        break
                    with contextlib.suppress(OSError):
                        changed = _when(entry.stat(follow_symlinks=False))
                        latest = max(latest or 0.0, changed)
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append((changed, entry.path))
        except OSError:
            continue
    return latest
