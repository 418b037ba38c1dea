"""Answers for people: tables and lines. Colour carries meaning, but never alone."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

from orchestra.cli.options import MOST_ALERTS
from orchestra.cli.progress import in_words
from orchestra.cli.sentences import alert_sentences
from orchestra.engine.outcome import SpawnReport
from orchestra.model.record import State
from orchestra.model.snapshot import Snapshot, WorkerView
from orchestra.model.throttle import format_figure, limit_of
from orchestra.model.units import format_bytes

_STYLE = {
    State.DONE: ("green", "✓"),
    State.FAILED: ("bold red", "✗"),
    State.STALLED: ("yellow", "!"),
    State.DEFERRED: ("yellow", "…"),
    State.RUNNING: ("cyan", "▶"),
    State.SPAWNING: ("cyan", "›"),
    State.PLANNED: ("dim", "·"),
}

# Elsewhere than on a terminal nothing is folded: lines are for grep then.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)


def plain(text: object) -> str:
    """Text of a worker's or a person's making: no markup, no control characters."""
    return escape("".join(c if c.isprintable() else "�" for c in str(text if text is not None else "")))


def state_text(state: State) -> str:
    style, sign = _STYLE[state]
    return f"[{style}]{sign} {state}[/]"


def table(*columns: str) -> Table:
    made = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column != columns[-1])
    return made


def show_workers(
    views: Sequence[WorkerView], far: dict[str, Any] | None = None, ahead: dict[str, int] | None = None
) -> None:
    """`far`: worker -> done and total, of those that have said so; `ahead`: how many start before it.

    Reasons stand in a column where they fit, else below the table; names are folded rather than cut.
    """
    if not views:
        return
    reasons = [plain(v.reason or "") + queued((ahead or {}).get(v.record.name)) for v in views]
    rows = table(*_COLUMNS[:4], *(["progress"] if far else []), *_COLUMNS[4:])
    for view, reason in zip(views, reasons, strict=True):
        record, told = view.record, (far or {}).get(view.record.name)
        since = ((view.ended and view.ended_at) or record.since)[5:19].replace("T", " ")
        rows.add_row(
            plain(record.name),
            plain(record.phase or ""),
            str(record.attempt),
            state_text(view.state),
            *([f"{told['done']}/{told['total']}" if told else ""] if far else []),
            plain(view.verdict or ""),
            since,
            reason,
        )
    fits = Measurement.get(console, console.options.update(max_width=10_000), rows).maximum <= console.width
    if not (fits and any(reasons)):
        rows.columns.pop()
    if not fits:
        for column in rows.columns[:2]:
            column.no_wrap = False
    console.print(rows)
    for view, reason in zip(views, reasons, strict=True):
        if reason and not fits:
            console.print(f"{state_text(view.state)} {plain(view.record.name)}: {reason}")


_COLUMNS = ("worker", "phase", "try", "state", "verdict", "since (UTC)", "reason")


def queued(ahead: int | None) -> str:
    return "" if ahead is None else f" ({ahead} before it)" if ahead else " (next to start)"


def show_status(
    snapshot: Snapshot, views: Sequence[WorkerView], hidden: int, far: dict[str, Any], ahead: dict[str, int]
) -> None:
    show_workers(views, far, ahead)
    if hidden:
        console.print(f"[dim]… and {hidden} more (--limit 0 shows all)[/]")
    console.print(in_words(snapshot.counts()) or "no workers yet")
    if snapshot.lock.get("held"):
        who = (
            f"pid {snapshot.lock['pid']}, orchestra {snapshot.lock['command']}"
            if "pid" in snapshot.lock
            else "?"
        )
        dead = " [bold red](dead)[/]" if snapshot.lock.get("dead") else ""
        beat = snapshot.lock.get("heartbeat")
        quiet = f", heartbeat last changed {beat['quiet_s']:.0f} s ago as seen from here" if beat else ""
        console.print(f"lock: held by {plain(who)}{quiet}{dead}")
    if snapshot.seat:
        console.print(f"seat: {plain(snapshot.seat)}")
    show_alerts(snapshot.alerts)


def show_alerts(alerts: Sequence[dict[str, Any]]) -> None:
    for sentence in alert_sentences(alerts)[:MOST_ALERTS]:
        console.print(f"[yellow]alert:[/] {plain(sentence)}")


def show_buckets(report: SpawnReport, *, dry_run: bool, nothing: str) -> None:
    would = "would be " if dry_run else ""
    for row in report.spawned:
        pid = f" (pid {row['pid']})" if row.get("pid") else ""
        console.print(f"[cyan]▶ {would}spawned[/]  {plain(row['name'])}{pid}{at_once(row)}")
    for row in report.deferred:
        console.print(f"[yellow]… {would}deferred[/] {plain(row['name'])}: {plain(row['reason'])}")
    for row in report.failed:
        why = f"{plain(row['verdict'])}: {plain(row['reason'])}"
        console.print(f"[bold red]✗ {'would fail' if dry_run else 'failed'}[/]   {plain(row['name'])}: {why}")
    for row in report.already:
        console.print(f"[dim]· already[/]  {plain(row['name'])}: {plain(noted(row))}")
    if not any(report):
        console.print(f"nothing to do: {nothing}")


def at_once(row: dict[str, Any]) -> str:
    """How a spawned one has ended already, if it has."""
    if "state" not in row:
        return ""
    why = f": {row['verdict']}: {row['reason']}" if row["verdict"] else ""
    return f", and {state_text(State(row['state']))}{plain(why)}"


def noted(row: dict[str, Any]) -> str:
    """The state of one that was left alone, how it failed, and why it was if that wants saying."""
    how = f": {row['verdict']}: {row['reason']}" if row.get("verdict") else ""
    return f"{row['state']}{how}" + (f"; {row['note']}" if "note" in row else "")


def say(view: WorkerView) -> None:
    """One line about one worker."""
    why = f": {view.verdict}: {view.reason}" if view.verdict else (f": {view.reason}" if view.reason else "")
    again = f" (attempt {view.record.attempt})" if view.record.attempt > 1 else ""
    console.print(f"  {state_text(view.state)} {plain(view.record.name)}{again}{plain(why)}")


def say_phase(name: str) -> None:
    console.print(f"[bold]{plain(name)}[/]")


def show_runs(rows: Sequence[dict[str, Any]]) -> None:
    made = table("run", "changed", "workers", "")
    for row in rows:
        if "error" in row:
            made.add_row(
                plain(row["run"]),
                row["changed_at"][:19],
                "[bold red]✗ unreadable[/]",
                plain(row["error"]["message"]),
            )
            continue
        counts = in_words(row["counts"])
        flags = " ".join(
            flag
            for flag, there in (
                ("▶ conducted", row["conducted"]),
                (f"! alerts: {row['alerts']}", row["alerts"]),
            )
            if there
        )
        made.add_row(plain(row["run"]), row["changed_at"][:19], counts or "none yet", flags)
    console.print(made if rows else "no runs here")


def artefact(row: dict[str, Any]) -> str:
    """One expected artefact, as it was found."""
    size = "missing" if row["size_bytes"] is None else f"{row['size_bytes']} bytes"
    return f"{row['path']}: {size}, of at least {row['min_bytes']}"


def show_story(story: dict[str, Any]) -> None:
    console.print(
        f"[bold]{plain(story['name'])}[/]  {state_text(State(story['state']))}  attempt {story['attempt']}"
    )
    for key in (
        "verdict",
        "meaning",
        "reason",
        "retry",
        "way_out",
        "gap",
        "pid",
        "started_at",
        "ended_at",
        "found_gone_at",
    ):
        if story.get(key) is not None:
            say_indented(f"{key}: {story[key]}")
    say_indented(f"command: {shlex.join(story['command'])}")
    if beat := story.get("beat"):
        say_indented("beat: " + ", ".join(f"{key} {value}" for key, value in beat.items()))
    for line in story.get("signs", {}).get("told", []):
        say_indented(line)
    if "deferred" in story:
        deferred = story["deferred"]
        say_indented(f"deferred since {deferred['since']}: {deferred['reason']}")
        guess = "" if deferred["expected_s"] is None else f", in about {deferred['expected_s']:g} s"
        say_indented(f"now{queued(deferred['ahead'])}{guess}: {deferred['outlook']}")
    for key, value in (story.get("evidence") or {}).items():
        if isinstance(value, list):
            for line in value:
                say_indented(f"{key}: {artefact(line) if isinstance(line, dict) else line}")
        elif value is not None:
            say_indented(f"{key}: {value}")
    for (verdict, reason), alike in groupby(story["attempts"][:-1], itemgetter("verdict", "reason")):
        say_indented(f"{earlier([row['attempt'] for row in alike])}: {verdict}: {reason}")
    made = table("trail", "written", "bytes", "path")
    for row in story["trail"]:
        size = "" if row["size_bytes"] is None else str(row["size_bytes"])
        if row["at"]:
            made.add_row(row["what"], row["at"][:19], size, plain(row["path"].rpartition("/")[2]))
    console.print(made)
    for row in story["made"]["files"]:
        console.print(f"  made: {plain(row['file'])} ({row['size_bytes']} bytes)")
    if story["made"]["truncated"]:
        console.print("  made: … and more")
    console.print(f"in {plain(story['trail'][0]['path'].rpartition('/')[0])}", soft_wrap=True)


def say_indented(text: str) -> None:
    """A line of a worker's story; where it is folded, the rest of it too."""
    console.print(Padding(plain(text), (0, 0, 0, 2), expand=False))


