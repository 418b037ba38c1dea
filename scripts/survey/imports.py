"""Which source file uses which: an edge per import that leads to another file of the target.

Followed: Python (through `ast`), JavaScript and TypeScript (relative paths), C and C++ (`#include "…"`), Ruby
(`require_relative`), Rust (`mod name;`), shell (`source` of a literal path), Go (packages of its own module).
"""

from __future__ import annotations

import ast
import posixpath
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

FOLLOWED = ("Python", "JavaScript", "TypeScript", "C", "C++", "Ruby", "Rust", "Shell", "Go")
SCRIPT_ENDS = ("", ".ts", ".tsx", ".js", ".jsx", ".mjs", ".cjs", "/index.ts", "/index.tsx", "/index.js")
QUOTED = {
    "JavaScript": r"""(?:\bfrom\s*|\brequire\(\s*|^\s*import\s*|\bimport\(\s*)['"](\.[^'"]+)['"]""",
    "C": r'^\s*#\s*include\s*"([^"]+)"',
    "Ruby": r"""^\s*require_relative\s*\(?\s*['"]([^'"]+)['"]""",
    "Rust": r"^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*;",
    "Shell": r"""^\s*(?:source|\.)\s+["']?([\w./-]+)["']?\s*(?:$|[;#&|])""",
    "Go": r'^\s*(?:import\s+)?(?:[\w.]+\s+)?"([\w./-]+)"\s*$',
}
PATTERNS = {language: re.compile(pattern, re.MULTILINE) for language, pattern in QUOTED.items()}
PATTERNS["TypeScript"], PATTERNS["C++"] = PATTERNS["JavaScript"], PATTERNS["C"]


@dataclass(frozen=True)
class Edge:
    """`source` uses `target` at `line`; `late` if only within a function or for type checkers."""

    source: str
    target: str
    line: int
    late: bool = False


def parse(text: str) -> ast.Module | str:
    """The tree, or why there is none, as `LINE: message`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        return f"{error.lineno or 1}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"1: {error or type(error).__name__}"


class Modules:
    """Where a Python import leads; one that two files could answer to, neither beside it, leads nowhere."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = set(paths)
        self.by_name: dict[str, set[str]] = defaultdict(set)
        for path in paths:
            self.by_name[self.name(path)].add(path)
            self.by_name[self.dotted(path, "")].add(path)

    def root(self, path: str) -> str:
        """The nearest directory above that is no package."""
        directory = posixpath.dirname(path)
        while directory and f"{directory}/__init__.py" in self.paths:
            directory = posixpath.dirname(directory)
        return directory

    def name(self, path: str) -> str:
        return self.dotted(path, self.root(path))

    @staticmethod
    def dotted(path: str, root: str) -> str:
        parts = posixpath.splitext(posixpath.relpath(path, root or "."))[0].split("/")
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def find(self, name: str, importer: str) -> str | None:
        beside = posixpath.join(self.root(importer), name.replace(".", "/"))
        for path in (f"{beside}.py", f"{beside}/__init__.py"):
            if path in self.paths:
                return path
        found = self.by_name.get(name, set())
        return next(iter(found)) if len(found) == 1 else None

    def edges(self, importer: str, tree: ast.Module) -> Iterator[Edge]:
        for node, late in import_statements(tree):
            for name in self.targets(node, importer):
                target = self.find(name, importer)
                if target and target != importer:
                    yield Edge(importer, target, node.lineno, late)

    def edges_by_name(self, importer: str, tree: ast.Module) -> Iterator[Edge]:
        """What `import_module` may load: the module it names, or all that begin like its f-string."""
        for node in ast.walk(tree):
            if not (
                isinstance(node, ast.Call) and node.args and called(node) in {"import_module", "__import__"}
            ):
                continue
            said, whole = beginning(node.args[0])
            names = [said] if whole else [name for name in self.by_name if said and name.startswith(said)]
            for target in {self.find(name, importer) for name in names} - {None, importer}:
                yield Edge(importer, str(target), node.lineno, late=True)

    def targets(self, node: ast.Import | ast.ImportFrom, importer: str) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            return
        base = node.module or ""
        if node.level:
            package = self.name(importer).split(".")
            keep = len(package) - node.level + importer.endswith("__init__.py")
            base = ".".join([*package[: max(keep, 0)], *([base] if base else [])])
        for alias in node.names:
            inner = f"{base}.{alias.name}" if base else alias.name
            yield inner if self.find(inner, importer) else base


