"""A worker's whole story."""

from __future__ import annotations

import os
from typing import Any

from orchestra.engine.beat import last_beat
from orchestra.engine.made import made
from orchestra.engine.observe import Observer
from orchestra.engine.printed import last_lines
from orchestra.host import clock
from orchestra.model.advice import next_phase
from orchestra.model.event import Event
from orchestra.model.record import State, WorkerRecord
from orchestra.model.snapshot import Snapshot, WorkerView, ended_alike
from orchestra.model.throttle import never_met
from orchestra.model.trail import parse_sentinel
from orchestra.model.verdict import MEANING, Retry, Verdict
from orchestra.store.publish import read_text

LAST_LINES = 20


def explain(observer: Observer, snapshot: Snapshot, name: str) -> dict[str, Any]:
    """Trail, attempts, verdict, evidence, retry advice; why it is deferred and since when.

    Raises NoSuchWorker.
    """
    record = observer.record_of(name)
    if record.state == State.PLANNED:
        from orchestra.engine.request import completed

        record = record._replace(entry=completed(observer, record.entry))
    conducted = snapshot.conducted
    view = observer.view(record, conducted=conducted)
    story: dict[str, Any] = {
        **view.to_json(),
        "command": list(record.entry.command or ()),
        "cwd": record.entry.cwd,
        "timeout_s": record.entry.timeout_s,
        "stall_s": record.entry.stall_s,
        "first_sign_s": record.entry.first_sign_s,
        "stall_action": record.entry.stall_action or "warn",
        "expect": [{"file": e.file or "stdout", "min_bytes": e.min_bytes} for e in record.entry.expect],
        "started_at": view.started_at or record.started_at,
        "ended_at": view.ended_at,
        **({"found_gone_at": record.since if record.verdict else clock.now()} if lost(view) else {}),
        "gap": view.gap,
        "leftovers": list(view.leftovers),
        "trail": trail(observer, record),
        "made": made(observer.layout.out(name)),
        "attempts": [*record.failures, *([attempt_row(view)] if record.state != State.PLANNED else [])],
        "events": [],
    }
    if (beat := last_beat(observer.layout, record)) is not None:
        story["beat"] = beat
    if view.state in (State.RUNNING, State.STALLED):
        story["signs"] = observer.signs.in_detail(view)
    if view.verdict:
        story["meaning"] = MEANING[Verdict(view.verdict)]
        if first := before_a_retry(view):
            again = f"orchestra retry {observer.layout.words} {name}"
            story["way_out"] = f"{first}: {again} (a mended command goes behind it: -- COMMAND ...)"
            if phase := next_phase(snapshot.workers, observer.history.plan):
                story["way_out"] += f"; or go on without it: {going_on(observer.layout.words, phase)}"
        story["evidence"] = evidence(observer, view)
    if record.deferral and view.state == State.DEFERRED:
        from orchestra.engine.deferral import deferral_story  # asks the host

        story["deferred"] = deferral_story(observer, record)
        story["reason"] = story["deferred"].get("outlook", story["reason"])
        if limit := never_met(story["deferred"].get("now") or []):
            spawn = f"orchestra spawn {observer.layout.words}"
            first = (
                "once the narrator at work has let go (^C leaves its workers running): " if conducted else ""
            )
            story["way_out"] = (
                f"{first}a lower {limit} (ORCHESTRA_THROTTLE='{{{limit}: …}}' {spawn}), none at all "
                f"({spawn} --no-throttle), or call it off: orchestra stop {observer.layout.words} {name}"
            )

    def keep(events: list[Event]) -> None:
        ours = (event for event in events if event.data.get("worker") == name)
        story["events"] += [{"op": event.op, "at": event.at, "kind": event.kind} for event in ours]

    Observer(observer.layout).log.feed(keep)
    return story


def before_a_retry(view: WorkerView) -> str | None:
    """What is to be done first; None where another attempt may help as it is."""
    if view.verdict == Verdict.STOPPED:
        return "if it is wanted after all"
    if view.retry == Retry.NEVER:
        return "mend what is wrong, then"
    if ended_alike(view):
        return "it has ended just like that before: look at what it printed, mend what is wrong, then"
    return None


def going_on(words: str, phase: str) -> str:
    return f"orchestra spawn {words} --phase {phase} (or orchestra run --run {words} --keep-going)"


def lost(view: WorkerView) -> bool:
    """Nobody knows when it ended."""
    return view.verdict == Verdict.LOST and view.ended_at is None


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
            size = None if what == "out" else info.st_size  # a directory's own size says nothing
            rows.append({"what": what, "path": path, "at": clock.stamp(info.st_mtime), "size_bytes": size})
    return rows


def evidence(observer: Observer, view: WorkerView) -> dict[str, Any]:
    name = view.record.name
    found: dict[str, Any] = {"exit_code": view.exit_code, "signal": view.signal}
    if view.record.state != State.PLANNED:
        found["stderr_tail"] = last_lines(observer.layout.log_err(name), LAST_LINES)
    if view.verdict == Verdict.EMPTY:
        found["expected"] = expected(observer, view.record)
    if view.verdict == Verdict.SPAWN_ERROR:
        found["launcher_line"] = launcher_line(observer, view.record)
        path = observer.layout.launcher_log(name, view.record.attempt)
        found["launcher_said"] = last_lines(path, LAST_LINES)
    if view.leftovers:
        found["still_alive"] = list(view.leftovers)
    return found


def launcher_line(observer: Observer, record: WorkerRecord) -> str | None:
    """Where the launcher failed, and at which command, by the sentinel."""
    text = read_text(observer.layout.sentinel(record.name))
    sentinel = parse_sentinel(text) if text else None
    return f"{sentinel.line}: {sentinel.command}" if sentinel else None


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
