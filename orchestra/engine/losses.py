"""What a log has lost that was cut or taken away; state.json, trails and processes still tell of it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestra.engine.place import run_ids
from orchestra.errors import CorruptLog, NoSuchRun, OrchestraError, Storage
from orchestra.host import process
from orchestra.model.event import COMMANDS, CONTROL, OBSERVATIONS, Draft
from orchestra.model.history import History
from orchestra.model.names import is_name, or_nearest
from orchestra.model.plan import WorkerEntry, entry_to_json, plan_to_json
from orchestra.model.record import ENDED, WorkerRecord
from orchestra.model.snapshot import ending, from_log
from orchestra.model.trail import Mark, Process, parse_mark, parse_result
from orchestra.model.verdict import Verdict
from orchestra.store.eventlog import LogChanged, has
from orchestra.store.layout import Layout
from orchestra.store.publish import open_regular, read_text

if TYPE_CHECKING:
    from orchestra.backend.base import Backend
    from orchestra.engine.observe import Observer

_HEAD = re.compile(rb'\{"version":\d+,"run":"([^"]*)","op":(\d{1,15}),')
_LAUNCHER = re.compile(r"(/.*)/\.run-([A-Za-z0-9][A-Za-z0-9._-]*)\.sh")


class Stray(NamedTuple):
    """What lives of an attempt of which the log knows nothing."""

    token: str
    worker: str | None
    processes: list[Process]

    @property
    def pids(self) -> list[int]:
        return [member.pid for member in self.processes]


def lost(layout: Layout, history: History, *, damaged: bool = False) -> History | None:
    """The run as state.json has it, where that may have what the log has lost.

    It has got further, so the log was cut; or the log is `damaged`, or says no more how the run began.
    """
    doubtful = damaged or history.created is None
    try:
        with open_regular(layout.state) as file:
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
        if error.errno == errno.EIO:
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


def meant_again(layout: Layout, saved: History, history: History) -> list[Draft]:
    """What was meant, and who sits in the seat, of what the log has lost.

    Where a worker's own mark tells of another attempt than state.json, the mark is gone by.
    """
    drafts = []
    for name, record in saved.workers.items():
        known = history.workers.get(name)
        if known is not None and (known.attempt >= record.attempt or is_at_work(known)):
            continue
        mark = claim_of(layout, name)
        attempt, token = (mark.attempt, mark.token) if mark else (record.attempt, record.token)
        what = {"worker": name, "attempt": attempt, "token": token}
        if known is not None:
            command = list(record.entry.command or ())
            drafts.append(Draft(COMMANDS, "retry_intended", {**what, "command": command}))
            continue
        entry = {"phase": record.phase, "entry": entry_to_json(record.entry)}
        sha = {"brief_sha256": record.brief_sha256} if record.brief_sha256 else {}
        drafts.append(Draft(COMMANDS, "spawn_intended", {**what, **entry, **sha}))
    if saved.op > history.op and saved.seat not in (None, history.seat):
        drafts.append(Draft(CONTROL, "seat_taken", {"narrator": saved.seat, "from": history.seat}))
    if saved.narration is not None and saved.narration.op > history.op:
        drafts.append(Draft(CONTROL, "narration_began", {}))
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
        with open_regular(layout.brief(entry.name)) as file:
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


def strays(run_dir: str, known: Container[str] = ()) -> list[Stray]:
    """Living attempts of a run, but for those of the `known` tokens. Looks at every process."""
    found: dict[str, Stray] = {}
    for bearer in process.bearers():
        run, worker = origin(bearer)
        if bearer.token in known or run != run_dir:
            continue
        stray = found.setdefault(bearer.token, Stray(bearer.token, worker, []))
        stray.processes.append(bearer.process)
    return sorted(found.values(), key=lambda stray: stray.worker or "")


def origin(bearer: process.Bearer) -> tuple[str | None, str | None]:
    """(run directory, worker): a launcher tells by its script, what it starts by its environment."""
    if os.path.basename(bearer.words[0]) == "bash":
        for word in bearer.words[1:3]:
            if match := _LAUNCHER.fullmatch(word):
                return match[1], match[2]
    worker = bearer.environment.get("ORCHESTRA_WORKER", "")
    return bearer.environment.get("ORCHESTRA_RUN_DIR") or None, worker if is_name(worker) else None


def alerts(observer: Observer) -> list[dict[str, Any]]:
    """Of present losses; looks closer only where there is a sign of any."""
    layout, history = observer.layout, observer.history
    saved, names = lost(layout, history, damaged=bool(observer.log.damage)), unknown_names(layout, history)
    if saved is None and not names and os.path.exists(layout.state):
        return []
    history = observer.latest()  # somebody may have gone on since the log was read
    found: list[dict[str, Any]] = []
    if saved is not None and saved.op > history.op:
        found.append({"kind": "log_shortened", "after_op": history.op, "up_to_op": saved.op})
    there = strays(layout.run_dir, {record.token for record in history.workers.values()})
    later = [str(d.data["worker"]) for d in later_attempts(layout, history.workers.values())]
    names = [name for name in names if name not in history.workers]
    for name in dict.fromkeys([*names, *later, *(stray.worker for stray in there if stray.worker)]):
        pids = [pid for stray in there if stray.worker == name for pid in stray.pids]
        found.append({"kind": "unknown_worker", "worker": name, "pids": pids})
    return found


def end(backend: Backend, found: list[Stray], *, grace_s: float) -> list[dict[str, Any]]:
    """End these; returns a row for each: the worker, its PIDs, and which of them live on."""
    rows = []
    for stray in found:
        living = [member.pid for member in backend.end(stray.token, None, grace_s=grace_s)]
        left = {"still_alive": living} if living else {}
        rows.append({"worker": stray.worker or "?", "pids": stray.pids, **left})
    return rows


def unreadable(tried: str, layout: Layout, error: OSError) -> OrchestraError:
    """What to tell where the event log could not be read or written."""
    if isinstance(error, LogChanged) and not os.path.isdir(layout.run_dir):
        return no_such_run(layout)
    if isinstance(error, LogChanged):
        return CorruptLog(
            f"could not {tried} ({layout.events}): {error.strerror}",
            hint=f"what is at work runs on: orchestra status {layout.words} shows what is left of it",
            path=layout.events,
        )
    return Storage.from_os(tried, layout.events, error)


def headless(layout: Layout, history: History) -> CorruptLog:
    """Of a log that does not say any more how the run began. `details`: `copy`, where that is known yet."""
    what = f"the first lines of {layout.events} are damaged or gone"
    if not os.path.lexists(layout.events):
        what = f"the event log of run {layout.run_id} is gone: {layout.events}"
    if lost(layout, history):
        return CorruptLog(
            f"{what}; {layout.state} still has what they said",
            hint=f"orchestra unlock {layout.words} writes it back, as any command that changes the run does",
            path=layout.events,
            copy=layout.state,
        )
    return CorruptLog(
        f"{what}: what this run is cannot be read",
        hint="restore events.jsonl from a copy, or start a new run from run.yaml; "
        f"orchestra stop {layout.words} ends what still runs of it",
        path=layout.events,
    )


def no_such_run(layout: Layout) -> NoSuchRun:
    try:
        others = run_ids(layout.root)
    except Storage:
        others = []
    rootless = "" if os.path.isdir(layout.root) else f" (nor is there a directory {layout.root})"
    shown = f"orchestra list{layout.options} shows the runs; orchestra init RUN{layout.options} makes one"
    hint = or_nearest(layout.run_id, others, shown)
    details: dict[str, Any] = {"path": layout.run_dir}
    if there := strays(layout.run_dir):
        details["pids"] = [pid for stray in there for pid in stray.pids]
        rootless += f"; of one that was there processes live: {', '.join(map(str, details['pids']))}"
        hint = f"orchestra stop {layout.words} ends them"
    return NoSuchRun(f"there is no run at {layout.run_dir}{rootless}", hint=hint, **details)
