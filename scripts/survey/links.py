"""Links of Markdown files that lead to nothing in the target: to no file, or to no heading of one."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote

from tree import texts
from workplace import Json, Workplace

INLINE = re.compile(r"!?\[[^\]\n]*\]\(\s*<?([^)>\s]+)>?(?:\s+[\"'(][^)\n]*)?\s*\)")
DEFINED = re.compile(r"^ {0,3}\[[^\]^\n][^\]\n]*\]:\s*<?([^\s>]+)", re.MULTILINE)
FENCED = re.compile(r"^ {0,3}(```+|~~~+)[^\n]*\n.*?(?:^ {0,3}\1[`~]*\s*$|\Z)", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//|/|\{|<|mailto:")
HEADING = re.compile(
    r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$|^([^\n]+)\n {0,3}(?:=+|-{2,})[ \t]*$", re.MULTILINE
)
NAMED = re.compile(r"""\b(?:id|name)\s*=\s*["']?([^"'\s>]+)|\{#([^}\s]+)""")


def broken_links(place: Workplace, files: list[Json], limit: int) -> tuple[list[Json], int, int]:
    """(links that lead nowhere, links followed, links to other places, which nobody followed)."""
    broken: list[Json] = []
    checked = elsewhere = 0
    anchors: dict[str, set[str]] = {}
    pages = {str(file["path"]): (file, text) for file, text in texts(place.target, files, place.beat)}
    for path, (file, text) in pages.items():
        for line, link in links(text):
            if checked >= limit:
                return broken, checked, elsewhere
            leads_to, _, anchor = link.partition("#")
            leads_to = unquote(leads_to.partition("?")[0], errors="surrogateescape")
            there = (
                posixpath.normpath(posixpath.join(posixpath.dirname(path), leads_to)) if leads_to else path
            )
            if ELSEWHERE.match(link) or there.startswith(".."):
                elsewhere += 1
                continue
            checked += 1
            why = ""
            if not exists(place, there):
                why = "no such file"
            elif anchor and there in pages:
                if there not in anchors:
                    anchors[there] = headings(pages[there][1])
                if unquote(anchor).lower() not in anchors[there] and not re.fullmatch(r"L\d+.*|top", anchor):
                    why = "no such heading"
            if why:
                broken.append(
                    {"path": path, "line": line, "link": link, "why": why, "test": bool(file.get("test"))}
                )
    return broken, checked, elsewhere


def exists(place: Workplace, path: str) -> bool:
    try:
        return os.path.lexists(place.target / path)
    except ValueError:  # a NUL in the name
        return False


def links(text: str) -> Iterator[tuple[int, str]]:
    """(line, target) of each link outside code and comments, in order."""
    plain = blank(COMMENT, blank(CODE_SPAN, blank(FENCED, text)))
    found = [*INLINE.finditer(plain), *DEFINED.finditer(plain)]
    for match in sorted(found, key=lambda match: match.start(1)):
        yield plain.count("\n", 0, match.start(1)) + 1, match[1]


def blank(pattern: re.Pattern[str], text: str) -> str:
    """The text with what matches made empty, its line breaks kept."""
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)


def headings(text: str) -> set[str]:
    """The anchors of a page, as GitHub names them, and those that it names itself."""
    anchors: dict[str, int] = {}
    for match in HEADING.finditer(blank(FENCED, text)):
        title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|<[^>]*>", r"\1", match[1] or match[2])
        slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        count = anchors.setdefault(slug, 0)
        anchors[slug] += 1
        if count:
            anchors.setdefault(f"{slug}-{count}", 1)
    named = {(match[1] or match[2]).lower() for match in NAMED.finditer(text)}
    return set(anchors) | named
