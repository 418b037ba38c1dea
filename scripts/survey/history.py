"""Research-2: how the target came to be. From git where it is a checkout, else from the dates of its files.

Everything is relative to the newest commit or file, never to today: the same directory gives the same answer.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations

import checkout
from workplace import Json, Workplace

LOG_LIMIT_S = 30.0
WIDE_COMMIT = 30  # files; a sweep over everything says nothing about which files belong together
MENDING = re.compile(
    r"\b(fix(e[sd]|ing)?|bugs?|bugfix|hotfix|regression|revert(s|ed)?|broken)\b", re.IGNORECASE
)
DAY_S = 86400


@dataclass
class Commit:
    commit: str
    at: int
    author: str
    subject: str
    files: list[tuple[str, int]] = field(default_factory=list)


def history(place: Workplace) -> str:
    inventory = place.left_by("Diagnose", "inventory.json")
    why_not = inventory["git"].get("why_not")
    if not why_not:
        limit = place.number(r"latest (N) commits", 2000)
        commits, cut = read_log(place, limit)
        if commits:
            place.write_json(
                "history.json", {"source": "git", "cut": cut} | from_commits(place, commits, inventory)
            )
            return f"{len(commits):,} commits"
        why_not = "no commit touches it"
    place.write_json(
        "history.json", {"source": "dates", "why_not": why_not, "cut": []} | from_dates(inventory)
    )
    return f"no history ({why_not}); dates of files instead"


def read_log(place: Workplace, limit: int) -> tuple[list[Commit], list[str]]:
    which = [f"--max-count={limit + 1}", "--no-merges", "--relative"]
    how = ["--numstat", "-z", "--no-renames", "--no-ext-diff", "--no-textconv"]
    words = ["log", *which, *how, "--format=%x01%h%x02%ct%x02%aE%x02%s", "--", "."]
    commits: list[Commit] = []
    complete = False
    for record in records(place, words):
        if record.startswith("\x01"):
            short, at, author, subject = record[1:].split("\x02", 3)
            commits.append(Commit(short, int(at), author, subject.split("\n", 1)[0]))
        elif commits and (found := re.fullmatch(r"\n?(\d+|-)\t(\d+|-)\t(.+)", record, re.DOTALL)):
            lines = sum(int(figure) for figure in found.group(1, 2) if figure != "-")
            commits[-1].files.append((found[3], lines))
        complete = record == ""
    cut = []
    if len(commits) > limit:
        commits = commits[:limit]
        cut.append(f"history: the latest {limit:,} commits were read; there are more")
    elif commits and not complete:
        cut.append(
            f"history: git log was ended after {LOG_LIMIT_S:.0f} s, with {len(commits):,} commits read"
        )
    if checkout.ask(place.target, "rev-parse", "--is-shallow-repository").text.strip() == "true":
        cut.append("history: the checkout is a shallow clone, so older commits are not here")
    return commits, cut


def records(place: Workplace, words: list[str]) -> Iterator[str]:
    """The NUL-separated records of a git command; a last empty one means that it was not cut short."""
    rest = b""
    for piece in checkout.stream(place.target, LOG_LIMIT_S, *words):
        place.beat()
        *whole, rest = (rest + piece).split(b"\0")
        for record in whole:
            text = record.decode("utf-8", "surrogateescape")
            if text:  # two NULs stand between commits
                yield text
    if not rest:
        yield ""


class Tally:
    """Counts over commits, by file, of those files that are still there."""

    def __init__(self, present: set[str]) -> None:
        self.present = present
        self.changes: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self.authors: dict[str, set[str]] = defaultdict(set)
        self.together: Counter[tuple[str, str]] = Counter()

    def add(self, commit: Commit) -> None:
        touched = sorted({path for path, _ in commit.files if path in self.present})
        for path, count in commit.files:
            self.lines[path] += count
        self.changes.update(touched)
        if MENDING.search(commit.subject):
            self.mended.update(touched)
        for path in touched:
            self.authors[path].add(commit.author)
        if len(touched) <= WIDE_COMMIT:
            self.together.update(combinations(touched, 2))

    def churn(self, most: int) -> list[Json]:
        return [
            {
                "path": path,
                "commits": commits,
                "lines": self.lines[path],
                "authors": len(self.authors[path]),
                "mended": self.mended[path],
            }
            for path, commits in sorted(self.changes.items(), key=by_count)[:most]
        ]


def by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def from_commits(place: Workplace, commits: list[Commit], inventory: Json) -> Json:
    tally = Tally({f["path"] for f in inventory["files"] if f["kind"] == "text" and not f.get("generated")})
    for commit in commits:
        place.beat()
        tally.add(commit)
    by_author = Counter(commit.author for commit in commits)
    return {
        "commits": len(commits),
        "newest": day(max(commit.at for commit in commits)),
        "oldest": day(min(commit.at for commit in commits)),
        "authors": len(by_author),
        "top_author_commits": max(by_author.values()),
        "mending": sum(1 for commit in commits if MENDING.search(commit.subject)),
        "months": by_month(commits),
        "churn": tally.churn(400),
        "mended": [
            {"path": path, "mended": count, "commits": tally.changes[path]}
            for path, count in sorted(tally.mended.items(), key=by_count)[:12]
        ],
        "touched_files": len(tally.changes),
        "one_author": sum(1 for who in tally.authors.values() if len(who) == 1),
        "together": coupled(tally.together, tally.changes),
    }


def coupled(together: Counter[tuple[str, str]], changes: Counter[str]) -> list[Json]:
    """Pairs that change together in most of their commits, at least five times."""
    rows: list[Json] = [
        {"one": a, "other": b, "together": n, "either": changes[a] + changes[b] - n}
        for (a, b), n in together.items()
        if n >= 5 and n / (changes[a] + changes[b] - n) >= 0.5
    ]
    return sorted(rows, key=lambda row: (-row["together"], row["one"], row["other"]))[:40]


def by_month(commits: list[Commit]) -> list[Json]:
    """Commits of the twelve months up to the newest."""
    counts = Counter(day(c.at)[:7] for c in commits)
    year, month = (int(part) for part in max(counts).split("-"))
    months = []
    for _ in range(12):
        months.append({"month": f"{year}-{month:02}", "commits": counts[f"{year}-{month:02}"]})
        year, month = (year - 1, 12) if month == 1 else (year, month - 1)
    return months[::-1]


def day(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return "0000-00-00"


def from_dates(inventory: Json) -> Json:
    """How old the files are, measured from the newest of them."""
    files = [f for f in inventory["files"] if f["kind"] in {"text", "binary", "large"}]
    if not files:
        return {"files": 0, "ages": [], "oldest": [], "newest": "", "at_once": 0}
    newest = max(f["mtime"] for f in files)
    edges = ((1, "the same day"), (7, "a week"), (30, "a month"), (365, "a year"), (1825, "five years"))
    ages = {name: 0 for _, name in edges} | {"more": 0}
    for file in files:
        days = (newest - file["mtime"]) / DAY_S
        ages[next((name for upto, name in edges if days < upto), "more")] += 1
    minutes = Counter(int(f["mtime"] // 60) for f in files)
    old = sorted(files, key=lambda f: (f["mtime"], f["path"]))[:5]
    return {
        "files": len(files),
        "newest": day(newest),
        "ages": [{"age": name, "count": count} for name, count in ages.items()],
        "oldest": [{"path": f["path"], "day": day(f["mtime"])} for f in old],
        "at_once": max(minutes.values()),
    }
