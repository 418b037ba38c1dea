"""After the night: everything has come to its end, and it adds up."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cast import KINDS, Night

FORCED = {"stopped", "signal", "lost", "oom"}  # right for whoever was stopped or killed on the way
PATIENCE_S = 300.0


def account(night: Night, runs: tuple[str, ...]) -> Iterator[str]:
    """Every fault that is found."""
    for run in runs:
        bring_to_its_end(night, run)
        _, status = night.orchestra("status", run, "--limit", "0")
        yield from ends(night, run, {row["name"]: row for row in status["workers"]})
        yield from events(night.orchestra.root / run)
        if status["lock"]["held"]:
            yield f"{run}: its lock is held"
    yield from leftovers(night)
    yield from litter(night, runs)


def bring_to_its_end(night: Night, run: str) -> None:
    """As a narrator would: start what waits, wait for what runs."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        night.orchestra("spawn", run, "--phase", "p")
        _, answer = night.orchestra("wait", run, "--drain", "--keep-going", "--timeout", "60")
        if answer["outcome"] in ("ended", "failed"):
            return
    night.faults.append(f"{run} did not come to its end within {PATIENCE_S:g} s")


def ends(night: Night, run: str, rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    asked = night.asked[run]
    for name in asked.keys() - rows.keys():
        yield f"{run}: {name} was asked for and is not there"
    for name, row in rows.items():
        end = row["verdict"] or row["state"]
        right = set(KINDS[asked[name]].ends) if name in asked else {"done"}
        if (run, name) in night.stopped:
            right |= FORCED
        if end not in right:
            yield f"{run}: {name} ended as {end} ({row['reason']}), and not as {' or '.join(sorted(right))}"


def events(run_dir: Path) -> Iterator[str]:
    """Each attempt is started once at most, and ends once."""
    lines = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines() if line.strip()]
    seen = Counter((e["kind"], e["worker"], e["attempt"]) for e in lines if e["kind"] in ("spawned", "ended"))
    for (kind, worker, attempt), count in seen.items():
        if count > 1:
            yield f"{run_dir.name}: attempt {attempt} of {worker} {kind} {count} times"
    ops = [line["op"] for line in lines]
    if ops != sorted(set(ops)):
        yield f"{run_dir.name}: operations do not grow"


def leftovers(night: Night) -> Iterator[str]:
    """Processes that belong to no one any more."""
    needle = os.fsencode(str(night.place))
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                environ = Path(f"/proc/{entry}/environ").read_bytes()
                words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            if needle in environ and b"wait" not in words:  # the one that watches all night
                yield f"process {entry} is left: {words.decode(errors='replace')[:100]}"


def litter(night: Night, runs: tuple[str, ...]) -> Iterator[str]:
    for path in night.orchestra.tmp.iterdir():
        yield f"left in the temporary directory: {path.name}"
    for run in runs:
        for path in (night.orchestra.root / run).rglob("*"):
            made = path.name.endswith(".new") or path.name in ("reserve", "grace")
            if made or ".gone-" in path.name:
                yield f"left in {run}: {path.relative_to(night.orchestra.root / run)}"
