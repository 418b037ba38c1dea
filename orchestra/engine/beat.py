"""A worker's beat about itself: in its heartbeat file the latest, in the telemetry a line of each."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from orchestra.errors import Storage, Usage
from orchestra.host import clock
from orchestra.model.event import Event, decode, encode
from orchestra.model.record import WorkerRecord
from orchestra.store.layout import Layout
from orchestra.store.publish import read_text

MAX_NOTE = 2000
MAX_LINE = 32 * 1024


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
        with opened(path, 0) as fd:
            os.utime(fd)
            os.pwrite(fd, line, 0)  # the latest, where `status` looks
            os.ftruncate(fd, len(line))
        with opened(layout.telemetry, os.O_APPEND) as fd:
            os.write(fd, line)  # one write: lines of several workers do not mix
    except OSError as error:
        raise Storage.from_os("write the beat", error.filename or path, error) from error
    return data


@contextlib.contextmanager
def opened(path: str, how: int) -> Iterator[int]:
    fd = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | how, 0o600
    )  # no FIFO holds it
    try:
        yield fd
    finally:
        os.close(fd)


def last_beat(layout: Layout, record: WorkerRecord) -> dict[str, Any] | None:
    """What it last said of itself in its current attempt: at, and done, total, note if given."""
    text = read_text(layout.heartbeat(record.name, record.attempt), MAX_LINE)
    event = decode(text.split("\n")[0].encode()) if text else None
    if event is None or (event.data.pop("worker", None), event.data.pop("attempt", None)) != (
        record.name,
        record.attempt,
    ):
        return None  # a worker can write there what it likes
    return {"at": event.at, **event.data}


def how_far(layout: Layout, records: Iterable[WorkerRecord]) -> dict[str, dict[str, Any]]:
    """Worker -> at, done, total: of those that have told it in their current attempt."""
    told = {record.name: last_beat(layout, record) or {} for record in records}
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
