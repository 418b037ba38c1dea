"""A long night in short.

For as long as it is told (30 minutes at least count), in a few runs at once: workers of many kinds
are asked for; narrators conduct, die by SIGKILL in the middle of what they do, and are replaced;
memory, CPUs and launchers come under pressure. Then everything is let come to its end, and it has
to add up: every worker ended as its kind must, nothing is left of any, and neither the log nor a
command that watched all night has grown by more than its workers.

What happens is drawn from the seed; when, from the machine.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from account import account
from cast import Night, Orchestra, narrate, press
from watcher import Watcher

RUNS = ("ash", "birch", "cedar")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="leave the runs where they are, to look at")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else random.randrange(1 << 32)
    print(f"scripts/soak --minutes {given.minutes:g} --seed {seed}", flush=True)
    place = Path(tempfile.mkdtemp(prefix="orchestra-soak-"))
    night = Night(place, Orchestra(place), time.monotonic() + given.minutes * 60)
    for run in RUNS:
        night.orchestra("init", run, "--plan", str(night.plan()))
    threads = [
        threading.Thread(target=narrate, args=(night, run, random.Random(f"{seed} {run}")), name=run)
        for run in RUNS
    ]
    threads.append(threading.Thread(target=press, args=(night, random.Random(f"{seed} press")), name="press"))
    with Watcher(night, RUNS[0]) as watcher:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(min(30.0, max(1.0, given.minutes * 6)))
            print(f"{night.left_s() / 60:5.1f} min left: {night.tally()}", flush=True)
            watcher.measure()
        for thread in threads:
            thread.join()
        faults = [*night.faults, *account(night, RUNS)]
        faults += watcher.faults(given.minutes)
    for fault in faults:
        print(f"FAULT: {fault}")
    print(f"seed {seed}: {night.tally()}; {len(faults)} faults")
    if faults or given.keep:
        print(f"the runs are in {place}")
    else:
        night.remove()
    return 1 if faults else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.pop("ORCHESTRA_NARRATOR", None)
    sys.exit(main())
