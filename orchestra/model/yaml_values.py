"""One typed value from one place of a YAML tree, or an error that says what belongs there.

`what` is what the value is for, as the error names it: "cwd", "env: LANG". A plain
scalar is taken by its text wherever text belongs, so a worker may be named `no` or
`1.5` without quotes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from orchestra.model.names import did_you_mean, shown
from orchestra.model.units import BadValue, parse_duration, parse_size, parse_timeout
from orchestra.model.yaml_tree import BOOL, FLOAT, INT, NULL, Items, Pairs, Scalar, Tree

T = TypeVar("T")

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LARGEST_WHOLE = 1_000_000
LEAST_BARE = 1 << 20  # bytes of a limit
_OFF_HINT = "write a larger one, or 'off' for no limit"


def text(tree: Tree, what: str) -> str:
    """Text, perhaps empty; no NUL and no half of a surrogate pair, which no argv or file takes."""
    if not isinstance(tree, Scalar):
        raise tree.at.bad(f"{what} must be text, not {_kind(tree)}", _text_hint(tree))
    if is_null(tree):
        raise tree.at.bad(f"{what} has no value", _null_hint(tree))
    if "\0" in tree.text:
        raise tree.at.bad(f"{what} holds a NUL character: {shown(tree.text)}", "remove it")
    if any("\ud800" <= character <= "\udfff" for character in tree.text):
        raise tree.at.bad(f"{what} holds half a character: {shown(tree.text)}", "write the whole of it")
    return tree.text


def filled(tree: Tree, what: str) -> str:
    """Text that is more than spaces."""
    found = text(tree, what)
    if not found.strip():
        raise tree.at.bad(f"{what} is empty", "write what belongs there")
    return found


def env_text(tree: Tree, what: str) -> str:
    """Text only: a number or a boolean has more than one spelling, and the variable must have one."""
    if isinstance(tree, Scalar) and tree.tag in (BOOL, INT, FLOAT):
        raise tree.at.bad(f"{what} must be text, not {_kind(tree)}", f'put it in quotes: "{tree.text}"')
    return text(tree, what)


def mapping(tree: Tree, what: str, keys: Sequence[str] | None, hint: str) -> Pairs:
    """A mapping with no other keys than `keys`, where given."""
    if not isinstance(tree, Pairs):
        raise tree.at.bad(f"{what} must be a mapping, not {_kind(tree)}", hint)
    if keys is not None:
        for key, at in tree.keys.items():
            if key not in keys:
                raise at.bad(f"{what} has no key {shown(key)}{_nearest(key, keys)}",
                             f"the keys here are {', '.join(keys)}")  # fmt: skip
    return tree


def items(tree: Tree, what: str, hint: str) -> tuple[Tree, ...]:
    """The values of a list."""
    if not isinstance(tree, Items):
        raise tree.at.bad(f"{what} must be a list, not {_kind(tree)}", hint)
    return tree.values


def whole(tree: Tree, what: str) -> int:
    """A whole number from 0 to a million."""
    return _whole_from(0, tree, what)


def whole_above_0(tree: Tree, what: str) -> int:
    """A whole number from 1 to a million."""
    return _whole_from(1, tree, what)


def number_above_0(tree: Tree, what: str) -> float:
    """A finite number."""
    hint = "write a number above 0 and nothing behind it, or off"
    found = float(tree.text) if _is_number(tree, _NUMBER) and isinstance(tree, Scalar) else math.nan
    if not math.isfinite(found):
        raise tree.at.bad(f"{what} must be a number, not {_kind(tree)}", hint)
    if found <= 0:
        raise tree.at.bad(f"{what} must be above 0, not {_kind(tree)}", _OFF_HINT)
    return found


def duration(tree: Tree, what: str) -> float:
    """Seconds."""
    return checked(tree, parse_duration, text(tree, what), what)


def timeout(tree: Tree, what: str) -> float:
    """Seconds."""
    return checked(tree, parse_timeout, text(tree, what), what)


def timeout_or_off(tree: Tree, what: str) -> float | None:
    """Seconds, or None for `off`."""
    return None if is_off(tree) else timeout(tree, what)


def duration_or_off(tree: Tree, what: str) -> float | None:
    """Seconds, or None for `off`."""
    return None if is_off(tree) else duration(tree, what)


def size(tree: Tree, what: str) -> int:
    """Bytes, perhaps 0."""
    return checked(tree, parse_size, text(tree, what), what)


def size_above_0(tree: Tree, what: str) -> int:
    """Bytes. So few that a unit must have been forgotten are refused."""
    found = size(tree, what)
    if found == 0:
        raise tree.at.bad(f"{what} must be above 0", _OFF_HINT)
    if found < LEAST_BARE and isinstance(tree, Scalar) and tree.text.strip().isdigit():
        hint = f"write {found}GiB or {found}MiB; {found}B where bytes are meant"
        raise tree.at.bad(f"{what}: {found} is only {found} bytes", hint)
    return found


def percent_above_0(tree: Tree, what: str) -> float:
    found = number_above_0(tree, what)
    if found > 100:
        raise tree.at.bad(f"{what} is in percent: {found:g} is never exceeded", "write at most 100, or off")
    return found


def checked(tree: Tree, parse: Callable[[str], T], found: str, what: str = "") -> T:
    """What `parse` makes of `found`, its `BadValue` turned into an error at this place."""
    try:
        return parse(found)
    except BadValue as error:
        raise tree.at.bad(f"{what}: {error.problem}" if what else error.problem, error.remedy) from None


def is_null(tree: Tree) -> bool:
    """Nothing, `~` or `null`."""
    return isinstance(tree, Scalar) and tree.tag == NULL


def is_off(tree: Tree) -> bool:
    """The word `off`, which YAML 1.1 takes for a boolean."""
    return isinstance(tree, Scalar) and tree.text in ("off", "Off", "OFF")


def is_true(tree: Tree) -> bool:
    """One of YAML 1.1's words for true."""
    return isinstance(tree, Scalar) and tree.tag == BOOL and tree.text.lower() in ("true", "yes", "on")


