"""One look at one attempt: its launcher; once that is gone, or where none was, what it has left.

While its launcher lives an attempt has not ended, whatever a worker may have written in the launcher's
name. And what cannot be looked at (a disk that fails, another host) is not proved gone.
"""

from __future__ import annotations

import os

from orchestra.backend.base import Backend
from orchestra.host import clock
from orchestra.model.record import State, WorkerRecord
from orchestra.model.snapshot import Sight
from orchestra.model.trail import Process, Result, Sentinel, parse_mark, parse_result, parse_sentinel
from orchestra.model.verdict import Verdict
from orchestra.store.layout import Layout
from orchestra.store.publish import read_surely, read_text

MARK_PATIENCE_S = 5.0  # how long a mark may be there and unreadable: it is being written


def shows_nothing(record: WorkerRecord, layout: Layout) -> bool:
    """Whether no launcher of it has come so far that there is more to see: told by three names alone."""
    own = layout.attempt(record.name, record.attempt)
    return not any(map(os.path.lexists, (layout.mark(record.name), layout.sentinel(record.name), own)))


class Sighting:
    """An attempt and what is known of its launcher; `sight` is all that there is to see."""

    def __init__(self, record: WorkerRecord, layout: Layout, backend: Backend) -> None:
        self.record, self.layout, self.backend = record, layout, backend
        text = self._mark_text()
        mark = parse_mark(text) if text else None
        # Who claimed this attempt tells of it, also where the log has lost that and means it anew.
        meant = record.state == State.SPAWNING and mark is not None and mark.attempt == record.attempt
        self.claimant = mark if meant else None
        if mark is not None and (mark.attempt, mark.token) != (record.attempt, record.token):
            mark, text = None, None  # of the attempt before, not yet archived; or not the launcher's word
        self.mark, self.mark_text = mark, text
        # What the log has was seen; a mark may be forged.
        self.launcher: Process | None = record.process or (mark.process if mark else None)
        self.elsewhere = False  # where it cannot be seen from here

    def sight(self) -> Sight:
        return self._of_claimant() or self._of_launcher() or self._of_files() or self._of_what_is_left()

    # --- the launcher -----------------------------------------------------------------------

    def _of_claimant(self) -> Sight | None:
        """Of a launcher at work of whose intent the log knows nothing any more."""
        other = self.claimant
        if other is None or other.token == self.record.token or self.record.process is not None:
            return None
        if not (self.backend.lives(other.process) and self._runs(other.process, other.token)):
            return None
        return Sight(mark=other, process=other.process, claimed=True, alive=True, claimant=other.token)

    def _of_launcher(self) -> Sight | None:
        lives = self.backend.lives(self.launcher) if self.launcher is not None else False
        self.elsewhere = lives is None
        if self.launcher is None or not lives:
            return None
        if self.record.process is not None or self._runs(self.launcher, self.record.token):
            return self._running()._replace(stopped=self.backend.is_stopped(self.launcher))
        if self.backend.leftovers(self.record.token):  # by hand under another name, say
            return Sight(mark=self.mark, claimed=True, alive=True)
        self.launcher = None  # the PID is another's by now
        return None

    def _runs(self, process: Process, token: str) -> bool:
        return self.backend.runs(process, self.layout.launcher(self.record.name), token)

    def _running(self) -> Sight:
        return Sight(mark=self.mark, process=self.launcher, claimed=True, alive=True)

    # --- what it has written ----------------------------------------------------------------

    def _of_files(self) -> Sight | None:
        try:
            result = self._result()
            # A worker can write a sentinel; but then its launcher's result says otherwise.
            told = result is not None and result.verdict != Verdict.SPAWN_ERROR
            sentinel = None if told else self._sentinel()
        except OSError as error:
            return self._running()._replace(held_up=f"{error.filename} cannot be read: {error.strerror}")
        if sentinel is not None:
            return Sight(sentinel=sentinel, process=self.launcher)
        if result is not None:
            return Sight(result=result, process=self.launcher)
        return self._running() if self.elsewhere else None

    def _result(self) -> Result | None:
        """Raises OSError."""
        name, attempt = self.record.name, self.record.attempt
        text = read_surely(self.layout.attempt_result(name, attempt))
        text = text or read_surely(self.layout.attempt_result_draft(name, attempt))
        result = parse_result(text) if text else None
        return result if result is not None and self._is_ours(result.token) else None

    def _sentinel(self) -> Sentinel | None:
        """Raises OSError."""
        text = read_surely(self.layout.sentinel(self.record.name))
        found = parse_sentinel(text) if text else None
        ours = found is not None and found.attempt == self.record.attempt and self._is_ours(found.token)
        return found if ours else None

    def _is_ours(self, token: str | None) -> bool:
        """A run of this name that was here before may have a launcher left."""
        return token == self.record.token or (self.claimant is not None and token == self.claimant.token)

    # --- what is left where it has written nothing -------------------------------------------

    def _of_what_is_left(self) -> Sight:
        if self.mark_text == "" and self.launcher is None and self._is_young():
            return Sight(claimed=True, alive=True)  # the claim is being written
        claimed = self.mark_text is not None
        if claimed or self.launcher is not None:
            pids = tuple(p.pid for p in self.backend.leftovers(self.record.token))
            return Sight(mark=self.mark, process=self.launcher, claimed=claimed, leftovers=pids)
        name, attempt = self.record.name, self.record.attempt
        tried = os.path.isdir(self.layout.attempt(name, attempt))
        return (self._of_carriers() if tried else None) or self._of_trail(ours=tried or attempt == 1)

    def _of_carriers(self) -> Sight | None:
        """Its worker has removed the mark, or it is about to make it: told by its token."""
        members = self.backend.leftovers(self.record.token)
        launchers = [member for member in members if self._runs(member, self.record.token)]
        if launchers:
            return Sight(process=launchers[0], claimed=True, alive=True)
        return Sight(claimed=True, leftovers=tuple(m.pid for m in members)) if members else None

    def _of_trail(self, *, ours: bool) -> Sight:
        """`ours`: the flat files are no longer those of the attempt before."""
        papers = self.layout.trail(self.record.name) if ours else ()
        return Sight(trail=tuple(what for what, path in papers if os.path.exists(path)))

    # --- the mark ---------------------------------------------------------------------------

    def _mark_text(self) -> str | None:
        """A launcher needs an instant between making its mark and filling it."""
        path = self.layout.mark(self.record.name)
        text = read_text(path)
        for _ in range(10):
            if text != "" or self.record.process or not self._is_young():
                break
            clock.pause(0.005)
            text = read_text(path)
        return text

    def _is_young(self) -> bool:
        try:
            return 0 <= clock.wall() - os.stat(self.layout.mark(self.record.name)).st_mtime < MARK_PATIENCE_S
        except OSError:
            return False
