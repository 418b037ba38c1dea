"""The throttle's rules, on plain values."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orchestra.model.throttle import LIMITS, describe, limits_from, pressure

NOTHING: dict[str, float] = {}


def speaks(figures: Mapping[str, float], limits: Mapping[str, float | None], **more: object) -> list[str]:
    told = pressure(figures, limits, **{"first": False, "held": NOTHING, "needs": NOTHING, **more})  # type: ignore[arg-type]
    return [signal.signal for signal in told]


@pytest.mark.parametrize("key", [k for k, limit in LIMITS.items() if limit.kind != "counted"])
def test_a_limit_speaks_beyond_its_figure_and_not_at_it(key: str) -> None:
    beyond = 9.0 if LIMITS[key].wants == "at least" else 11.0
    assert speaks({key: beyond}, {key: 10.0}) == [key]
    assert speaks({key: 10.0}, {key: 10.0}) == []


@pytest.mark.parametrize("key", [k for k, limit in LIMITS.items() if limit.kind == "counted"])
def test_a_count_leaves_no_place_for_one_more_at_its_limit(key: str) -> None:
    assert speaks({key: 2.0}, {key: 2.0}) == [key]
    assert speaks({key: 1.0}, {key: 2.0}) == []


@pytest.mark.parametrize("key", LIMITS)
def test_what_is_off_or_cannot_be_read_never_speaks(key: str) -> None:
    worst = 0.0 if LIMITS[key].wants == "at least" else 1e18
    assert speaks({key: worst}, {key: None}) == []
    assert speaks({}, {key: 10.0}) == []


@pytest.mark.parametrize("key", LIMITS)
def test_only_soft_limits_let_the_first_worker_run(key: str) -> None:
    worst = 0.0 if LIMITS[key].wants == "at least" else 1e18
    expected = [] if LIMITS[key].kind == "soft" else [key]
    assert speaks({key: worst}, {key: 10.0}, first=True) == expected


def test_what_is_held_counts_like_what_is_taken() -> None:
    room, limit = {"memory_available": 100.0}, {"memory_available": 50.0}
    assert speaks(room, limit, needs={"memory_available": 50.0}) == []
    assert speaks(room, limit, needs={"memory_available": 51.0}) == ["memory_available"]
    both = {"held": {"memory_available": 30.0}, "needs": {"memory_available": 30.0}}
    assert speaks(room, limit, **both) == ["memory_available"]
    assert speaks(room, limit, first=True, **both) == []  # or what needs much would never start


def test_a_signal_tells_its_figure_its_limit_and_the_shares() -> None:
    [signal] = pressure(
        {"memory_available": 3 * 2.0**30},
        {"memory_available": 2.0**30},
        first=False,
        held={"memory_available": 2.0**30},
        needs={"memory_available": 1.5 * 2**30},
    )
    assert signal.to_json() == {
        "signal": "memory_available",
        "value": 0.5 * 2**30,
        "limit": 2.0**30,
        "measured": 3 * 2.0**30,
        "held": 2.0**30,
        "needs": 1.5 * 2**30,
    }
    assert describe([signal]) == (
        "no room: memory available 3GiB, 1GiB for those before it, 1.5GiB for this one, at least 1GiB wanted"
    )


def test_every_limit_that_speaks_is_told() -> None:
    figures = {"load_per_cpu": 9.0, "max_workers": 8.0, "disk_free": 1.0}
    assert speaks(figures, {"load_per_cpu": 8.0, "max_workers": 8.0, "disk_free": 2.0}) == [
        "load_per_cpu",
        "max_workers",
        "disk_free",
    ]


def test_processes_by_name_are_counted_under_their_name() -> None:
    limits = limits_from({"processes.claude": 2})
    [signal] = pressure({"processes.claude": 2.0}, limits, first=True, held=NOTHING, needs=NOTHING)
    assert describe([signal]) == "no room: processes named claude 2, at most 2 allowed"


def test_what_is_laid_over_later_wins() -> None:
    limits = limits_from({"max_workers": 2, "disk_free": None}, {"max_workers": 5})
    assert (limits["max_workers"], limits["disk_free"]) == (5, None)
    assert limits["load_per_cpu"] == LIMITS["load_per_cpu"].default
