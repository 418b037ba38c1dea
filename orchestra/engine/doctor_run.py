"""A checkup of one run's directory. Nothing is written."""

from __future__ import annotations

import json
import os
import shlex
import stat
import threading
from functools import partial
from itertools import pairwise
from typing import Any

from orchestra.engine.burial import read_mark
from orchestra.engine.doctor import Probe
from orchestra.engine.doctor_root import Place, lock_of
from orchestra.engine.faults import no_such_run
from orchestra.engine.losses import lost, unknown_names
from orchestra.engine.observe import Observer
from orchestra.engine.place import tmp_dir
from orchestra.host import clock, disk, process
from orchestra.model import checkup_disk, checkup_run
from orchestra.model.checkup import Check, Health
from orchestra.model.history import History
from orchestra.model.record import ENDED, State, WorkerRecord
from orchestra.store.eventlog import EventLog
from orchestra.store.layout import MOST_STATE, Layout
from orchestra.store.publish import builder_of, read_text

PATIENCE_S = 10.0  # a long log, or many workers
WRITE_PATIENCE_S = 0.1  # for a line that somebody may be writing at this moment


def of_run(layout: Layout, place: Place) -> list[Probe]:
    """Raises NoSuchRun."""
    if not os.path.isdir(layout.run_dir):
        raise no_such_run(layout)
    words = place.words(layout.run_dir)
    whole = partial(Probe, patience_s=PATIENCE_S, on_root=True)
    return [
        whole("run directory", lambda _: [directory(layout)], if_hung=Health.BAD),
        whole("permissions", lambda _: [permissions(layout)]),
        whole("event log", lambda _: [whole_log(layout, words)]),
        whole("lock", lambda _: [lock_line(layout, place)]),
        whole("workers", lambda _: of_workers(layout, words)),
        whole("sizes", lambda stop: [sizes(layout, stop)]),
        whole("run space", lambda _: [checkup_disk.space("run space", disk.space(layout.run_dir))]),
    ]


def directory(layout: Layout) -> Check:
    run_dir = layout.run_dir
    owner = os.stat(run_dir).st_uid
    refused = disk.is_read_only(run_dir) or disk.refuses_us(run_dir)
    return checkup_run.ownership(run_dir, owner=owner, us=os.geteuid(), refused=refused)


def permissions(layout: Layout) -> Check:
    look_into(layout)
    return checkup_run.permissions(loose_files(layout), shlex.quote(layout.run_dir))


def lock_line(layout: Layout, place: Place) -> Check:
    look_into(layout)
    return checkup_run.lock("lock", lock_of(layout, place))


def look_into(layout: Layout) -> None:
    """Raises OSError where this user may not: there, what is not seen would pass for what is not there."""
    os.listdir(layout.run_dir)
    os.stat(f"{layout.run_dir}/.")


def loose_files(layout: Layout) -> list[str]:
    """What others may read or write of a run; what workers make themselves is theirs to protect."""
    found = []
    for place, directories, names in os.walk(layout.run_dir):
        directories[:] = [d for d in directories if d != "out" and not d.startswith("out-")]
        for path in [place, *(f"{place}/{name}" for name in names if name != "heartbeat")]:
            mode = os.lstat(path).st_mode
            if not stat.S_ISLNK(mode) and mode & 0o077:
                found.append(os.path.relpath(path, layout.run_dir))
    return found


def whole_log(layout: Layout, words: str) -> Check:
    if os.path.lexists(layout.events) and not os.path.isfile(layout.events):
        return checkup_run.no_log(shlex.quote(layout.events), words)
    log = EventLog(layout.events, layout.damaged, may_be_missing=True)
    events = log.read_new()
    if any(damage.torn for damage in log.damage):
        clock.pause(WRITE_PATIENCE_S)
        events += log.read_new()
    history = History().apply(events)
    operations = [event.op for event in events]
    return checkup_run.log(
        len(events),
        os.stat(layout.events).st_size if os.path.exists(layout.events) else 0,
        log.damage,
        begun=history.created is not None,
        in_order=all(a < b for a, b in pairwise(operations)),
        held=Observer(layout).conducted(),
        aside=len(os.listdir(layout.damaged)) if os.path.isdir(layout.damaged) else 0,
        copied=lost(layout, history) is not None,
        words=words,
    )


def of_workers(layout: Layout, words: str) -> list[Check]:
    """What the log says, and what the workers' files and processes say."""
    observer = Observer(layout).open()
    snapshot = observer.snapshot()
    records = observer.history.workers
    ended = {n: (r.attempt, str(r.state)) for n, r in records.items() if r.state in ENDED}
    stalled = [view.record.name for view in snapshot.workers.among(State.STALLED)]
    stopped = [alert["pid"] for alert in snapshot.alerts if alert["kind"] == "stopped_launcher"]
    gaps = [(view.record.name, view.gap) for view in snapshot.workers.among(State.SPAWNING) if view.gap]
    since = observer.history.seat_since
    return [
        checkup_run.state(read_state(layout), observer.history.op, ended, words=words),
        Check("seat", f"{snapshot.seat}, since {since}" if snapshot.seat else "nobody sits in it"),
        checkup_run.workers(snapshot.counts(), stalled, stopped, words),
        checkup_run.gaps(gaps, words),
        checkup_run.late_results(observer.late_results(), words),
        checkup_run.leftovers_of_ended(
            [(view.record.name, list(view.leftovers)) for view in snapshot.workers if view.leftovers],
            [shlex.quote(path) for n in ended for path in temporary(layout, records[n])],
            words,
        ),
        checkup_run.strangers(strangers(observer)),
    ]


def read_state(layout: Layout) -> dict[str, Any] | None:
    try:
        told = json.loads(read_text(layout.state, limit=MOST_STATE) or "")
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def temporary(layout: Layout, record: WorkerRecord) -> list[str]:
    """The TMPDIR of an attempt that has ended, where it is still there."""
    name, mark = tmp_dir(record.token), read_mark(layout, record)
    places = {name}
    if mark is not None and os.path.basename(mark.tmp_dir) == os.path.basename(name):
        places.add(mark.tmp_dir)
    return sorted(path for path in places if os.path.isdir(path))


def strangers(observer: Observer) -> list[str]:
    """Names in the run's directory that are no file of the run's and of none of its workers."""
    layout = observer.layout
    known = {os.path.basename(path) for path in vars(layout).values()}
    history = observer.history
    for worker in {*history.workers, *history.planned(), *unknown_names(layout, history)}:
        known |= {os.path.basename(flat) for flat, _ in layout.archived(worker, 1)}
    found = []
    for name in sorted(os.listdir(layout.run_dir)):
        builder = builder_of(name)
        in_work = builder is not None and process.start_of(builder) is not None
        if name not in known and not in_work:
            found.append(name)
    return found


def sizes(layout: Layout, stop: threading.Event) -> Check:
    look_into(layout)
    printed = made = 0
    for place, directories, names in os.walk(layout.run_dir):
        if stop.is_set():
            break
        outs = [d for d in directories if d == "out" or d.startswith("out-")]
        made += sum(disk.size_of(f"{place}/{d}") for d in outs)
        directories[:] = [d for d in directories if d not in outs]
        logs = [name for name in names if name.startswith(("log-", "log."))]
        printed += sum(disk.size_of(f"{place}/{name}") for name in logs)
    log = disk.size_of(layout.events)
    return checkup_run.sizes(log, printed, made, disk.space(layout.run_dir).free)
