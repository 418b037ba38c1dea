"""The clock, for all that decides by it; the store only bounds its patience by itself."""

from __future__ import annotations

import time


def now() -> str:
    """RFC 3339 in UTC with milliseconds."""
    return stamp(time.time())


def stamp(seconds: float) -> str:
    """RFC 3339 of seconds after the epoch."""
    whole = int(seconds // 1)
    millis = int((seconds - whole) * 1000)
    t = time.gmtime(whole)
    return (
        f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}T"
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}.{millis:03d}Z"
    )


def seconds_since(at: str) -> float | None:
    """Seconds from an RFC 3339 time in UTC to now; None where the text is no such time."""
    import calendar

    try:
        parts = (at[0:4], at[5:7], at[8:10], at[11:13], at[14:16], at[17:19])
        whole = calendar.timegm(tuple(map(int, parts)))
        fraction = float(at[19:-1] or 0)
    except (ValueError, OverflowError):
        return None
    return time.time() - whole - fraction


def since_boot() -> float:
    """Seconds since the machine came up, sleep included: the same for every process of it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


monotonic = time.monotonic  # since the machine came up, alike for all processes of one boot
cpu = time.process_time  # what this process itself has used
wall = time.time
pause = time.sleep


def is_monotonic() -> bool:
    """Whether the system has a clock that no one can set back."""
    return time.get_clock_info("monotonic").monotonic
