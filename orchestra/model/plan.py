"""A plan: what is to be done, by whom, under which limits.

Values and pure functions over them; `plan_text` reads them from YAML. The mappings in
these values are never changed in place, so that they can be shared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

MOST_INPUT = 16 << 20  # bytes: of a plan, a list of workers, or a brief
DEFAULT_STALL_S = 600.0
OFF = 0.0
"""A worker's timeout, stall or first_sign that it switches off, whatever the plan says."""

StallAction = Literal["warn", "stop"]
"""What becomes of a worker that stalls."""

Position = tuple[int, int]
"""Line and column in a file, both from 1."""

Throttle = dict[str, float | None]
"""Limits by the throttle's key (`memory_available` in bytes); None switches one off."""

EXPECT_RULE = "write 'stdout', or a file's path inside the worker's out directory, such as report.md"

FIRST_SIGN_RULE = "first_sign is for who never began: choose a shorter one, or a longer stall"

_NO_ENV: dict[str, str] = {}
_NO_THROTTLE: Throttle = {}
_NO_POSITIONS: dict[str, Position] = {}

_SUFFIX = re.compile(r".*\.[A-Za-z0-9]{1,5}")


class Expect(NamedTuple):
    """What must be there when a worker has ended with 0: a file in its out directory, or stdout."""

    file: str | None
    min_bytes: int = 1


class WorkerEntry(NamedTuple):
    """One worker as the plan names it; None or empty means "as the plan says".

    `brief` is the name of a file beside the plan, or the text itself.
    """

    name: str
    brief: str
    command: tuple[str, ...] | None = None
    cwd: str | None = None
    env: dict[str, str] = _NO_ENV
    timeout_s: float | None = None
    stall_s: float | None = None
    retries: int | None = None
    expect: tuple[Expect, ...] = ()
    throttle: Throttle = _NO_THROTTLE
    first_sign_s: float | None = None
    stall_action: StallAction | None = None


class Phase(NamedTuple):
    """Workers that may run side by side, after the phases before."""

    name: str
    workers: tuple[WorkerEntry, ...] = ()


class Plan(NamedTuple):
    """Defaults for every worker, and the phases in order.

    `timeout_s`, `stall_s` and `first_sign_s` of None: no limit. `retries` are attempts after the first.
    `cwd` is relative to the plan. `positions` says where in the text each worker's brief
    stands; it is not part of the JSON form, so compare plans by that form.
    """

    command: tuple[str, ...] | None = None
    cwd: str = "."
    env: dict[str, str] = _NO_ENV
    timeout_s: float | None = None
    stall_s: float | None = DEFAULT_STALL_S
    retries: int = 0
    on_failure: Literal["stop", "continue"] = "stop"
    throttle: Throttle = _NO_THROTTLE
    phases: tuple[Phase, ...] = ()
    positions: dict[str, Position] = _NO_POSITIONS
    first_sign_s: float | None = None
    stall_action: StallAction = "warn"


def effective(plan: Plan, entry: WorkerEntry) -> WorkerEntry:
    """`entry` with everything that it leaves open filled in from `plan`.

    Its env and its throttle overlay the plan's; anything else that it gives wins.
    `command` stays None where neither gives one, and `timeout_s`, `stall_s` and
    `first_sign_s` where there is no limit.
    """
    return entry._replace(
        command=plan.command if entry.command is None else entry.command,
        cwd=plan.cwd if entry.cwd is None else entry.cwd,
        env={**plan.env, **entry.env},
        timeout_s=(plan.timeout_s if entry.timeout_s is None else entry.timeout_s) or None,
        stall_s=(plan.stall_s if entry.stall_s is None else entry.stall_s) or None,
        first_sign_s=(plan.first_sign_s if entry.first_sign_s is None else entry.first_sign_s) or None,
        stall_action=plan.stall_action if entry.stall_action is None else entry.stall_action,
        retries=plan.retries if entry.retries is None else entry.retries,
        throttle={**plan.throttle, **entry.throttle},
    )


def parse_expect(word: str) -> Expect:
    """What `--expect WORD`, or a plain entry of `expect`, asks for; else a `BadValue`."""
    return Expect(None) if word == "stdout" else Expect(check_expected_file(word))


def check_expected_file(path: str) -> str:
    """`path`, relative and inside the worker's out directory; else a `BadValue`."""
    parts = path.split("/")
    problem = (
        "an expected file's path must not be empty" if not path
        else "an expected file's path must not hold a NUL" if "\0" in path
        else f"{path!r} is absolute" if path.startswith("/")
        else f"{path!r} leads out of the out directory" if ".." in parts
        else f"{path!r} names a directory" if parts[-1] in ("", ".")
        else ""
    )  # fmt: skip
    if problem:
        # Here, as every command imports this module and few check a path.
        from orchestra.model.units import BadValue

        raise BadValue(problem, EXPECT_RULE)
    return path


