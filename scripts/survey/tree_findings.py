"""Findings about what lies in the tree, and how its files hang together."""

from __future__ import annotations

import math
from collections.abc import Iterator

from markdown import code, count, listed, percent, ref, size
from told import Rows, finding, grown, places, weigh, where
from workplace import Json

# (the kind in the inventory, the same for a single one, score)
ODD = (
    ("names that differ only in case", "", 60),
    ("files that cannot be read", "file that cannot be read", 58),
    ("directories that cannot be read", "directory that cannot be read", 58),
    ("names with control characters", "name with control characters", 55),
    ("names that are not UTF-8", "name that is not UTF-8", 52),
    ("links that lead nowhere", "link that leads nowhere", 50),
    ("files that mix CRLF and LF", "file that mixes CRLF and LF", 30),
    ("text files that are not UTF-8", "text file that is not UTF-8", 28),
    ("dated in the future", "dated in the future", 26),
)
WORTH_TELLING = 1024  # bytes in copies


def in_inventory(inventory: Json) -> Iterator[Json]:
    for kind, one, score in ODD:
        if kind in inventory["odd"]:
            number = inventory["odd"][kind]["count"]
            shown = ", ".join(code(path) for path in inventory["odd"][kind]["examples"][:3])
            rest = f" and {number - 3:,} more" if number > 3 else ""
            yield finding(
                f"odd: {kind}", 1, grown(score, number / 5, 8), f"{count(number, one, kind)}.",
                f"{shown}{rest}.",
            )  # fmt: skip
    same = [group for group in inventory["duplicates"] if group["bytes"] >= 64]
    wasted = sum(group["wasted"] for group in same)
    if wasted >= WORTH_TELLING:
        copies, first = sum(len(group["paths"]) - 1 for group in same), same[0]
        yield finding(
            "duplicates", 1, grown(15, 5 * math.log10(wasted), 30),
            f"{count(copies, 'file is a copy', 'files are copies')} of another, byte for byte: "
            f"{size(wasted)} in copies.",
            f"The largest: {listed([code(p) for p in first['paths']], 2)}, {size(first['bytes'])} each.",
        )  # fmt: skip
    files = [f for f in inventory["files"] if f["kind"] not in {"symlink", "broken_symlink", "special"}]
    total = sum(f["bytes"] for f in files)
    largest = sorted(files, key=lambda f: (-f["bytes"], f["path"]))[:3]
    share = sum(f["bytes"] for f in largest) / max(total, 1)
    if len(files) > 9 and share > 0.2:
        yield finding(
            "weight", 1, 10 + 20 * share,
            f"Three of {len(files):,} files hold {percent(share, 1)} of all bytes.",
            ", ".join(f"{code(f['path'])} {size(f['bytes'])}" for f in largest) + ".",
        )  # fmt: skip


def in_structure(structure: Json) -> Iterator[Json]:
    graph, tests = structure["graph"], structure["tests"]
    if structure["unparsed"]:
        yield unparsed(structure["unparsed"])
    if graph["cycles"]:
        yield circles(graph["cycles"])
    if not tests["test_files"] and tests["code_lines"] >= 200:
        yield finding(
            "no tests", 2, 72, f"No test is in sight beside {tests['code_lines']:,} lines of code.",
            "Looked for: directories called test or spec, names such as test_x.py, x_test.go, x.spec.ts.",
        )  # fmt: skip
    elif tests["missed_count"] and tests["reached_count"]:
        share = tests["missed_count"] / tests["python_files"]
        shown = ", ".join(f"{code(row['path'])} ({row['lines']:,} lines)" for row in tests["missed"][:3])
        beside = tests["starting"]
        blind = f"{beside:,} of {count(tests['test_files'], 'test file')} start programs; that does not show."
        yield finding(
            "untested", 2, (24 if beside else 36) + 22 * share,
            f"The tests' imports never lead to {tests['missed_count']:,} of {tests['python_files']:,} Python "
            f"files ({percent(share, 1)}), directly or through others.",
            f"Largest first: {shown}." + (f" {blind}" if beside else ""),
        )  # fmt: skip
    if graph["unused_count"] and graph["imports"]:
        # Where most modules stand alone, it is a library or a heap of scripts, and says little
        alone = graph["unused_count"] / max(graph["python"], 1)
        title = ("Python module is imported by nothing here and does not look like a program",
                 "Python modules are imported by nothing here and do not look like programs")  # fmt: skip
        yield finding(
            "unused", 2, grown(32, graph["unused_count"], 14) if alone < 0.3 else 20,
            f"{count(graph['unused_count'], *title)}.",
            f"{places(graph['unused'], of=graph['unused_count'])}: dead, loaded by name, or for others.",
        )  # fmt: skip


def unparsed(rows: Rows) -> Json:
    ours = sorted(rows, key=lambda row: (row["test"], row["path"]))
    then = f"; then {places(ours[1:], 2)}" if ours[1:] else ""
    return finding(
        "unparsed", 2, weigh(85, rows),
        f"{count(len(rows), 'Python file does', 'Python files do')} not parse{where(rows)}.",
        f"{ref(ours[0]['path'], ours[0]['line'])}: {ours[0]['why']}{then}.",
    )  # fmt: skip


def circles(cycles: Rows) -> Json:
    largest = cycles[0]
    steps = [ref(step["path"], step["line"]) for step in largest["way"]]
    way = " → ".join(steps[:4]) + (f" → {len(steps) - 4} more" if len(steps) > 4 else "")
    title = ("group of files imports itself", "groups of files import themselves")
    return finding(
        "cycles", 2, grown(52, 2 * largest["files"], 24),
        f"{count(len(cycles), *title)} in a circle while loading; the largest has {largest['files']:,}.",
        f"A shortest way round it: {way} → back.",
    )  # fmt: skip
