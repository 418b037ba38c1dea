"""Verdicts: the closed list of ways in which a worker can fail, and what a retry is worth.

The launcher gives the verdict, as it alone knows how the process ended; the patterns that
it looks for in the last lines of standard error stand here, beside the list.
"""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    SPAWN_ERROR = "spawn_error"
    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    OOM = "oom"
    TIMEOUT = "timeout"
    STALLED = "stalled"
    LOST = "lost"
    EMPTY = "empty"
    RATE_LIMITED = "rate_limited"
    AUTH = "auth"
    STOPPED = "stopped"


class Retry(StrEnum):
    NOW = "now"
    LATER = "later"
    NEVER = "never"


# POSIX extended regular expressions, matched without regard to case. They must say "error"
# in some way: a bare 429 is a line number as often as a status.
RATE_LIMIT_PATTERN = (
    r"(error|status|code|http)[^0-9]{0,20}429([^0-9]|$)|too many requests"
    # not the name of a file or of a test
    r"|(^|[^a-z0-9_])rate[ _-]?limit(ed|s|_?error|[^a-z_.]|[.]([^a-z]|$)|$)"
    r"|usage limit|insufficient_quota|exceeded your (current )?quota|quota exceeded for"
    r"|resource.?exhausted|overloaded_error"
)
AUTH_PATTERN = (
    r"(error|status|code|http)[^0-9]{0,20}401([^0-9]|$)|401 unauthori[sz]ed"
    r"|(no|missing|invalid|incorrect).{0,12}api.?key|authentication.?(error|failed)"
    r"|not logged in|please (log|sign) ?in|no key found"
)

_RETRY = {
    # The same command would fail the same way: it has to be mended first.
    Verdict.SPAWN_ERROR: Retry.NEVER,
    Verdict.AUTH: Retry.NEVER,
    # Somebody wanted it to end.
    Verdict.STOPPED: Retry.NEVER,
    # Something has to pass first.
    Verdict.RATE_LIMITED: Retry.LATER,
    Verdict.OOM: Retry.LATER,
    Verdict.STALLED: Retry.LATER,  # most often it hung on something outside: a server, a lock
}

MEANING = {
    Verdict.SPAWN_ERROR: "the launcher failed before the worker ran: a typo, no such directory, a full disk",
    Verdict.EXIT_CODE: "the worker ended with an exit status other than 0",
    Verdict.SIGNAL: "a signal ended the worker",
    Verdict.OOM: "the kernel ended the worker for want of memory: run fewer side by side "
    "(throttle: max_workers, memory_available), or give them more",
    Verdict.TIMEOUT: "the worker ran longer than the plan's timeout and was ended",
    Verdict.STALLED: "the worker was quiet for too long and was ended",
    Verdict.LOST: "its launcher was killed, or failed, with the worker at work: how that did is not known",
    Verdict.EMPTY: "exit status 0, but an expected artefact is missing, too small, unreadable or blank",
    Verdict.RATE_LIMITED: "a rate or usage limit was hit (exit status 75, or standard error says so)",
    Verdict.AUTH: "the worker was not authorised: log in, or set its key",
    Verdict.STOPPED: "somebody asked for it to be stopped",
}


def may_gain(advice: str | None) -> bool:
    """Whether what failed is tried again where nobody has named it: now or later."""
    return advice != Retry.NEVER


def retry_advice(verdict: Verdict) -> Retry:
    """Whether another attempt makes sense now, later or never (unless something is mended)."""
    return _RETRY.get(verdict, Retry.NOW)
