"""What a checkup finds of the programs and libraries that orchestra uses, and of the agents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from orchestra.model.checkup import Check, Health, some, unknown
from orchestra.model.names import shown

BASH_LEAST = (5, 0)  # for EPOCHREALTIME
PROGRAMS = (
    "cp",
    "env",
    "head",
    "ln",
    "mkdir",
    "mv",
    "rm",
    "sleep",
    "stat",
    "sync",
    "tail",
    "tr",
    "wc",
)
"""What launchers call beside the builtins of bash."""

# What a launcher asks of them that the small ones of some systems cannot do; prints what fails.
HABITS = r"""
[[ $(printf ' a\n\t' | LC_ALL=C tr -d '[:space:]') == a ]] || echo 'tr -d [:space:]'
[[ $(printf 'abc' | tail -c 2 | tr -d '\0') == bc ]] || echo 'tail -c, tr -d'
[[ $(printf 'abc' | head -c 2) == ab ]] || echo 'head -c'
[[ $(printf 'abc' | wc -c) -eq 3 ]] || echo 'wc -c'
sleep 0.01 || echo 'sleep 0.01'
env A=b true || echo 'env A=b'
"""

TRAPS = {
    "claude": "to write into its out it wants --permission-mode acceptEdits --add-dir {out}",
    "codex": "it never gives up on a server that hangs: set a timeout in the plan",
    "gemini": "its exit status is the HTTP status modulo 256: 173 is a limit",
    "llm": "llm -n: without it many at once end with 'database is locked'",
    "aider": "it exits 0 on every failure of its API: say what you --expect",
    "qwen": "it exits 0 with an error's text as its result: --expect a file, not stdout",
    "opencode": "up to 900 MB each, and half a minute to start where eight do: keep max_workers low",
    "mini": "it exits 0 on an empty reply: say what you --expect",
}
"""The agents that are looked for, each with what its users run into first."""

_VERSION = re.compile(r"\d+\.\d+[0-9A-Za-z.+-]*")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*([<>=!~0-9., ]*)")
_BOUND = re.compile(r"(>=|<=|==|!=|<|>)\s*([0-9.]+)")


class Said(NamedTuple):
    """What a program said to --version. `status` None: it had not ended in time, or said too much."""

    path: str
    text: str
    status: int | None


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers: (5, 2, 15) of "5.2.15(1)-release"."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def bash(path: str | None, version: str | None) -> Check:
    if path is None:
        advice = "install bash, or put it on the PATH: each worker's launcher is a bash script"
        return Check("bash", "not on the PATH", Health.BAD, advice)
    if version is None or not numbers(version):
        return unknown("bash", f"{path} does not say its version", Health.BAD)
    if numbers(version) < BASH_LEAST:
        least = ".".join(map(str, BASH_LEAST))
        return Check("bash", f"{path}, {version}", Health.BAD, f"put bash {least} or newer first on the PATH")
    return Check("bash", f"{path}, {version}")


def programs(missing: Sequence[str], unfit: Sequence[str] | None) -> Check:
    """`unfit`: the habits that fail; None: not tried."""
    if missing:
        advice = "install coreutils, or mend the PATH: launchers call them"
        return Check("coreutils", f"not on the PATH: {some(missing, 12)}", Health.BAD, advice)
    if unfit is None:
        return unknown("coreutils", "all are there, but how they behave could not be tried")
    if unfit:
        advice = "install GNU coreutils: these cannot do what launchers ask of them"
        return Check("coreutils", f"does not work here: {some(unfit)}", Health.BAD, advice)
    return Check("coreutils", f"all {len(PROGRAMS)} that launchers call are there, and do what they ask")


def requirement(text: str) -> tuple[str, str]:
    """("typer", ">=0.20,<0.26") of a line of the package's metadata; an extra's has no name."""
    if ";" in text and "extra" in text:
        return "", ""
    match = _REQUIREMENT.match(text)
    return (match[1], match[2].strip()) if match else ("", "")


def satisfies(version: str, bounds: str) -> bool:
    """Plain comparisons, as our own metadata has them."""
    have = numbers(version)
    for sign, text in _BOUND.findall(bounds):
        want = numbers(text)
        width = max(len(have), len(want))
        a, b = (n + (0,) * (width - len(n)) for n in (have, want))
        if not {
            ">=": a >= b,
            "<=": a <= b,
            "==": a == b,
            "!=": a != b,
            "<": a < b,
            ">": a > b,
        }[sign]:
            return False
    return True


def libraries(found: Sequence[tuple[str, str, str | None]]) -> Check:
    """Rows of (name, bounds, version; None: not installed)."""
    wrong = [
        f"{name} {version or 'is missing'} (wants {bounds})"
        for name, bounds, version in found
        if version is None or not satisfies(version, bounds)
    ]
    if wrong:
        return Check("libraries", some(wrong), Health.BAD, "install orchestra anew: pip install .")
    if not found:
        return unknown("libraries", "orchestra runs from a tree that is not installed")
    return Check("libraries", ", ".join(f"{name} {version}" for name, _, version in found))


def on_path(version: str, package: str, command: str | None) -> Check:
    found = f"{version} ({package})"
    if command is not None:
        return Check("orchestra", f"{found}, on the PATH as {command}")
    advice = "put it on the PATH (export PATH=…/.venv/bin:$PATH): workers call orchestra beat"
    return Check("orchestra", f"{found}, not on the PATH", Health.WARNING, advice)


def agents(said: dict[str, Said]) -> list[Check]:
    """What is there, each with its trap; one line where none is."""
    if not said:
        return [Check("agents", f"none of {', '.join(TRAPS)} on the PATH; a worker can be any command")]
    return [agent(name, one) for name, one in said.items()]


def agent(name: str, said: Said) -> Check:
    check = f"agent {name}"
    match = _VERSION.search(said.text)
    line = next((line.strip() for line in said.text.splitlines() if line.strip()), "")
    if said.status == 0 and match and len(said.text) < 2000:
        return Check(check, f"{said.path}, {match[0]}", Health.OK, TRAPS.get(name))
    if said.status is None and not said.text:
        why = "it did not answer --version in time"
    elif said.status == 0 or said.status is None:
        why = f"to --version it says {shown(line)}"
    else:
        why = f"--version ends with {said.status}: {shown(line)}"
        return Check(
            check, f"{said.path}, {why}", Health.WARNING, f"see whether it runs at all: {name} --version"
        )
    return Check(check, f"{said.path}, version unknown: {why}", Health.UNKNOWN, TRAPS.get(name))
