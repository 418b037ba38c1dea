"""What a worker made: the files in its out, bounded, as it may have made any number of them."""

from __future__ import annotations

import os
from typing import Any

MOST_FILES = 50
MOST_LOOKED_AT = 5000


def made(out: str) -> dict[str, Any]:
    """`files`: path within `out` and `size_bytes`, at most MOST_FILES; `truncated`: there may be more."""
    files: list[dict[str, Any]] = []
    looked_at, waiting = 0, [""]
    while waiting:
        inside = waiting.pop(0)
        try:
            with os.scandir(os.path.join(out, inside)) as entries:
                for entry in entries:
                    looked_at += 1
                    if len(files) == MOST_FILES or looked_at > MOST_LOOKED_AT:
                        return {"files": in_order(files), "truncated": True}
                    path = os.path.join(inside, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    else:
                        size = entry.stat(follow_symlinks=False).st_size
                        files.append({"file": path, "size_bytes": size})
        except OSError:
            continue
    return {"files": in_order(files), "truncated": False}


def in_order(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(files, key=lambda row: str(row["file"]))