def import_statements(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    stack: list[tuple[ast.AST, bool]] = [(tree, False)]
    while stack:
        node, late = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, late
            continue
        late = (
            late
            or (isinstance(node, ast.If) and skipped_on_import(node.test))
            or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        )
        stack.extend((child, late) for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr))


def called(node: ast.Call) -> str:
    function = node.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def beginning(node: ast.expr) -> tuple[str, bool]:
    """The text that a string begins with, and whether that is all of it; an f-string's only up to a dot."""
    whole = isinstance(node, ast.Constant)
    first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
    said = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
    return (said, True) if whole else (said[: said.rfind(".") + 1], False)


def skipped_on_import(test: ast.expr) -> bool:
    told = ast.dump(test)
    return "TYPE_CHECKING" in told or "'__main__'" in told


class Paths:
    """Where an import by path leads, for the languages that have such."""

    def __init__(self, paths: list[str], go_module: tuple[str, str] | None) -> None:
        self.paths = set(paths)
        self.go_module = go_module
        self.by_tail: dict[str, list[str]] = defaultdict(list)
        self.go_packages: dict[str, str] = {}
        for path in sorted(paths):
            self.by_tail[posixpath.basename(path)].append(path)
            if path.endswith(".go") and not path.endswith("_test.go"):
                self.go_packages.setdefault(posixpath.dirname(path), path)

    def edges(self, source: str, language: str, text: str) -> Iterator[Edge]:
        for found in PATTERNS[language].finditer(text):
            target = self.find(found[1], source, language)
            if target and target != source:
                yield Edge(source, target, text.count("\n", 0, found.start(1)) + 1)

    def find(self, name: str, source: str, language: str) -> str | None:
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
        if language in {"JavaScript", "TypeScript"}:
            plain = re.sub(r"\.[mc]?js$", "", beside)
            return self.first([*(beside + end for end in SCRIPT_ENDS), *(plain + end for end in SCRIPT_ENDS)])
        if language == "Ruby":
            return self.first([beside, f"{beside}.rb"])
        if language == "Rust":
            stem = posixpath.splitext(posixpath.basename(source))[0]
            own = (
                posixpath.dirname(source) if stem in {"lib", "main", "mod"} else posixpath.splitext(source)[0]
            )
            return self.first([posixpath.join(own, f"{name}.rs"), posixpath.join(own, name, "mod.rs")])
        if language == "Go":
            return self.find_go(name)
        if language == "Shell":
            return self.first([beside, posixpath.normpath(name)])
        return self.first([beside]) or self.only_tail(name)

    def find_go(self, name: str) -> str | None:
        if self.go_module is None:
            return None
        module, root = self.go_module
        if name != module and not name.startswith(module + "/"):
            return None
        return self.go_packages.get(posixpath.join(root, name[len(module) + 1 :]).rstrip("/"))

    def only_tail(self, name: str) -> str | None:
        """The one file whose path ends so; an #include is looked up on a search path that we do not know."""
        tail = name.lstrip("./")
        same = [
            p for p in self.by_tail.get(posixpath.basename(tail), []) if p == tail or p.endswith("/" + tail)
        ]
        return same[0] if len(same) == 1 else None

    def first(self, candidates: list[str]) -> str | None:
        return next((path for path in candidates if path in self.paths), None)
