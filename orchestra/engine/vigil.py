"""Whether whoever has the lock is dead, from where we stand."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable

from orchestra.host import clock, process
from orchestra.model import owner
from orchestra.model.owner import BeatSight, Health, Holder, older_sight, parse_beat_sight, ttl_of
from orchestra.store import lock
from orchestra.store.layout import Layout
from orchestra.store.publish import publish, read_text

WATCH_PATIENCE_S = 100.0  # callers are often ended after two minutes


class Vigil:
    """Judges holders; of one whose process cannot be seen it remembers when it first saw its last beat.

    Remembers it in the run's directory as well, so that short commands of one host, called again and
    again, come to a judgement together; where that cannot be written, each by itself.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._seen: BeatSight | None = None

    def health(self, holder: Holder) -> Health:
        lives = process.lives(holder.process)
        if lives is not None or holder.beat is None:
            return owner.health(holder, lives, None, 0.0)
        return owner.health(holder, None, self._first_sight(holder, holder.beat), clock.monotonic())

    def dead(self, sight: lock.LockSight) -> bool:
        """Whether it is proved that nobody who may have the lock lives."""
        return bool(sight.holders) and all(self.health(holder).dead for holder in sight.holders)

    def stopped(self, sight: lock.LockSight) -> Holder | None:
        """Who has the lock and is stopped, as by SIGSTOP: alive, and of no use."""
        holder = sight.holder
        return holder if holder is not None and process.is_stopped(holder.process) else None

    def describe(self, sight: lock.LockSight) -> dict[str, object]:
        """A lock that is held, for an answer."""
        if sight.holder is None:
            return {"held": True, "readable": False}
        told = {"held": True, "readable": True, "dead": self.dead(sight), **sight.holder.to_json()}
        health = self.health(sight.holder)
        if health.quiet_s is not None and health.left_s is not None:
            told["heartbeat"] = {
                "quiet_s": round(health.quiet_s, 1),
                "ask_again_in_s": round(health.left_s, 1),
            }
        return told

    def _first_sight(self, holder: Holder, beat: int) -> BeatSight:
        now = BeatSight(holder.token, beat, process.clock_id(), clock.monotonic())
        path = f"{self.layout.beat_sights(process.host_name())}{zlib.crc32(now.clock.encode()):08x}"
        told = parse_beat_sight(read_text(path) or "")
        first = older_sight(told, older_sight(self._seen, now))
        if first != told:
            with contextlib.suppress(OSError):
                publish(path, json.dumps(first.to_json()).encode() + b"\n", durable=False)
        self._seen = first
        return first


def heartbeat_in_words(health: Health) -> str:
    """Of a holder that cannot be seen: " (…)"; of another, nothing."""
    if health.quiet_s is None:
        return ""
    return f" (its process cannot be seen from here; its heartbeat last changed {health.quiet_s:.0f} s ago)"


def watch(layout: Layout, tell: Callable[[str], None]) -> None:
    """Where only the heartbeat can tell whether the holder lives, wait until it has told.

    At once where nobody has the lock, where the process can be seen, or where it would take too long.
    """
    vigil = Vigil(layout)
    before = lock.look(layout)
    deadline = clock.monotonic() + WATCH_PATIENCE_S
    while (sight := lock.look(layout)) == before and (holder := sight.holder):
        health = vigil.health(holder)
        if health.dead or health.left_s is None or clock.monotonic() + health.left_s > deadline:
            return
        tell(
            f"watching the heartbeat of pid {holder.process.pid} on {holder.process.host}: "
            f"none for {health.quiet_s:.0f} s of {ttl_of(holder):g}"
        )
        clock.pause(min(0.5, ttl_of(holder) / 20, health.left_s + 0.01))
