"""Findings about code that is hard to hold in mind, and about how it moves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markdown import code, count, percent, ref, verb
from told import finding, grown, places, weigh
from workplace import Json

MANY_PATHS = 15
DEEP = 7


def in_complexity(found: Json) -> Iterator[Json]:
    ours = [row for row in found["branching"] if not row["test"]] or found["branching"]
    if ours and ours[0]["paths"] > MANY_PATHS:
        worst = ours[0]
        yield finding(
            "branching", 3, grown(44, worst["paths"] / 3, 26),
            f"{code(worst['name'] + '()')} has {worst['paths']:,} paths through {worst['lines']:,} lines "
            f"({ref(worst['path'], worst['line'])}).",
            f"{found['branching_count']:,} of {found['functions']:,} Python functions have more than "
            f"{MANY_PATHS}; the median function is {count(found['median_lines'], 'line')} long.",
        )  # fmt: skip
    if found["long_count"]:
        share, longest = found["long_count"] / found["functions"], found["longest"][0]
        yield finding(
            "long", 3, grown(30, 200 * share, 22),
            f"{found['long_count']:,} of {found['functions']:,} Python functions ({percent(share, 1)}) "
            f"{verb(found['long_count'], 'is', 'are')} longer than {found['longer_than']} lines.",
            f"The longest: {code(longest['name'] + '()')}, {longest['lines']:,} lines "
            f"({ref(longest['path'], longest['line'])}).",
        )  # fmt: skip
    if found["clones_count"]:
        rows = [row for row in found["clones"] if not row["test"]] or found["clones"]
        top = rows[0]
        yield finding(
            "clones", 3, weigh(grown(38, found["clones_lines"] / 25, 26), rows),
            f"{count(found['clones_count'], 'passage stands', 'passages stand')} in the code twice, "
            f"{found['clones_lines']:,} equal lines in all.",
            f"{'All in tests; the' if top['test'] else 'The'} longest: {top['lines']:,} lines, {here(top)} "
            f"and {again(top)}.",
        )  # fmt: skip
    if number := found["silent_count"]:
        title = ("handler catches every error and says nothing", "handlers catch every error and say nothing")
        yield finding(
            "silent", 3, weigh(grown(48, number / 2, 16), found["silent"]), f"{count(number, *title)}.",
            f"{places(found['silent'], of=number)}.",
        )  # fmt: skip
    if number := found["shared_count"]:
        title = ("default argument can be changed and is", "default arguments can be changed and are")
        yield finding(
            "shared", 3, weigh(grown(34, number / 2, 16), found["shared"]),
            f"{count(number, *title)} shared by all calls.",
            f"{code(found['shared'][0]['what'])} at {places(found['shared'], of=number)}.",
        )  # fmt: skip
    if (deep := found["other_deep"]) and deep[0]["depth"] >= DEEP:
        yield finding(
            "deep", 3, grown(36, deep[0]["depth"], 14),
            f"{ref(deep[0]['path'], deep[0]['line'])} is indented {deep[0]['depth']} levels deep.",
            f"{count(len(deep), 'file')} in other languages than Python {verb(len(deep), 'goes', 'go')} "
            f"beyond {found['deeper_than']} levels, judged by indentation.",
        )  # fmt: skip


def here(clone: Json) -> str:
    return code(f"{clone['path']}:{clone['line']}-{clone['end']}")


def again(clone: Json) -> str:
    return code(f"{clone['again']}:{clone['again_line']}-{clone['again_end']}")


def in_history(history: Json, per_file: dict[str, int], edges: list[Any]) -> Iterator[Json]:
    if history["source"] == "git":
        yield from in_commits(history, per_file, edges)
    elif history["files"] > 10 and history["at_once"] / history["files"] > 0.8:
        yield finding(
            "at once", 3, 12,
            f"{history['at_once']:,} of {history['files']:,} files were last written within "
            f"one minute ({history['newest']}).",
            "They were unpacked or copied then, so dates say little about the work.",
        )  # fmt: skip


def in_commits(history: Json, per_file: dict[str, int], edges: list[Any]) -> Iterator[Json]:
    commits = history["commits"]
    busy = [row for row in history["churn"] if row["commits"] >= 5 and per_file.get(row["path"], 0) >= 20]
    if busy:
        top = min(busy, key=lambda row: (-row["commits"] * per_file[row["path"]], row["path"]))
        paths = per_file[top["path"]]
        rank = 1 + sum(1 for other in per_file.values() if other > paths)
        yield finding(
            "hotspot", 3, grown(55, 60 * top["commits"] / commits + paths / 40, 24),
            f"{code(top['path'])} is busy and difficult at once: changed in {top['commits']:,} of "
            f"{commits:,} commits, and number {rank} of {len(per_file):,} files by its {paths:,} paths.",
            f"{count(top['authors'], 'author has', 'authors have')} changed it; {top['mended']:,} of those "
            f"commits {verb(top['mended'], 'speaks', 'speak')} of a fix, a bug or a revert.",
        )  # fmt: skip
    if history["mended"] and history["mended"][0]["mended"] >= 5:
        top = history["mended"][0]
        yield finding(
            "mended", 3, grown(44, top["mended"], 16),
            f"{code(top['path'])} was touched by {top['mended']:,} of the {history['mending']:,} "
            "commits that speak of a fix, a bug or a revert.",
            f"That is {percent(top['mended'], top['commits'])} of all its {top['commits']:,} changes.",
        )  # fmt: skip
    linked = {(a, b) for source, target, _ in edges for a, b in ((source, target), (target, source))}
    if apart := [row for row in history["together"] if (row["one"], row["other"]) not in linked]:
        top = apart[0]
        yield finding(
            "together", 3, grown(38, top["together"] / 2, 14),
            f"{code(top['one'])} and {code(top['other'])} changed together in {top['together']:,} of the "
            f"{top['either']:,} commits that touch either, with no import between them.",
            f"{count(len(apart), 'such pair')}: together at least 5 times, and in half of the commits.",
        )  # fmt: skip
    share = history["one_author"] / max(history["touched_files"], 1)
    if history["authors"] > 1 and history["touched_files"] > 10 and share > 0.6:
        yield finding(
            "one author", 3, 26 + 20 * share,
            f"{percent(share, 1)} of the files were only ever changed by one person.",
            f"{history['one_author']:,} of {history['touched_files']:,} files, {history['authors']:,} "
            f"authors; the busiest made {percent(history['top_author_commits'], commits)} of the commits.",
        )  # fmt: skip
