"""Small notes that are kept with the root, beside its runs: best effort, and gone at any time without harm.

What must stay true: a note is one JSON object; whoever changes it holds an OS lock on it, or where that
is not to be had in a moment, changes nothing; one that cannot be read, torn by a power cut or swollen by
a worker, say, is as good as empty. What is no file in its place holds nobody up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from orchestra.store.publish import open_regular

MOST = 8 << 20  # bytes
PATIENCE_S = 1.0  # for whoever holds the note; a change takes milliseconds
_WAY = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Note:
    """One note, by its path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.patience_s = PATIENCE_S

    def read(self) -> dict[str, Any]:
        try:
            with open_regular(self.path, MOST) as file:
                return _parse(file.read())
        except OSError:
            return {}

    @contextlib.contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """The note's value, to be changed in place; written at the end. What cannot be written is let be."""
        with contextlib.ExitStack() as held:
            fd, ours = None, False
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
                fd = os.open(self.path, _WAY, 0o600)
                held.callback(os.close, fd)
                ours = self._lock(fd)
            before = b"" if fd is None else _read_all(fd)
            value = _parse(before)
            yield value
            after = json.dumps(value, separators=(",", ":")).encode()
            if fd is not None and ours and after != before:
                with contextlib.suppress(OSError):
                    os.pwrite(fd, after.ljust(len(before)), 0)  # whoever reads meanwhile finds it whole
                    os.ftruncate(fd, len(after))

    def _lock(self, fd: int) -> bool:
        """Who cannot have it goes on without: a note is no truth. Waited for once, not at every change."""
        deadline = time.monotonic() + self.patience_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self.patience_s = 0.0
                    return False
                time.sleep(0.002)


def _read_all(fd: int) -> bytes:
    with contextlib.suppress(OSError):
        if (size := os.fstat(fd).st_size) <= MOST:
            return os.pread(fd, size, 0)
    return b""


def _parse(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
