"""What a log has lost that was cut, damaged or emptied.

state.json, the workers' trails and their processes still tell of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from orchestra.engine import strays
from orchestra.errors import PROVES_NOTHING, CorruptLog, Storage
from orchestra.host import process
from orchestra.model.event import COMMANDS, CONTROL, OBSERVATIONS, Draft
from orchestra.model.history import History
from orchestra.model.names import is_name
from orchestra.model.plan import MOST_INPUT, WorkerEntry, entry_to_json, plan_to_json
from orchestra.model.record import ENDED, WorkerRecord
from orchestra.model.snapshot import ending, from_log
from orchestra.model.trail import Mark, parse_mark, parse_result
from orchestra.model.verdict import Verdict
from orchestra.store.eventlog import has
from orchestra.store.layout import MOST_STATE, Layout
from orchestra.store.publish import open_regular, read_text

if TYPE_CHECKING:
    from orchestra.engine.observe import Observer

_HEAD = re.compile(rb'\{"version":\d+,"run":"([^"]*)","op":(\d{1,15}),')


def alerts(observer: Observer) -> list[dict[str, Any]]:
    """Of present losses; looks closer only where there is a sign of any."""
    layout, history = observer.layout, observer.history
    saved, names = lost(layout, history, damaged=bool(observer.log.damage)), unknown_names(layout, history)
    if saved is None and not names and os.path.exists(layout.state):
        return []
    from orchestra.engine.observe import Observer  # which calls us

    history = Observer(layout).open().history  # somebody may have gone on since the log was read
    found: list[dict[str, Any]] = []
    if saved is not None and saved.op > history.op:
        found.append({"kind": "log_shortened", "after_op": history.op, "up_to_op": saved.op})
    there = strays.of_run(layout.run_dir, {record.token for record in history.workers.values()})
    later = [str(d.data["worker"]) for d in later_attempts(layout, history.workers.values())]
    names = [name for name in names if name not in history.workers]
    for name in dict.fromkeys([*names, *later, *(stray.worker for stray in there if stray.worker)]):
        pids = [pid for stray in there if stray.worker == name for pid in stray.pids]
        found.append({"kind": "unknown_worker", "worker": name, "pids": pids})
    return found


def lost(layout: Layout, history: History, *, damaged: bool = False) -> History | None:
    """The run as state.json has it, where that may have what the log has lost.

    It has got further, so the log was cut; or the log is `damaged`, or says no more how the run began.
    """
    doubtful = damaged or history.created is None
    try:
        with open_regular(layout.state, MOST_STATE) as file:
            head = _HEAD.match(file.read(256))
            if head is None or not (doubtful or int(head[2]) > history.op):
                return None
            file.seek(0)
            from orchestra.model.checkpoint import parse  # seldom needed

            saved = parse(file.read())
        if saved is None or head[1] != layout.run_id.encode():
            return None
        if not doubtful and has(layout.events, saved.place):
            return None  # its word against the log's
        if history.created not in (None, saved.history.created):
            return None
        list(saved.history.workers.values())  # read now: what is not as we write it is no help
    except OSError as error:
        if error.errno in PROVES_NOTHING:
            raise Storage.from_os("read the run's state", layout.state, error) from error
        return None
    except CorruptLog:
        return None
    return saved.history


def beginning(saved: History) -> Draft:
    """How the run began, for a log that has lost it."""
    plan = plan_to_json(saved.plan) if saved.plan is not None else None
    return Draft(
        COMMANDS, "run_created", {"base": saved.base, "plan_sha256": saved.plan_sha256, "plan": plan}
    )


def write_back(
    layout: Layout, saved: History, history: History, append: Callable[[list[Draft]], object]
) -> None:
    """What the log has lost and state.json still has; `append` puts facts into the log and into `history`."""
    append(meant_again(layout, saved, history))
    append(happened_again(saved, history))


def meant_again(layout: Layout, saved: History, history: History) -> list[Draft]:
    """What was meant, and who sits in the seat, of what the log has lost.

    Where a worker's own mark tells of a later attempt than state.json, or of one at work, it is gone by.
    """
    drafts = []
    for name, record in saved.workers.items():
        known = history.workers.get(name)
        if known is not None and (known.attempt >= record.attempt or is_at_work(known)):
            continue
        mark = claim_of(layout, name)
        gone_by = mark and (mark.attempt > record.attempt or process.lives(mark.process) is not False)
        attempt, token = (mark.attempt, mark.token) if mark and gone_by else (record.attempt, record.token)
        what = {"worker": name, "attempt": attempt, "token": token}
        if known is not None:
            for failure in record.failures:
                if failure["attempt"] == known.attempt and known.state not in ENDED:
                    ended = {"worker": name, "status": "failed", **failure}
                    drafts.append(Draft(OBSERVATIONS, "ended", ended))
            command = list(record.entry.command or ())
            drafts.append(Draft(COMMANDS, "retry_intended", {**what, "command": command}))
            continue
        entry = {"phase": record.phase, "entry": entry_to_json(record.entry)}
        sha = {"brief_sha256": record.brief_sha256} if record.brief_sha256 else {}
        drafts.append(Draft(COMMANDS, "spawn_intended", {**what, **entry, **sha}))
    if saved.op > history.op and saved.seat not in (None, history.seat):
        drafts.append(Draft(CONTROL, "seat_taken", {"narrator": saved.seat, "from": history.seat}))
    if saved.narration is not None and saved.narration.op > history.op:
        began = {"flags": list(saved.narration.flags), "throttle": saved.narration.throttle}
        drafts.append(Draft(CONTROL, "narration_began", began))
        if saved.narration.over:
            stopped_for = list(saved.narration.stopped_for)
            drafts.append(Draft(CONTROL, "narration_ended", {"stopped_for": stopped_for}))
    return drafts


def is_at_work(record: WorkerRecord) -> bool:
    return record.process is not None and process.lives(record.process) is not False


def happened_again(saved: History, history: History) -> list[Draft]:
    """What the workers' files may not tell, once what was meant is in the log again."""
    drafts = []
    for name, record in saved.workers.items():
        known = history.workers.get(name)
        if known is None or known.attempt != record.attempt or known.state in ENDED:
            continue
        who = {"worker": name, "attempt": record.attempt}
        for meant in record.stopping[len(known.stopping) :]:
            stalled = (
                {"verdict": Verdict.STALLED, "reason": record.stall_reason} if record.stall_reason else {}
            )
            drafts.append(Draft(COMMANDS, "stop_intended", {**who, "grace_s": meant.grace_s, **stalled}))
        if record.state in ENDED:
            drafts.append(Draft(OBSERVATIONS, "ended", {**who, **ending(from_log(record))}))
    return drafts


