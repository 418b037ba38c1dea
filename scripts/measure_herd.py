"""A herd: 60 workers of 300 MB asked for at once, in a control group that has memory for a few.

Told of nothing but how much must stay available there, orchestra has to come close to the best fixed
number at a time, which is found by trying; GNU parallel with --memfree and --load does the same work in
the same run. The limit is real: the kernel counts what each way takes at most, and kills who goes over it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from measured import ORCHESTRA

MIB = 1 << 20
SIZE = 300  # MiB of one worker
SPARE = 100  # MiB of the limit that orchestra has to leave
AIM = 1.25
WORKER = f"""
import time
held = []
for step in range(10):
    held.append(bytearray({SIZE // 10} << 20))
    time.sleep(0.1)
time.sleep(2)
"""
GROUPS = Path("/sys/fs/cgroup")


class Tried(NamedTuple):
    """One way through the herd."""

    name: str
    seconds: float
    peak: float  # MiB taken at once, by the kernel's count
    killed: int  # by the kernel, for want of memory
    finished: int

    def __str__(self) -> str:
        return (
            f"{self.name:30} {self.seconds:6.1f} s  peak {self.peak:5.0f} MiB  {self.finished} finished, "
            f"{self.killed} killed for want of memory"
        )


class Group:
    """A memory group with a limit, of the version that is here. Raises OSError where none can be made."""

    def __init__(self, limit: int) -> None:
        v1 = (GROUPS / "memory").is_dir()
        names = ("limit_in_bytes", "max_usage_in_bytes", "oom_control") if v1 else ("max", "peak", "events")
        self.place = (GROUPS / "memory" if v1 else GROUPS) / f"orchestra-herd-{os.getpid()}"
        self.place.mkdir()
        limit_file, self.peak_file, self.kills_file = (self.place / f"memory.{name}" for name in names)
        limit_file.write_text(str(limit))

    def run(self, argv: list[str], stdin: str) -> str:
        enter = f'echo $$ >"{self.place}/cgroup.procs" && exec "$@"'
        # What the kernel kills may be a shell of ours, too: how many have finished tells.
        done = subprocess.run(
            ["bash", "-c", enter, "bash", *argv], input=stdin, capture_output=True, text=True, check=False
        )
        return done.stdout

    def killed(self) -> int:
        rows = dict(line.split() for line in self.kills_file.read_text().splitlines())
        return int(rows.get("oom_kill", 0))

    def remove(self) -> None:
        for _ in range(500):  # the last of it may be on its way out
            with contextlib.suppress(OSError):
                return self.place.rmdir()
            time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=60)
    parser.add_argument("--limit", type=int, default=2400, metavar="MIB", help="of the group (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of orchestra and the best (%(default)s)")
    given = parser.parse_args()
    try:
        with grouped(given.limit):
            pass
    except OSError as error:
        print(f"NOT RUN: no memory group can be made here ({error})")
        return 1
    with tempfile.TemporaryDirectory(prefix="orchestra-herd-") as name:
        (Path(name) / "worker.py").write_text(WORKER)
        return compare(Path(name), given.workers, given.limit, given.rounds)


def compare(place: Path, count: int, limit: int, rounds: int) -> int:
    about = limit // (SIZE + 10)
    tried = {
        at_once: show(f"fixed -j {at_once}", limit, by_fixed(place, count, at_once))
        for at_once in range(max(1, about - 1), about + 2)
    }
    whole = {at_once: t.seconds for at_once, t in tried.items() if not t.killed and t.finished == count}
    if not whole:
        print("NOT COMPARED: no fixed number went through")
        return 1
    best = min(whole, key=lambda at_once: whole[at_once])
    if shutil.which("parallel"):
        show("GNU parallel --memfree --load", limit, by_parallel(place, count, limit))
    else:
        print("NOT RUN: GNU parallel is not here")
    ratios, well = [], True
    for _ in range(rounds):
        fixed = show(f"fixed -j {best}", limit, by_fixed(place, count, best))
        ours = show("orchestra run", limit, by_orchestra(place, count))
        ratios.append(ours.seconds / fixed.seconds)
        well = well and ours.peak <= limit and not ours.killed and ours.finished == count
    ratio = statistics.median(ratios)
    reached = well and ratio <= AIM
    print(
        f"orchestra against the best fixed number, {best} at a time: {ratio:.2f} x "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds), aim {AIM} x, nobody killed: "
        f"{'reached' if reached else 'NOT reached'}"
    )
    return 0 if reached else 1


def show(name: str, limit: int, herd: Callable[[Group], int]) -> Tried:
    with grouped(limit) as group:
        began = time.monotonic()
        finished = herd(group)
        seconds = time.monotonic() - began
        peak = int(group.peak_file.read_text()) / MIB
        tried = Tried(name, seconds, peak, group.killed(), finished)
    print(tried, flush=True)
    return tried


@contextlib.contextmanager
def grouped(limit: int) -> Iterator[Group]:
    group = Group(limit * MIB)
    try:
        yield group
    finally:
        group.remove()


def by_fixed(place: Path, count: int, at_once: int) -> Callable[[Group], int]:
    """As `xargs -P`."""
    script = f"{sys.executable} {place}/worker.py && echo {{}}"
    argv = ["xargs", "-P", str(at_once), "-I{}", "sh", "-c", script]
    return lambda group: len(group.run(argv, numbers(count)).split())


def by_parallel(place: Path, count: int, limit: int) -> Callable[[Group], int]:
    """It knows of the machine's memory alone: what is beyond the limit has to stay free."""
    free = psutil.virtual_memory().available - (limit - SPARE) * MIB
    argv = ["parallel", "--will-cite", "-j", str(count), "--memfree", str(free), "--load", "400%"]
    argv += [f"{sys.executable} {place}/worker.py && echo {{}}"]
    return lambda group: len(group.run(argv, numbers(count)).split())


def by_orchestra(place: Path, count: int) -> Callable[[Group], int]:
    root = place / "runs"
    shutil.rmtree(root, ignore_errors=True)  # with what it has learned
    plan = {
        "command": [sys.executable, f"{place}/worker.py"],
        "throttle": {"memory_available": SPARE * MIB},
        "phases": [{"name": "herd", "workers": [{"name": f"W{i}", "brief": "b"} for i in range(count)]}],
    }
    path = place / "plan.json"
    path.write_text(json.dumps(plan))
    argv = [ORCHESTRA, "run", str(path), "--run", "herd", "--root", str(root), "--json"]

    def herd(group: Group) -> int:
        said = group.run(argv, "")
        return int(json.loads(said)["counts"].get("done", 0)) if said else 0

    return herd


def numbers(count: int) -> str:
    return "\n".join(map(str, range(count)))


if __name__ == "__main__":
    sys.exit(main())
