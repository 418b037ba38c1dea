"""Diagnose: the inventory that every later worker builds upon."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import checkout
from languages import classify, is_generated, is_test, is_vendored
from tree import MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, Entry, Walk, read_whole, walk
from workplace import Json, Workplace

HEAD_BYTES = 8192
EXAMPLES = 12


def diagnose(place: Workplace) -> str:
    not_git = checkout.why_not(place.target)
    ignored = frozenset() if not_git else checkout.ignored(place.target)
    limit = min(MAX_FILES, place.number(r"first (N) files", MAX_FILES))
    seen = walk(place.target, ignored, limit, place.beat)
    files, left_unread = examine(place, seen)
    inventory: Json = {
        "target": str(place.target),
        "name": place.target.name or "/",
        "git": {"why_not": not_git} if not_git else head(place.target),
        "directories": seen.directories,
        "files": files,
        "languages": by_language(files),
        "duplicates": duplicates(files),
        "odd": odd(files, seen),
        "skipped": dict(sorted(seen.skipped.items())),
        "cut": [cut for cut in (seen.cut, left_unread) if cut],
    }
    place.write_json("inventory.json", inventory)
    return (
        f"{len(files):,} files in {seen.directories:,} directories, {sum(f['bytes'] for f in files):,} bytes"
    )


def examine(place: Workplace, seen: Walk) -> tuple[list[Json], str]:
    """Each entry with what its content tells; binary files are hashed where another has the same size."""
    sizes = Counter(entry.size for entry in seen.entries if entry.kind == "file")
    files: list[Json] = []
    read, unread = 0, 0
    for entry in seen.entries:
        place.beat()
        within = read + entry.size <= MAX_TOTAL_BYTES
        files.append(describe(place.target, entry, shared_size=sizes[entry.size] > 1, may_read=within))
        read += min(entry.size, MAX_FILE_BYTES) if within else 0
        unread += not within
    cut = (
        f"{unread:,} files were not read: {MAX_TOTAL_BYTES >> 20} MiB had been read by then" if unread else ""
    )
    return files, cut


def describe(target: Path, entry: Entry, *, shared_size: bool, may_read: bool) -> Json:
    about: Json = {
        "path": entry.path, "kind": entry.kind, "bytes": entry.size if entry.kind == "file" else 0,
        "mtime": entry.mtime, "lines": 0, "language": "", "purpose": "other",
    }  # fmt: skip
    if entry.kind != "file":
        return about
    if entry.size > MAX_FILE_BYTES or not may_read:
        return about | {"kind": "large" if entry.size > MAX_FILE_BYTES else "unread"}
    content = read_whole(target / entry.path)
    if content is None:
        return about | {"kind": "unreadable"}
    opening = content[:HEAD_BYTES]
    if entry.size and (shared_size or b"\0" not in opening):
        about["hash"] = hashlib.sha256(content).hexdigest()
    if b"\0" in opening:
        return about | {"kind": "binary"}
    language, purpose = classify(entry.path, opening)
    lines = content.count(b"\n") + (not content.endswith(b"\n") and bool(content))
    crlf = content.count(b"\r\n")
    about |= {"kind": "text", "lines": lines, "language": language, "purpose": purpose}
    flags = {
        "test": is_test(entry.path),
        "vendored": is_vendored(entry.path),
        "generated": is_generated(language, opening, entry.size, lines),
        "executable": entry.executable and content.startswith(b"#!"),
        "mixed_ends": 0 < crlf < content.count(b"\n"),
        "not_utf8": not is_utf8(content),
    }
    return about | {flag: True for flag, holds in flags.items() if holds}


def is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def head(target: Path) -> Json:
    about: Json = {"commit": "", "branch": "", "date": "", "changed": None}
    shown = checkout.ask(target, "log", "-1", "--format=%H %cI")
    if shown.ok and " " in shown.text:
        about["commit"], about["date"] = shown.text.split()[:2]
    branch = checkout.ask(target, "symbolic-ref", "--short", "-q", "HEAD")
    about["branch"] = branch.text.strip()
    status = checkout.ask(target, "status", "--porcelain", "-z", "--no-renames", "--", ".")
    if status.ok:
        about["changed"] = sum(1 for line in status.text.split("\0") if line)
    return about


def by_language(files: list[Json]) -> list[Json]:
    totals: dict[str, Json] = {}
    for file in files:
        if file["kind"] != "text":
            continue
        row = totals.setdefault(file["language"], {
            "language": file["language"], "purpose": file["purpose"], "files": 0, "lines": 0, "bytes": 0,
        })  # fmt: skip
        row["files"] += 1
        row["lines"] += file["lines"]
        row["bytes"] += file["bytes"]
    return sorted(totals.values(), key=lambda row: (-row["lines"], row["language"]))


def duplicates(files: list[Json]) -> list[Json]:
    groups: dict[str, list[Json]] = defaultdict(list)
    for file in files:
        if "hash" in file:
            groups[file["hash"]].append(file)
    same = [
        {
            "paths": [f["path"] for f in group],
            "bytes": group[0]["bytes"],
            "wasted": group[0]["bytes"] * (len(group) - 1),
        }
        for group in groups.values()
        if len(group) > 1
    ]
    return sorted(same, key=lambda group: (-int(str(group["wasted"])), str(group["paths"])))


def odd(files: list[Json], seen: Walk) -> Json:
    """What would trip a tool or a person: {kind of oddity: {count, examples}}."""
    caseless: dict[str, list[str]] = defaultdict(list)
    for file in files:
        caseless[file["path"].casefold()].append(file["path"])
    found: dict[str, list[Any]] = {
        "directories that cannot be read": seen.unreadable,
        "files that cannot be read": [f["path"] for f in files if f["kind"] == "unreadable"],
        "links that lead nowhere": [f["path"] for f in files if f["kind"] == "broken_symlink"],
        "pipes, sockets or devices": [f["path"] for f in files if f["kind"] == "special"],
        f"files above {MAX_FILE_BYTES >> 20} MiB": [f["path"] for f in files if f["kind"] == "large"],
        "names that are not UTF-8": [f["path"] for f in files if not is_text(f["path"])],
        "names with control characters": [f["path"] for f in files if any(ord(c) < 32 for c in f["path"])],
        "names that differ only in case": [
            path for same in caseless.values() if len(same) > 1 for path in same
        ],
        "text files that are not UTF-8": [f["path"] for f in files if f.get("not_utf8")],
        "files that mix CRLF and LF": [f["path"] for f in files if f.get("mixed_ends")],
        "dated in the future": [f["path"] for f in files if f["mtime"] > time.time() + 86400],
    }
    return {
        kind: {"count": len(paths), "examples": paths[:EXAMPLES]} for kind, paths in found.items() if paths
    }


def is_text(path: str) -> bool:
    return not any(0xD800 <= ord(char) <= 0xDFFF for char in path)