def claim_of(layout: Layout, name: str, *, above: int = 0) -> Mark | None:
    """The mark of a worker's last attempt, of which the log may know nothing, where that is to be gone by.

    That is: its launcher is at work, or has left its result. `above`: an attempt that the log knows.
    """
    attempts = layout.attempts_of(name)
    text = read_text(layout.mark(name)) if attempts and max(attempts) > above else None
    mark = parse_mark(text) if text else None
    if mark is None or mark.attempt != max(attempts):
        return None
    if process.lives(mark.process) is not False:
        return mark if process.runs(mark.process.pid, layout.launcher(name), mark.token) else None
    result = parse_result(read_text(layout.attempt_result(name, mark.attempt)) or "")
    return mark if result is not None and result.token == mark.token else None


def first_attempt(layout: Layout, name: str) -> int:
    """Of a worker that is new to the log: where there is a trail, the one to be gone by, or the next."""
    mark = claim_of(layout, name)
    return mark.attempt if mark is not None else max(layout.attempts_of(name), default=0) + 1


def standing_otherwise(layout: Layout, entry: WorkerEntry) -> str | None:
    """What is other than asked for, command or brief, where a worker new to the log has a claim."""
    if claim_of(layout, entry.name) is None:
        return None
    from orchestra.model.launcher import argv_line  # seldom needed

    script = (read_text(layout.launcher(entry.name)) or "").splitlines()
    if argv_line(entry.name, entry.command or ()) not in script:
        return "command"
    try:
        with open_regular(layout.brief(entry.name), MOST_INPUT) as file:
            same = file.read() == entry.brief.encode("utf-8", "surrogateescape")
    except OSError:
        same = False
    return None if same else "brief"


def later_attempts(layout: Layout, records: Iterable[WorkerRecord]) -> list[Draft]:
    """Attempts that are to be gone by, of which the log knows only earlier ones."""
    drafts = []
    for record in records:
        mark = None if is_at_work(record) else claim_of(layout, record.name, above=record.attempt)
        if mark is not None:
            what = {"worker": record.name, "attempt": mark.attempt, "token": mark.token}
            drafts.append(Draft(COMMANDS, "retry_intended", what))
    return drafts


def unknown_names(layout: Layout, history: History) -> list[str]:
    """Workers of whom there is a trail, and nothing in the log."""
    try:
        names = os.listdir(layout.attempts)
    except OSError:
        return []
    return sorted(name for name in names if name not in history.workers and is_name(name))
