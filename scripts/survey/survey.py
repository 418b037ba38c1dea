#!/usr/bin/env python3
"""One worker of the survey: `survey.py NAME`, started by orchestra, with its brief on standard input.

The name says the role: Diagnose, Recon, Research-1 … Research-3, Planner, Builder-1 … Builder-4, Merger.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from chapters import build
from complexity import complexity
from diagnose import diagnose
from history import history
from merger import merge
from planner import plan
from recon import recon
from words import words
from workplace import SurveyError, Workplace

ROLES: dict[str, Callable[[Workplace], str]] = {
    "Diagnose": diagnose,
    "Recon": recon,
    "Research-1": complexity,
    "Research-2": history,
    "Research-3": words,
    "Planner": plan,
    "Builder-1": build,
    "Builder-2": build,
    "Builder-3": build,
    "Builder-4": build,
    "Merger": merge,
}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in ROLES:
        print(f"usage: survey.py NAME, where NAME is one of {', '.join(ROLES)}", file=sys.stderr)
        return 2
    name = arguments[0]
    started = time.monotonic()
    try:
        place = Workplace.from_environment(name)
        place.beat()
        told = ROLES[name](place)
        place.write_json("timing.json", {"wall_s": time.monotonic() - started, "cpu_s": time.process_time()})
    except SurveyError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    print(f"{name}: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
