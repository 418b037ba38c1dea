"""`.orchestra/quiet.json` under the runs' root: for how long workers were quiet and yet ended well."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator

from orchestra.store.publish import publish, read_text

NAME = ".orchestra"  # no run is called so
PATIENCE_S = 0.2  # for another command of this root that is writing at this moment


def path_of(root: str) -> str:
    return f"{root}/{NAME}/quiet.json"


def read(root: str) -> str | None:
    return read_text(path_of(root))


def change(root: str, edit: Callable[[str | None], str | None]) -> None:
    """Replace the text with what `edit` makes of it (None: as it was). Raises OSError."""
    os.makedirs(f"{root}/{NAME}", mode=0o700, exist_ok=True)
    with _alone(f"{root}/{NAME}"):
        text = edit(read(root))
        if text is not None:
            publish(path_of(root), text.encode(), durable=False)


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Two that write at once would lose one precedent. Raises OSError where another takes too long."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
        yield
    finally:
        os.close(fd)
