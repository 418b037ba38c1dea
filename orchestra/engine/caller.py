"""Who may change a run at all, before anything is touched."""

from __future__ import annotations

import os

from orchestra.errors import NestedSpawn, Usage


def check_caller(command: str) -> None:
    """Raises NestedSpawn for a worker, Usage for a umask by which we could not use what we write."""
    worker = os.environ.get("ORCHESTRA_WORKER")
    if os.environ.get("ORCHESTRA_TOKEN") and worker:
        raise NestedSpawn(
            f"orchestra {command} was called by worker {worker!r}: workers do not conduct",
            hint="write what should be done next into $ORCHESTRA_OUT; the narrator will see it",
            worker=worker,
        )
    umask = os.umask(0o077)
    os.umask(umask)
    if umask & 0o700:
        raise Usage(
            f"the umask {umask:04o} takes your own rights from every file of the run",
            hint="umask 077, then make the same call again",
        )
