#!/usr/bin/env python3
"""Whether the demonstration came out as it must; called by `scripts/demo`.

    verify.py survey STATUS.json RUN_DIR
    verify.py replay SPAWN.json STATUS.json RUN_DIR

Reads what orchestra answered (`--json`) and what lies in the run directory. Prints a line for each thing that
holds, a plain sentence on standard error for each that does not, and then exits with 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from workplace import Json

WORKERS = 11
SPAWNED, DEFERRED, FAILED = ["W1", "W2", "W5"], ["W3"], ["W4"]


class Checks:
    def __init__(self) -> None:
        self.failed = 0

    def that(self, holds: bool, good: str, bad: str) -> None:
        if holds:
            print(f"  ok  {good}")
        else:
            self.failed += 1
            print(f"  NOT AS IT MUST BE: {bad}", file=sys.stderr)


def load(path: Path) -> Json:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"  NOT AS IT MUST BE: {path} holds no JSON answer ({error})")
    if not isinstance(value, dict):
        sys.exit(f"  NOT AS IT MUST BE: {path} is no JSON object")
    return value


def survey(checks: Checks, status: Json, run_dir: Path) -> None:
    rows = status.get("workers", [])
    done = [row["name"] for row in rows if row["state"] == "done"]
    others = ", ".join(f"{row['name']} is {row['state']}" for row in rows if row["state"] != "done")
    counts = f"{len(done)} of {len(rows)} workers are done"
    checks.that(
        len(done) == len(rows) == WORKERS,
        counts,
        f"{counts}, not {WORKERS}: {others or 'too few in the run'}",
    )
    report = run_dir / "out-Merger" / "report.md"
    size = report.stat().st_size if report.is_file() else 0
    checks.that(size > 0, f"the report is there, {size:,} bytes", f"there is no report at {report}")


def replay(checks: Checks, spawn: Json, status: Json, run_dir: Path) -> None:
    for bucket, expected in (("spawned", SPAWNED), ("deferred", DEFERRED), ("failed", FAILED)):
        names = sorted(row["name"] for row in spawn.get(bucket, []))
        said = f"{bucket} {len(names)} ({', '.join(names) or 'nobody'})"
        checks.that(names == expected, said, f"{said}, and it must be {', '.join(expected)}")
    signals = [signal["signal"] for row in spawn.get("deferred", []) for signal in row.get("signals", [])]
    checks.that(
        signals == ["memory_available"],
        "W3 was deferred for memory, with the figures",
        f"W3 must be deferred for its memory limit alone; the signals are {signals}",
    )
    states = {row["name"]: row for row in status.get("workers", [])}
    for name in SPAWNED:
        state = states.get(name, {}).get("state")
        checks.that(state == "done", f"{name} is done", f"{name} must be done by now and is {state}")
    verdict = states.get("W4", {}).get("verdict")
    checks.that(verdict == "spawn_error", "W4's verdict is spawn_error", f"W4's verdict is {verdict}")
    path = run_dir / ".spawn-W4.error"
    sentinel = load(path) if path.is_file() else {}
    line, command = sentinel.get("line"), sentinel.get("command")
    checks.that(
        isinstance(line, int) and line > 0 and bool(command),
        f"its launcher left line {line} and the command: {command}",
        f"W4's launcher must leave its line and command in {path}",
    )


def main(arguments: list[str]) -> int:
    checks = Checks()
    match arguments:
        case ["survey", status, run_dir]:
            survey(checks, load(Path(status)), Path(run_dir))
        case ["replay", spawn, status, run_dir]:
            replay(checks, load(Path(spawn)), load(Path(status)), Path(run_dir))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
