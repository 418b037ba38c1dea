"""Plans and lists of workers, from the YAML (or JSON) that people and narrators write.

Whatever the text, the answer is a plan or an `errors.BadPlan` that says where and why:
its message begins with `FILE:LINE:COLUMN: `, and its details are those three.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, TypeVar

from orchestra import errors
from orchestra.model import yaml_values as values
from orchestra.model.names import check_name, shown
from orchestra.model.plan import (
    DEFAULT_STALL_S,
    EXPECT_RULE,
    FIRST_SIGN_RULE,
    OFF,
    Expect,
    Phase,
    Plan,
    Position,
    StallAction,
    Throttle,
    WorkerEntry,
    check_expected_file,
    effective,
    first_sign_problem,
    parse_expect,
)
from orchestra.model.throttle import LIMITS, NAMED
from orchestra.model.yaml_tree import At, Pairs, Scalar, Tree, read_tree

T = TypeVar("T")
Default = TypeVar("Default")

PLAN_KEYS = (
    "command", "cwd", "env", "timeout", "stall", "first_sign", "stall_action", "retries", "on_failure",
    "throttle", "phases",
)  # fmt: skip
PHASE_KEYS = ("name", "workers")
WORKER_KEYS = (
    "name", "brief", "command", "cwd", "env", "timeout", "stall", "first_sign", "stall_action", "retries",
    "expect", "throttle",
)  # fmt: skip
EXPECT_KEYS = ("file", "stdout", "min_bytes")

_PLAN_HINT = "begin with 'phases:', and under it '- name:' and 'workers:' for each phase"
_PHASE_HINT = "write {name: research, workers: [{name: Research-1, brief: briefs/research-1.md}]}"
_WORKER_HINT = "write {name: Research-1, brief: briefs/research-1.md}"
_COMMAND_HINT = "write the program and its arguments as a list: [claude, -p]"

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BASHS_OWN = re.compile(
    "E?UID|PPID|(BASH|SHELL)OPTS|BASH_(VERSINFO|ARGC|ARGV|LINENO|SOURCE)|EXECIGNORE|PIPESTATUS|_"
)


def parse_plan(text: str, *, file: str) -> Plan:
    """The plan in `text`; `file` is the name that errors give."""
    root = values.mapping(_root(text, file, "the plan", _PLAN_HINT), "the plan", PLAN_KEYS, _PLAN_HINT)
    seen = _Seen()
    plan = Plan(
        command=_optional(root, "command", _command, None),
        cwd=_optional(root, "cwd", values.filled, "."),
        env=_optional(root, "env", _env, {}),
        timeout_s=_optional(root, "timeout", values.timeout_or_off, None),
        stall_s=_optional(root, "stall", values.duration_or_off, DEFAULT_STALL_S),
        first_sign_s=_optional(root, "first_sign", values.duration_or_off, None),
        stall_action=_optional(root, "stall_action", _stall_action, "warn"),
        retries=_optional(root, "retries", values.whole, 0),
        on_failure=_optional(root, "on_failure", _on_failure, "stop"),
        throttle=_optional(root, "throttle", throttle, {}),
        phases=_required(root, "phases", "the plan", _phases_reader(seen), _PLAN_HINT),
        positions=seen.briefs,
    )
    _check_commands(plan, seen)
    _check_first_signs(plan, seen)
    return plan


def parse_workers_and_positions(
    text: str, *, file: str
) -> tuple[tuple[WorkerEntry, ...], dict[str, Position]]:
    """A list of workers, with the place of each one's brief by its name."""
    root = _root(text, file, "the list of workers", _WORKER_HINT)
    if isinstance(root, Pairs):
        hint = "write a list of workers, or {workers: [...]}"
        fields = values.mapping(root, "the list", ("workers",), hint)
        root = _required(fields, "workers", "the list", _as_is, hint)
    seen = _Seen()
    return _workers(root, seen), seen.briefs


def parse_config(text: str, *, file: str) -> Throttle:
    """The limits in a config file: `throttle: {…}`, as in a plan."""
    tree = read_tree(text, file=file)
    if tree is None or (isinstance(tree, Scalar) and values.is_null(tree)):  # nothing but comments
        return {}
    hint = "write throttle: {max_workers: 8}"
    fields = values.mapping(tree, "the config file", ("throttle",), hint)
    return _optional(fields, "throttle", throttle, {})


def parse_limits(text: str, *, file: str) -> Throttle:
    """Limits by themselves: `{max_workers: 8, load_per_cpu: off}`."""
    return throttle(_root(text, file, "the throttle", "write {max_workers: 8}"), "the throttle")


