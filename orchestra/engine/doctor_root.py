"""What old runs have left: dead locks, processes without a run, temporary directories, half-built files."""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Iterable
from typing import NamedTuple

from orchestra.engine.doctor import Probe
from orchestra.engine.observe import Observer
from orchestra.engine.place import closed, run_ids, temporary, tmp_dir, told_by
from orchestra.engine.strays import origin
from orchestra.errors import OrchestraError
from orchestra.host import clock, disk, process
from orchestra.model import checkup_run
from orchestra.model.advice import run_words
from orchestra.model.checkup import Check
from orchestra.model.checkup_run import Family, Lock
from orchestra.store import lock
from orchestra.store.layout import Layout
from orchestra.store.publish import builder_of

YOUNG_S = 600.0  # a directory is made before the process that will use it
_TMP_NAME = re.compile(re.escape(os.path.basename(tmp_dir(""))) + r"[0-9a-f]{16}")


class Place(NamedTuple):
    """The root, the run that is asked for, and how runs must be named in a command."""

    root: str
    given_root: str | None
    given_narrator: str | None
    run_dir: str | None

    def holds(self, run_dir: str) -> bool:
        return os.path.dirname(run_dir) == os.path.realpath(self.root)

    def words(self, run_dir: str) -> str:
        if self.holds(run_dir):
            return run_words(os.path.basename(run_dir), self.given_root, self.given_narrator)
        return run_words(run_dir, None, self.given_narrator)

    def layouts(self) -> list[Layout]:
        """Raises Storage."""
        return [Layout(os.path.realpath(f"{self.root}/{run}")) for run in run_ids(self.root)]


def of_runs(place: Place) -> list[Probe]:
    def locks(_: threading.Event) -> list[Check]:
        return checkup_run.locks([lock_of(run, place) for run in place.layouts()])

    def runs(_: threading.Event) -> list[Check]:
        layouts = place.layouts()
        logless = [place.words(run.run_dir) for run in layouts if not has_log(run)]
        return [checkup_run.runs(len(layouts), closed(place.root), logless)]

    return [
        Probe("runs", runs, on_root=True),
        Probe("locks", locks, on_root=True),
        Probe("leftover processes", lambda _: checkup_run.leftovers(families(place)), on_root=True),
        Probe("leftover TMPDIRs", leftover_directories),
        Probe("half-built files", lambda _: [checkup_run.half_built(half_built(place))], on_root=True),
    ]


def has_log(layout: Layout) -> bool:
    try:
        return os.stat(layout.events).st_size > 0
    except FileNotFoundError:
        return False


def lock_of(layout: Layout, place: Place) -> Lock:
    sight = lock.look(layout)
    holder = sight.holder
    return Lock(
        layout.run_id,
        place.words(layout.run_dir),
        sight.held,
        f"pid {holder.process.pid} on {holder.process.host}, orchestra {holder.command}" if holder else None,
        process.lives(holder.process) if holder else None,
        holder.process.pid if holder and process.is_stopped(holder.process) else None,
    )


# --- processes ---------------------------------------------------------------------------


def families(place: Place) -> list[Family]:
    """The processes of each attempt of which any is alive, and how that attempt stands.

    They are judged by the run that they name themselves. What another root holds is left out:
    its workers are no leftovers of this one, and `doctor --root` there tells more.
    """
    members: dict[str, list[process.Bearer]] = {}
    for bearer in process.bearers():
        members.setdefault(bearer.token, []).append(bearer)
    observers: dict[str, Observer | str] = {}
    found = []
    for token, group in members.items():
        run_dir, worker = next((found for found in map(origin, group) if found[0]), (None, None))
        standing = "nameless" if run_dir is None else standing_of(token, run_dir, worker, observers)
        elsewhere = run_dir is not None and run_dir != place.run_dir and not place.holds(run_dir)
        if elsewhere and standing != "gone":
            continue
        if standing == "gone" and not all(member.sees_our_files for member in group):
            standing = "unknown"  # what is gone here may be there
        pids = [member.process.pid for member in group if process.lives(member.process)]
        if not pids:  # it has ended while we looked
            continue
        words = place.words(run_dir) if run_dir is not None else ""
        found.append(Family(token, pids, run_dir, words, worker, standing))
    return found


def standing_of(token: str, run_dir: str, worker: str | None, observers: dict[str, Observer | str]) -> str:
    """Of an attempt, as Family has it."""
    if run_dir not in observers:
        observers[run_dir] = opened(run_dir)
    observer = observers[run_dir]
    if isinstance(observer, str):
        return observer
    for record in observer.history.workers.values():
        if record.token == token:
            view = observer.view(record, stall=False)
            return ("lost" if view.leftovers else "ended") if view.ended else "at work"
    if observer.log.damage:
        return "unknown"
    return "ended" if worker in observer.history.workers else "not in its log"


def opened(run_dir: str) -> Observer | str:
    """The run; or `gone`, or `unknown`."""
    try:
        if not any(map(exists, told_by(run_dir))):
            return "gone"
        return Observer(Layout(run_dir)).open()
    except (OSError, OrchestraError):
        return "unknown"


def exists(path: str) -> bool:
    """Raises OSError where that cannot be told."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


# --- files -------------------------------------------------------------------------------


def leftover_directories(stop: threading.Event) -> list[Check]:
    """TMPDIRs of workers, here, that no process uses which can be seen from here."""
    tmp = temporary()
    used = {bearer.token for bearer in process.bearers()}
    stale = []
    with os.scandir(tmp) as entries:
        for entry in entries:
            if not _TMP_NAME.fullmatch(entry.name) or entry.name[-16:] in used:
                continue
            found = entry.stat(follow_symlinks=False)
            if found.st_uid == os.geteuid() and clock.wall() - found.st_mtime > YOUNG_S:
                stale.append(entry.path)
    total = sum(disk.size_of(path) for path in stale if not stop.is_set())
    return [checkup_run.leftover_directories(tmp, sorted(map(shlex.quote, stale)), total)]


def half_built(place: Place) -> list[str]:
    """Files that somebody was building who is dead, in the root and in its runs."""
    places = [layout.run_dir for layout in place.layouts()]
    if os.path.isdir(place.root):
        places.append(os.path.realpath(place.root))
    return [shlex.quote(path) for path in litter(places)]


def litter(directories: Iterable[str]) -> list[str]:
    found = []
    for directory in directories:
        for name in sorted(os.listdir(directory)):
            builder = builder_of(name)
            if builder is not None and process.start_of(builder) is None:
                found.append(f"{directory}/{name}")
    return found
