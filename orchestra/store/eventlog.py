"""The event log on disk: append-only, under its own lock, safe to cut at every byte.

What must stay true:

* The lock is flock on the log itself: it goes with its holder, and the file is never replaced.
* Readers need no lock; a line without newline or checksum is not there yet.
* A write that fails is cut back to where it began, so no two records can fuse.
* A torn tail is copied aside and cut off before anything is appended behind it. Damage in the middle is
  copied aside, told, and stays where it is: what is written is never written over, and offsets stay true.
* What is longer than a line of ours can be is neither held in memory nor copied aside whole.
* Whoever has read on finds its place again, or the log was cut or replaced meanwhile: an error,
  never an append behind what it did not read.
* Up to CHECKED_WHOLE bytes a log is read from its beginning each time. A longer one is read on
  from where state.json has got to: damage before that place is found by whoever reads it whole
  (the next command once state.json is deleted), and till then harms nobody.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from orchestra.model.event import (
    Damage,
    Draft,
    Event,
    Parser,
    Place,
    Reading,
    encode,
    may_count,
    read_lines,
    torn,
    untold,
)
from orchestra.model.plan import MOST_INPUT
from orchestra.store.publish import open_regular, sync_directory, write_all

CHECKED_WHOLE = 1 << 20
CHUNK = 1 << 16  # of the log, held at once: what becomes of more would not stay in a CPU's own cache
MOST_LINE = 10 * MOST_INPUT  # bytes: one of a brief takes six at most in JSON, and an entry stands beside it
MOST_KEPT = MOST_INPUT  # bytes of damage that are set aside in one repair
FLOOD = 1 << 20  # bytes of a torn tail: it is no line that somebody died in
MOST_PLACES = 10_000  # of damage in one repair: what tells of them is to be a line itself
LONG = 16 << 20  # from here on it pays to import a parser that takes half the time of json
BEHIND = 24  # bytes before an offset that tell one log from another: a checksum is among them
PATIENCE_S = 10.0  # for whoever holds the log's lock: an append takes milliseconds


class LogChanged(OSError):
    """What was read is no longer what stands there."""


class EventLog:
    """A reader of the log that remembers how far it has read, and the way to its lock."""

    def __init__(self, path: str, damaged: str, *, may_be_missing: bool = False) -> None:
        self.path = path
        self.damaged = damaged  # the directory for what is set aside
        self.may_be_missing = may_be_missing  # then it is as good as empty; and it may be trimmed
        self.place = Place(0, "")  # how far this object has read
        self.last_op = 0
        self.damage: list[Damage] = []  # seen by reading, and not told yet

    def read_new(self) -> list[Event]:
        """The events that came since the last call, oldest first. Raises OSError."""
        events: list[Event] = []
        self.feed(events.extend)
        return events

    def feed(self, take: Callable[[list[Event]], object]) -> None:
        """Hand on what `read_new` would return, a piece at a time. Raises OSError, LogChanged."""
        try:
            with open_regular(self.path) as file:
                self._read_on(file.fileno(), take)
        except FileNotFoundError:
            if self.place.offset and not self.may_be_missing:
                raise self._gone() from None
            if not self.may_be_missing:
                raise

    def resume(self, place: Place, last_op: int, *, above: int) -> bool:
        """Begin to read at a checkpoint's place: if this is its log, and longer than `above` bytes."""
        try:
            if os.stat(self.path).st_size <= above or not has(self.path, place):
                return False
        except OSError:
            return False
        self.place, self.last_op = place, last_op
        return True

    def find(self, op: int) -> Event | None:
        """The event of an operation, without reading all that is there. Raises OSError."""
        with open_regular(self.path) as file:
            fd = file.fileno()
            low, high = 0, os.fstat(fd).st_size
            while high - low > CHUNK:  # operations only grow
                middle = (low + high) // 2  # most often in a line, of which the rest does not count
                event = next(_events(fd, middle), None)
                if event is None or event.op > op:
                    high = middle
                else:
                    low = middle
            event = next((event for event in _events(fd, low) if event.op >= op), None)
        return event if event is not None and event.op == op else None

    def _read_on(self, fd: int, take: Callable[[list[Event]], object]) -> None:
        size, before = os.fstat(fd).st_size, self.place
        if size < before.offset or _behind(fd, before.offset) != before.behind:
            if not self.may_be_missing:
                why = f"{before.offset} bytes of it were read, and {size} are there"
                if size >= before.offset:
                    why = f"what was read up to offset {before.offset} is not what stands there now"
                raise LogChanged(errno.ESTALE, f"it was changed while a command had it: {why}", self.path)
            self.place = Place(size, _behind(fd, size))
        self.damage = [d for d in self.damage if not d.torn]
        for reading in _readings(fd, self.place.offset):
            take(reading.events)
            # In this order: who is interrupted in between is left with a place and an operation
            # that do not belong together, and is not taken for a fold of the log up to there.
            self.place = Place(reading.good_end, _behind(fd, reading.good_end))
            self.damage += reading.damage
            self.damage = untold(self.damage, reading.events)
            if reading.events:
                self.last_op = max(self.last_op, *map(attrgetter("op"), reading.events))

    def _gone(self) -> LogChanged:
        return LogChanged(errno.ESTALE, "it was taken away while a command had it", self.path)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[Appender]:
        """Hold the log's lock; the log is made where it is new.

        Raises OSError where it cannot be opened for writing, LogChanged.
        """
        created = not os.path.exists(self.path)
        if created and self.place.offset:
            raise self._gone()
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            if created:
                sync_directory(os.path.dirname(self.path))
            _lock(fd, self.path)
            news: list[Event] = []
            self._read_on(fd, news.extend)
            yield Appender(self, fd, news)
        finally:
            os.close(fd)


