"""The layers, as `orchestra/__init__.py` draws them, hold in every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import orchestra

PACKAGE = Path(orchestra.__file__).parent
RANK = {"errors": 0, "model": 1, "store": 2, "host": 2, "backend": 3, "engine": 4, "cli": 5}
EXEMPT = {"__init__.py", "__main__.py"}
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
LAYERED = [module for module in MODULES if module not in EXEMPT]
MOST_LINES = 400

NOT_IN_THE_MODEL = {"os", "sys", "io", "pathlib", "time", "subprocess", "socket", "random", "tempfile"}
NOT_IN_THE_STORE = {"psutil", "subprocess"}
SAYS_NOTHING = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "misc"}


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"), module)


def layer_of(module: str) -> str:
    """`model/plan.py` is of the model, `errors.py` of the errors."""
    return module.split("/")[0].removesuffix(".py")


def imported(module: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, also those inside functions; relative ones made absolute."""
    package = ["orchestra", *module.split("/")[:-1]]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            if source == "orchestra":
                yield from ((node.lineno, f"orchestra.{name.name}") for name in node.names)
            else:
                yield node.lineno, source
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__") and node.args:
            yield node.lineno, literal_start(node.args[0])


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name
    return ""


def literal_start(node: ast.expr) -> str:
    """The text that an expression certainly begins with."""
    if isinstance(node, ast.JoinedStr):
        return literal_start(node.values[0]) if node.values else ""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def layers_imported(module: str) -> Iterator[tuple[int, str]]:
    """(line, layer) of what a module imports of orchestra itself."""
    for line, name in imported(module):
        parts = name.split(".")
        if parts[0] == "orchestra" and len(parts) > 1 and not parts[1].startswith("__"):
            yield line, parts[1]


def test_there_are_modules_to_look_at() -> None:
    assert {layer_of(module) for module in LAYERED} >= set(RANK)


@pytest.mark.parametrize("module", LAYERED)
def test_a_module_stands_in_a_layer_that_is_known(module: str) -> None:
    assert layer_of(module) in RANK


@pytest.mark.parametrize("module", LAYERED)
def test_imports_go_only_to_the_left(module: str) -> None:
    own = layer_of(module)
    wrong = [
        f"{module}:{line} imports {layer}"
        for line, layer in layers_imported(module)
        if layer != own and RANK.get(layer, 99) >= RANK[own]
    ]
    assert wrong == []


@pytest.mark.parametrize("module", [m for m in LAYERED if layer_of(m) == "model"])
def test_the_model_imports_nothing_that_acts(module: str) -> None:
    found = [(line, name) for line, name in imported(module) if name.split(".")[0] in NOT_IN_THE_MODEL]
    assert found == []


@pytest.mark.parametrize("module", [m for m in LAYERED if layer_of(m) == "model"])
def test_the_model_opens_no_file_and_asks_no_clock(module: str) -> None:
    found = []
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            found.append(f"{node.lineno}: open()")
        if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "today"):
            found.append(f"{node.lineno}: .{node.attr}")
    assert found == []


@pytest.mark.parametrize("module", [m for m in LAYERED if layer_of(m) == "store"])
def test_the_store_knows_no_processes(module: str) -> None:
    found = [(line, name) for line, name in imported(module) if name.split(".")[0] in NOT_IN_THE_STORE]
    assert found == []


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_named_for_nothing(module: str) -> None:
    assert not SAYS_NOTHING & set(module.removesuffix(".py").split("/"))


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_longer_than_can_be_read(module: str) -> None:
    assert len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(tree(module))


@pytest.mark.parametrize("module", MODULES)
def test_a_class_with_behaviour_says_what_it_is(module: str) -> None:
    """Records, enumerations and exceptions whose bodies are fields alone may let their fields speak."""
    silent = [
        f"{module}:{node.lineno} {node.name}"
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        and any(isinstance(part, ast.FunctionDef) and part.name != "to_json" for part in node.body)
    ]
    assert silent == []
