"""Clearing up after narrators: unlock and takeover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestra.engine.caller import check_caller
from orchestra.engine.conduct import Conductor, conduct, ending
from orchestra.engine.narrator import Narrator
from orchestra.engine.vigil import Vigil, heartbeat_in_words, watch
from orchestra.errors import HolderAlive, Usage
from orchestra.model.event import ALERTS, Draft
from orchestra.model.owner import Health, Holder
from orchestra.store import lock
from orchestra.store.layout import Layout


def unlock(
    layout: Layout, who: Narrator, *, force: bool, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Free the lock of a dead holder, put half-done spawns right, say what was found.

    Where only its heartbeat can tell whether the holder lives, watches that first. Raises HolderAlive
    while the holder lives (unless forced), NoSuchRun, Storage.
    """

    check_caller(who.command)

    def may(sight: lock.LockSight) -> bool:
        return force or not sight.holders  # a dead one's is taken over like by any other command

    if not force:
        watch(layout, tell)
    vigil = Vigil(layout)
    sight = lock.look(layout)
    dead = vigil.dead(sight)
    if sight.holder and not may(sight) and not dead:
        stopped = vigil.stopped(sight) is not None
        raise holder_alive(layout, sight.holder, vigil.health(sight.holder), stopped=stopped)
    with conduct(layout, who, seated=False, may_also_take=may) as conductor:
        if sight.held and may(sight) and not dead:  # a dead one's was taken over, as by any command
            note: dict[str, Any] = {"holder": sight.holder.to_json() if sight.holder else None}
            forced = force and sight.holder is not None
            conductor.record([Draft(ALERTS, "lock_freed", {**note, "forced": forced})])
        return {"found": found(sight, dead), "recovered": conductor.recovered}


def holder_alive(layout: Layout, holder: Holder, health: Health, *, stopped: bool) -> HolderAlive:
    pid, host = holder.process.pid, holder.process.host
    seen = "is alive" if health.left_s is None else "is not proved dead"
    seen += " and stopped" if stopped else ""
    end_it = (
        f"end it ({ending(pid, stopped=stopped)})"
        if health.left_s is None
        else f"end it there (kill {pid} on {host})"
    )
    again = "" if health.left_s is None else f"; if it is gone, ask again in {health.left_s + 1:.0f} s"
    return HolderAlive(
        f"the holder of run {layout.run_id} {seen}: pid {pid} on {host}, orchestra {holder.command}, "
        f"since {holder.acquired_at}{heartbeat_in_words(health)}",
        hint=f"wait for it or {end_it}{again}; --force only if it must lose the run",
        pid=pid,
        holder=holder.to_json(),
    )


def found(sight: lock.LockSight, dead: bool) -> dict[str, Any]:
    if not sight.held:
        return {"lock": "none"}
    if sight.holder is None:
        return {"lock": "unreadable"}
    return {"lock": "dead" if dead else "forced", "pid": sight.holder.process.pid}


def takeover(layout: Layout, who: Narrator) -> Conductor:
    """Sit in the run's seat in place of whoever sat there. Raises Usage without an ID."""
    if not who.id:
        raise Usage(
            "takeover needs to know who takes over",
            hint=f"name yourself: orchestra takeover {layout.words} --narrator ID, or set ORCHESTRA_NARRATOR",
        )
    with conduct(layout, who, seated=False) as conductor:
        conductor.take_seat(who.id)
        return conductor