def has(path: str, place: Place) -> bool:
    """Whether a log has what a checkpoint has read of it. Raises OSError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        return size >= place.offset and _behind(file.fileno(), place.offset) == place.behind


class Repair(NamedTuple):
    """Bytes of the log that are no event, and the file that has them now."""

    damage: list[Damage]  # its tail; or all in the middle
    saved_as: str
    kept: int  # how many of the bytes

    def to_json(self) -> dict[str, Any]:
        first, size = self.damage[0], sum(d.size for d in self.damage)
        many = {"places": [d[:2] for d in self.damage]} if len(self.damage) > 1 else {}
        less = {"kept": self.kept} if self.kept < size else {}
        told = {"offset": first.offset, "size": size, "torn": first.torn, "saved_as": self.saved_as}
        return {**told, **less, **many}


class Appender:
    """The log, held. `news` are the events that others wrote since this reader last looked."""

    def __init__(self, log: EventLog, fd: int, news: list[Event]) -> None:
        self.log = log
        self.fd = fd
        self.news = news

    def repair(self, *, torn: bool) -> Repair | None:
        """Set a `torn` tail aside, and cut it off; or what is bad in the middle, as much as one line can
        tell. None: nothing is.
        """
        damage = [damage for damage in self.damage() if damage.torn == torn][:MOST_PLACES]
        if not damage:
            return None
        saved_as = f"{self.log.damaged}/{damage[0].offset}"
        kept = self._set_aside(damage, saved_as)
        if torn:
            os.ftruncate(self.fd, damage[0].offset)
            os.fsync(self.fd)
        self.log.damage = [d for d in self.log.damage if d.torn != torn or d.offset > damage[-1].offset]
        return Repair(damage, saved_as, kept)

    def _set_aside(self, places: list[Damage], saved_as: str) -> int:
        """Copy damaged bytes to the end of a file, unless they are there; returns how many: at most
        MOST_KEPT. Of a flood that has filled the disk, what there is space for where it is cut off then, as
        that gives more back; else nothing.
        """
        pieces, kept = [], 0
        for offset, size, _ in places:
            pieces.append(os.pread(self.fd, min(size, MOST_KEPT - kept), offset))
            kept += len(pieces[-1])
        data = b"".join(pieces)
        self._make_directory(os.path.dirname(saved_as))
        never_held = os.O_NONBLOCK | os.O_NOFOLLOW  # by a FIFO, say, that a worker has put there
        aside = os.open(saved_as, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | never_held, 0o600)
        try:
            found = os.fstat(aside)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", saved_as)
            before = found.st_size
            try:
                if os.pread(aside, kept, max(0, before - kept)) != data:
                    write_all(aside, data)
                os.fsync(aside)
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                flood = sum(d.size for d in places) > FLOOD
                kept = os.fstat(aside).st_size - before if places[0].torn else 0
                if not (full and flood and kept):
                    self._take_back(aside, before, saved_as)
                if not (full and flood):
                    raise
        finally:
            os.close(aside)
        sync_directory(os.path.dirname(saved_as))
        return kept

    @staticmethod
    def _make_directory(path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            sync_directory(os.path.dirname(path))

    @staticmethod
    def _take_back(aside: int, before: int, saved_as: str) -> None:
        """What was copied for nothing: each try would leave more on a full disk."""
        with contextlib.suppress(OSError):
            os.ftruncate(aside, before)
            if not before:
                os.unlink(saved_as)

    def damage(self) -> list[Damage]:
        """What is damaged now: others may have repaired what this reader once saw."""
        if self.log.damage:
            found: list[Damage] = []
            for reading in _readings(self.fd, self.log.damage[0].offset):
                found += reading.damage
                found = untold(found, reading.events)
            self.log.damage = found
        return self.log.damage

    def append(self, drafts: list[Draft], *, at: str, epoch: int) -> list[Event]:
        """Write the facts durably. Raises OSError with the log as it was before.

        Who is killed in between leaves a prefix of whole lines, and perhaps a torn one.
        """
        if not drafts:
            return []
        log = self.log
        events = [
            Event(log.last_op + i, at, draft.topic, draft.kind, epoch, draft.data)
            for i, draft in enumerate(drafts, 1)
        ]
        lines = [encode(event) for event in events]
        if (longest := max(map(len, lines))) > MOST_LINE:  # which no reader would take for one of ours
            raise OSError(errno.EFBIG, f"a line of {longest} bytes, and it takes {MOST_LINE}", log.path)
        data = b"".join(lines)
        written = False
        try:
            os.lseek(self.fd, log.place.offset, os.SEEK_SET)
            write_all(self.fd, data)
            written = True
            os.fdatasync(self.fd)
        except BaseException as error:
            # After a failed sync the kernel may have dropped the pages: the bytes are not to be trusted,
            # whatever a second sync would say. An interrupt takes nothing back that others may have read.
            if not written or isinstance(error, OSError):
                with contextlib.suppress(OSError):
                    os.ftruncate(self.fd, log.place.offset)
            raise
        log.last_op = events[-1].op  # before the place: see `_read_on`
        end = log.place.offset + len(data)
        log.place = Place(end, _behind(self.fd, end))
        return events


def _lock(fd: int, path: str) -> None:
    """Take the log's lock. Raises TimeoutError where somebody sits on it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                why = f"another process has held its lock for {PATIENCE_S:g} s"
                raise TimeoutError(errno.ETIMEDOUT, why, path) from None
            time.sleep(0.002)


