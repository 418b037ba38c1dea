"""Research-3: what the target says about itself. Work left over, docstrings, links, vocabulary."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from typing import Any

from imports import parse
from languages import comment_marker
from links import broken_links
from tree import texts
from vocabulary import Vocabulary
from workplace import Json, Workplace

PROMISE = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
PRIVATE_KEY = re.compile(r"^-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----", re.MULTILINE)
CONFLICT = re.compile(r"^<<<<<<< .+\n(?:.*\n)*?=======\n(?:.*\n)*?>>>>>>> ", re.MULTILINE)
TOP_FILES = ("README", "LICEN", "COPYING")
KEPT = 40
QUOTED = 160


def words(place: Workplace) -> str:
    files = [f for f in place.left_by("Diagnose", "inventory.json")["files"] if f["kind"] == "text"]
    written = [f for f in files if not f.get("generated") and not f.get("vendored")]
    said = Said()
    for file, text in texts(place.target, [f for f in written if f["purpose"] != "data"], place.beat):
        said.listen(file, text)
    pages = [f for f in written if f["language"] == "Markdown"]
    most = place.number(r"at most (N) links", 5000)
    missing, checked, elsewhere = broken_links(place, pages, most)
    about_links = {
        "broken_links": missing[:KEPT], "broken_count": len(missing), "links": checked,
        "links_elsewhere": elsewhere, "cut": [f"links: only the first {most:,}"] if checked >= most else [],
    }  # fmt: skip
    top = {f["path"].upper() for f in files if "/" not in f["path"]}
    has = {what: any(name.startswith(what) for name in top) for what in TOP_FILES}
    place.write_json("words.json", said.as_json() | about_links | {"has": has})
    left = f"{len(said.promises):,} comments on work left over"
    return f"{left}, {len(missing):,} of {checked:,} links lead nowhere"


class Said:
    """What was heard so far."""

    def __init__(self) -> None:
        self.promises: list[Json] = []
        self.keys: list[Json] = []
        self.conflicts: list[Json] = []
        self.documented = Documented()
        self.vocabulary = Vocabulary()

    def listen(self, file: Json, text: str) -> None:
        path, language, test = file["path"], file["language"], bool(file.get("test"))
        here: Json = {"path": path, "test": test}
        self.keys += [here | {"line": line} for line in lines_of(PRIVATE_KEY, text)]
        if "\n>>>>>>> " in text:
            self.conflicts += [here | {"line": line} for line in lines_of(CONFLICT, text)]
        if file["purpose"] == "code":
            self.promises += [here | promise for promise in promised(text, language)]
            self.vocabulary.listen(path, text)
            if language == "Python" and not test:
                self.documented.look(path, parse(text))

    def as_json(self) -> Json:
        return {
            "promises": self.promises[:KEPT],
            "promises_count": len(self.promises),
            "promises_by_word": dict(sorted(Counter(row["word"] for row in self.promises).items())),
            "promises_by_file": Counter(row["path"] for row in self.promises).most_common(5),
            "documented": self.documented.as_json(),
            "private_keys": self.keys[:KEPT],
            "conflicts": self.conflicts[:KEPT],
            "vocabulary": self.vocabulary.most_told(16),
            "two_ways": self.vocabulary.two_ways(),
        }


def lines_of(pattern: re.Pattern[str], text: str) -> Iterator[int]:
    return (text.count("\n", 0, found.start()) + 1 for found in pattern.finditer(text))


def promised(text: str, language: str) -> Iterator[Json]:
    """Comments with TODO, FIXME, XXX or HACK. In Python by its tokens, so never within a string."""
    if not PROMISE.search(text):
        return
    for number, comment in python_comments(text) if language == "Python" else comments(text, language):
        if found := PROMISE.search(comment):
            yield {"line": number, "word": found[1], "text": comment.strip()[:QUOTED]}


def python_comments(text: str) -> Iterator[tuple[int, str]]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
    except (tokenize.TokenError, SyntaxError):
        return  # what does not parse is told elsewhere


def comments(text: str, language: str) -> Iterator[tuple[int, str]]:
    marker = re.compile(comment_marker(language))
    for number, line in enumerate(text.split("\n"), 1):
        if opened := marker.search(line):
            yield number, line[opened.start() :]


class Documented:
    """Public modules, classes and functions of Python code, and how many of them carry a docstring."""

    def __init__(self) -> None:
        self.public: Counter[str] = Counter()
        self.with_text: Counter[str] = Counter()
        self.bare: list[Json] = []

    def look(self, path: str, tree: ast.Module | str) -> None:
        if isinstance(tree, str) or not tree.body:
            return
        total, bare = 0, []
        for kind, node in public_things(tree):
            documented = ast.get_docstring(node, clean=False) is not None
            self.public[kind] += 1
            self.with_text[kind] += documented
            total += 1
            if not documented:
                bare.append(getattr(node, "lineno", 1))
        if bare:
            self.bare.append({"path": path, "bare": len(bare), "public": total, "line": bare[0]})

    def as_json(self) -> Json:
        return {
            "public": dict(sorted(self.public.items())),
            "with_text": dict(sorted(self.with_text.items())),
            "bare": sorted(self.bare, key=lambda row: (-row["bare"], row["path"]))[:12],
        }


def public_things(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    yield "modules", tree
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and is_public(node):
            yield "classes", node
            methods = (
                inner for inner in node.body if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            )
            yield from (("methods", inner) for inner in methods if is_public(inner))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_public(node):
            yield "functions", node


def is_public(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return not node.name.startswith("_")
