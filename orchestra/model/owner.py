"""Who holds the lock of a run, and when that may be doubted."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from orchestra.model.trail import Process, process_from_json


class Holder(NamedTuple):
    """`holder.json` inside the lock. `token` is unique to one taking of the lock."""

    process: Process
    command: str
    narrator: str | None
    token: str
    epoch: int
    acquired_at: str
    ttl_s: float

    def to_json(self) -> dict[str, Any]:
        return {
            **self.process.to_json(),
            "command": self.command,
            "narrator": self.narrator,
            "token": self.token,
            "epoch": self.epoch,
            "acquired_at": self.acquired_at,
            "ttl_s": self.ttl_s,
        }


def parse_holder(text: str) -> Holder | None:
    """None where the text does not say who holds the lock: such a holder is never proved dead."""
    try:
        data = json.loads(text)
        process = process_from_json(data)
        holder = Holder(
            process,
            str(data.get("command", "")),
            data.get("narrator"),
            str(data["token"]),
            int(data.get("epoch", 0)),
            str(data.get("acquired_at", "")),
            float(data.get("ttl_s", 0)),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return holder if process.pid > 0 and process.start > 0 and process.boot_id else None


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
