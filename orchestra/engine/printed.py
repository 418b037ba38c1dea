"""What a worker printed: the end of it, or all as it comes."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator

from orchestra.engine.observe import Observer
from orchestra.host import clock
from orchestra.model.record import State, WorkerRecord
from orchestra.store.layout import Layout
from orchestra.store.publish import open_regular

TAIL_BYTES = 16 * 1024


def log_of(layout: Layout, record: WorkerRecord, attempt: int, *, stderr: bool) -> str:
    """The path of an attempt's log: a retry moves the old one's aside."""
    flat = layout.log_err(record.name) if stderr else layout.log_out(record.name)
    if attempt == record.attempt:
        return flat
    return dict(layout.archived(record.name, attempt))[flat]


def last_lines(path: str, lines: int) -> list[str]:
    """The last lines of a file of any size, in text; empty where there is none."""
    text, _ = tail(path, lines)
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
