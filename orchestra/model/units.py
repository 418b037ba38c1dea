"""Durations and sizes as people write them, to and from seconds and bytes."""

from __future__ import annotations

import math
import re

from orchestra.model.names import shown

DURATION_RULE = "write a number and a unit, such as 45m, 10s, 1h30m, 500ms or 2d (a bare number is seconds)"
SIZE_RULE = "write a number and a unit, such as 2GiB, 300MB or 512KiB (a bare number is bytes)"

LONGEST_S = 36_500 * 86_400.0
"""A hundred years: adding more than that to a date may not give a date any more."""
LEAST_TIMEOUT_S = 1.0
LARGEST_BYTES = 2**63 - 1

_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,9})?"
_PLAIN = re.compile(_NUMBER)
_DURATION = re.compile(" ?".join(rf"(?:({_NUMBER}) ?{unit})?" for unit in ("d", "h", "m", "s", "ms")))
_DURATION_UNITS_MS = (86_400_000, 3_600_000, 60_000, 1000, 1)
_SIZE = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,9}))? ?([A-Za-z]*)")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SIZE_UNITS: dict[str, int] = {
    "": 1,
    "B": 1,
    **{unit: 1024**power for power, unit in enumerate(_BINARY)},
    # As in `systemd` and `docker`: one letter is the binary unit.
    **{letter: 1024**power for power, letter in enumerate("KMGTP", start=1)},
    "k": 1024,
    **{unit: 1000**power for power, unit in enumerate(("kB", "MB", "GB", "TB", "PB"), start=1)},
    "KB": 1000,
}


class BadValue(ValueError):
    """`problem` says what is wrong and `remedy` what to write instead; `str()` is both."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


def parse_duration(value: object) -> float:
    """Seconds, more than 0 and at most `LONGEST_S`, from "1h30m", "500ms", "45" or a number.

    Units are d, h, m, s and ms, each at most once and the larger first. Anything else
    is a `BadValue` (a `ValueError`).
    """
    seconds = _seconds(value)
    if seconds is None:
        raise BadValue(f"{_what(value)} is not a duration", DURATION_RULE)
    if not seconds > 0:
        raise BadValue(f"{_what(value)} is not a duration: it must be more than 0", DURATION_RULE)
    if seconds > LONGEST_S:
        raise BadValue(f"{_what(value)} is too long: a duration is at most 36500d", DURATION_RULE)
    return seconds


def parse_timeout(value: object) -> float:
    """A duration of at least `LEAST_TIMEOUT_S`: the launcher must be up before it is over."""
    seconds = parse_duration(value)
    if seconds < LEAST_TIMEOUT_S:
        raise BadValue(f"{_what(value)} is too short: a timeout is at least 1s", DURATION_RULE)
    return seconds


def parse_size(value: object) -> int:
    """Bytes, from 0 to `LARGEST_BYTES`, from "2GiB", "300MB", "512K", "4096" or an int.

    KiB to PiB, and K to P alone, are powers of 1024; kB (or KB) to PB are powers of
    1000. A fraction of a byte is dropped. Anything else is a `BadValue` (a `ValueError`).
    """
    size = _bytes(value)
    if size is None:
        raise BadValue(f"{_what(value)} is not a size", SIZE_RULE)
    if size < 0:
        raise BadValue(f"{_what(value)} is not a size: it must not be negative", SIZE_RULE)
    if size > LARGEST_BYTES:
        raise BadValue(f"{_what(value)} is too large: a size is at most {LARGEST_BYTES} bytes", SIZE_RULE)
    return size


def format_duration(seconds: float) -> str:
    """Short, for people, with at most two units: "250ms", "4.2s", "1m30s", "2h", "3d4h".

    What it gives for a positive duration, `parse_duration` reads, but for "0s".
    """
    if not math.isfinite(seconds):
        return "?" if math.isnan(seconds) else "-∞" if seconds < 0 else "∞"
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds < 0.9995:
        thousandths = round(seconds * 1000)
        return f"{thousandths}ms" if thousandths else "0s"
    if seconds < 9.95:
        return f"{_short(seconds)}s"
    return _two_units(seconds)


def format_bytes(n: float) -> str:
    """Short, for people, in powers of 1024: "512B", "1.5KiB", "2GiB". `parse_size` reads it."""
    if n < 0:
        return f"-{format_bytes(-n)}"
    if n < 1024:
        return f"{int(n)}B"
    power = min((int(n).bit_length() - 1) // 10, len(_BINARY) - 1)
    # 1023.96 KiB would be written "1024KiB".
    if round(n / 1024**power, 1) >= 1024 and power < len(_BINARY) - 1:
        power += 1
    return f"{_short(n / 1024**power)}{_BINARY[power]}"


def _seconds(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        # float() refuses more than 308 digits.
        return float(max(-(2**63), min(value, 2**63)))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, str) or not value.strip():
        return None
    text = value.strip()
    if _PLAIN.fullmatch(text):
        return float(text)
    parts = _DURATION.fullmatch(text)
    if parts is None:
        return None
    given = zip(parts.groups(), _DURATION_UNITS_MS, strict=True)
    return sum(float(part) * unit for part, unit in given if part) / 1000


def _bytes(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    parts = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if parts is None:
        return None
    whole, fraction, unit = parts[1], parts[2] or "", parts[3]
    if unit not in _SIZE_UNITS:
        return None
    scaled: int = int(whole + fraction) * _SIZE_UNITS[unit]
    return scaled // int(10 ** len(fraction))


def _two_units(seconds: float) -> str:
    # Each rounding comes before its comparison: 59.7 s is "1m", never "60s".
    if round(seconds) < 60:
        return f"{round(seconds)}s"
    if round(seconds) < 3600:
        return _pair(round(seconds), 60, "m", "s")
    if round(seconds / 60) < 24 * 60:
        return _pair(round(seconds / 60), 60, "h", "m")
    return _pair(round(seconds / 3600), 24, "d", "h")


def _pair(count: int, base: int, large: str, small: str) -> str:
    high, low = divmod(count, base)
    return f"{high}{large}{low}{small}" if low else f"{high}{large}"


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _what(value: object) -> str:
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number of more than 63 bits"
    return repr(value) if isinstance(value, (int, float)) else f"a {type(value).__name__}"
