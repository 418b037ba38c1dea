"""Merger: one report of the summary, the four chapters, what was not looked at, and how long all took."""

from __future__ import annotations

import json
from datetime import datetime

from markdown import code, count, size, table
from workplace import Json, SurveyError, Workplace

WORKERS = ("Diagnose", "Recon", "Research-1", "Research-2", "Research-3", "Planner",
           "Builder-1", "Builder-2", "Builder-3", "Builder-4")  # fmt: skip
TIMELINE = 44
UNREAD = (
    ("binary", "binary file", "binary files"),
    ("large", "file above 4 MiB", "files above 4 MiB"),
    ("unread", "file beyond the total of 512 MiB", "files beyond the total of 512 MiB"),
    ("unreadable", "unreadable file", "unreadable files"),
    ("symlink", "symbolic link", "symbolic links"),
    ("broken_symlink", "link that leads nowhere", "links that lead nowhere"),
    ("special", "pipe, socket or device", "pipes, sockets or devices"),
)


def merge(place: Workplace) -> str:
    inventory = place.left_by("Diagnose", "inventory.json")
    plan = place.left_by("Planner", "plan.json")
    lines = [f"# Survey of {code(inventory['name'])}", "", *opening(inventory), *summary(plan)]
    for number in range(1, len(plan["chapters"]) + 1):
        place.beat()
        lines += [*chapter(place, number).rstrip("\n").split("\n"), ""]
    lines += [*unseen(inventory, plan), *timings(place)]
    place.write_text("report.md", "\n".join(lines).rstrip("\n") + "\n")
    return f"report.md, {len(lines)} lines; {len(plan['summary'])} findings first"


def opening(inventory: Json) -> list[str]:
    files = inventory["files"]
    lines = sum(row["lines"] for row in inventory["languages"])
    said = (f"{count(len(files), 'file')} in {count(inventory['directories'], 'directory', 'directories')}, "
            f"{size(sum(f['bytes'] for f in files))}, {count(lines, 'line')} of text")  # fmt: skip
    git = inventory["git"]
    if git.get("commit"):
        changed = {None: "", 0: ", nothing changed since"}.get(
            git["changed"], f", with {count(git['changed'] or 0, 'path')} changed or new since"
        )
        where = f"git {code(git['commit'][:10])}" + (f" on {code(git['branch'])}" if git["branch"] else "")
        said += f"; {where} of {git['date'][:10]}{changed}"
    elif git.get("why_not"):
        said += f"; {git['why_not']}"
    else:
        said += "; a git checkout without a commit"
    return [f"{said}.", ""]


def summary(plan: Json) -> list[str]:
    told = plan["summary"]
    if not told:
        return [
            "## Summary",
            "",
            "Nothing here asks for attention." if plan["found_files"] else "There is no file here.",
            "",
        ]
    lines = [f"## The {len(told)} most telling findings" if len(told) > 1 else "## The one finding", ""]
    for number, row in enumerate(told, 1):
        lines.append(f"{number}. **{row['title']}** {row['detail']}".rstrip())
    return [*lines, ""]


def chapter(place: Workplace, number: int) -> str:
    path = place.run_dir / f"out-Builder-{number}" / "chapter.md"
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise SurveyError(f"Builder-{number} left no chapter.md: has its phase been run? ({path})") from None


def unseen(inventory: Json, plan: Json) -> list[str]:
    """What the report says nothing about, so that nobody takes silence for praise."""
    skipped = ", ".join(f"{what} ({number:,})" for what, number in inventory["skipped"].items())
    counted = [
        count(number, one, many)
        for kind, one, many in UNREAD
        if (number := sum(1 for f in inventory["files"] if f["kind"] == kind))
    ]
    rows = [f"- Left out by name or rule: {skipped}."] if skipped else []
    rows += [f"- Listed but not read as text: {', '.join(counted)}."] if counted else []
    rows += [f"- Cut: {said}." for said in plan["cut"]]
    return ["## What was not looked at", "", *(rows or ["Everything in the directory was read."]), ""]


def timings(place: Workplace) -> list[str]:
    """Who took how long: by orchestra's results where it wrote them, else by the workers' own clocks."""
    spans: list[tuple[str, float | None, float, float]] = []
    for worker in WORKERS:
        own = place.left_by(worker, "timing.json")
        started, ended = ran(place, worker)
        took = ended - started if started is not None and ended is not None else float(own["wall_s"])
        spans.append((worker, started, took, float(own["cpu_s"])))
    starts = [started for _, started, _, _ in spans if started is not None]
    first = min(starts, default=0.0)
    whole = max((s - first + took for _, s, took, _ in spans if s is not None), default=0.0)
    rows = [
        [worker, f"{took:.2f}", f"{cpu:.2f}", bar(s, first, took, whole)] for worker, s, took, cpu in spans
    ]
    total = sum(took for _, _, took, _ in spans)
    said = f"{total:.1f} s of work in {whole:.1f} s" if whole else f"{total:.1f} s of work"
    return ["## How it was made", "",
            f"{count(len(spans), 'worker')} before this one, {said}. Only this table differs between two "
            "surveys of the same directory.", "",
            *table(["worker", "seconds", "of them CPU", "when"], rows)]  # fmt: skip


def ran(place: Workplace, worker: str) -> tuple[float | None, float | None]:
    try:
        result = json.loads((place.run_dir / f"result-{worker}.json").read_text("utf-8"))
        return moment(result["started_at"]), moment(result["ended_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def bar(started: float | None, first: float, took: float, whole: float) -> str:
    if started is None or not whole:
        return ""
    before = min(int(TIMELINE * (started - first) / whole), TIMELINE - 1)
    return "·" * before + "█" * max(1, min(round(TIMELINE * took / whole), TIMELINE - before))
