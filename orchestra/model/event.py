"""The event log's lines: one line, one fact.

    {"op":7,"at":"2026-01-31T23:59:59.123Z","topic":"observations","kind":"ended",
     "epoch":2,"worker":"W1","attempt":1, …,"crc":"89abcdef"}

* `op` only grows within a run; `epoch` only grows from conductor to conductor.
* `crc` stands last: CRC-32 (zlib) of the line's bytes up to its comma, in hex.
* A line counts once its newline and its checksum are there. What lies between two that count is damage;
  it stays where it is, and counts as told once a `log_damaged` behind it tells of its place.

Adding a field is safe; changing what one means is not: old runs keep their lines.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

COMMANDS = "commands"  # what was meant
OBSERVATIONS = "observations"  # what was seen to happen
CONTROL = "control"  # who conducts
RECONCILIATION = "reconciliation"  # what a dead narrator left half-done, put right
ALERTS = "alerts"  # what a person should know
LOG_DAMAGED = "log_damaged"  # bytes that were no event, and where they were set aside
TOPICS = (COMMANDS, OBSERVATIONS, CONTROL, RECONCILIATION, ALERTS)

_CRC = b',"crc":"'
_BODY = -len(_CRC + b'89abcdef"}')  # where a line's checksum begins, from its end
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
_HEAD = ("op", "at", "topic", "kind", "epoch")

Parser = Callable[[bytes], Any]
"""Reads JSON as `json.loads` does, or raises ValueError (or RecursionError)."""


class Draft(NamedTuple):
    """A fact that has no place in the log yet."""

    topic: str
    kind: str
    data: dict[str, Any]


class Event(NamedTuple):
    op: int
    at: str
    topic: str
    kind: str
    epoch: int
    data: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**dict(zip(_HEAD, self, strict=False)), **self.data}


def json_bytes(value: dict[str, Any]) -> bytes:
    """One line of JSON in UTF-8, for every reader's idea of a line.

    Bytes that are not UTF-8 (lone surrogates) go as escapes, and so do the signs that some
    readers take for the end of a line.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return _LINE_ENDS.sub(lambda m: f"\\u{ord(m[0]):04x}", text).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def encode(event: Event) -> bytes:
    body = json_bytes(event.to_json())[:-1]
    return b'%s%s%08x"}\n' % (body, _CRC, zlib.crc32(body))


def decode(line: bytes) -> Event | None:
    """The event on a line (without its newline), or None where the line is damaged."""
    return decode_all([line])[0]


def decode_all(lines: list[bytes], loads: Parser = json.loads) -> list[Event | None]:
    """Many lines at once: the parser is called once for all whose checksum is right."""
    bodies = [line[:_BODY] for line in lines]
    crc = zlib.crc32
    sums = [b',"crc":"%08x"}' % crc(body) for body in bodies]
    whole = [line.endswith(told) for line, told in zip(lines, sums, strict=True)]
    if not any(whole):
        return [None] * len(lines)
    damaged = not all(whole)
    try:
        parsed = loads(b"[%s}]" % b"},".join(itertools.compress(bodies, whole) if damaged else bodies))
        if len(parsed) != sum(whole):
            raise ValueError("one line is not one value")
    except (ValueError, RecursionError):
        if loads is not json.loads:
            return decode_all(lines)
        if len(lines) == 1:
            return [None]
        return [decode(line) for line in lines]
    if not damaged:
        return _events(parsed)
    events = iter(_events(parsed))
    return [next(events) if good else None for good in whole]


def _events(parsed: list[Any]) -> list[Event | None]:
    """A value that is no event gives None: any worker can write telemetry, and a checksum is no signature."""
    events: list[Event | None] = []
    add, make = events.append, tuple.__new__
    for data in parsed:
        try:
            take = data.pop
            op, at, topic, kind, epoch = take("op"), take("at"), take("topic"), take("kind"), take("epoch")
        except (AttributeError, KeyError, TypeError, IndexError):
            add(None)
            continue
        if type(op) is type(epoch) is int and type(at) is type(topic) is type(kind) is str:
            add(make(Event, (op, at, topic, kind, epoch, data)))  # by its own way it takes twice as long
        else:
            add(None)
    return events


class Place(NamedTuple):
    """How far into the log a checkpoint speaks, and which log it was."""

    offset: int
    behind: str  # the bytes just before the offset, in Latin-1


class Damage(NamedTuple):
    """Bytes of the log that are no event: where, how many, and whether at its very end."""

    offset: int
    size: int
    torn: bool


class Reading(NamedTuple):
    events: list[Event]
    good_end: int  # offset behind the last line that counts
    damage: list[Damage]


def read_lines(data: bytes, offset: int, good_end: int, loads: Parser = json.loads) -> Reading:
    """Parse whole lines that start at `offset` of their file.

    `good_end`: behind the last line before them that counts. What lies between two such lines is damage
    once the second is there; till then it may be a torn tail.
    """
    if _CRC not in data:
        return Reading([], good_end, [])
    lines = data.split(b"\n")
    lines.pop()
    decoded = decode_all(lines, loads)
    events = [event for event in decoded if event is not None]
    if len(events) == len(lines) and good_end == offset:
        return Reading(events, offset + len(data), [])
    damage: list[Damage] = []
    start = offset
    for line, event in zip(lines, decoded, strict=True):
        end = start + len(line) + 1
        if event is not None:
            damage += [Damage(good_end, start - good_end, False)] if good_end < start else []
            good_end = end
        start = end
    return Reading(events, good_end, damage)


def may_count(end: str) -> bool:
    """Whether a line that ends so (with its newline; in Latin-1) may have a checksum."""
    return end[_BODY - 1 :].startswith(_CRC.decode())


def untold(damage: list[Damage], events: list[Event]) -> list[Damage]:
    """Without what these events, which stand behind it, tell of."""
    told: set[tuple[int, int]] = set()
    for event in events if damage else ():
        if event.kind == LOG_DAMAGED:
            told.update(_places(event.data))
    return [d for d in damage if (d.offset, d.size) not in told] if told else damage


def _places(data: dict[str, Any]) -> list[tuple[int, int]]:
    """(offset, size) of all that a `log_damaged` tells of; none of one that is not as we write it."""
    places = data.get("places", [[data.get("offset"), data.get("size")]])
    with contextlib.suppress(TypeError, ValueError):
        return [(offset, size) for offset, size in places if type(offset) is type(size) is int]
    return []


def torn(good_end: int, end: int) -> list[Damage]:
    """What stands behind the last line that counts: the last writer died, or is at this moment writing."""
    return [Damage(good_end, end - good_end, True)] if good_end < end else []
