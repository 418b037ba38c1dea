"""Research-1: where code is hard to hold in mind: long, branching, deep, silent about errors, said twice."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from clones import find_clones
from imports import parse
from tree import texts
from workplace import Json, Workplace

Function = ast.FunctionDef | ast.AsyncFunctionDef
BRANCHES = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.Assert,
    ast.comprehension,
)
NESTING = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith, ast.Match)
# Where indentation says little
INDENTED = {"Make", "HTML", "CSS", "Emacs Lisp", "Clojure", "Assembly", "Vue", "Svelte"}
KEPT = 40


def complexity(place: Workplace) -> str:
    longer_than = place.number(r"longer than (N) lines", 60)
    deeper_than = place.number(r"deeper than (N) levels", 5)
    files = [f for f in place.left_by("Diagnose", "inventory.json")["files"] if is_ours(f)]
    measured = Measured()
    for file, text in texts(place.target, files, place.beat):
        measured.look(file, text)
    clones, cut = find_clones(place, files, place.number(r"at least (N) equal lines", 10))
    long = sum(1 for row in measured.functions if row["lines"] > longer_than)
    about_clones = {
        "clones": clones[:KEPT], "clones_count": len(clones), "clones_lines": sum(c["lines"] for c in clones),
    }  # fmt: skip
    limits = {"longer_than": longer_than, "deeper_than": deeper_than, "long_count": long}
    place.write_json("complexity.json", measured.as_json(deeper_than) | about_clones | limits | {"cut": cut})
    said = f"{long:,} of {len(measured.functions):,} functions longer than {longer_than} lines"
    return f"{said}, {len(clones):,} passages said twice"


def is_ours(file: Json) -> bool:
    written = not file.get("generated") and not file.get("vendored")
    return file["kind"] == "text" and file["purpose"] == "code" and written


class Measured:
    """What was found so far, a row for each function, handler, default or file."""

    def __init__(self) -> None:
        self.functions: list[Json] = []
        self.silent: list[Json] = []
        self.shared: list[Json] = []
        self.other: list[Json] = []
        self.per_file: dict[str, int] = {}

    def look(self, file: Json, text: str) -> None:
        about: Json = {"path": file["path"], "test": bool(file.get("test"))}
        tree = parse(text) if file["language"] == "Python" else None
        if isinstance(tree, ast.Module):
            functions = [about | row for row in measure(tree)]
            self.functions += functions
            self.per_file[file["path"]] = sum(row["paths"] for row in functions)
            self.silent += [about | row for row in swallowed(tree)]
            self.shared += [about | row for row in shared_defaults(tree)]
        elif file["language"] not in INDENTED:
            self.other.append(about | depth_by_indentation(text) | {"language": file["language"]})

    def as_json(self, deeper_than: int) -> Json:
        lengths = [row["lines"] for row in self.functions]
        return {
            "functions": len(self.functions),
            "median_lines": middle(lengths),
            "lengths": spread(lengths),
            "longest": rank(self.functions, "lines"),
            "branching": rank(self.functions, "paths"),
            "branching_count": sum(1 for row in self.functions if row["paths"] > 15),
            "per_file": self.per_file,
            "silent": by_place(self.silent),
            "silent_count": len(self.silent),
            "shared": by_place(self.shared),
            "shared_count": len(self.shared),
            "other_longest": rank(self.other, "lines"),
            "other_deep": rank([row for row in self.other if row["depth"] > deeper_than], "depth"),
        }


def rank(rows: list[Json], by: str) -> list[Json]:
    return sorted(rows, key=lambda row: (-row[by], row["path"], row["line"]))[:KEPT]


def by_place(rows: list[Json]) -> list[Json]:
    return sorted(rows, key=lambda row: (row["test"], row["path"], row["line"]))[:KEPT]


def middle(values: list[int]) -> int:
    return sorted(values)[len(values) // 2] if values else 0


def spread(values: list[int]) -> list[Json]:
    edges = (5, 10, 20, 40, 80, 160)
    rows = [{"upto": upto, "count": 0} for upto in (*edges, 0)]
    for value in values:
        rows[next((n for n, upto in enumerate(edges) if value <= upto), len(edges))]["count"] += 1
    return rows


def measure(tree: ast.Module) -> Iterator[Json]:
    """Each function's lines, paths (cyclomatic complexity), depth; inner functions count on their own."""
    stack: list[tuple[ast.AST, str]] = [(tree, "")]
    while stack:
        node, prefix = stack.pop()
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, Function | ast.ClassDef):
                name = f"{prefix}.{child.name}" if prefix else child.name
            if isinstance(child, Function):
                paths, depth = branches(child)
                lines = (child.end_lineno or child.lineno) - child.lineno + 1
                yield {"name": name, "line": child.lineno, "lines": lines, "paths": paths, "depth": depth}
            stack.append((child, name))


