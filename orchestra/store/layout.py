"""Every path of a run, spelled once."""

from __future__ import annotations

import os


class Layout:
    """The files of one run directory. Paths are absolute strings."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir
        self.run_id = os.path.basename(run_dir)
        self.plan = f"{run_dir}/run.yaml"
        self.events = f"{run_dir}/events.jsonl"
        self.telemetry = f"{run_dir}/telemetry.jsonl"
        self.state = f"{run_dir}/state.json"
        self.lock = f"{run_dir}/.narrator.lock"
        self.lock_guard = f"{run_dir}/.narrator.guard"
        self.lock_claim = f"{run_dir}/.narrator.claim"
        self.damaged = f"{run_dir}/events.damaged"
        self.attempts = f"{run_dir}/attempts"

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

    def attempt_result(self, worker: str, attempt: int) -> str:
        return f"{self.attempt(worker, attempt)}/result.json"

    def attempt_result_draft(self, worker: str, attempt: int) -> str:
        """The result before it has its name; all that there is where the launcher could not rename it."""
        return f"{self.attempt(worker, attempt)}/result.new"

    def attempt_reserve(self, worker: str, attempt: int) -> str:
        """Space kept for the result, so that a full disk cannot silence it."""
        return f"{self.attempt(worker, attempt)}/reserve"

    def attempt_jobs(self, worker: str, attempt: int) -> str:
        """Space for what bash says of its job."""
        return f"{self.attempt(worker, attempt)}/jobs"

    def grace(self, worker: str, attempt: int) -> str:
        """How many seconds `orchestra stop` gives the worker, for its launcher to read."""
        return f"{self.attempt(worker, attempt)}/grace"

    def launcher_notes(self, worker: str, attempt: int) -> list[str]:
        """What the launcher removes when the attempt has ended."""
        return [
            self.attempt_reserve(worker, attempt),
            self.attempt_jobs(worker, attempt),
            self.grace(worker, attempt),
        ]

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
        return [
            ("brief", self.brief(worker)),
            ("prompt", self.prompt(worker)),
            ("launcher", self.launcher(worker)),
            ("mark", self.mark(worker)),
        ]

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
