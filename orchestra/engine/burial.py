"""What a launcher does at its end, done for one that could not: the result, and clearing away."""

from __future__ import annotations

import contextlib
import json
import os

from orchestra.engine.place import tmp_dir
from orchestra.model.record import WorkerRecord
from orchestra.model.snapshot import WorkerView
from orchestra.model.trail import Mark, Result, parse_mark, parse_result
from orchestra.model.verdict import Verdict
from orchestra.store.layout import Layout
from orchestra.store.publish import publish, read_text


def read_mark(layout: Layout, record: WorkerRecord) -> Mark | None:
    """The mark of this very attempt; None where another's, or nothing that can be read, stands there."""
    text = read_text(layout.mark(record.name))
    mark = parse_mark(text) if text else None
    ours = mark is not None and (mark.attempt, mark.token) == (record.attempt, record.token)
    return mark if ours else None


def write_result(layout: Layout, result: Result) -> None:
    """Under the flat name. The log has it all; the file is for people, so no error."""
    data = json.dumps(result.to_json()).encode() + b"\n"
    with contextlib.suppress(OSError):
        publish(layout.result(result.worker), data, durable=False)


def bury(layout: Layout, record: WorkerRecord) -> None:
    """Of an attempt that ended with no word of its launcher's."""
    clear_away(layout, record)
    result = Result(
        worker=record.name,
        attempt=record.attempt,
        status="failed",
        verdict=record.verdict,
        reason=record.reason,
        started_at=record.started_at,
        ended_at=record.ended_at or record.since,
    )
    write_result(layout, result)


def finish(layout: Layout, record: WorkerRecord) -> None:
    """What a launcher does behind its last word, where it was killed before that."""
    flat, own = layout.result(record.name), layout.attempt_result(record.name, record.attempt)
    draft = layout.attempt_result_draft(record.name, record.attempt)
    if not any(map(os.path.exists, (own, draft, layout.sentinel(record.name)))):
        return  # it left no word
    if any(map(os.path.exists, layout.launcher_notes(record.name, record.attempt))):
        clear_away(layout, record)
    with contextlib.suppress(OSError):
        if not os.path.exists(own) and parse_result(read_text(draft) or ""):  # whole, that is
            os.rename(draft, own)
    with contextlib.suppress(OSError):
        if not os.path.exists(flat):
            os.link(own, flat)


def retell(layout: Layout, view: WorkerView) -> None:
    """The flat result of a worker of whose end its launcher could not know the reason."""
    record = view.record
    known_better = view.verdict in (Verdict.STALLED, Verdict.OOM)
    text = read_text(layout.result(record.name)) if known_better else None
    result = parse_result(text) if text else None
    if result is not None and result.attempt == record.attempt and result.verdict != view.verdict:
        write_result(layout, result._replace(verdict=view.verdict, reason=view.reason))


def clear_away(layout: Layout, record: WorkerRecord) -> None:
    """Remove the worker's TMPDIR, and the launcher's own notes."""
    import shutil

    mark = read_mark(layout, record)
    ours = tmp_dir(record.token)
    if mark and os.path.basename(mark.tmp_dir) == os.path.basename(ours):
        ours = mark.tmp_dir  # whoever started it may have had another TMPDIR
    shutil.rmtree(ours, ignore_errors=True)
    for note in layout.launcher_notes(record.name, record.attempt):
        with contextlib.suppress(OSError):
            os.unlink(note)
