"""A line of the bench's table, and what every measure needs to call the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ORCHESTRA = str(Path(sys.executable).with_name("orchestra"))


class Row:
    """A line of the table."""

    def __init__(self, what: str, value: str, limit: str, kept: bool | None) -> None:
        self.what, self.value, self.limit, self.kept = what, value, limit, kept

    def __str__(self) -> str:
        mark = {True: "kept", False: "NOT KEPT", None: ""}[self.kept]
        return f"| {self.what} | {self.value} | {self.limit} | {mark} |"


def orchestra(root: Path, *words: str, stdin: str = "") -> dict[str, Any]:
    done = subprocess.run(
        [ORCHESTRA, "--root", str(root), *words], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["ok"], answer
    return answer


class Cost(NamedTuple):
    """What one call cost."""

    wall_s: float
    cpu_s: float
    peak_bytes: int  # resident


def cost_of(argv: list[str], *, stdin: str = "") -> Cost:
    """Raises CalledProcessError. The caller stays small: a child's peak counts from its fork on."""
    began = time.perf_counter()
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert child.stdin is not None
    child.stdin.write(stdin)
    child.stdin.close()
    _, status, used = os.wait4(child.pid, 0)
    took = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, argv)
    return Cost(took, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def cpu_of(argv: list[str]) -> float:
    return cost_of(argv).cpu_s
