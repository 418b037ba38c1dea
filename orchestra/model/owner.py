"""Who holds the lock of a run, and when that may be doubted."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from orchestra.model.trail import Process, process_from_json

LEAST_TTL_S, USUAL_TTL_S, MOST_TTL_S = 1.0, 60.0, 3600.0
BEATS_PER_TTL = 4


class Holder(NamedTuple):
    """Who holds the lock. `token` is unique to one taking of it."""

    process: Process
    command: str
    narrator: str | None
    token: str
    epoch: int
    acquired_at: str
    ttl_s: float
    beat: int | None = 0  # the heartbeat: a number that only grows; None: it has none
    robbed: Process | None = None  # who had the lock before and did not let go of it

    def to_json(self) -> dict[str, Any]:
        return {
            **self.process.to_json(),
            "command": self.command,
            "narrator": self.narrator,
            "token": self.token,
            "epoch": self.epoch,
            "acquired_at": self.acquired_at,
            "ttl_s": self.ttl_s,
            "beat": self.beat,
            **({"robbed": self.robbed.to_json()} if self.robbed else {}),
        }

    def to_text(self) -> str:
        """One line of JSON, always as long: `epoch` and `beat` can be written over where they stand."""
        head = {k: v for k, v in self.to_json().items() if k not in ("epoch", "beat")}
        return f'{json.dumps(head)[:-1]}, "epoch": {self.epoch:>10}, "beat": {self.beat or 0:>10}}}\n'


def parse_holder(text: str) -> Holder | None:
    """None where the text does not say who holds the lock: such a holder is never proved dead."""
    try:
        data = json.loads(text)
        robbed, beat = data.get("robbed"), data.get("beat")
        holder = Holder(
            process_from_json(data),
            str(data.get("command", "")),
            data.get("narrator"),
            str(data["token"]),
            int(data.get("epoch", 0)),
            str(data.get("acquired_at", "")),
            float(data.get("ttl_s", 0)),
            None if beat is None else int(beat),
            process_from_json(robbed) if robbed else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    process = holder.process
    named = holder.token.isascii() and holder.token.isalnum() and len(holder.token) <= 64  # part of a path
    return holder if named and process.pid > 0 and process.start > 0 and process.boot_id else None


def ttl_of(holder: Holder) -> float:
    """Its time to live in seconds, kept within what is sane; the usual one where it says none."""
    if not holder.ttl_s > 0:  # also what is no number
        return USUAL_TTL_S
    return min(max(holder.ttl_s, LEAST_TTL_S), MOST_TTL_S)


class BeatSight(NamedTuple):
    """When an observer first saw a beat, by its own clock: `clock` says which, `at_s` what it showed."""

    token: str
    beat: int
    clock: str
    at_s: float

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


def parse_beat_sight(text: str) -> BeatSight | None:
    try:
        data = json.loads(text)
        return BeatSight(str(data["token"]), int(data["beat"]), str(data["clock"]), float(data["at_s"]))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def older_sight(before: BeatSight | None, now: BeatSight) -> BeatSight:
    """What to remember: the first sight of this very beat by this very clock."""
    same = before is not None and before[:3] == now[:3] and before.at_s <= now.at_s
    return before if before is not None and same else now


class Health(NamedTuple):
    """What an observer knows of a holder.

    `quiet_s` and `left_s` are of one whose process cannot be seen: how long its heartbeat has been
    seen unchanged, and when it will be proved dead if it stays so.
    """

    dead: bool
    quiet_s: float | None = None
    left_s: float | None = None


def health(holder: Holder, lives: bool | None, sight: BeatSight | None, now_s: float) -> Health:
    """The rules, of which the first that applies decides:

    1. A process that can be seen: whether it lives.
    2. A heartbeat: dead once the same beat has been seen for longer than the holder's time to live,
       by one clock, the observer's. No clock of the holder's counts.
    3. Neither: never dead.
    """
    if lives is not None:
        return Health(not lives)
    if holder.beat is None or sight is None:
        return Health(False)
    quiet_s = now_s - sight.at_s
    left_s = ttl_of(holder) - quiet_s
    return Health(left_s < 0, quiet_s, max(0.0, left_s))


def lives(process: Process, observer: Process, start_now: int | None) -> bool | None:
    """Whether a process lives, as far as it can be proved from where `observer` stands; None: it cannot.

    `start_now` is the start time of whatever has that PID for the observer, None where nothing
    (or a zombie) has it. The rules:

    1. Of the same boot, whatever the machine is called now: the PID and the start time tell,
       if the PID counts in the observer's namespace.
    2. Of another boot of the same host: it is gone. The same host has the same name and machine ID;
       where neither has an ID, the name tells, and where one of them has, they cannot be compared.
    3. Of another host, or in another PID namespace or one that is not known: a PID proves nothing.
    """
    if process.boot_id != observer.boot_id:
        same = (process.host, process.machine_id) == (observer.host, observer.machine_id)
        return False if same else None
    if process.pid <= 0 or process.pid_ns != observer.pid_ns:
        return None
    return start_now == process.start