def branches(function: Function) -> tuple[int, int]:
    """(cyclomatic complexity, deepest nesting). An `elif` nests no deeper than its `if`."""
    paths, deepest = 1, 0
    stack: list[tuple[ast.AST, int]] = [(child, 0) for child in function.body]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, Function | ast.ClassDef | ast.Lambda):
            continue
        paths += isinstance(node, BRANCHES)
        if isinstance(node, ast.BoolOp):
            paths += len(node.values) - 1
        if isinstance(node, ast.Match):
            paths += len(node.cases) - 1
        inner = depth + isinstance(node, NESTING)
        deepest = max(deepest, inner)
        chained = node.orelse[0] if isinstance(node, ast.If) and len(node.orelse) == 1 else None
        for child in ast.iter_child_nodes(node):
            is_elif = child is chained and isinstance(child, ast.If)
            stack.append((child, depth if is_elif else inner))
    return paths, deepest


def swallowed(tree: ast.Module) -> Iterator[Json]:
    """Handlers that catch everything and do nothing with it."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ExceptHandler)
            and catches_all(node.type)
            and all(does_nothing(s) for s in node.body)
        ):
            yield {
                "line": node.lineno,
                "what": "except" if node.type is None else f"except {ast.unparse(node.type)}",
            }


def catches_all(kind: ast.expr | None) -> bool:
    return kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"})


def does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass | ast.Continue)


def shared_defaults(tree: ast.Module) -> Iterator[Json]:
    """Default arguments that are made once and shared by all calls."""
    for node in ast.walk(tree):
        if isinstance(node, Function):
            defaults: list[Any] = [*node.args.defaults, *node.args.kw_defaults]
            for default in defaults:
                if isinstance(default, ast.List | ast.Dict | ast.Set):
                    yield {
                        "line": default.lineno,
                        "what": f"{node.name}(… = {shortened(ast.unparse(default))})",
                    }


def shortened(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:19]}…"


def depth_by_indentation(text: str) -> Json:
    """For languages that we do not parse: the deepest line, and the longest block from the margin."""
    rows = [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    widths = [len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip()) for _, line in rows]
    steps = [b - a for a, b in pairwise(widths) if b > a]
    unit = max(set(steps), key=lambda step: (steps.count(step), -step)) if steps else 4
    deepest = {"line": 1, "depth": 0, "lines": 0, "block": 1}
    start = rows[0][0] if rows else 1
    for (number, line), width in zip(rows, widths, strict=True):
        depth = width // max(unit, 2)
        # A wrapped argument list or a comment block is aligned, not nested
        if depth > deepest["depth"] and not re.match(r"\s*(\*|//|#|--)", line) and width % max(unit, 2) == 0:
            deepest |= {"line": number, "depth": depth}
        if width == 0 and not re.match(r"[})\]]|#|//|\*|(fi|done|end|esac)\b", line):
            start = number
        if number - start + 1 > deepest["lines"]:
            deepest |= {"lines": number - start + 1, "block": start}
    return deepest
