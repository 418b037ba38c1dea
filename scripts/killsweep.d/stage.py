"""One run in a directory of its own: prepared, hit, mended, looked at."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from points import Point, Sweep, traced

if TYPE_CHECKING:
    from killsweep import Bench

NAMES = ("W1", "W2", "W3")
HIT_LAUNCHER = "W2"
PATIENCE_S = 60.0  # for one command, under strace on a busy machine


class Wrong(Exception):
    """What must be true is not."""


class Answer(NamedTuple):
    words: str
    code: int
    json: dict[str, Any]
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return (
            f"orchestra {self.words} -> {self.code}\n  {self.stdout.strip()}\n  {self.stderr.strip()[-2000:]}"
        )


class Stage:
    """One run in a directory of its own, and the commands over it."""

    def __init__(self, bench: Bench, place: Path, template: Path | None) -> None:
        self.bench = bench
        self.place = place
        self.run_dir = place / "runs" / "R"
        self.starts = place / "runs" / "starts"  # where each worker writes who it is
        if template is not None:
            shutil.copytree(template, place, symlinks=True)
        for name in ("runs", "tmp", "bin"):
            (place / name).mkdir(parents=True, exist_ok=True)

    # --- commands ---------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("ORCHESTRA_", "_ORCHESTRA", "PYTHON"))
        }
        here = {"ORCHESTRA_ROOT": str(self.place / "runs"), "TMPDIR": str(self.place / "tmp")}
        return {**kept, **here, "PYTHONPATH": str(self.bench.code)}

    def execute(self, argv: list[str], words: tuple[str, ...], environment: dict[str, str]) -> Answer:
        process = subprocess.Popen(
            argv,
            env=environment,
            cwd=self.place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise Wrong(f"orchestra {' '.join(words)} hung for {PATIENCE_S:g} s") from None
        lines = stdout.splitlines()
        try:
            answer = json.loads(lines[-1]) if lines else {}
        except ValueError:
            answer = {}
        return Answer(" ".join(words), process.returncode, answer, stdout, stderr)

    def call(self, *words: str) -> Answer:
        """A command in peace. Whatever happened before, a bug it may not show."""
        answer = self.execute([sys.executable, "-m", "orchestra", *words], words, self.environment())
        if answer.code in (70, -signal.SIGKILL) or "Traceback" in answer.stderr:
            raise Wrong(f"a bug shows: {answer}")
        return answer

    def must(self, *words: str, codes: tuple[int, ...] = (0,)) -> Answer:
        answer = self.call(*words)
        if answer.code not in codes:
            raise Wrong(f"expected exit status {codes}: {answer}")
        return answer

    # --- the command that is hit --------------------------------------------------------------

    def words(self, command: str) -> tuple[str, ...]:
        if command == "spawn":
            return ("spawn", "R", "--from", str(self.place / "workers.json"), "--no-throttle")
        if command == "retry":
            return ("retry", "R", "--no-throttle")
        return ("init", "R", "--plan", str(self.place / "plan.yaml"))

    def prepare(self, command: str) -> None:
        rows = []
        for i, name in enumerate(NAMES):
            says = 'echo "$ORCHESTRA_WORKER $ORCHESTRA_ATTEMPT" >>"$ORCHESTRA_RUN_DIR/../starts"'
            script = f"{says}; sleep {0.12 * i:g}"  # some end before the next command comes, some after
            if command == "retry":
                script += '; [ "$ORCHESTRA_ATTEMPT" -gt 1 ]'
            rows.append({"name": name, "brief": f"brief of {name}", "command": ["sh", "-c", script]})
        (self.place / "workers.json").write_text(json.dumps(rows))
        (self.place / "plan.yaml").write_text(
            "phases:\n- name: only\n  workers:\n  - {name: P1, brief: b, command: [echo]}\n"
        )
        if command != "init":
            self.must("init", "R")
            if self.bench.long:
                self.make_long()
        if command == "retry":
            self.must(*self.words("spawn"))
            self.must("wait", "R", "--keep-going", codes=(1,))
            self.starts.unlink()

    def make_long(self) -> None:
        """So long a log that each command goes on from state.json, the first of them too."""
        from orchestra.model.event import OBSERVATIONS, Event, encode
        from orchestra.store.eventlog import CHECKED_WHOLE

        with open(self.run_dir / "events.jsonl", "ab") as log:
            for op in range(2, 19):
                pad = "x" * (CHECKED_WHOLE // 16)
                log.write(
                    encode(Event(op, "2026-01-31T23:59:59.123Z", OBSERVATIONS, "noted", 1, {"pad": pad}))
                )
        self.must("unlock", "R")

    def trace(self) -> str:
        return "".join(p.read_text(errors="replace") for p in sorted(self.place.glob("trace*")))

    def disturbed(self, sweep: Sweep, point: Point | None) -> Answer:
        """Run the command with the point's fault; None: only watch."""
        words = self.words(sweep.command)
        strace = [self.bench.strace, "-q", "-y", "-e", "signal=KILL", "-e", f"trace={traced(sweep)}"]
        if point is not None:
            strace += ["-e", point.inject()]
        argv, environment = [sys.executable, "-m", "orchestra", *words], self.environment()
        if sweep.target == "narrator":
            argv = [*strace, "-o", f"{self.place}/trace", *argv]
        elif sweep.target == "starter":
            wrapper = self.wrapper("python", [*strace, "-f", "-b", "execve"], sys.executable)
            shim = f"import sys; sys.executable = {wrapper!r}; from orchestra.cli.main import main; main()"
            argv = [sys.executable, "-c", shim, *words]
        else:
            bash = shutil.which("bash") or "/bin/bash"
            only = f'case "$*" in *.run-{HIT_LAUNCHER}.sh*) ;; *) exec {bash} "$@" ;; esac'
            self.wrapper("bash", strace + ["-f"] * (sweep.target == "tree"), bash, only)
            environment["PATH"] = f"{self.place}/bin:{environment['PATH']}"
        return self.execute(argv, words, environment)

    def wrapper(self, name: str, strace: list[str], program: str, only: str = "") -> str:
        """A program that runs another one under strace, as its child: no launcher must adopt the tracer."""
        path = self.place / "bin" / name
        quoted = " ".join(f"'{word}'" for word in strace)
        path.write_text(f'#!/bin/sh\n{only}\nexec {quoted} -o "{self.place}/trace.$$" {program} "$@"\n')
        path.chmod(0o700)
        return str(path)

    # --- what comes after it ------------------------------------------------------------------

    def log_kinds(self) -> list[str]:
        path = self.run_dir / "events.jsonl"
        if not path.exists():
            return []
        kinds = []
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError):
                kinds.append(json.loads(line)["kind"])
        return kinds

    def mend(self, point: Point) -> None:
        """The ordinary next commands, as a narrator would call them."""
        command = point.sweep.command
        if command == "init":
            self.must(*self.words("init"))
            self.must("spawn", "R", "--phase", "only", "--no-throttle")
            self.must("wait", "R")
            return
        self.must("status", "R")
        if point.when % 4 == 3:
            self.must("unlock", "R")
        intended = f"{command}_intended" in self.log_kinds()
        words = ("spawn", "R", "--no-throttle") if intended else self.words(command)
        costs_nothing = point.sweep.target == "narrator" and point.fault == "KILL"
        codes = (0,) if costs_nothing else (0, 1)
        if self.must(*words, codes=codes).json["deferred"]:
            raise Wrong(f"deferred without a throttle, by a call that nothing hit: {words}")
        self.must("wait", "R", "--keep-going", "--timeout", "30", codes=codes)
        for _ in range(2):
            failed = self.must("status", "R", "--state", "failed").json["workers"]
            if not failed:
                break
            for row in failed:
                if not row["verdict"] or not row["reason"]:
                    raise Wrong(f"{row['name']} has failed, and nobody says how: {row}")
            self.must("retry", "R", "--no-throttle", codes=(0, 1))
            self.must("wait", "R", "--keep-going", "--timeout", "30", codes=(0, 1))
        again = self.must(*self.words("spawn"))
        if again.json["spawned"] or len(again.json["already"]) != len(NAMES):
            raise Wrong(f"the same call again was not harmless: {again}")

    def check_answer(self, point: Point, answer: Answer) -> None:
        """What a command may say whose system call failed."""
        if answer.code == 0 or (answer.code == 4 and answer.json.get("deferred")):
            return
        error = answer.json.get("error", {}).get("code")
        failed = answer.json.get("failed")
        if answer.code != 1 or "Traceback" in answer.stderr:
            raise Wrong(f"no clear error: {answer}")
        if error != "storage" and not failed and answer.stdout:
            raise Wrong(f"neither `storage` nor a worker in `failed`: {answer}")
        if not answer.stdout and not answer.stderr:
            raise Wrong(f"failed in silence: {answer}")

    def check(self, point: Point) -> None:
        """What must be true in the end."""
        names = ("P1",) if point.sweep.command == "init" else NAMES
        status = self.must("status", "R").json
        states = {row["name"]: (row["state"], row["attempt"]) for row in status["workers"]}
        if {name: state for name, (state, _) in states.items()} != dict.fromkeys(names, "done"):
            raise Wrong(f"not all are done: {states}")
        if status["lock"]["held"] or list(self.run_dir.glob(".narrator.lock*")):
            raise Wrong(f"a lock was left: {status['lock']}, {list(self.run_dir.glob('.narrator.lock*'))}")
        self.check_log()
        for name, (_, attempt) in states.items():
            self.check_files(name, attempt)
            if point.sweep.command == "retry":
                self.check_archive(name)
        if point.sweep.command != "init":
            self.check_starts(point, states)

    def litter(self) -> list[str]:
        """Files half-built, and temporary directories of workers that have ended."""
        return [p.name for p in self.run_dir.glob(".*.new")] + os.listdir(self.place / "tmp")

    def check_log(self) -> None:
        from orchestra.model.event import decode

        last = 0
        for number, line in enumerate((self.run_dir / "events.jsonl").read_bytes().splitlines(), 1):
            event = decode(line)
            if event is None and line.strip(b" "):
                raise Wrong(f"line {number} of the log is damaged: {line!r}")
            if event is not None and event.op <= last:
                raise Wrong(f"line {number} of the log has op {event.op} after {last}")
            last = event.op if event is not None else last

    def check_files(self, name: str, attempt: int) -> None:
        for path in (f"result-{name}.json", f"attempts/{name}/{attempt}/result.json"):
            try:
                result = json.loads((self.run_dir / path).read_text())
            except (OSError, ValueError) as error:
                raise Wrong(f"{path} cannot be read: {error}") from error
            if (result["status"], result["attempt"]) != ("done", attempt):
                raise Wrong(f"{path} says {result}, but attempt {attempt} is done")
        for path in (f"brief-{name}.md", f".prompt-{name}.txt", f".run-{name}.sh", f".pid-{name}.json"):
            if not (self.run_dir / path).is_file():
                raise Wrong(f"{path} is missing")

    def check_archive(self, name: str) -> None:
        kept = self.run_dir / f"attempts/{name}/1"
        files = ("result.json", "log.out", "log.err", "out", "run.sh", "prompt.txt", "brief.md", "pid.json")
        missing = [file for file in files if not (kept / file).exists()]
        if missing:
            raise Wrong(f"the archive of {name}'s first attempt lacks {missing}")
        result, mark = (json.loads((kept / file).read_text()) for file in ("result.json", "pid.json"))
        if (result["status"], result["attempt"], mark["attempt"]) != ("failed", 1, 1):
            raise Wrong(f"the archive of {name}'s first attempt holds another's files: {result}, {mark}")

    def check_starts(self, point: Point, states: dict[str, tuple[str, int]]) -> None:
        starts = collections.Counter(self.starts.read_text().splitlines())
        twice = {who: number for who, number in starts.items() if number > 1}
        if twice:
            raise Wrong(f"started twice: {twice}")
        for name, (_, attempt) in states.items():
            if not starts[f"{name} {attempt}"]:
                raise Wrong(f"{name} is done, but its attempt {attempt} never ran: {dict(starts)}")
            of_this = sum(number for who, number in starts.items() if who.startswith(f"{name} "))
            if point.sweep.target == "narrator" and of_this != 1:
                raise Wrong(f"{name} was started {of_this} times: {dict(starts)}")

    def await_quiet(self) -> None:
        """Until nothing lives that was started here."""
        needle = os.fsencode(f"{self.place}/")
        deadline = time.monotonic() + 15
        while living := list(processes_naming(needle)):
            if time.monotonic() > deadline:
                for pid in living:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                raise Wrong(f"processes were left: {living}")
            time.sleep(0.02)


def processes_naming(needle: bytes) -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                text = (
                    Path(f"/proc/{entry}/cmdline").read_bytes() + Path(f"/proc/{entry}/environ").read_bytes()
                )
                if needle in text:
                    yield int(entry)
