"""Precedents: for how long workers of a command were quiet and yet ended well.

    {"quiet": {"claude -p": {"longest_s": 181.2, "at": "2026-01-31T…"}, …}}

Remembered beside the runs, in `.orchestra/quiet.json` under their root.
"""

from __future__ import annotations

import shlex
from typing import Any

from orchestra.model.likeness import same_command, same_program

MOST_COMMANDS = 200

Table = dict[str, dict[str, Any]]


def longest_before(table: Table, command: tuple[str, ...] | None) -> float | None:
    """Seconds; of this very command, else of any with its program; None: there is no precedent."""
    exact = table.get(same_command(command))
    if exact is not None:
        return float(exact["longest_s"])
    program = same_program(command)
    alike = [row["longest_s"] for key, row in table.items() if same_program(_words(key)) == program]
    return max(alike, default=None)


def with_longest(table: Table, command: tuple[str, ...] | None, longest_s: float, at: str) -> Table | None:
    """The table with one more precedent; None where it teaches nothing new."""
    key = same_command(command)
    if longest_s <= table.get(key, {}).get("longest_s", 0.0):
        return None
    rows = {**table, key: {"longest_s": round(longest_s, 3), "at": at}}
    kept = sorted(rows, key=lambda k: str(rows[k].get("at")))[-MOST_COMMANDS:]
    return {k: rows[k] for k in kept}


def table_from(note: dict[str, Any]) -> Table:
    """What the note says; empty for what is no table, and rows that are none are left out."""
    rows = note.get("quiet")
    return {key: row for key, row in rows.items() if _is_row(row)} if isinstance(rows, dict) else {}


def _words(key: str) -> list[str]:
    try:
        return shlex.split(key)
    except ValueError:  # no key of ours
        return []


def _is_row(row: object) -> bool:
    longest_s = row.get("longest_s") if isinstance(row, dict) else None
    return isinstance(longest_s, (int, float)) and not isinstance(longest_s, bool) and 0 <= longest_s < 1e12
