"""Where a worker stands: what it was asked, what others left for it, where it writes, how it shows life.

A worker reads any out-NAME directory of the run and writes only into its own. Files appear whole.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

BRIEF_LIMIT = 64 * 1024
BEAT_EVERY_S = 0.5
HERE = Path(__file__).resolve().parent


class SurveyError(Exception):
    """The worker cannot do what it was asked; the message says why and what to do."""


@dataclass
class Workplace:
    """One worker's surroundings, taken from the environment that orchestra gives it."""

    name: str
    target: Path
    run_dir: Path
    out: Path
    heartbeat: Path | None
    brief: str
    beaten_at: float = 0.0

    @classmethod
    def from_environment(cls, name: str) -> Workplace:
        run_dir, out = os.environ.get("ORCHESTRA_RUN_DIR"), os.environ.get("ORCHESTRA_OUT")
        if not run_dir or not out:
            raise SurveyError("ORCHESTRA_RUN_DIR and ORCHESTRA_OUT are not set: run me through `orchestra`")
        target = Path(os.environ.get("SURVEY_TARGET") or HERE.parent.parent).absolute()
        if not target.is_dir():
            raise SurveyError(f"SURVEY_TARGET is not a directory: {target}")
        Path(out).mkdir(parents=True, exist_ok=True)
        heartbeat = os.environ.get("ORCHESTRA_HEARTBEAT")
        return cls(
            name, target, Path(run_dir), Path(out), Path(heartbeat) if heartbeat else None, read_brief()
        )

    def beat(self) -> None:
        """Touch the heartbeat file, at most twice a second. Failing to is no reason to stop working."""
        now = time.monotonic()
        if self.heartbeat is None or now - self.beaten_at < BEAT_EVERY_S:
            return
        self.beaten_at = now
        try:
            self.heartbeat.touch()
        except OSError:
            self.heartbeat = None

    def number(self, pattern: str, default: int) -> int:
        """A figure that the brief names, e.g. `longer than (N) lines`; `(N)` stands for the number."""
        found = re.search(pattern.replace("(N)", r"([0-9][0-9,]*)"), self.brief)
        return int(found[1].replace(",", "")) if found else default

    def left_by(self, worker: str, file: str) -> Json:
        path = self.run_dir / f"out-{worker}" / file
        try:
            value: Json = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise SurveyError(f"{worker} left no {file}: has its phase been run? ({path})") from None
        except ValueError as error:
            raise SurveyError(f"{path} is not readable JSON: {error}") from None
        return value

    def write_json(self, file: str, value: Json) -> None:
        # ASCII only: a file name that is not UTF-8 survives as an escaped lone surrogate
        self.write_text(file, json.dumps(value, indent=1, sort_keys=True) + "\n")

    def write_text(self, file: str, text: str) -> None:
        path = self.out / file
        whole = path.with_name(f".{file}.{os.getpid()}")
        whole.write_text(text, "utf-8")
        whole.replace(path)


def read_brief() -> str:
    """What stands on standard input; nothing where that is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    return " ".join(sys.stdin.buffer.read(BRIEF_LIMIT).decode("utf-8", "replace").split())
