"""When a process or a holder is dead, by what an observer can see."""

from __future__ import annotations

import math
from typing import Any

import pytest

from orchestra.model.owner import (
    BeatSight,
    Health,
    Holder,
    health,
    lives,
    older_sight,
    parse_beat_sight,
    parse_holder,
    ttl_of,
)
from orchestra.model.trail import Process

HOLDER = Holder(Process(7, 1, "boot", "elsewhere"), "run", None, "t1", 3, "", 60.0, beat=5)
SIGHT = BeatSight("t1", 5, "clock", 1000.0)


@pytest.mark.parametrize(("lives", "dead"), [(True, False), (False, True)])
def test_a_process_that_can_be_seen_decides_whatever_its_heartbeat(lives: bool, dead: bool) -> None:
    assert health(HOLDER, lives, SIGHT, 9e9) == Health(dead)


def test_a_heartbeat_is_over_once_the_same_beat_was_seen_for_longer_than_the_time_to_live() -> None:
    assert health(HOLDER, None, SIGHT, 1010.0) == Health(False, 10.0, 50.0)
    assert health(HOLDER, None, SIGHT, 1060.0) == Health(False, 60.0, 0.0)
    assert health(HOLDER, None, SIGHT, 1060.1).dead


def test_a_holder_without_a_heartbeat_is_never_dead() -> None:
    assert health(HOLDER._replace(beat=None), None, SIGHT, 9e9) == Health(False)


def test_the_first_sight_of_a_beat_counts_and_only_by_the_same_clock() -> None:
    now = SIGHT._replace(at_s=1030.0)
    assert older_sight(SIGHT, now) == SIGHT
    for other in (
        None,
        SIGHT._replace(beat=4),
        SIGHT._replace(token="t2"),
        SIGHT._replace(clock="of another boot"),
        SIGHT._replace(at_s=1031.0),
    ):
        assert older_sight(other, now) == now


@pytest.mark.parametrize(
    ("said", "kept"), [(60, 60), (0, 60), (-1, 60), (math.nan, 60), (0.01, 1), (math.inf, 3600)]
)
def test_a_time_to_live_is_kept_within_what_is_sane(said: float, kept: float) -> None:
    assert ttl_of(HOLDER._replace(ttl_s=said)) == kept


def test_a_record_without_a_beat_has_no_heartbeat() -> None:
    found = parse_holder('{"pid": 7, "process_start": 1, "boot_id": "b", "host": "h", "token": "t1"}')
    assert found and found.beat is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"token": "t"}', '{"token": 1, "beat": "x"}'])
def test_a_sight_that_cannot_be_read_is_none(text: str) -> None:
    assert parse_beat_sight(text) is None


HERE = Process(1, 0, "boot", "host", pid_ns=7, machine_id="abc")
THERE = Process(50, 900, "boot", "host", pid_ns=7, machine_id="abc")


@pytest.mark.parametrize(
    ("of", "start_now", "expected"),
    [
        ({}, 900, True),
        ({}, None, False),
        ({}, 901, False),
        ({"host": "renamed"}, None, False),
        ({"pid_ns": 8}, None, None),
        ({"pid_ns": 0}, None, None),
        ({"pid": 0}, None, None),
        ({"boot_id": "earlier"}, 900, False),
        ({"boot_id": "other", "host": "elsewhere"}, None, None),
        ({"boot_id": "other", "machine_id": "def"}, None, None),
        ({"boot_id": "other", "machine_id": ""}, None, None),
    ],
)
def test_a_process_is_gone_only_where_that_is_proved(
    of: dict[str, Any], start_now: int | None, expected: bool | None
) -> None:
    assert lives(THERE._replace(**of), HERE, start_now) is expected


def test_where_no_machine_has_an_id_the_name_tells_of_a_reboot() -> None:
    without = HERE._replace(machine_id="")
    assert lives(THERE._replace(boot_id="earlier", machine_id=""), without, None) is False
