"""Kill orchestra at every system call that changes anything, and see that the next command puts it right.

A command is run under strace, which lets one system call fail in one chosen way: the process
is killed with SIGKILL on entering it, or the call returns ENOSPC or EIO. Then the ordinary
next commands are called, and what must be true of a run is looked at:

  every worker started exactly once for each attempt, none lost without being named, all done in
  the end; every line of the log whole, its numbers growing; no lock and no process left behind.

strace counts each system call for itself (`when=N` is the N-th write, the N-th rename, ..., of
each process), so the points are pairs of a system call and a number. An undisturbed run
tells how many there are; beyond that, N goes up until nothing is hit any more.

  spawn/narrator   the command `orchestra spawn` itself, and nothing that it starts
  spawn/starter    the helper that starts the launchers, and its children up to their exec
  spawn/launcher   the launcher of one of three workers
  spawn/tree       the same, with everything that the launcher starts
  retry/narrator   `orchestra retry` of three failed workers
  init/narrator    `orchestra init`

For `narrator`, a kill may cost nothing: each worker is started once in all. For the others,
a worker may be hit: then it is named, with a verdict, and `orchestra retry` starts it.
"""

from __future__ import annotations

import argparse
import collections
import compileall
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
NAMES = ("W1", "W2", "W3")
HIT_LAUNCHER = "W2"
PATIENCE_S = 60.0  # for one command, under strace on a busy machine
FAULTS = ("KILL", "ENOSPC", "EIO")
# `?`: where the architecture has no such call, strace is to say nothing.
CHANGES = ["write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "fsync", "fdatasync", "sync", "syncfs", "clone", "clone3", "fork", "vfork"]
BEFORE_EXEC = ["setsid", "dup2", "dup3"]  # what only a launcher's process does before it is one
_CALL = re.compile(r"^(?:(\d+) +)?([a-z0-9_]+)\(")


class Sweep(NamedTuple):
    command: str  # spawn, retry, init
    target: str  # who is hit: narrator, starter, launcher, tree
    faults: tuple[str, ...]
    every: int  # --short takes each so-manieth point

    @property
    def name(self) -> str:
        return f"{self.command}/{self.target}"


SWEEPS = (
    Sweep("spawn", "narrator", FAULTS, 4),
    Sweep("spawn", "starter", FAULTS, 5),
    Sweep("spawn", "launcher", FAULTS, 3),
    Sweep("spawn", "tree", ("KILL",), 3),
    Sweep("retry", "narrator", FAULTS, 12),
    Sweep("init", "narrator", FAULTS, 9),
)


class Point(NamedTuple):
    sweep: Sweep
    fault: str
    call: str
    when: int

    def __str__(self) -> str:
        return f"{self.sweep.name}/{self.fault}/{self.call}/{self.when}"

    def inject(self) -> str:
        how = "signal=SIGKILL" if self.fault == "KILL" else f"error={self.fault}"
        return f"inject={self.call}:{how}:when={self.when}"


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


class Verdict(NamedTuple):
    point: Point | None
    hit: bool
    wrong: str | None
    place: Path


class Bench:
    """What all points share: the code under test (a copy: edits do not reach it), and prepared runs."""

    def __init__(self, place: Path, strace: str) -> None:
        self.place = place
        self.strace = strace
        self.code = place / "code"
        shutil.copytree(CHECKOUT / "orchestra", self.code / "orchestra", ignore=_no_caches)
        compileall.compile_dir(self.code, quiet=2)
        self.templates: dict[str, Path] = {}
        for command in ("spawn", "retry", "init"):
            stage = Stage(self, place / f"template-{command}", None)
            stage.prepare(command)
            self.templates[command] = stage.place

    def count(self, sweep: Sweep) -> dict[str, int]:
        """How often each call is made, by the process that makes it most often."""
        stage = Stage(
            self, self.place / f"count-{sweep.command}-{sweep.target}", self.templates[sweep.command]
        )
        answer = stage.disturbed(sweep, None)
        if answer.code != 0:
            raise Wrong(f"undisturbed, it failed: {answer}")
        stage.call("wait", "R", "--timeout", "40")
        counts: collections.Counter[tuple[str, str]] = collections.Counter()
        for line in stage.trace().splitlines():
            if match := _CALL.match(line):
                counts[match[2], match[1] or ""] += 1
        most: dict[str, int] = {}
        for (call, _), number in counts.items():
            most[call] = max(most.get(call, 0), number)
        if not most:
            raise Wrong(f"strace saw nothing of {sweep.name}: {answer}")
        return most


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
        if command == "retry":
            self.must(*self.words("spawn"))
            self.must("wait", "R", "--keep-going", codes=(1,))
            self.starts.unlink()

    def trace(self) -> str:
        return "".join(p.read_text(errors="replace") for p in sorted(self.place.glob("trace*")))

    def disturbed(self, sweep: Sweep, point: Point | None) -> Answer:
        """Run the command with the point's fault; None: only watch."""
        words = self.words(sweep.command)
        calls = ",".join("?" + call for call in CHANGES + BEFORE_EXEC * (sweep.target == "starter"))
        strace = [self.bench.strace, "-q", "-e", "signal=KILL", "-e", f"trace={calls}"]
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

    def mend(self, point: Point, turn: int) -> None:
        """The ordinary next commands, as a narrator would call them."""
        command = point.sweep.command
        if command == "init":
            self.must(*self.words("init"))
            self.must("spawn", "R", "--phase", "only", "--no-throttle")
            self.must("wait", "R")
            return
        self.must("status", "R")
        if turn % 4 == 3:
            self.must("unlock", "R")
        intended = f"{command}_intended" in self.log_kinds()
        words = ("spawn", "R", "--no-throttle") if intended else self.words(command)
        costs_nothing = point.sweep.target == "narrator" and point.fault == "KILL"
        codes = (0,) if costs_nothing else (0, 1)
        self.must(*words, codes=codes)
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
        if answer.code == 0:
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
        files = ["result.json", "published.json", "log.out", "log.err", "out", "run.sh", "prompt.txt", "brief.md", "pid.json"]
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


def _no_caches(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__"}


# --- the sweep ---------------------------------------------------------------------------------


def try_point(bench: Bench, point: Point, turn: int) -> Verdict:
    place = bench.place / str(point).replace("/", "-")
    hit, wrong = False, None
    stage = Stage(bench, place, bench.templates[point.sweep.command])
    try:
        answer = stage.disturbed(point.sweep, point)
        trace = stage.trace()
        hit = "INJECTED" in trace or "killed by SIGKILL" in trace
        if not (point.fault == "KILL" and point.sweep.target == "narrator"):
            stage.check_answer(point, answer)
        stage.mend(point, turn)
        stage.await_quiet()
        # A launcher may outlive the command that was answered, and be hit after it.
        hit = hit or "INJECTED" in stage.trace() or "killed by SIGKILL" in stage.trace()
        stage.check(point)
    except Wrong as error:
        wrong = str(error)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    if wrong is None:
        shutil.rmtree(place, ignore_errors=True)
    return Verdict(point, hit, wrong, place)


class Progress:
    """One line that says how far we are; failures as they come."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = self.hit = 0
        self.wrong: list[Verdict] = []
        self.started = time.monotonic()
        self.lock = threading.Lock()

    def tell(self, verdict: Verdict) -> None:
        with self.lock:
            self.done += 1
            self.hit += verdict.hit
            if verdict.wrong is not None:
                self.wrong.append(verdict)
                print(f"\nWRONG {verdict.point}: {verdict.wrong}", file=sys.stderr)
                print(f"  repeat: scripts/killsweep --only {verdict.point}", file=sys.stderr)
                print(f"  left as it is: {verdict.place}", file=sys.stderr)
            if sys.stderr.isatty():
                print(f"\r{self.line()}", end="", file=sys.stderr, flush=True)
            elif self.done % 25 == 0:
                print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        spent = time.monotonic() - self.started
        return f"killsweep: {self.done}/{self.total} points, {len(self.wrong)} wrong, {spent:.0f} s"


def points_of(bench: Bench, sweeps: list[Sweep], faults: list[str]) -> list[Point]:
    return [
        Point(sweep, fault, call, when)
        for sweep in sweeps
        for counts in [bench.count(sweep)]
        for fault in sweep.faults
        if fault in faults
        for call, most in sorted(counts.items())
        if not (fault != "KILL" and call in BEFORE_EXEC)
        for when in range(1, most + 1)
    ]


def beyond(points: list[Point]) -> list[Point]:
    """For each call, the point behind its last one."""
    last: dict[tuple[Sweep, str, str], Point] = {}
    for point in points:
        last[point.sweep, point.fault, point.call] = point
    return [point._replace(when=point.when + 1) for point in last.values()]


def sweep(bench: Bench, args: argparse.Namespace) -> Progress:
    chosen = [s for s in SWEEPS if not args.sweep or s.name in args.sweep]
    faults = ["KILL"] if args.kill_only else ["ENOSPC", "EIO"] if args.errors_only else list(FAULTS)
    if args.only:
        points = [parse_point(word) for word in args.only]
    else:
        points = points_of(bench, chosen, faults)
    numbered = list(enumerate(points, 1))[args.from_ - 1 : args.to]
    if args.short and not args.only:
        numbered = [(n, p) for n, p in numbered if n % p.sweep.every == 0]
    if args.list:
        for number, point in numbered:
            print(f"{number:5} {point}")
        return Progress(0)
    further = not (args.only or args.short or args.to or args.from_ > 1)
    progress = Progress(len(numbered))
    with ThreadPoolExecutor(args.jobs) as pool:

        def run(batch: list[tuple[int, Point]]) -> list[Verdict]:
            verdicts = []
            for verdict in pool.map(lambda pair: try_point(bench, pair[1], pair[0]), batch):
                progress.tell(verdict)
                verdicts.append(verdict)
            return verdicts

        run(numbered)
        ahead = beyond(points) if further else []
        while ahead:  # N upward until nothing is hit
            progress.total += len(ahead)
            hits = [v.point for v in run(list(enumerate(ahead, 1))) if v.hit and v.point is not None]
            ahead = [point._replace(when=point.when + 1) for point in hits]
    return progress


def parse_point(word: str) -> Point:
    try:
        command, target, fault, call, when = word.split("/")
        found = next(s for s in SWEEPS if s.name == f"{command}/{target}")
        return Point(found, fault, call, int(when))
    except (ValueError, StopIteration):
        raise SystemExit(
            f"killsweep: {word!r} is no point (SWEEP/FAULT/CALL/N, as --list shows them)"
        ) from None


def find_strace() -> str:
    strace = shutil.which("strace")
    if strace is None:
        raise SystemExit("killsweep: strace is not installed: apt-get install strace")
    tried = subprocess.run([strace, "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        raise SystemExit(
            f"killsweep: strace may not trace here (ptrace is forbidden?): {tried.stderr.strip()}"
        )
    return strace


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="killsweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--short", action="store_true", help="a sample of the points: about a minute on two cores"
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--kill-only", action="store_true", help="only SIGKILL")
    group.add_argument("--errors-only", action="store_true", help="only ENOSPC and EIO")
    names = [s.name for s in SWEEPS]
    parser.add_argument("--sweep", action="append", choices=names, help="only this one (may be repeated)")
    parser.add_argument("--from", dest="from_", type=int, default=1, metavar="N", help="from this point on")
    parser.add_argument("--to", type=int, metavar="N", help="up to this point")
    parser.add_argument("--only", action="append", metavar="POINT", help="this very point (may be repeated)")
    parser.add_argument("--list", action="store_true", help="print the points, numbered, and do nothing")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="at once (%(default)s)"
    )
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    strace = find_strace()
    place = Path(tempfile.mkdtemp(prefix="killsweep-"))
    sys.path.insert(0, str(place / "code"))
    try:
        progress = sweep(Bench(place, strace), args)
    except Wrong as error:
        print(f"killsweep: {error}", file=sys.stderr)
        return 1
    finally:
        if not any(verdict.wrong for verdict in ()):
            pass
    if args.list:
        shutil.rmtree(place, ignore_errors=True)
        return 0
    if not progress.wrong:
        shutil.rmtree(place, ignore_errors=True)
    spent = time.monotonic() - progress.started
    print(
        f"killsweep: {progress.done} points ({progress.hit} hit), {len(progress.wrong)} failures, {spent:.0f} s"
    )
    return 1 if progress.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