def brief_is_path(brief: str) -> bool:
    """Whether a brief that is not an existing file was plainly meant to be one."""
    if not brief or len(brief) > 255 or any(character.isspace() for character in brief):
        return False
    return "/" in brief or _SUFFIX.fullmatch(brief) is not None


def first_sign_problem(entry: WorkerEntry) -> str:
    """What is wrong with an entry's `first_sign`, everything filled in; empty: nothing."""
    first, stall = entry.first_sign_s, entry.stall_s
    if first is None or stall is None or first < stall:
        return ""
    return f"first_sign ({first:g} s) must be less than stall ({stall:g} s)"


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Every field but `positions`; durations in seconds, sizes in bytes."""
    return {
        "command": _list_or_none(plan.command),
        "cwd": plan.cwd,
        "env": dict(plan.env),
        "timeout_s": plan.timeout_s,
        "stall_s": plan.stall_s,
        "first_sign_s": plan.first_sign_s,
        "stall_action": plan.stall_action,
        "retries": plan.retries,
        "on_failure": plan.on_failure,
        "throttle": dict(plan.throttle),
        "phases": [
            {"name": phase.name, "workers": [entry_to_json(entry) for entry in phase.workers]}
            for phase in plan.phases
        ],
    }


def plan_from_json(data: Mapping[str, Any]) -> Plan:
    """The inverse of `plan_to_json`: unknown keys are ignored, missing ones are the defaults."""
    return Plan(
        command=_tuple_or_none(data.get("command")),
        cwd=data.get("cwd", "."),
        env=dict(data.get("env", {})),
        timeout_s=data.get("timeout_s"),
        stall_s=data.get("stall_s", DEFAULT_STALL_S),
        first_sign_s=data.get("first_sign_s"),
        stall_action=data.get("stall_action", "warn"),
        retries=data.get("retries", 0),
        on_failure=data.get("on_failure", "stop"),
        throttle=dict(data.get("throttle", {})),
        phases=tuple(_phase_from_json(phase) for phase in data.get("phases", ())),
    )


def entry_to_json(entry: WorkerEntry) -> dict[str, Any]:
    """Every field; durations in seconds."""
    return {
        "name": entry.name,
        "brief": entry.brief,
        "command": _list_or_none(entry.command),
        "cwd": entry.cwd,
        "env": dict(entry.env),
        "timeout_s": entry.timeout_s,
        "stall_s": entry.stall_s,
        "first_sign_s": entry.first_sign_s,
        "stall_action": entry.stall_action,
        "retries": entry.retries,
        "expect": [{"file": expect.file, "min_bytes": expect.min_bytes} for expect in entry.expect],
        "throttle": dict(entry.throttle),
    }


def entry_from_json(data: Mapping[str, Any]) -> WorkerEntry:
    """The inverse of `entry_to_json`: unknown keys are ignored, missing ones are the defaults.

    Raises TypeError, ValueError, AttributeError for what that never made.
    """
    texts = [data.get("name", ""), data.get("brief", ""), data.get("cwd") or "", *(data.get("command") or ())]
    texts += [word for pair in data.get("env", {}).items() for word in pair]
    numbers = [data.get(key) or 0 for key in ("timeout_s", "stall_s", "first_sign_s", "retries")]
    if not all(type(text) is str for text in texts) or not all(type(n) in (int, float) for n in numbers):
        raise TypeError("no entry of a plan")
    return WorkerEntry(
        name=data.get("name", ""),
        brief=data.get("brief", ""),
        command=_tuple_or_none(data.get("command")),
        cwd=data.get("cwd"),
        env=dict(data.get("env", {})),
        timeout_s=data.get("timeout_s"),
        stall_s=data.get("stall_s"),
        first_sign_s=data.get("first_sign_s"),
        stall_action=data.get("stall_action"),
        retries=data.get("retries"),
        expect=tuple(Expect(item.get("file"), item.get("min_bytes", 1)) for item in data.get("expect", ())),
        throttle=dict(data.get("throttle", {})),
    )


def _phase_from_json(data: Mapping[str, Any]) -> Phase:
    return Phase(data.get("name", ""), tuple(entry_from_json(entry) for entry in data.get("workers", ())))


def _list_or_none(words: tuple[str, ...] | None) -> list[str] | None:
    return None if words is None else list(words)


def _tuple_or_none(words: list[str] | None) -> tuple[str, ...] | None:
    return None if words is None else tuple(words)
