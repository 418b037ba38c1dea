"""Every path of a run, spelled once."""

from __future__ import annotations

import os
from typing import NamedTuple

from orchestra.model.trail import NOTES, TRAIL

MOST_STATE = 1 << 30  # bytes of state.json that are read: beside a longer one the log alone counts


class Layout:
    """The files of one run directory. Paths are absolute strings."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir
        self.run_id = os.path.basename(run_dir)
        self.words = self.run_id  # RUN as it must stand in the next command, with the options that it needs
        self.options = ""  # those, each behind a space
        self.plan = f"{run_dir}/run.yaml"
        self.events = f"{run_dir}/events.jsonl"
        self.telemetry = f"{run_dir}/telemetry.jsonl"
        self.state = f"{run_dir}/state.json"
        self.lock = f"{run_dir}/.narrator.lock"
        self.lock_guard = f"{run_dir}/.narrator.guard"
        self.lock_notes = (
            f"{run_dir}/.narrator"  # a directory of its own: takers list it, and a run may be large
        )
        self.damaged = f"{run_dir}/events.damaged"  # a directory: copies of damage, by its offset in the log
        self.attempts = f"{run_dir}/attempts"
        self.root = os.path.dirname(run_dir)

    def lock_claim(self, token: str) -> str:
        """What a taker says of itself, before the lock says it."""
        return f"{self.lock_notes}/claim-{token}"

    def lock_after(self, token: str) -> str:
        """What came after this holder: a directory where it let go, the file of whoever took over."""
        return f"{self.lock_notes}/after-{token}"

    def beat_sights(self, host: str) -> str:
        """What all beat sights of a host's name begin with."""
        return f"{self.lock_notes}/seen-{''.join(c if c.isalnum() else '-' for c in host[:64])}-"

    def brief(self, worker: str) -> str:
        return f"{self.run_dir}/brief-{worker}.md"

    def prompt(self, worker: str) -> str:
        return f"{self.run_dir}/.prompt-{worker}.txt"

    def launcher(self, worker: str) -> str:
        return f"{self.run_dir}/.run-{worker}.sh"

    def mark(self, worker: str) -> str:
        return f"{self.run_dir}/.pid-{worker}.json"

    def sentinel(self, worker: str) -> str:
        return f"{self.run_dir}/.spawn-{worker}.error"

    def result(self, worker: str) -> str:
        return f"{self.run_dir}/result-{worker}.json"

    def log_out(self, worker: str) -> str:
        return f"{self.run_dir}/log-{worker}.out"

    def log_err(self, worker: str) -> str:
        return f"{self.run_dir}/log-{worker}.err"

    def out(self, worker: str) -> str:
        return f"{self.run_dir}/out-{worker}"

    def attempt(self, worker: str, attempt: int) -> str:
        return f"{self.attempts}/{worker}/{attempt}"

    def attempts_of(self, worker: str) -> list[int]:
        """The attempts that have a directory; what has five digits or more is a worker's own making."""
        try:
            names = os.listdir(f"{self.attempts}/{worker}")
        except OSError:
            return []
        return [int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 5]

    def attempt_result(self, worker: str, attempt: int) -> str:
        return f"{self.attempt(worker, attempt)}/result.json"

    def attempt_result_draft(self, worker: str, attempt: int) -> str:
        """The result before it has its name; all that there is where the launcher could not rename it."""
        return f"{self.attempt(worker, attempt)}/result.new"

    def attempt_reserve(self, worker: str, attempt: int) -> str:
        """Space kept for the result, so that a full disk cannot silence it."""
        return f"{self.attempt(worker, attempt)}/reserve"

    def grace(self, worker: str, attempt: int) -> str:
        """How many seconds `orchestra stop` gives the worker, for its launcher to read."""
        return f"{self.attempt(worker, attempt)}/grace"

    def launcher_notes(self, worker: str, attempt: int) -> list[str]:
        """What the launcher removes when the attempt has ended."""
        return [f"{self.attempt(worker, attempt)}/{note}" for note in NOTES]

    def heartbeat(self, worker: str, attempt: int) -> str:
        return f"{self.attempt(worker, attempt)}/heartbeat"

    def look(self, worker: str, attempt: int) -> str:
        """What was last seen of its processes, for the next look to go by."""
        return f"{self.attempt(worker, attempt)}/look.json"

    def launcher_log(self, worker: str, attempt: int) -> str:
        """What bash itself had to say while it ran the launcher."""
        return f"{self.attempt(worker, attempt)}/launcher.err"

    def trail(self, worker: str) -> list[tuple[str, str]]:
        """The paper trail in the order in which it is written: (what, path)."""
        paths = (self.brief(worker), self.prompt(worker), self.launcher(worker), self.mark(worker))
        return list(zip(TRAIL, paths, strict=True))

    def archived(self, worker: str, attempt: int) -> list[tuple[str, str]]:
        """What a retry moves aside: (flat path, path in the attempt's own directory)."""
        there = self.attempt(worker, attempt)
        return [
            (self.result(worker), f"{there}/result.json"),
            (self.sentinel(worker), f"{there}/spawn.error"),
            (self.log_out(worker), f"{there}/log.out"),
            (self.log_err(worker), f"{there}/log.err"),
            (self.out(worker), f"{there}/out"),
            (self.launcher(worker), f"{there}/run.sh"),
            (self.prompt(worker), f"{there}/prompt.txt"),
            (self.brief(worker), f"{there}/brief.md"),
            (self.mark(worker), f"{there}/pid.json"),
        ]


class Notes(NamedTuple):
    """What is kept with the root, beside its runs. A run id never begins with a dot."""

    needs: str  # what workers took, by command
    holds: str  # who has just started
    quiet: str  # for how long workers were quiet and yet ended well, by command


def notes_of(root: str) -> Notes:
    return Notes(*(f"{root}/.orchestra/{name}.json" for name in Notes._fields))
