"""Recon: how the target is put together. Entry points, parts, the graph of imports, tests beside the code."""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from collections import Counter
from typing import Any

from graph import cycles, reached_from, used_by, users_of
from imports import FOLLOWED, Edge, Modules, Paths, parse
from tree import read_whole, texts
from workplace import Json, Workplace

MAIN_LINE = {
    "Python": re.compile(r"^if __name__ == ['\"]__main__['\"]", re.MULTILINE),
    "Go": re.compile(r"^func main\(\)", re.MULTILINE),
    "C": re.compile(r"^(?:int|void)\s+main\s*\(", re.MULTILINE),
    "C++": re.compile(r"^(?:int|void|auto)\s+main\s*\(", re.MULTILINE),
    "Rust": re.compile(r"^(?:pub )?(?:async )?fn main\(", re.MULTILINE),
    "Java": re.compile(r"^\s*public static void main\s*\(", re.MULTILINE),
}
STARTS_PROGRAMS = re.compile(
    r"\bsubprocess\b|\bPopen\b|\bos\.system\b|\bCliRunner\b|\bexecFile\b|\bexec\.Command\b"
)
KEPT_EDGES = 20_000


def recon(place: Workplace) -> str:
    files = place.left_by("Diagnose", "inventory.json")["files"]
    code = [f for f in files if f["kind"] == "text" and f["purpose"] == "code" and not f.get("generated")]
    sources = Sources(place, code)
    for file, text in texts(place.target, code, place.beat):
        sources.look(file, text)
    edges = sorted(sources.edges, key=lambda edge: (edge.source, edge.line, edge.target, edge.late))
    declared = declared_entries(place, {f["path"] for f in files})
    mains = {row["path"] for row in sources.mains}
    scripts = [
        f["path"] for f in code if f.get("executable") and not f.get("test") and f["path"] not in mains
    ]
    entries = declared + sources.mains + [{"path": p, "line": 1, "how": "executable script"} for p in scripts]
    known = mains | set(scripts) | {path for row in declared for path in row["leads_to"]}
    graph = describe_graph(code, edges, known)
    place.write_json("structure.json", {
        "entries": entries,
        "parts": parts(files),
        "graph": graph,
        "unparsed": sources.unparsed,
        "tests": tests_and_code(code, edges) | {"starting": sources.starting},
        "not_followed": dict(Counter(f["language"] for f in code if f["language"] not in FOLLOWED)),
        "edges": [[edge.source, edge.target, edge.line] for edge in edges[:KEPT_EDGES]],
        "cut": [f"{len(edges) - KEPT_EDGES:,} imports not written down"] if len(edges) > KEPT_EDGES else [],
    })  # fmt: skip
    return f"{len(edges):,} imports between {graph['followed']:,} files, {len(graph['cycles'])} cycles"


class Sources:
    """What the source files said so far."""

    def __init__(self, place: Workplace, code: list[Json]) -> None:
        paths = [f["path"] for f in code]
        self.modules = Modules([path for path in paths if path.endswith((".py", ".pyi"))])
        self.by_path = Paths(paths, go_module(place, paths))
        self.edges: set[Edge] = set()
        self.mains: list[Json] = []
        self.unparsed: list[Json] = []
        self.starting = 0  # test files that seem to start programs

    def look(self, file: Json, text: str) -> None:
        path, language, test = file["path"], file["language"], bool(file.get("test"))
        main = MAIN_LINE[language].search(text) if language in MAIN_LINE and not test else None
        if main:
            line = text.count("\n", 0, main.start()) + 1
            self.mains.append({"path": path, "line": line, "how": f"{language} main"})
        self.starting += test and bool(STARTS_PROGRAMS.search(text))
        if language == "Python":
            self.look_at_python(path, text, test)
        elif language in FOLLOWED:
            self.edges.update(self.by_path.edges(path, language, text))

    def look_at_python(self, path: str, text: str, test: bool) -> None:
        tree = parse(text)
        if isinstance(tree, str):
            line, _, why = tree.partition(": ")
            self.unparsed.append({"path": path, "line": int(line), "why": why, "test": test})
            return
        self.edges.update(self.modules.edges(path, tree))
        if "import_module" in text or "__import__" in text:
            self.edges.update(self.modules.edges_by_name(path, tree))


def go_module(place: Workplace, paths: list[str]) -> tuple[str, str] | None:
    if not any(path.endswith(".go") for path in paths):
        return None
    content = read_whole(place.target / "go.mod") or b""
    found = re.search(r"^module\s+(\S+)", content.decode("utf-8", "replace"), re.MULTILINE)
    return (found[1], "") if found else None


