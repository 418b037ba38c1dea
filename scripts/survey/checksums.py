#!/usr/bin/env python3
"""A worker of the replay: checksums of the part of the target that its brief names (`part 2 of 4`).

The list is what `sha256sum` prints, so that `sha256sum --check` can read it, run in the target.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys

import checkout
from tree import read_whole, walk
from workplace import SurveyError, Workplace

MOST_FILES = 2_000


def main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "worker"
    try:
        place = Workplace.from_environment(name)
        asked = re.search(r"part ([0-9]+) of ([1-9][0-9]*)", place.brief)
        if asked is None:
            raise SurveyError("the brief names no part: it should say, for instance, `part 2 of 4`")
        lines, unread = checksums(place, int(asked[1]), int(asked[2]))
    except SurveyError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    # A part of an empty directory has no files; a comment keeps that apart from a worker that wrote nothing
    text = "".join(lines) or f"# part {asked[1]} of {asked[2]} has no files\n"
    whole = place.out / ".checksums.txt"
    whole.write_bytes(os.fsencode(text))
    whole.replace(place.out / "checksums.txt")
    print(
        f"{name}: {len(lines)} files of {asked[0]}"
        + (f", {unread} too large or unreadable" if unread else "")
    )
    return 0


def checksums(place: Workplace, part: int, of: int) -> tuple[list[str], int]:
    ignored = frozenset() if checkout.why_not(place.target) else checkout.ignored(place.target)
    seen = walk(place.target, ignored, MOST_FILES, place.beat)
    paths = [entry.path for entry in seen.entries if entry.kind == "file"]
    lines, unread = [], 0
    for path in paths[part - 1 :: of]:
        place.beat()
        content = read_whole(place.target / path)
        if content is None:
            unread += 1
            continue
        quoted = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        mark = "\\" if quoted != path else ""
        lines.append(f"{mark}{hashlib.sha256(content).hexdigest()}  {quoted}\n")
    return lines, unread


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
