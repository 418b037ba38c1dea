from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.model.units import (
    LARGEST_BYTES,
    LONGEST_S,
    BadValue,
    format_bytes,
    format_duration,
    parse_duration,
    parse_size,
)

KIB = 1024


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("45m", 2700),
        ("10s", 10),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("2d", 172_800),
        ("1d2h3m4s5ms", 93_784.005),
        ("1.5h", 5400),
        ("70ms", 0.07),
        ("90", 90),
        ("0.5", 0.5),
        (" 10s ", 10),
        ("1h 30m", 5400),
        ("10 s", 10),
        (1, 1),
        (2.5, 2.5),
        ("36500d", LONGEST_S),
    ],
)
def test_a_duration_is_read_as_seconds(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *["", " ", "m", "abc", "10x", "10M", "10 minutes", "1m1h", "1m1m", "m10", "1h-5m", "-5s", "+5s"],
        *["0", "0s", "0ms", 0, -1, 0.0, -0.5, True, False, None, [], b"1s", "1e3s", "0x10", "1_000", "1:30"],
        *[math.nan, math.inf, -math.inf, "nan", "inf", "1s\n1s", "\u0661s", "36501d", 1e300, "9" * 5000],
        *[10**400, -(10**400)],
    ],
    ids=lambda value: ascii(value)[:20] if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("2GiB", 2 * KIB**3),
        ("300MB", 300_000_000),
        ("512K", 512 * KIB),
        ("512k", 512 * KIB),
        ("2G", 2 * KIB**3),
        ("1KiB", KIB),
        ("1MiB", KIB**2),
        ("1TiB", KIB**4),
        ("1PiB", KIB**5),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1GB", 10**9),
        ("1TB", 10**12),
        ("1.5GiB", 3 * KIB**3 // 2),
        ("1.1GB", 1_100_000_000),
        ("0.5B", 0),
        ("2 GiB", 2 * KIB**3),
        ("7B", 7),
        ("4096", 4096),
        (4096, 4096),
        (0, 0),
        (LARGEST_BYTES, LARGEST_BYTES),
    ],
)
def test_a_size_is_read_as_bytes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value",
    [
        *["", " ", "GiB", "2gib", "2GIB", "2Gb", "2 gigabytes", "-1", "-1KiB", "1e3", "1KiB1B", "2,5GiB"],
        *[-1, True, False, None, 1.5, math.nan, math.inf, [], b"1", ".5KiB", "9" * 5000, "9999999PiB"],
        *[2**63, 10**5000],
    ],
    ids=lambda value: ascii(value)[:20] if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(value)


def test_a_refusal_says_what_is_wrong_and_what_to_write() -> None:
    with pytest.raises(BadValue) as caught:
        parse_duration("5x")
    assert caught.value.problem == "'5x' is not a duration"
    assert caught.value.remedy.startswith("write a number and a unit")
    assert str(caught.value) == f"{caught.value.problem}; {caught.value.remedy}"


def test_a_refusal_of_a_long_text_is_short() -> None:
    with pytest.raises(BadValue) as caught:
        parse_size("x" * 100_000)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0001, "0s"),
        (0.25, "250ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (4.24, "4.2s"),
        (9.96, "10s"),
        (42.4, "42s"),
        (59.7, "1m"),
        (90, "1m30s"),
        (3599.7, "1h"),
        (5400, "1h30m"),
        (86_399, "1d"),
        (90_000, "1d1h"),
        (-90, "-1m30s"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (math.nan, "?"),
    ],
)
def test_a_duration_is_shown_with_at_most_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0B"),
        (512, "512B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (1536, "1.5KiB"),
        (KIB**2 - 1, "1MiB"),
        (2 * KIB**3, "2GiB"),
        (1234 * KIB**5, "1234PiB"),
        (-1536, "-1.5KiB"),
        (1536.7, "1.5KiB"),
        (0.5, "0B"),
    ],
)
def test_a_size_is_shown_in_powers_of_1024(n: float, text: str) -> None:
    assert format_bytes(n) == text


@given(st.floats(min_value=0.0005, max_value=LONGEST_S / 2, exclude_min=True))
def test_a_shown_duration_reads_back_as_nearly_the_same(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.06, abs=0.0005)


@given(st.integers(min_value=0, max_value=2**60))
def test_a_shown_size_reads_back_as_nearly_the_same(n: int) -> None:
    assert parse_size(format_bytes(n)) == pytest.approx(n, rel=0.06)


@given(st.text() | st.from_regex(r"[0-9]{0,9}(\.[0-9]*)?[a-zA-Z]{0,3}[0-9]?", fullmatch=True))
def test_any_text_gives_a_bounded_number_or_a_refusal(text: str) -> None:
    with suppress(BadValue):
        assert 0 < parse_duration(text) <= LONGEST_S
    with suppress(BadValue):
        assert 0 <= parse_size(text) <= LARGEST_BYTES
