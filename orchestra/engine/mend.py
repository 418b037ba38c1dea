"""Mend: the log made whole again at the beginning of each command, and a dead holder's litter removed.

What stands at the log's ends is mended before it is read; what it has lost comes from state.json and from
what the workers left.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from orchestra.engine import faults, losses
from orchestra.engine.observe import Observer
from orchestra.host import clock, process
from orchestra.model.event import ALERTS, LOG_DAMAGED, Draft
from orchestra.model.history import History
from orchestra.store.eventlog import LogChanged, Repair
from orchestra.store.layout import Layout
from orchestra.store.publish import builder_of

if TYPE_CHECKING:
    from orchestra.engine.conduct import Conductor


def mend_ends(conductor: Conductor) -> tuple[list[Draft], int | None]:
    """Cut off a torn tail, and write back how the run began, where the log has lost that.

    Returns what is to be told of it; and where the beginning was lost, the last operation before that.
    """
    try:
        probe = _as_it_stands(conductor)
        headless = probe.history.created is None
        saved = losses.lost(conductor.layout, probe.history) if headless else None
        torn = any(damage.torn for damage in probe.log.damage)
        if not (saved or torn) or (headless and probe.history.op and not saved):
            # In order, but for its middle; or without its beginning, for `open` to say so as it is.
            if probe.log.place.offset:
                conductor.log, conductor.history = probe.log, probe.history
            return [], None
        op = probe.history.op
        with probe.log.exclusive() as appender:
            probe.history.apply(appender.news)
            damage = log_damaged(appender.repair(torn=True))
            if saved is not None and saved.created is not None:
                # How it began comes last: whoever is killed on the way leaves a log that still lacks it.
                def append(drafts: list[Draft]) -> None:
                    probe.history.apply(appender.append(drafts, at=clock.now(), epoch=epoch))

                epoch = saved.epoch + 1
                losses.write_back(conductor.layout, saved, probe.history, append)
                appender.append([losses.beginning(saved)], at=saved.created, epoch=epoch)
                damage.append(Draft(ALERTS, "log_headless", {}))
    except OSError as error:
        raise faults.unreadable("repair the event log", conductor.layout, error) from error
    return damage, op if saved is not None else None


def _as_it_stands(conductor: Conductor) -> Observer:
    """The log as it stands, read on from where this command had read it. Raises OSError."""
    if conductor.before is not None:
        with contextlib.suppress(LogChanged):  # a write that failed was taken back, say
            conductor.before.read_log()
            return conductor.before
    probe = Observer(conductor.layout, conductor.backend)
    with contextlib.suppress(FileNotFoundError):
        probe.read_log()
    return probe


def restore_losses(conductor: Conductor, headless_op: int | None) -> list[Draft]:
    """What the log has lost is written into it again; returns what is to be told of that.

    `headless_op`: the last operation of a log that had lost its beginning, before that came back.

    The lost operations' numbers are those of what is written back, and only what tells of it comes
    behind them: whoever is killed on the way leaves a log that is behind state.json still.
    """
    damaged = headless_op is not None or bool(conductor.log.damage)
    saved = losses.lost(conductor.layout, conductor.history, damaged=damaged)
    conductor.epoch = max(conductor.history.epoch, saved.epoch if saved else 0) + 1
    conductor.heart.sign(conductor.epoch)
    before = conductor.history.op if headless_op is None else headless_op
    if saved is not None:
        losses.write_back(conductor.layout, saved, conductor.history, conductor.record)
    if saved is not None or not os.path.exists(conductor.layout.state):
        conductor.record(losses.later_attempts(conductor.layout, conductor.history.workers.values()))
    if saved is None or saved.op <= before:
        return []
    conductor.log.last_op = max(conductor.log.last_op, saved.op)  # no operation is given twice
    return [Draft(ALERTS, "log_shortened", {"after_op": before, "up_to_op": saved.op})]


def untold_damage(layout: Layout, history: History) -> list[Draft]:
    """What was cut off the log by somebody who was killed or hindered before it was told."""
    told = {os.path.basename(str(alert.get("saved_as"))) for alert in history.alerts}
    try:
        names = os.listdir(layout.damaged)
    except (FileNotFoundError, NotADirectoryError):
        return []
    drafts = []
    for name in sorted(names):
        path = f"{layout.damaged}/{name}"
        if name.isascii() and name.isdigit() and name not in told and os.path.isfile(path):
            note = {"offset": int(name), "kept": os.stat(path).st_size, "saved_as": path}
            drafts.append(Draft(ALERTS, LOG_DAMAGED, note))
    return drafts


def clear_litter(layout: Layout, dead: int) -> None:
    """Files that the dead holder was building; and those before it, who may have died as it cleared up."""
    for place in (layout.run_dir, layout.lock_notes):
        for name in os.listdir(place):
            pid = builder_of(name)
            if pid is not None and (pid == dead or process.start_of(pid) is None):
                with contextlib.suppress(OSError):
                    os.unlink(f"{place}/{name}")


def log_damaged(repair: Repair | None) -> list[Draft]:
    return [Draft(ALERTS, LOG_DAMAGED, repair.to_json())] if repair is not None else []
