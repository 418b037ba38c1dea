"""The shape of a finding, and the phrases that findings share."""

from __future__ import annotations

from markdown import ref
from workplace import Json

Rows = list[Json]


def finding(kind: str, chapter: int, score: float, title: str, detail: str = "") -> Json:
    return {"kind": kind, "chapter": chapter, "score": round(score, 1), "title": title, "detail": detail}


def grown(base: float, by: float, ceiling: float) -> float:
    return base + min(by, ceiling)


def weigh(score: float, rows: Rows) -> float:
    """Half of it where all stand in tests."""
    return score if any(not row.get("test") for row in rows) else score / 2


def where(rows: Rows) -> str:
    inside = sum(1 for row in rows if row.get("test"))
    if not inside:
        return ""
    return " (in tests)" if inside == len(rows) else f" ({inside:,} of them in tests)"


def places(rows: Rows, most: int = 3, of: int | None = None) -> str:
    """The first places, and how many there are besides; `of` is their number where `rows` holds only some."""
    shown = ", ".join(ref(row["path"], row.get("line")) for row in rows[:most])
    rest = (len(rows) if of is None else of) - len(rows[:most])
    return f"{shown} and {rest:,} more" if rest > 0 else shown
