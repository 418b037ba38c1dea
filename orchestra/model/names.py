"""The names of runs, phases and workers.

A name becomes part of file names (`brief-NAME.md`), of commands shown to people and of
events, so it is made of characters that need no quoting anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from orchestra import errors

RULE = "use 1 to 64 letters (a-z, A-Z), digits, '.', '_' or '-', beginning with a letter or a digit"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_name(name: str) -> bool:
    """Whether `name` may be the name of a run, a phase or a worker."""
    return _NAME.fullmatch(name) is not None


def check_name(kind: str, name: str) -> str:
    """`name` itself; `kind` ("run", "phase", "worker") is for the message of `errors.BadName`."""
    if is_name(name):
        return name
    raise errors.BadName(f"{shown(name)} cannot be the name of a {kind}", hint=RULE)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The question after the known name that is near, or nothing."""
    import difflib  # on the way to an error only

    near = difflib.get_close_matches(name[:64], list(known), 1, cutoff=0.65)
    return f"did you mean {near[0]!r}?" if near else ""


def or_nearest(name: str, known: Iterable[str], hint: str) -> str:
    """The hint, and before it what was probably meant."""
    return f"{did_you_mean(name, known)} {hint}".lstrip()


def shown(text: str, most: int = 64) -> str:
    """The repr of `text`, safe to print whatever is in it, cut after `most` characters."""
    if len(text) <= most:
        return repr(text)
    return f"{text[:most]!r}… ({len(text)} characters)"
