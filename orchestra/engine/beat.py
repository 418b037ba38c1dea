"""A worker's beat about itself: its heartbeat file, and a line of telemetry; and reading those again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from orchestra.errors import Storage, Usage
from orchestra.host import clock
from orchestra.model.event import Event, decode, encode
from orchestra.model.record import WorkerRecord
from orchestra.store.layout import Layout
from orchestra.store.publish import open_regular

MAX_NOTE = 2000
TAIL_BYTES = 256 * 1024  # of the telemetry: who beat before that has beaten since, or is long done


def beat(environment: Mapping[str, str], *, progress: str | None, note: str | None) -> dict[str, object]:
    """Raises Usage outside a worker or for a progress that is no K/N, Storage."""
    try:
        layout = Layout(environment["ORCHESTRA_RUN_DIR"])
        worker, attempt = environment["ORCHESTRA_WORKER"], int(environment["ORCHESTRA_ATTEMPT"])
    except (KeyError, ValueError):
        raise Usage(
            "orchestra beat is for workers: ORCHESTRA_RUN_DIR and ORCHESTRA_WORKER are not set here",
            hint="call it from inside a worker that orchestra started",
        ) from None
    data: dict[str, object] = {"worker": worker, "attempt": attempt}
    if progress is not None:
        done, total = parse_progress(progress)
        data |= {"done": done, "total": total}
    if note is not None:
        data["note"] = note[:MAX_NOTE]
    line = encode(Event(0, clock.now(), "telemetry", "beat", 0, data))
    path = environment.get("ORCHESTRA_HEARTBEAT") or layout.heartbeat(worker, attempt)
    try:
        with open(path, "ab"):
            os.utime(path)
        fd = os.open(layout.telemetry, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line)  # one write: lines of several workers do not mix
        finally:
            os.close(fd)
    except OSError as error:
        raise Storage.from_os("write the beat", error.filename or path, error) from error
    return data


def last_beats(layout: Layout) -> dict[tuple[str, int], dict[str, Any]]:
    """What workers last said of themselves: (worker, attempt) -> at, and done, total, note if given."""
    try:
        with open_regular(layout.telemetry) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    beats = {}
    for event in map(decode, lines):
        if event is None:
            continue
        # Any worker can write here, and anything.
        worker, attempt = event.data.pop("worker", None), event.data.pop("attempt", None)
        if isinstance(worker, str) and isinstance(attempt, int):
            beats[worker, attempt] = {"at": event.at, **event.data}
    return beats


def how_far(layout: Layout, records: Iterable[WorkerRecord]) -> dict[str, dict[str, Any]]:
    """Worker -> at, done, total: of those that have told it in their current attempt."""
    beats = last_beats(layout)
    told = {record.name: beats.get((record.name, record.attempt), {}) for record in records}
    return {
        name: {key: beat[key] for key in ("at", "done", "total")}
        for name, beat in told.items()
        if isinstance(beat.get("done"), int) and isinstance(beat.get("total"), int)
    }


def parse_progress(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,12})/([0-9]{1,12})", text)
    if match is None or int(match[1]) > int(match[2]):
        raise Usage(f"--progress {text!r} is no K/N", hint="for instance --progress 3/10")
    return int(match[1]), int(match[2])
