"""What a launcher leaves behind: the mark, the sentinel, the result.

Readers are generous: an unknown field is ignored, a field that is missing or of another
type is empty, and a text that is no JSON object is None, as it may be half-written.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from orchestra.model.verdict import Verdict

TRAIL = ("brief", "prompt", "launcher", "mark")  # in the order in which they are written
NOTES = ("reserve", "grace")  # in the attempt's own place, for its time only


class Process(NamedTuple):
    """Who a process is. A bare PID proves nothing: it comes back after a reboot, or sooner."""

    pid: int
    start: int  # clock ticks after boot, field 22 of /proc/PID/stat
    boot_id: str
    host: str
    pid_ns: int = 0  # inode of the PID namespace in which `pid` counts; 0: not known
    machine_id: str = ""  # two machines can have one name; empty: not known

    def to_json(self) -> dict[str, Any]:
        return {
            "pid": self.pid,
            "process_start": self.start,
            "boot_id": self.boot_id,
            "host": self.host,
            "pid_ns": self.pid_ns,
            "machine_id": self.machine_id,
        }


class Mark(NamedTuple):
    """`.pid-NAME.json`: the launcher's claim of an attempt."""

    worker: str
    attempt: int
    token: str
    process: Process
    started_at: str
    tmp_dir: str  # the worker's TMPDIR; the launcher removes it


class Sentinel(NamedTuple):
    """`.spawn-NAME.error`: the launcher failed before the worker ran."""

    worker: str
    attempt: int
    line: int
    command: str
    exit_code: int
    reason: str
    retry: str  # what another attempt is worth; empty where it does not say
    at: str
    token: str | None = None


class Result(NamedTuple):
    """`result-NAME.json`: how an attempt ended; `throttled` where it was not started.

    Attempt and status stand side by side: launchers look for the two together in the file's text.
    """

    worker: str
    attempt: int
    status: str
    verdict: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    started_at: str | None = None
    ended_at: str | None = None
    worker_pid: int | None = None
    token: str | None = None  # the attempt's; None in what no launcher wrote

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


def process_from_json(data: dict[str, Any]) -> Process:
    return Process(
        _number(data, "pid"),
        _number(data, "process_start"),
        _text(data, "boot_id"),
        _text(data, "host"),
        _number(data, "pid_ns"),
        _text(data, "machine_id"),
    )


def parse_mark(text: str) -> Mark | None:
    data = _object(text)
    if data is None:
        return None
    return Mark(
        _text(data, "worker"),
        _number(data, "attempt"),
        _text(data, "token"),
        process_from_json(data),
        _text(data, "started_at"),
        _text(data, "tmp_dir"),
    )


def parse_sentinel(text: str) -> Sentinel | None:
    data = _object(text)
    if data is None:
        return None
    return Sentinel(
        _text(data, "worker"),
        _number(data, "attempt"),
        _number(data, "line"),
        _text(data, "command"),
        _number(data, "exit_code"),
        _text(data, "reason"),
        _text(data, "retry"),
        _text(data, "at"),
        _text(data, "token") or None,
    )


def parse_result(text: str) -> Result | None:
    data = _object(text)
    if data is None:
        return None
    status = _text(data, "status")
    verdict = _text(data, "verdict") or None
    if status not in ("done", "throttled"):
        status = "failed"
        if verdict not in tuple(Verdict):
            verdict = Verdict.EXIT_CODE
    return Result(
        _text(data, "worker"),
        _number(data, "attempt"),
        status,
        verdict,
        _text(data, "reason") or None,
        _maybe_number(data, "exit_code"),
        _maybe_number(data, "signal"),
        _text(data, "started_at") or None,
        _text(data, "ended_at") or None,
        _maybe_number(data, "worker_pid"),
        _text(data, "token") or None,
    )


def _object(text: str) -> dict[str, Any] | None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if type(value) is str else ""


def _maybe_number(data: dict[str, Any], key: str) -> int | None:
    value = data.get(key)
    return value if type(value) is int else None  # a truth value is none


def _number(data: dict[str, Any], key: str) -> int:
    value = data.get(key)
    return value if type(value) is int else 0