class _Seen:
    """Where each name stands, over the whole document, since a name is used once."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], At] = {}
        self.workers: dict[str, At] = {}
        self.briefs: dict[str, Position] = {}

    def new_name(self, kind: str, tree: Tree) -> str:
        text = values.text(tree, f"the name of a {kind}")
        try:
            name = check_name(kind, text)
        except errors.BadName as error:
            raise tree.at.bad(error.message, error.hint) from None
        first = self.names.setdefault((kind, name), tree.at)
        if first is not tree.at:
            problem = f"the {kind} name {name!r} is used a second time (first on line {first.line})"
            raise tree.at.bad(problem, f"{kind} names are unique in a plan: choose another")
        return name


def _root(text: str, file: str, what: str, hint: str) -> Tree:
    tree = read_tree(text, file=file)
    if tree is None or (isinstance(tree, Scalar) and values.is_null(tree)):
        raise At(file, 1, 1).bad(f"{what} is empty", hint)
    return tree


def _required(fields: Pairs, key: str, what: str, read: Callable[[Tree, str], T], hint: str) -> T:
    if key not in fields.values:
        raise fields.at.bad(f"{what} has no '{key}'", hint)
    return read(fields.values[key], key)


def _optional(fields: Pairs, key: str, read: Callable[[Tree, str], T], default: Default) -> T | Default:
    return read(fields.values[key], key) if key in fields.values else default


def _as_is(tree: Tree, _what: str) -> Tree:
    return tree


def _phases_reader(seen: _Seen) -> Callable[[Tree, str], tuple[Phase, ...]]:
    def read(tree: Tree, what: str) -> tuple[Phase, ...]:
        items = values.items(tree, what, _PLAN_HINT)
        if not items:
            raise tree.at.bad("'phases' is an empty list: there is nothing to do", _PLAN_HINT)
        return tuple(_phase(item, seen) for item in items)

    return read


def _phase(tree: Tree, seen: _Seen) -> Phase:
    fields = values.mapping(tree, "a phase", PHASE_KEYS, _PHASE_HINT)
    name = seen.new_name("phase", _required(fields, "name", "a phase", _as_is, _PHASE_HINT))
    workers = _required(fields, "workers", f"phase {name!r}", _as_is, _PHASE_HINT)
    return Phase(name, _workers(workers, seen))


def _workers(tree: Tree, seen: _Seen) -> tuple[WorkerEntry, ...]:
    return tuple(_worker(item, seen) for item in values.items(tree, "workers", _PHASE_HINT))


def _worker(tree: Tree, seen: _Seen) -> WorkerEntry:
    fields = values.mapping(tree, "a worker", WORKER_KEYS, _WORKER_HINT)
    name = seen.new_name("worker", _required(fields, "name", "a worker", _as_is, _WORKER_HINT))
    brief = _required(fields, "brief", f"worker {name!r}", _as_is, _WORKER_HINT)
    seen.workers[name] = tree.at
    seen.briefs[name] = (brief.at.line, brief.at.column)
    return WorkerEntry(
        name=name,
        brief=values.filled(brief, "brief"),
        command=_optional(fields, "command", _command, None),
        cwd=_optional(fields, "cwd", values.filled, None),
        env=_optional(fields, "env", _env, {}),
        timeout_s=_optional(fields, "timeout", _or(values.timeout_or_off), None),
        stall_s=_optional(fields, "stall", _or(values.duration_or_off), None),
        first_sign_s=_optional(fields, "first_sign", _or(values.duration_or_off), None),
        stall_action=_optional(fields, "stall_action", _stall_action, None),
        retries=_optional(fields, "retries", values.whole, None),
        expect=_optional(fields, "expect", _expects, ()),
        throttle=_optional(fields, "throttle", throttle, {}),
    )


def _or(read: Callable[[Tree, str], float | None]) -> Callable[[Tree, str], float]:
    """`off` for a worker, as OFF: it is not the same as nothing said."""
    return lambda tree, what: OFF if (found := read(tree, what)) is None else found


def _check_commands(plan: Plan, seen: _Seen) -> None:
    if plan.command is not None:
        return
    for entry in (entry for phase in plan.phases for entry in phase.workers):
        if entry.command is None:
            problem = f"worker {entry.name!r} has no command, and the plan gives none"
            hint = "add 'command: [...]' at the top of the plan, or to the worker"
            raise seen.workers[entry.name].bad(problem, hint)


def _check_first_signs(plan: Plan, seen: _Seen) -> None:
    for entry in (entry for phase in plan.phases for entry in phase.workers):
        if problem := first_sign_problem(effective(plan, entry)):
            raise seen.workers[entry.name].bad(f"worker {entry.name!r}: {problem}", FIRST_SIGN_RULE)


def _command(tree: Tree, what: str) -> tuple[str, ...]:
    items = values.items(tree, what, _COMMAND_HINT)
    if not items:
        raise tree.at.bad("'command' is an empty list", _COMMAND_HINT)
    program = values.filled(items[0], "the program")
    return (program, *(values.text(item, "a word of the command") for item in items[1:]))


def _env(tree: Tree, what: str) -> dict[str, str]:
    fields = values.mapping(tree, what, None, "write {NAME: value}")
    for name, at in fields.keys.items():
        if problem := _env_name_problem(name):
            raise at.bad(f"env: {shown(name)} {problem}", "choose another name, or remove it")
    return {name: values.env_text(value, f"env: {name}") for name, value in fields.values.items()}


def _env_name_problem(name: str) -> str:
    if _ENV_NAME.fullmatch(name) is None:
        return "cannot be a variable's name: only letters, digits and '_', not beginning with a digit"
    if _BASHS_OWN.fullmatch(name):
        return "is bash's own, which starts the worker: it could not reach it"
    if name == "TMPDIR":
        return "is set by orchestra: each worker has one of its own, which is removed when it ends"
    if name.startswith("ORCHESTRA_"):
        return "is not yours to set: what begins with ORCHESTRA_ is set by orchestra itself"
    return ""


def _stall_action(tree: Tree, what: str) -> StallAction:
    match values.text(tree, what):
        case "warn":
            return "warn"
        case "stop":
            return "stop"
        case other:
            raise tree.at.bad(f"stall_action cannot be {shown(other)}", "write warn or stop")


def _on_failure(tree: Tree, what: str) -> Literal["stop", "continue"]:
    match values.text(tree, what):
        case "stop":
            return "stop"
        case "continue":
            return "continue"
        case other:
            raise tree.at.bad(f"on_failure cannot be {shown(other)}", "write stop or continue")


_FIGURES: dict[str, Callable[[Tree, str], float]] = {
    "bytes": values.size_above_0,
    "bytes/s": values.size_above_0,
    "%": values.percent_above_0,
    "count": values.whole_above_0,
    "number": values.number_above_0,
}


def throttle(tree: Tree, what: str) -> Throttle:
    """Limits by their key; `processes: {NAME: N}` gives `processes.NAME`."""
    fields = values.mapping(
        tree, what, (*LIMITS, "processes"), "write {memory_available: 2GiB, max_workers: 8}"
    )
    found: Throttle = {}
    for key, value in fields.values.items():
        if key == "processes":
            named = values.mapping(value, "throttle: processes", None, "write {claude: 20}")
            for name, most in named.values.items():
                found[NAMED + name] = _figure("count", most, f"throttle: processes: {name}")
        else:
            found[key] = _figure(LIMITS[key].unit, value, f"throttle: {key}")
    return found


def _figure(unit: str, tree: Tree, what: str) -> float | None:
    return None if values.is_off(tree) else _FIGURES[unit](tree, what)


def _expects(tree: Tree, what: str) -> tuple[Expect, ...]:
    return tuple(_expect(item) for item in values.items(tree, what, "write a list: [report.md]"))


def _expect(tree: Tree) -> Expect:
    if not isinstance(tree, Pairs):
        return values.checked(tree, parse_expect, values.text(tree, "an entry of expect"))
    hint = "write {file: report.md, min_bytes: 200}"
    fields = values.mapping(tree, "an entry of expect", EXPECT_KEYS, hint)
    min_bytes = _optional(fields, "min_bytes", values.size, 1)
    stdout = fields.values.get("stdout")
    if stdout is not None:
        return _expect_stdout(fields, stdout, min_bytes)
    path = _required(fields, "file", "an entry of expect", _as_is, hint)
    return Expect(values.checked(path, check_expected_file, values.text(path, "file")), min_bytes)


def _expect_stdout(fields: Pairs, stdout: Tree, min_bytes: int) -> Expect:
    if "file" in fields.values:
        raise fields.at.bad("an entry of expect is a file or stdout, not both", "write two entries")
    if not values.is_true(stdout):
        raise stdout.at.bad("'stdout' takes only true here", EXPECT_RULE)
    return Expect(None, min_bytes)
