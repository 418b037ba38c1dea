"""Alerts, and what a command put right, as sentences for people: many of a kind in one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

MOST_NAMES = 5
Row = dict[str, Any]


def alert_sentences(alerts: Iterable[Row]) -> list[str]:
    """In the order of the first of each kind; what is in the log with its time (of the latest)."""
    return [
        sentence + (f" ({rows[0]['at'][:19]})" if "at" in rows[0] else "")
        for kind, rows in of_a_kind(alerts, "kind")
        for sentence in said(_ALERTS, kind, rows)
    ]


def recovered_sentences(recovered: Iterable[Row]) -> list[str]:
    return [
        sentence for kind, rows in of_a_kind(recovered, "what") for sentence in said(_RECOVERED, kind, rows)
    ]


def of_a_kind(rows: Iterable[Row], key: str) -> list[tuple[str, list[Row]]]:
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(str(row[key]), []).append(row)
    return list(kinds.items())


Say = Callable[[list[Row]], str]


def said(say: dict[str, Say], kind: str, rows: list[Row]) -> list[str]:
    """What has no sentence of its own is told word for word."""
    if kind in say:
        return [say[kind](rows)]
    return [f"{kind}: " + ", ".join(f"{k} {v}" for k, v in row.items() if k not in _HEAD) for row in rows]


_HEAD = ("kind", "what", "op", "at", "holder")


def workers(rows: list[Row], detail: Callable[[Row], str] | None = None) -> str:
    """ "A, B and 3 more", each with its detail if there is one."""
    shown = [f"{row['worker']}{f' ({detail(row)})' if detail else ''}" for row in rows[:MOST_NAMES]]
    more = f" and {len(rows) - MOST_NAMES} more" if len(rows) > MOST_NAMES else ""
    return ", ".join(shown) + more


def gap(row: Row) -> str:
    return str(row["gap"])


def reason(row: Row) -> str:
    return str(row["reason"])


def pids(row: Row) -> str:
    alive = f", still alive: {numbers(row['still_alive'])}" if row.get("still_alive") else ""
    return f"pids {numbers(row['pids'])}{alive}"


def numbers(found: list[int]) -> str:
    return ", ".join(map(str, found))


def holder(row: Row) -> str:
    """Of the lock, as the alert has it or as the answer has it."""
    told = row.get("holder") or row
    verb = f", orchestra {told['command']}" if told.get("command") else ""
    return f"pid {told.get('pid', '?')}{verb}"


def taken_over(rows: list[Row]) -> str:
    return f"took over the lock of a dead narrator: {'; '.join(map(holder, rows[:MOST_NAMES]))}"


def freed(rows: list[Row]) -> str:
    row = rows[0]
    if row.get("holder") is None:
        return "a lock that did not say whose it was has been freed"
    how = "taken by force from a living narrator" if row.get("forced") else "freed of a dead narrator"
    return f"the lock was {how}: {holder(row)}"


def place_in_log(row: Row) -> str:
    many = f" in {row['places']} places" if row.get("places") else ""
    end = " (its end)" if row.get("torn") else ""
    size = f"{row['size']} bytes" if "size" in row else "bytes"
    return f"{size}{many} at offset {row.get('offset', '?')}{end}"


def copy_of_damage(row: Row) -> str:
    return f"{row['saved_as']}" + (f" (the first {row['kept']} bytes)" if "kept" in row else "")


def damaged(rows: list[Row]) -> str:
    places = ", ".join(map(place_in_log, rows[:MOST_NAMES]))
    more = f" and in {len(rows) - MOST_NAMES} more places" if len(rows) > MOST_NAMES else ""
    copies = ", ".join(map(copy_of_damage, [row for row in rows[:MOST_NAMES] if row.get("saved_as")]))
    kept = f"; copied to {copies}" if copies else ""
    return f"the event log was damaged: {places}{more} were no event{kept}"


def shortened(rows: list[Row]) -> str:
    row = rows[0]
    lost = f"operations {row['after_op'] + 1} to {row['up_to_op']}"
    back = "; what state.json had of them is in the log again" if "op" in row or "what" in row else ""
    return f"the event log was cut from outside: it has lost {lost}{back}"


def headless(rows: list[Row]) -> str:
    return "the event log had lost how the run began; what state.json had of that is in the log again"


def unknown(row: Row) -> str:
    return f"at work, pids {numbers(row['pids'])}" if row["pids"] else "not at work"


def strays_ended(rows: list[Row]) -> str:
    strays = [stray for row in rows for stray in row["strays"]]
    return f"ended what lived of this run unknown to its log: {workers(strays, pids)}"


def leftovers_ended(rows: list[Row]) -> str:
    return f"ended what lost workers had left running: {workers(rows, pids)}"


_ALERTS: dict[str, Say] = {
    "dead_holder": lambda rows: (
        f"the narrator that holds the lock is dead: {holder(rows[0])}; "
        "the next command that changes the run takes over"
    ),
    "stopped_holder": lambda rows: (
        f"the narrator that holds the lock is stopped: {holder(rows[0])}; "
        f"kill -CONT {rows[0]['pid']} lets it go on, orchestra unlock RUN --force takes the run from it"
    ),
    "unreadable_lock": lambda rows: f"the lock does not say whose it is: {rows[0]['path']}",
    "stopped_launcher": lambda rows: (
        f"launchers are stopped, so that nobody sees to their workers' end or timeout: "
        f"{workers(rows, lambda row: 'pid ' + str(row['pid']))}; "
        f"kill -CONT {' '.join(str(row['pid']) for row in rows[:MOST_NAMES])} lets them go on"
    ),
    "gap": lambda rows: f"left half-done by a dead narrator: {workers(rows, gap)}",
    "stalled": lambda rows: f"shows no sign of progress: {workers(rows)}",
    "held_up": lambda rows: f"at work, but something is wrong: {workers(rows, reason)}",
    "leftovers": lambda rows: f"of lost workers there still live: {workers(rows, pids)}",
    "late_result": lambda rows: (
        "results that came after their attempt was given up, kept but not believed: "
        + workers(rows, lambda row: f"attempt {row['attempt']}")
    ),
    "unknown_worker": lambda rows: (
        f"in the run's directory and not in its log: {workers(rows, unknown)}; the same spawn again takes "
        "them on, orchestra stop RUN ends what is at work"
    ),
    "odd_event": lambda rows: (
        "lines of the event log say nothing that can be understood, and were passed over: operations "
        + numbers([row["at_op"] for row in rows[:MOST_NAMES]])
    ),
    "strays_ended": strays_ended,
    "log_shortened": shortened,
    "log_headless": headless,
    "log_damage": damaged,
    "log_damaged": damaged,
    "lock_taken_over": taken_over,
    "lock_freed": freed,
    "leftovers_ended": leftovers_ended,
}
_RECOVERED: dict[str, Say] = {
    "log_headless": headless,
    "log_shortened": shortened,
    "lock_taken_over": taken_over,
    "log_damaged": damaged,
    "half_done_spawn": lambda rows: (
        f"starts that were left half-done are deferred, the next spawn makes them: {workers(rows, gap)}"
    ),
    "half_done_stop": lambda rows: f"finished a stop that was left half-done: {workers(rows)}",
    "leftovers_ended": leftovers_ended,
}
