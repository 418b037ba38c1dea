"""One error for each thing that a person can act on.

Every error carries the `code` that scripts test for, the exit status of the command,
and a `hint`: the next step, as a sentence or a command ready to run. Further facts
(a PID, a path, a line) travel in `details` and stand beside the code in the answer.
"""

from __future__ import annotations

import errno
from typing import Any

PROVES_NOTHING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO})
"""What could not be looked at for want of these may be there: it is not taken for absent, or for dead."""

USAGE = 2
HELD = 3
BUG = 70


class OrchestraError(Exception):
    """A command could not be carried out; what was begun is in the log, and put right by the next.

    `message` says what was tried and on which path; `hint` says what to do now.
    """

    code = "internal"
    exit_status = BUG

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def to_json(self) -> dict[str, Any]:
        """`{"code", "message", "hint", …details}`, as it stands in an answer."""
        return {"code": self.code, "message": self.message, "hint": self.hint, **self.details}


class Usage(OrchestraError):
    code = "usage"
    exit_status = USAGE


class BadPlan(OrchestraError):
    """`details`: `file`, `line` and `column` (both from 1), where they are known."""

    code = "bad_plan"
    exit_status = USAGE


class BadConfig(OrchestraError):
    """The user's config file, or a variable that stands for it. `details` as of BadPlan."""

    code = "bad_config"
    exit_status = USAGE


class BadName(OrchestraError):
    code = "bad_name"
    exit_status = USAGE


class NameTaken(OrchestraError):
    code = "name_taken"
    exit_status = USAGE


class NoSuchRun(OrchestraError):
    code = "no_such_run"
    exit_status = USAGE


class NoSuchPhase(OrchestraError):
    code = "no_such_phase"
    exit_status = USAGE


class NoSuchWorker(OrchestraError):
    code = "no_such_worker"
    exit_status = USAGE


class NarratorAlreadyActive(OrchestraError):
    """`details`: `pid`, `holder` or `seat`, whichever stands in the way."""

    code = "narrator_already_active"
    exit_status = HELD


class Superseded(OrchestraError):
    code = "superseded"
    exit_status = HELD


class HolderAlive(OrchestraError):
    code = "holder_alive"
    exit_status = HELD


class NestedSpawn(OrchestraError):
    code = "nested_spawn"
    exit_status = USAGE


class CorruptLog(OrchestraError):
    code = "corrupt_log"
    exit_status = 1


class Storage(OrchestraError):
    """The disk said no: full, read-only, no permission, gone. `details`: `path`, `errno`."""

    code = "storage"
    exit_status = 1

    @classmethod
    def from_os(cls, tried: str, path: object, error: OSError) -> Storage:
        """`tried` is a verb phrase: "write the launcher"."""
        why = error.strerror or str(error)
        hint = {
            "ENOSPC": "free some space, then make the same call again",
            "EDQUOT": "free some of your quota, then make the same call again",
            "EROFS": "the file system is read-only: mount it writable, or use --root elsewhere",
            "EACCES": "check who owns the directory, or use --root elsewhere",
            "EPERM": "check who owns the directory, or use --root elsewhere",
            "ETIMEDOUT": "see who has the file open (fuser PATH): it may be a stopped process",
            "EMFILE": "raise the limit of open files (ulimit -n), then make the same call again",
            "ENFILE": "the machine is out of open files: end something, then make the same call again",
            "ENOMEM": "free some memory, then make the same call again",
            "ENOENT": "the directory is gone: check the path",
        }.get(_errno_name(error), "mend the storage, then make the same call again")
        return cls(f"could not {tried} ({path}): {why}", hint=hint, path=str(path), errno=error.errno)


def _errno_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "")