def earlier(attempts: list[int]) -> str:
    """Attempts that ended alike, one after the other."""
    first, last = attempts[0], attempts[-1]
    return f"earlier attempt {first}" if first == last else f"earlier attempts {first} to {last}"


_VERDICT = {
    "ok": "[green]✓ ok[/]",
    "speaks": "[bold red]✗ speaks[/]",
    "off": "[dim]· off[/]",
    "unknown": "[yellow]? unknown[/]",
    "counted": "[dim]· asked for each start[/]",
}


def host_table(report: dict[str, Any]) -> Group:
    """Signals, then what is held, then what would start."""
    signals = table("signal", "now", "limit", "kind", "set by", "verdict")
    for row in report["signals"]:
        limit = limit_of(row["signal"])
        now = "" if row["value"] is None else format_figure(limit, row["value"])
        wanted = "off" if row["limit"] is None else f"{row['wants']} {format_figure(limit, row['limit'])}"
        signals.add_row(row["signal"], now, wanted, row["kind"], row["set_by"], _VERDICT[row["verdict"]])
    lines: list[Any] = [signals]
    if report["held"]:
        held = table("held for", "memory", "processes", "CPUs", "since")
        for row in report["held"]:
            held.add_row(plain(row["command"]), *_needs_cells(row), f"{row['age_s']:g} s ago")
        lines += ["", held]
    if report["known"]:
        known = table("known of", "memory", "processes", "CPUs", "settles in")
        for row in report["known"]:
            known.add_row(plain(row["command"]), *_needs_cells(row), f"{row['settle_s']:g} s")
        lines += ["", known]
    would = report["would_start"]
    like = f"of {plain(would['command'])}" if would["command"] else "of an unknown command"
    each = f"{format_bytes(would['memory_bytes'])} and {would['processes']} processes each"
    lines += ["", f"now would start: [bold]{would['workers']}[/] more {like} ({each})"]
    if would["then"]:
        signals_then = ", ".join(row["signal"] for row in would["then"])
        lines += [f"[dim]then would speak: {signals_then}[/]"]
    return Group(*lines)


def _needs_cells(row: dict[str, Any]) -> tuple[str, str, str]:
    return format_bytes(row["memory_bytes"]), str(row["processes"]), f"{row['cpus']:g}"