def _behind(fd: int, offset: int) -> str:
    return os.pread(fd, min(offset, BEHIND), max(0, offset - BEHIND)).decode("latin-1")


def _readings(fd: int, offset: int) -> Iterator[Reading]:
    """What the log has at this moment from `offset` on, a piece at a time; what is torn comes last."""
    good_end, size = offset, os.fstat(fd).st_size
    loads = _parser(size - offset)
    while offset < size and (piece := os.pread(fd, min(CHUNK, size - offset), offset)):
        if b"\n" not in piece:
            end = _end_of_line(fd, offset + len(piece), size)
            if end - offset > MOST_LINE or not may_count(_behind(fd, end)):
                offset = end
                continue
            piece = os.pread(fd, end - offset, offset)
        lines_end = piece.rfind(b"\n") + 1
        if not lines_end:
            break
        reading = read_lines(piece[:lines_end], offset, good_end, loads)
        yield reading
        good_end = reading.good_end
        offset += lines_end
    yield Reading([], good_end, torn(good_end, size))


def _events(fd: int, offset: int) -> Iterator[Event]:
    for reading in _readings(fd, offset):
        yield from reading.events


def _end_of_line(fd: int, at: int, size: int) -> int:
    """The offset behind the end of the line that goes on at `at`; `size`, where it does not end before."""
    while at < size and (piece := os.pread(fd, min(CHUNK, size - at), at)):
        if found := piece.find(b"\n") + 1:
            return at + found
        at = _next_data(fd, at + len(piece))
    return size


def _next_data(fd: int, at: int) -> int:
    """Where bytes were written, from `at` on: a file may be long without having any (lseek(2), SEEK_DATA)."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        return max(at, os.fstat(fd).st_size) if error.errno == errno.ENXIO else at


def _parser(size: int) -> Parser:
    """For so many bytes of the log; what it refuses is left to json."""
    if size <= LONG:
        return json.loads
    import msgspec

    return msgspec.json.decode
