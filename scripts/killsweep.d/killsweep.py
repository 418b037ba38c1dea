"""Kill orchestra at every system call that changes anything, and see that the next command puts it right.

A command is run under strace, which lets one system call fail in one chosen way: the process
is killed with SIGKILL on entering it, or the call returns ENOSPC or EIO. Then the ordinary
next commands are called, and what must be true of a run is looked at:

  every worker started exactly once for each attempt, none lost without being named, all done in
  the end; every line of the log whole, its numbers growing; no lock, no process, no half-built file
  and no temporary directory left behind.

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
import compileall
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from points import (
    FAULTS,
    SWEEPS,
    Point,
    Sweep,
    beyond,
    hit_no_disk,
    most_calls,
    parse_point,
    points_of,
    was_hit,
)
from stage import Stage, Wrong

CHECKOUT = Path(__file__).resolve().parents[2]


class Verdict(NamedTuple):
    point: Point
    hit: bool
    wrong: str | None
    place: Path


class Bench:
    """What all points share: the code under test (a copy: edits do not reach it), and prepared runs."""

    def __init__(self, place: Path, strace: str, *, long: bool) -> None:
        self.place = place
        self.long = long  # the runs' logs are read on from state.json
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
        """How often each call is made when nothing fails."""
        stage = Stage(
            self, self.place / f"count-{sweep.command}-{sweep.target}", self.templates[sweep.command]
        )
        answer = stage.disturbed(sweep, None)
        if answer.code != 0:
            raise Wrong(f"undisturbed, it failed: {answer}")
        stage.call("wait", "R", "--timeout", "40")
        stage.await_quiet()
        counts = most_calls(stage.trace())
        if not counts:
            raise Wrong(f"strace saw nothing of {sweep.name}: {answer}")
        return counts


def _no_caches(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__"}


def try_point(bench: Bench, point: Point) -> Verdict:
    place = bench.place / str(point).replace("/", "-")
    hit, wrong = False, None
    stage = Stage(bench, place, bench.templates[point.sweep.command])
    try:
        answer = stage.disturbed(point.sweep, point)
        if hit_no_disk(stage.trace()):
            stage.await_quiet()
            shutil.rmtree(place, ignore_errors=True)
            return Verdict(point, False, None, place)
        hit = was_hit(stage.trace())
        if not (point.fault == "KILL" and point.sweep.target == "narrator"):
            stage.check_answer(point, answer)
        stage.mend(point)
        stage.await_quiet()
        # A launcher may outlive the command that was answered, and be hit after it.
        hit = hit or was_hit(stage.trace())
        stage.check(point)
        if litter := stage.litter():
            wrong = f"litter was left: {litter}"
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


def choose(bench: Bench, args: argparse.Namespace) -> list[tuple[int, Point]]:
    """The points to try, with their numbers."""
    if args.only:
        return list(enumerate(map(parse_point, args.only), 1))
    chosen = [s for s in SWEEPS if not args.sweep or s.name in args.sweep]
    faults = ["KILL"] if args.kill_only else ["ENOSPC", "EIO"] if args.errors_only else list(FAULTS)
    with ThreadPoolExecutor(args.jobs) as pool:
        counts = list(pool.map(bench.count, chosen))
    points = [p for s, most in zip(chosen, counts, strict=True) for p in points_of(s, most, faults)]
    numbered = list(enumerate(points, 1))[args.from_ - 1 : args.to]
    return [(n, p) for n, p in numbered if not args.short or n % p.sweep.every == 0]


def try_all(bench: Bench, points: list[Point], args: argparse.Namespace) -> Progress:
    progress = Progress(len(points))
    with ThreadPoolExecutor(args.jobs) as pool:

        def run(batch: list[Point]) -> list[Verdict]:
            verdicts = []
            for verdict in pool.map(lambda point: try_point(bench, point), batch):
                progress.tell(verdict)
                verdicts.append(verdict)
            return verdicts

        verdicts = run(points)
        for name in {v.point.sweep.name for v in verdicts}:
            if not any(v.hit or v.wrong for v in verdicts if v.point.sweep.name == name):
                raise Wrong(f"no point of {name} was hit: does strace inject here?")
        whole = not (args.only or args.short or args.to or args.from_ > 1)
        ahead = beyond(points) if whole else []
        while ahead:  # N upward until nothing is hit
            progress.total += len(ahead)
            ahead = [v.point._replace(when=v.point.when + 1) for v in run(ahead) if v.hit]
    return progress


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
    parser.add_argument(
        "--long", action="store_true", help="with logs so long that they are read on from state.json"
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
    keep = False
    try:
        bench = Bench(place, strace, long=args.long)
        numbered = choose(bench, args)
        if args.list:
            for number, point in numbered:
                print(f"{number:5} {point}")
            return 0
        progress = try_all(bench, [point for _, point in numbered], args)
        keep = bool(progress.wrong)
    except Wrong as error:
        print(f"killsweep: {error}", file=sys.stderr)
        return 1
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)
    spent = time.monotonic() - progress.started
    figures = f"{progress.done} points ({progress.hit} hit), {len(progress.wrong)} failures, {spent:.0f} s"
    print(f"killsweep: {figures}")
    return 1 if progress.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
