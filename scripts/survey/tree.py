"""Walking the target: bounded, in a fixed order, never following a link, never opening what could block."""

from __future__ import annotations

import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_FILES = 20_000
MAX_FILE_BYTES = 4 << 20
MAX_TOTAL_BYTES = 512 << 20

SKIPPED = {
    ".git": "version control", ".hg": "version control", ".svn": "version control", ".jj": "version control",
    "node_modules": "packages", ".eggs": "packages", ".venv": "virtual environment", "__pycache__": "cache",
    ".mypy_cache": "cache", ".ruff_cache": "cache", ".pytest_cache": "cache", ".hypothesis": "cache",
    ".cache": "cache", ".tox": "virtual environment", ".nox": "virtual environment", ".gradle": "cache",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One thing that is not a directory; `kind` is file, symlink, broken_symlink or special."""

    path: str
    kind: str
    size: int
    mtime: float
    executable: bool


@dataclass
class Walk:
    entries: list[Entry] = field(default_factory=list)
    directories: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    cut: str = ""


def walk(target: Path, ignored: frozenset[str], limit: int, beat: Callable[[], None]) -> Walk:
    """Breadth first, so that where the limit cuts, what lies deepest is left out."""
    seen = Walk()
    queue = deque([""])
    while queue:
        directory = queue.popleft()
        beat()
        try:
            with os.scandir(target / directory) as listing:
                found = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError:
            seen.unreadable.append(directory or ".")
            continue
        seen.directories += 1
        for entry in found:
            path = f"{directory}/{entry.name}" if directory else entry.name
            if entry.is_dir(follow_symlinks=False):
                reason = why_skipped(entry, path, ignored)
                if reason:
                    seen.skipped[reason] += 1
                else:
                    queue.append(path)
            elif path in ignored:
                seen.skipped["ignored by git"] += 1
            elif len(seen.entries) >= limit:
                seen.cut = f"the first {limit:,} files were looked at, shallow ones first; there are more"
                return seen
            elif (known := look_at(entry, path)) is not None:
                seen.entries.append(known)
    return seen


def why_skipped(entry: os.DirEntry[str], path: str, ignored: frozenset[str]) -> str:
    if entry.name in SKIPPED:
        return SKIPPED[entry.name]
    if path == "runs":
        return "runs of orchestra"
    if path in ignored:
        return "ignored by git"
    return "virtual environment" if os.path.lexists(os.path.join(entry.path, "pyvenv.cfg")) else ""


def look_at(entry: os.DirEntry[str], path: str) -> Entry | None:
    try:
        about = entry.stat(follow_symlinks=False)
    except OSError:
        return None  # gone since the listing
    kind = "file" if stat.S_ISREG(about.st_mode) else "special"
    if stat.S_ISLNK(about.st_mode):
        kind = "symlink" if os.path.exists(entry.path) else "broken_symlink"
    return Entry(path, kind, about.st_size, about.st_mtime, bool(about.st_mode & 0o111))


def read_whole(path: Path) -> bytes | None:
    """A regular file's bytes; None where it cannot be read, is above the limit or is no regular file."""
    try:
        # NONBLOCK: what was a file a moment ago may be a pipe now, and opening that would wait for a writer
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= MAX_FILE_BYTES else None


def texts(
    target: Path, files: list[dict[str, Any]], beat: Callable[[], None]
) -> Iterator[tuple[dict[str, Any], str]]:
    """The listed text files with their content; one that has vanished since the inventory is left out."""
    for file in files:
        beat()
        content = read_whole(target / str(file["path"]))
        if content is not None:
            yield file, content.decode("utf-8", "replace").replace("\r\n", "\n")
