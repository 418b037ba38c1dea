"""A command that watches all night: it may not grow, and nor may what the log takes for each attempt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from cast import Night

MIB = 1 << 20
MOST_GROWTH = 1.5  # of what an attempt takes, from the first third of the night to the last


class Measured(NamedTuple):
    """The watcher and one log at one moment."""

    memory: int  # bytes
    files: int
    log: int  # bytes
    workers: int
    attempts: int  # that were meant, by the log


class Watcher:
    """`orchestra wait --follow`, from the beginning to the end of the night."""

    def __init__(self, night: Night, run: str) -> None:
        self.night = night
        self.run = run
        self.measured: list[Measured] = []

    def __enter__(self) -> Watcher:
        argv = [sys.executable, "-m", "orchestra", "wait", self.run, "--follow", "--keep-going"]
        argv += ["--timeout", "1000000", "--json"]
        self.process = subprocess.Popen(argv, env=self.night.orchestra.env, stdout=subprocess.DEVNULL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait()

    def measure(self) -> None:
        if self.process.poll() is not None:  # for a moment all workers had ended
            self.__enter__()
            return
        place = Path(f"/proc/{self.process.pid}")
        try:
            memory = int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            files = len(os.listdir(place / "fd"))
        except OSError:
            return
        log = (self.night.orchestra.root / self.run / "events.jsonl").read_bytes()
        attempts = sum(log.count(b'"kind":"%s_intended"' % verb) for verb in (b"spawn", b"retry"))
        workers = len(self.night.asked[self.run])
        self.measured.append(Measured(memory, files, len(log), workers, attempts))

    def faults(self, minutes: float) -> list[str]:
        third = len(self.measured) // 3
        if minutes < 5 or third < 2:
            print("NOT CHECKED: growth, as the night was too short")
            return []
        first, middle, last = self.measured[0], self.measured[third], self.measured[-1]
        early, late = bytes_each(first, middle), bytes_each(self.measured[-third], last)
        most_files = max(m.files for m in self.measured)
        print(f"log: {early:.0f} bytes for each attempt at first, {late:.0f} at last; watcher: "
              f"{middle.memory / MIB:.1f} MiB, then {last.memory / MIB:.1f} MiB for {last.workers} workers, "
              f"at most {most_files} files")  # fmt: skip
        found = []
        if late > MOST_GROWTH * early:
            found.append(f"the log takes {late:.0f} bytes for each attempt at last, {early:.0f} at first")
        grown = (last.memory - middle.memory) / max(1, last.workers - middle.workers)
        if grown > 40_000:
            found.append(f"the watcher took {grown:.0f} bytes more for each worker")
        if most_files > 100:
            found.append(f"the watcher had {most_files} files open")
        return found


def bytes_each(before: Measured, after: Measured) -> float:
    """What the log has taken for each attempt between two moments."""
    return (after.log - before.log) / max(1, after.attempts - before.attempts)
