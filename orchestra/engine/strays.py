"""Strays: what lives of a run, found by what each process tells of itself, whatever the log knows."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestra.host import process
from orchestra.model.names import is_name
from orchestra.model.trail import Process

if TYPE_CHECKING:
    from orchestra.backend.base import Backend

_LAUNCHER = re.compile(r"(/.*)/\.run-([A-Za-z0-9][A-Za-z0-9._-]*)\.sh")


class Stray(NamedTuple):
    """What lives of an attempt."""

    token: str
    worker: str | None
    processes: list[Process]

    @property
    def pids(self) -> list[int]:
        return [member.pid for member in self.processes]


def of_run(run_dir: str, known: Container[str] = ()) -> list[Stray]:
    """Living attempts of a run, but for those of the `known` tokens. Looks at every process."""
    found: dict[str, Stray] = {}
    ours = os.path.realpath(run_dir)
    for bearer in process.bearers():
        run, worker = origin(bearer)
        if bearer.token in known or run is None or os.path.realpath(run) != ours:
            continue
        if not is_same_place(bearer, run):
            continue
        stray = found.setdefault(bearer.token, Stray(bearer.token, worker, []))
        stray.processes.append(bearer.process)
    return sorted(found.values(), key=lambda stray: stray.worker or "")


def is_same_place(bearer: process.Bearer, run: str) -> bool:
    """Whether that path means our directory to it: in another container it may be another's run."""
    if bearer.sees_our_files:
        return True
    try:
        return os.path.samefile(f"/proc/{bearer.process.pid}/root{run}", run)
    except OSError:
        return False


def origin(bearer: process.Bearer) -> tuple[str | None, str | None]:
    """(run directory, worker): a launcher tells by its script, what it starts by its environment."""
    if os.path.basename(bearer.words[0]) == "bash":
        for word in bearer.words[1:3]:
            if match := _LAUNCHER.fullmatch(word):
                return match[1], match[2]
    worker = bearer.environment.get("ORCHESTRA_WORKER", "")
    return bearer.environment.get("ORCHESTRA_RUN_DIR") or None, worker if is_name(worker) else None


def end(backend: Backend, found: list[Stray], *, grace_s: float) -> list[dict[str, Any]]:
    """End these; returns a row for each: the worker, its PIDs, and which of them live on."""
    rows = []
    for stray in found:
        living = [member.pid for member in backend.end(stray.token, None, grace_s=grace_s)]
        left = {"still_alive": living} if living else {}
        rows.append({"worker": stray.worker or "?", "pids": stray.pids, **left})
    return rows