def _whole_from(least: int, tree: Tree, what: str) -> int:
    hint = f"write a whole number from {least} to {_LARGEST_WHOLE}, without quotes"
    if not isinstance(tree, Scalar) or not _is_number(tree, _WHOLE):
        raise tree.at.bad(f"{what} must be a whole number, not {_kind(tree)}", hint)
    # The length first: int() refuses more than 4300 digits.
    if len(tree.text) > 20 or not least <= int(tree.text) <= _LARGEST_WHOLE:
        raise tree.at.bad(f"{what} cannot be {shown(tree.text)}", hint)
    return int(tree.text)


def _is_number(tree: Tree, form: re.Pattern[str]) -> bool:
    if not isinstance(tree, Scalar) or not (tree.plain or tree.tag in (INT, FLOAT)):
        return False
    return form.fullmatch(tree.text) is not None


def _kind(tree: Tree) -> str:
    if isinstance(tree, Items):
        return "a list"
    if isinstance(tree, Pairs):
        return "a mapping"
    if is_null(tree):
        return "nothing"
    kind = {BOOL: "the boolean", INT: "the number", FLOAT: "the number"}.get(tree.tag, "the text")
    return f"{kind} {shown(tree.text)}"


def _text_hint(tree: Tree) -> str:
    if isinstance(tree, Pairs) and len(tree.keys) == 1:
        [(key, value)] = tree.values.items()
        if is_null(value):
            return f'put it in quotes, as YAML takes braces for a mapping: "{{{key}}}"'
    return "write text, in quotes if it begins with [ or { or holds ': '"


def _null_hint(tree: Scalar) -> str:
    quoted = f', or put it in quotes if it is meant as text: "{tree.text}"' if tree.text else ""
    return f"give it a value{quoted}"


def _nearest(key: str, keys: Sequence[str]) -> str:
    near = did_you_mean(key, keys)
    return f"; {near}" if near else ""
