"""Markdown for people: figures, references, tables and charts that also read well as plain text."""

from __future__ import annotations

import re
from collections.abc import Sequence

BAR = 28
FIGURE = re.compile(r"[0-9][0-9.,]*|-|")


def code(text: str, limit: int = 90) -> str:
    """A code span that holds any text at all on one line: what is not printable is shown by its bytes."""
    shown = "".join(char if char.isprintable() and char not in "`|" else escape(char) for char in text)
    if len(shown) > limit:
        shown = f"{shown[: limit // 2 - 1]}…{shown[-limit // 2 :]}"
    return f"`{shown or ' '}`"


def escape(char: str) -> str:
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    if char in known:
        return known[char]
    return "".join(
        f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape" if is_byte(char) else "replace")
    )


def is_byte(char: str) -> bool:
    return 0xDC80 <= ord(char) <= 0xDCFF


def ref(path: str, line: int | None = None) -> str:
    return code(f"{path}:{line}" if line else path)


def count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def verb(number: int, one: str, many: str) -> str:
    return one if number == 1 else many


def size(number: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= 1024
    return ""


def percent(part: float, whole: float) -> str:
    if not whole:
        return "0 %"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<0.1 %"
    if 99.9 < share < 100:
        return ">99.9 %"
    return f"{share:.1f} %" if 0 < share < 1 or 99 < share < 100 else f"{share:.0f} %"


def listed(items: Sequence[str], most: int = 3) -> str:
    """The first few, and how many there are besides."""
    shown = ", ".join(items[:most])
    return f"{shown} and {len(items) - most:,} more" if len(items) > most else shown


def table(head: Sequence[str], rows: Sequence[Sequence[str | int]]) -> list[str]:
    """A column whose cells are all figures stands to the right; figures get their thousands marked."""
    if not rows:
        return []
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    right = [all(FIGURE.fullmatch(row[n]) for row in cells) for n in range(len(head))]
    widths = [max(len(head[n]), *(len(row[n]) for row in cells)) for n in range(len(head))]

    def line(row: Sequence[str]) -> str:
        parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        return "| " + " | ".join(parts) + " |"

    rule = (
        "| "
        + " | ".join("-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True))
        + " |"
    )
    return [line(head), rule, *(line(row) for row in cells), ""]


def chart(rows: Sequence[tuple[str, int, str]]) -> list[str]:
    """A bar for each (label, number, what to say of it), in a block of plain text."""
    most = max((number for _, number, _ in rows), default=0)
    if not most:
        return []
    wide = max(len(label) for label, _, _ in rows)
    bars = [
        (label, "█" * max(round(BAR * number / most), 1 if number else 0), said)
        for label, number, said in rows
    ]
    return [
        "```text",
        *(f"{label:<{wide}}  {bar:<{BAR}}  {said}".rstrip() for label, bar, said in bars),
        "```",
        "",
    ]
