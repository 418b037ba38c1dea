"""A herd: 60 workers of 300 MB at once, with memory for a few.

    python scripts/herd.py [--workers N] [--budget MIB]

Told of nothing but how much memory must stay available, orchestra has to come close to the best
fixed number at a time, which is found by trying; GNU parallel with --memfree and --load does the
same work in the same run. The budget is what the herd may take of the memory that is there now.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

MIB = 1 << 20
SIZE = 300  # MiB of one worker
AIM = 1.25
WORKER = f"""
import time
held = []
for step in range(10):
    held.append(bytearray({SIZE // 10} << 20))
    time.sleep(0.1)
time.sleep(2)
"""


class Tried(NamedTuple):
    """One way through the herd."""

    name: str
    seconds: float
    peak: float  # MiB taken at once
    finished: int


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=60)
    parser.add_argument("--budget", type=int, default=2000, help="MiB that the herd may take at once")
    given = parser.parse_args()
    count, budget = given.workers, given.budget
    tried = []
    with tempfile.TemporaryDirectory(prefix="orchestra-herd-") as name:
        place = Path(name)
        (place / "worker.py").write_text(WORKER)
        for at_once in fixed(budget):
            tried.append(measure(f"fixed -j {at_once}", partial(by_fixed, place, count, at_once)))
            show(tried[-1], budget)
        best = min((t for t in tried if t.peak <= budget), key=lambda t: t.seconds)
        ours = measure("orchestra run", lambda: by_orchestra(place, count, budget))
        show(ours, budget)
        if shutil.which("parallel"):
            show(measure("GNU parallel --memfree --load", lambda: by_parallel(place, count, budget)), budget)
        else:
            print("NOT RUN: GNU parallel is not here")
    ratio = ours.seconds / best.seconds
    well = ratio <= AIM and ours.peak <= budget and ours.finished == count
    print(f"orchestra against the best fixed number ({best.name}): {ratio:.2f} x, aim {AIM} x: "
          f"{'reached' if well else 'NOT reached'}")  # fmt: skip
    return 0 if well else 1


def fixed(budget: int) -> list[int]:
    """Numbers at a time about the one that should be best."""
    best = budget // (SIZE + 10)
    return [n for n in range(best - 1, best + 2) if n > 0]


def measure(name: str, herd: Callable[[], int]) -> Tried:
    began = time.monotonic()
    with watching() as peak:
        finished = herd()
    return Tried(name, time.monotonic() - began, peak[0] / MIB, finished)


@contextmanager
def watching() -> Iterator[list[float]]:
    """The most memory that was taken at once meanwhile."""
    before = psutil.virtual_memory().available
    peak, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], before - psutil.virtual_memory().available)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def show(tried: Tried, budget: int) -> None:
    over = "  over the budget" if tried.peak > budget else ""
    print(f"{tried.name:32} {tried.seconds:6.1f} s  peak {tried.peak:6.0f} MiB  "
          f"{tried.finished} finished{over}", flush=True)  # fmt: skip


def by_fixed(place: Path, count: int, at_once: int) -> int:
    """As `xargs -P`."""
    numbers = "\n".join(map(str, range(count)))
    script = f"{sys.executable} {place}/worker.py"
    argv = ["xargs", "-P", str(at_once), "-I{}", "sh", "-c", f"{script} && echo {{}}"]
    done = subprocess.run(argv, input=numbers, capture_output=True, text=True, check=False)
    return len(done.stdout.split())


def by_orchestra(place: Path, count: int, budget: int) -> int:
    root = place / "runs"
    shutil.rmtree(root, ignore_errors=True)
    plan = {
        "command": [sys.executable, f"{place}/worker.py"],
        "throttle": {"memory_available": psutil.virtual_memory().available - budget * MIB},
        "phases": [{"name": "herd", "workers": [{"name": f"W{i}", "brief": "b"} for i in range(count)]}],
    }
    path = place / "plan.json"
    path.write_text(json.dumps(plan))
    argv = [
        sys.executable,
        "-m",
        "orchestra",
        "run",
        str(path),
        "--run",
        "herd",
        "--root",
        str(root),
        "--json",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return int(json.loads(done.stdout)["counts"]["done"])


def by_parallel(place: Path, count: int, budget: int) -> int:
    free = psutil.virtual_memory().available - budget * MIB
    numbers = "\n".join(map(str, range(count)))
    argv = ["parallel", "--will-cite", "-j", str(count), "--memfree", str(free), "--load", "400%"]
    argv += [f"{sys.executable} {place}/worker.py && echo {{}}"]
    done = subprocess.run(argv, input=numbers, capture_output=True, text=True, check=False)
    return len(done.stdout.split())


if __name__ == "__main__":
    sys.exit(main())
