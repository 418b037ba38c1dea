"""A worker's whole story, and what it printed."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from typing import Any

from orchestra.engine.observe import Observer
from orchestra.host import clock
from orchestra.model.event import decode
from orchestra.model.history import State, WorkerRecord
from orchestra.model.snapshot import WorkerView
from orchestra.model.verdict import MEANING, Verdict
from orchestra.store.publish import open_regular

LAST_LINES = 20
TAIL_BYTES = 16 * 1024


def explain(observer: Observer, name: str) -> dict[str, Any]:
    """Trail, attempts, verdict, evidence, retry advice; why it is deferred and since when."""
    record = observer.record_of(name)
    conducted = observer.conducted()
    view = observer.view(record, conducted=conducted)
    story: dict[str, Any] = {
        **view.to_json(),
        "command": list(record.entry.command or ()),
        "cwd": record.entry.cwd,
        "timeout_s": record.entry.timeout_s,
        "stall_s": record.entry.stall_s,
        "expect": [{"file": e.file or "stdout", "min_bytes": e.min_bytes} for e in record.entry.expect],
        "started_at": view.started_at or record.started_at,
        "ended_at": view.ended_at,
        "gap": view.gap,
        "leftovers": list(view.leftovers),
        "trail": trail(observer, record),
        "attempts": [*record.failures, *([attempt_row(view)] if record.state != State.PLANNED else [])],
        "events": [],
    }
    if (beat := last_beat(observer, record)) is not None:
        story["beat"] = beat
    if view.verdict:
        story["meaning"] = MEANING[Verdict(view.verdict)]
        story["evidence"] = evidence(observer, view)
    if record.deferral and view.state == State.DEFERRED:
        deferral = record.deferral
        story["deferred"] = {
            "since": deferral.since,
            "times": deferral.times,
            "waits_for": deferral.signals,
            "reason": deferral.reason,
        }
    events = Observer(observer.layout).log.read_new()
    story["events"] = [
        {"op": e.op, "at": e.at, "kind": e.kind} for e in events if e.data.get("worker") == name
    ]
    return story


def last_beat(observer: Observer, record: WorkerRecord) -> dict[str, Any] | None:
    """What the worker last said of itself, as far as the end of the telemetry tells."""
    for line in reversed(last_lines(observer.layout.telemetry, 1000, 256 * 1024)):
        event = decode(line.encode())
        if event and (event.data.get("worker"), event.data.get("attempt")) == (record.name, record.attempt):
            return {"at": event.at, **{k: v for k, v in event.data.items() if k not in ("worker", "attempt")}}
    return None


def attempt_row(view: WorkerView) -> dict[str, Any]:
    return {
        "attempt": view.record.attempt,
        "state": view.state,
        "verdict": view.verdict,
        "reason": view.reason,
        "exit_code": view.exit_code,
        "signal": view.signal,
        "started_at": view.started_at,
        "ended_at": view.ended_at,
    }


def trail(observer: Observer, record: WorkerRecord) -> list[dict[str, Any]]:
    """The paper trail, each with its path, and when it was written if it was."""
    name, layout = record.name, observer.layout
    papers = [
        *layout.trail(name),
        ("sentinel", layout.sentinel(name)),
        ("result", layout.result(name)),
        ("stdout", layout.log_out(name)),
        ("stderr", layout.log_err(name)),
        ("out", layout.out(name)),
    ]
    rows: list[dict[str, Any]] = []
    for what, path in papers:
        try:
            info = os.stat(path)
        except OSError:
            rows.append({"what": what, "path": path, "at": None, "size_bytes": None})
        else:
            rows.append(
                {"what": what, "path": path, "at": clock.stamp(info.st_mtime), "size_bytes": info.st_size}
            )
    return rows


def evidence(observer: Observer, view: WorkerView) -> dict[str, Any]:
    name = view.record.name
    found: dict[str, Any] = {"exit_code": view.exit_code, "signal": view.signal}
    if view.record.state != State.PLANNED:
        found["stderr_tail"] = last_lines(observer.layout.log_err(name), LAST_LINES)
    if view.verdict == Verdict.EMPTY:
        found["expected"] = expected(observer, view.record)
    if view.verdict == Verdict.SPAWN_ERROR:
        path = observer.layout.launcher_log(name, view.record.attempt)
        found["launcher_said"] = last_lines(path, LAST_LINES)
    if view.leftovers:
        found["still_alive"] = list(view.leftovers)
    return found


def expected(observer: Observer, record: WorkerRecord) -> list[dict[str, Any]]:
    """What was to be there, and how much of it is; the launcher has judged it when the worker ended."""
    rows: list[dict[str, Any]] = []
    for expect in record.entry.expect:
        path = (
            observer.layout.log_out(record.name)
            if expect.file is None
            else f"{observer.layout.out(record.name)}/{expect.file}"
        )
        try:
            size = os.stat(path).st_size
        except OSError:
            size = None
        rows.append({"path": path, "size_bytes": size, "min_bytes": expect.min_bytes})
    return rows


def last_lines(path: str, lines: int, limit: int = TAIL_BYTES) -> list[str]:
    """The last lines of a file of any size, in text; empty where there is none."""
    text, _ = tail(path, lines, limit)
    return text.rstrip("\n").split("\n") if text else []


def tail(path: str, lines: int, limit: int = TAIL_BYTES) -> tuple[str, bool]:
    """(the last `lines` lines, at most `limit` bytes of them; whether anything was cut)."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            data = file.read(limit)
    except OSError:
        return "", False
    rows = data.decode("utf-8", "replace").split("\n")
    whole = [row + "\n" for row in rows[:-1]] + rows[-1:] * bool(rows[-1])
    return "".join(whole[-lines:] if lines else []), size > len(data) or len(whole) > lines


def follow(observer: Observer, name: str, path: str) -> Iterator[str]:
    """New text of a log as it comes, until the worker has ended and all is told."""
    offset, inode, last = 0, 0, False
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    while True:
        try:
            with open_regular(path) as file:
                if inode != (inode := os.fstat(file.fileno()).st_ino):
                    offset = 0  # another attempt's
                file.seek(offset)
                data = file.read(1 << 16)
        except OSError:
            data = b""
        if data:
            offset += len(data)
            yield decode(data)
            continue
        if last:
            return
        observer.refresh()
        view = observer.view(observer.record_of(name), conducted=observer.conducted(), stall=False)
        last = view.ended or view.state in (State.PLANNED, State.DEFERRED)
        if not last:
            clock.pause(0.1)
