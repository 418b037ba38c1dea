"""A worker's beat about itself: its heartbeat file, and a line of telemetry."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from orchestra.errors import Storage, Usage
from orchestra.host import clock
from orchestra.model.event import Event, encode
from orchestra.store.layout import Layout

MAX_NOTE = 2000


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


def parse_progress(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,12})/([0-9]{1,12})", text)
    if match is None or int(match[1]) > int(match[2]):
        raise Usage(f"--progress {text!r} is no K/N", hint="for instance --progress 3/10")
    return int(match[1]), int(match[2])