def declared_entries(place: Workplace, paths: set[str]) -> list[Json]:
    """What pyproject.toml and package.json at the top declare as commands."""
    declared: list[Json] = []
    for file, load, where in (
        ("pyproject.toml", tomllib.loads, ("project", "scripts")),
        ("package.json", json.loads, ("bin",)),
    ):
        content = read_whole(place.target / file) if file in paths else None
        try:
            table: Any = load(content.decode("utf-8")) if content else {}
        except (ValueError, RecursionError):
            continue
        for key in where:
            table = table.get(key, {}) if isinstance(table, dict) else {}
        commands = table if isinstance(table, dict) else {}
        text = (content or b"").decode("utf-8", "replace").splitlines()
        for name, leads_to in sorted(commands.items()):
            said = re.compile(rf"""\s*["']?{re.escape(name)}["']?\s*[=:]""")
            line = next((n for n, row in enumerate(text, 1) if said.match(row)), 1)
            inside = str(leads_to).partition(":")[0].replace(".", "/")
            modules = [f"{root}{inside}{end}" for root in ("", "src/") for end in (".py", "/__init__.py")]
            declared.append({"path": file, "line": line, "how": f"command {name}", "leads_to": modules})
    return declared


def parts(files: list[Json]) -> list[Json]:
    """The top directories with what they hold; files at the top count as `.`."""
    rows: dict[str, Json] = {}
    for file in files:
        if file["kind"] != "text":
            continue
        top = file["path"].split("/", 1)[0] if "/" in file["path"] else "."
        row = rows.setdefault(top, {"part": top, "files": 0, "code": 0, "test": 0, "docs": 0, "other": 0})
        row["files"] += 1
        purpose = file["purpose"] if file["purpose"] in {"code", "docs"} else "other"
        row["test" if purpose == "code" and file.get("test") else purpose] += file["lines"]
    return sorted(rows.values(), key=lambda row: (-row["code"] - row["test"] - row["docs"], row["part"]))


def describe_graph(code: list[Json], edges: list[Edge], entries: set[str]) -> Json:
    followed = [f for f in code if f["language"] in FOLLOWED]
    users, uses = users_of(edges), used_by(edges)
    hubs = sorted(users, key=lambda path: (-len(users[path]), path))[:12]
    unused = [
        f for f in followed
        if f["language"] == "Python" and not f.get("test") and not f.get("vendored") and not users[f["path"]]
        and f["path"] not in entries and not f.get("executable") and f["lines"] >= 10
        and posixpath.basename(f["path"]) not in {"__init__.py", "__main__.py", "setup.py", "conf.py"}
    ]  # fmt: skip
    unused.sort(key=lambda f: (-f["lines"], f["path"]))
    return {
        "followed": len(followed),
        "imports": len(edges),
        "hubs": [{"path": p, "users": len(users[p]), "uses": len(uses[p])} for p in hubs],
        "reaching": [
            {"path": p, "uses": len(uses[p])} for p in sorted(uses, key=lambda p: (-len(uses[p]), p))[:5]
        ],
        "cycles": cycles([edge for edge in edges if not edge.late]),
        "unused": [{"path": f["path"], "lines": f["lines"]} for f in unused[:30]],
        "unused_count": len(unused),
        "python": sum(1 for f in followed if f["language"] == "Python" and not f.get("test")),
    }  # fmt: skip


def tests_and_code(code: list[Json], edges: list[Edge]) -> Json:
    """Lines on either side, and the code that no test reaches, however many imports one follows."""
    tests = {f["path"] for f in code if f.get("test")}
    rest = [f for f in code if not f.get("test") and not f.get("vendored")]
    reached = reached_from(tests, edges)
    python = [f for f in rest if f["language"] == "Python" and f["lines"] >= 10]
    missed = sorted((f for f in python if f["path"] not in reached), key=lambda f: (-f["lines"], f["path"]))
    return {
        "test_files": len(tests),
        "test_lines": sum(f["lines"] for f in code if f.get("test")),
        "code_files": len(rest),
        "code_lines": sum(f["lines"] for f in rest),
        "python_files": len(python),
        "reached_count": len(python) - len(missed),
        "missed_count": len(missed),
        "missed": [{"path": f["path"], "lines": f["lines"]} for f in missed[:20]],
    }
