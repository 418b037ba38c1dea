"""Passages that stand in the code twice: runs of equal lines, whatever their indentation."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass

from languages import comment_marker
from tree import texts
from workplace import Json, Workplace

MAX_LINES = 400_000
IMPORTS = re.compile(r"(import|from|use|using|#\s*include|require|package|export \*)\b")


@dataclass
class Passage:
    """A file's lines that say something: their numbers, and for each an identity that equal lines share."""

    path: str
    test: bool
    numbers: list[int]
    words: array[int]


def find_clones(place: Workplace, files: list[Json], at_least: int) -> tuple[list[Json], list[str]]:
    """Passages of `at_least` significant lines that stood before, longest first; and what was cut."""
    passages, cut = significant(place, files)
    first: dict[bytes, tuple[int, int]] = {}
    clones: list[Json] = []
    for index, passage in enumerate(passages):
        place.beat()
        position, end = 0, len(passage.words) - at_least
        while position <= end:
            window = passage.words[position : position + at_least]
            there = first.setdefault(window.tobytes(), (index, position))
            apart = there[0] != index or position - there[1] >= at_least
            if there == (index, position) or not apart or len(set(window)) < at_least // 2 + 1:
                position += 1
                continue
            length = extend(passages[there[0]], there[1], passage, position, at_least)
            clones.append(describe(passages[there[0]], there[1], passage, position, length))
            position += length
    clones.sort(key=lambda clone: (-clone["lines"], clone["path"], clone["line"]))
    return clones, cut


def significant(place: Workplace, files: list[Json]) -> tuple[list[Passage], list[str]]:
    identities: dict[str, int] = {}
    passages: list[Passage] = []
    lines = 0
    for file, text in texts(place.target, files, place.beat):
        if lines > MAX_LINES:
            return passages, [
                f"equal passages were looked for in the first {len(passages):,} code files only"
            ]
        marker = re.compile(r"\s*(?:" + comment_marker(str(file["language"])) + ")")
        numbers: list[int] = []
        words = array("I")
        for number, line in enumerate(text.split("\n"), 1):
            plain = line.strip()
            if len(plain) > 3 and any(c.isalnum() for c in plain) and not marker.match(line):
                if IMPORTS.match(plain):
                    continue
                numbers.append(number)
                words.append(identities.setdefault(plain, len(identities)))
        passages.append(Passage(str(file["path"]), bool(file.get("test")), numbers, words))
        lines += len(numbers)
    return passages, []


def extend(one: Passage, at: int, other: Passage, start: int, length: int) -> int:
    """How many lines are equal from there on; within one file, not so far that the two would overlap."""
    limit = min(len(one.words) - at, len(other.words) - start)
    if one is other:
        limit = min(limit, start - at)
    while length < limit and one.words[at + length] == other.words[start + length]:
        length += 1
    return length


def describe(one: Passage, at: int, other: Passage, start: int, length: int) -> Json:
    return {
        "path": one.path, "line": one.numbers[at], "end": one.numbers[at + length - 1],
        "again": other.path, "again_line": other.numbers[start],
        "again_end": other.numbers[start + length - 1],
        "lines": length, "test": one.test and other.test,
    }  # fmt: skip
