"""Clearing up after narrators: unlock and takeover."""

from __future__ import annotations

from typing import Any

from orchestra.engine.conduct import Conductor, conduct, refuse_inside_worker
from orchestra.engine.narrator import Narrator
from orchestra.engine.observe import holder_is_dead
from orchestra.errors import HolderAlive, Storage, Usage
from orchestra.host.process import lives
from orchestra.model.event import ALERTS, Draft
from orchestra.model.owner import Holder
from orchestra.store import lock
from orchestra.store.layout import Layout


def unlock(layout: Layout, who: Narrator, *, force: bool) -> dict[str, Any]:
    """Free the lock of a dead holder, put half-done spawns right, say what was found.

    Raises HolderAlive while the holder lives (unless forced), NoSuchRun, Storage.
    """

    refuse_inside_worker(who.command)

    def may(holder: Holder | None) -> bool:
        # A dead one's is taken over, as by any other command: that clears up behind it.
        return holder is None or (force and not holder_is_dead(holder))

    try:
        sight = lock.break_lock(layout, may) if lock.look(layout).held else lock.LockSight(False, None)
    except (OSError, TimeoutError) as error:
        raise Storage.from_os("free the run's lock", layout.lock, error) from error
    if sight.held and not may(sight.holder) and sight.holder and not holder_is_dead(sight.holder):
        process = sight.holder.process
        seen = "is alive" if lives(process) else "cannot be proved dead from here"
        raise HolderAlive(
            f"the holder of run {layout.run_id} {seen}: pid {process.pid} on {process.host}, "
            f"orchestra {sight.holder.command}, since {sight.holder.acquired_at}",
            hint=f"wait for it or end it (kill {process.pid}); --force only if it must lose the run",
            pid=process.pid,
            holder=sight.holder.to_json(),
        )
    before = found(sight)  # now: an ousted holder ends as soon as it notices
    with conduct(layout, who, seated=False) as conductor:
        if sight.held and may(sight.holder):
            note: dict[str, Any] = {"holder": sight.holder.to_json() if sight.holder else None}
            forced = before["lock"] == "forced"
            conductor.record([Draft(ALERTS, "lock_freed", {**note, "forced": forced})])
        return {"found": before, "recovered": conductor.recovered}


def found(sight: lock.LockSight) -> dict[str, Any]:
    if not sight.held:
        return {"lock": "none"}
    if sight.holder is None:
        return {"lock": "unreadable"}
    return {"lock": "dead" if holder_is_dead(sight.holder) else "forced", "pid": sight.holder.process.pid}


def takeover(layout: Layout, who: Narrator) -> Conductor:
    """Sit in the run's seat in place of whoever sat there. Raises Usage without an ID."""
    if not who.id:
        raise Usage(
            "takeover needs to know who takes over",
            hint=f"name yourself: orchestra takeover {layout.run_id} --narrator ID, "
            "or set ORCHESTRA_NARRATOR",
        )
    with conduct(layout, who, seated=False) as conductor:
        conductor.take_seat(who.id)
        return conductor
