"""Who is quiet, from values alone: no process, no clock."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestra.model.plan import WorkerEntry
from orchestra.model.quiet import (
    Look,
    Signs,
    is_stalled,
    is_to_be_ended,
    look_again,
    look_first,
    look_to_json,
    parse_look,
    tell,
)

BOOT = "boot"
ENTRY = WorkerEntry("w", "b", stall_s=600.0, stall_action="warn")
STOPS = ENTRY._replace(stall_action="stop")


def idle_look(idle_s: float, *, was_busy: bool = False) -> Look:
    return Look(BOOT, 5000.0, 3.0, 5000.0 - idle_s, 2.9, True, was_busy)


def quiet(files_s: float, look: Look | None, **more: Any) -> Signs:
    return Signs(2000.0, output_s=files_s, seen=True, look=look)._replace(**more)


def test_a_tree_that_uses_less_than_one_percent_is_idle_since_the_first_look() -> None:
    look = look_first(BOOT, 100.0, 50.0, ran_s=90.0, idle=True)
    for at in range(160, 1000, 60):
        look = look_again(look, float(at), 50.0 + 0.009 * (at - 100))
    assert (look.idle, look.since, look.was_busy) == (True, 100.0, False)


def test_a_tree_that_uses_more_is_at_work_however_often_it_is_looked_at() -> None:
    for step in (0.5, 2.0, 60.0):
        look = look_first(BOOT, 100.0, 50.0, ran_s=90.0, idle=True)
        for i in range(1, int(300 / step)):
            look = look_again(look, 100.0 + i * step, 50.0 + 0.03 * i * step)
        assert look.was_busy, step
        assert look.idle_s < 60, step


def test_who_begins_to_compute_after_an_idle_hour_is_at_work_at_once() -> None:
    look = look_again(look_first(BOOT, 0.0, 50.0, ran_s=1.0, idle=True), 3600.0, 50.0)
    assert not look_again(look, 3602.0, 50.5).idle


def test_processes_that_ended_unheard_are_a_change() -> None:
    look = look_first(BOOT, 0.0, 50.0, ran_s=1.0, idle=True)
    assert not look_again(look, 60.0, 20.0).idle


def test_who_has_used_next_to_nothing_in_all_its_life_was_idle_from_its_start() -> None:
    assert look_first(BOOT, 1000.0, 0.05, ran_s=700.0, idle=True).idle_s == 700.0
    assert look_first(BOOT, 1000.0, 80.0, ran_s=700.0, idle=True).idle_s == 0.0


def test_one_sign_that_moves_is_enough() -> None:
    idle = idle_look(1500)
    assert is_stalled(ENTRY, quiet(1500, idle))
    assert not is_stalled(ENTRY, quiet(10, idle))
    assert not is_stalled(ENTRY, quiet(1500, idle, heartbeat_s=3.0))
    assert not is_stalled(ENTRY, quiet(1500, idle, out_s=3.0))
    assert not is_stalled(ENTRY, quiet(1500, idle._replace(idle=False)))


def test_who_was_seen_at_work_counts_from_its_last_work() -> None:
    assert not is_stalled(ENTRY, quiet(1500, idle_look(500, was_busy=True)))
    assert is_stalled(ENTRY, quiet(1500, idle_look(601, was_busy=True)))


def test_where_no_process_can_be_seen_the_files_decide() -> None:
    assert is_stalled(ENTRY, quiet(1500, None))
    assert not is_stalled(ENTRY, quiet(1500, None, seen=False))


def test_stall_off_is_never_stalled() -> None:
    assert not is_stalled(ENTRY._replace(stall_s=None), quiet(1500, idle_look(1500)))


def test_who_never_began_is_named_at_its_first_sign_deadline() -> None:
    entry = ENTRY._replace(first_sign_s=120.0)
    never = Signs(130.0, seen=True, look=Look(BOOT, 130.0, 4.0, 125.0, 4.0, True))
    assert is_stalled(entry, never)
    assert "has shown no sign at all since its start 2m10s ago" in tell(entry, never)
    assert not is_stalled(ENTRY, never)
    assert not is_stalled(entry, never._replace(ran_s=110.0))
    assert not is_stalled(entry, never._replace(output_s=125.0))
    assert not is_stalled(entry, never._replace(look=Look(BOOT, 130.0, 60.0, 125.0, 60.0, True)))


@pytest.mark.parametrize(
    ("files_s", "idle_s", "before_s", "ended"),
    [
        (700, 700, None, True),
        (700, 300, None, False),  # for the first 400 s nobody knows
        (700, 700, 500.0, False),  # not yet 1.5 times as long as another
        (760, 760, 500.0, True),
        (590, 590, None, False),
    ],
)
def test_a_worker_is_ended_only_on_knowledge(
    files_s: float, idle_s: float, before_s: float | None, ended: bool
) -> None:
    signs = quiet(files_s, idle_look(idle_s), before_s=before_s)
    assert is_to_be_ended(STOPS, signs) is ended
    assert not is_to_be_ended(ENTRY, signs)


def test_the_evidence_names_every_sign() -> None:
    signs = Signs(
        1200, output_s=840, out_s=1200, seen=True, look=idle_look(1199.5), states={7: "T", 8: "T"},
        before_s=180.0,
    )  # fmt: skip
    assert tell(ENTRY, signs) == (
        "quiet for 14m (output 14m, heartbeat never, out 20m); 0.1 s of CPU since its start; "
        "its processes are stopped (SIGSTOP): kill -CONT 7 8; "
        "such workers were quiet for up to 3m before they ended well; stall: 10m"
    )
    waits = signs._replace(states={7: "S"}, waits={7: "wait_woken"})
    assert "wait on a socket" in tell(ENTRY, waits)
    stuck = signs._replace(states={7: "D"})
    assert "nothing interrupts" in tell(ENTRY, stuck)


def test_a_look_is_read_back_in_its_boot_only() -> None:
    look = idle_look(60.0)
    assert parse_look(look_to_json(look), BOOT, 5001.0) == look
    assert parse_look(look_to_json(look), "another", 5001.0) is None
    assert parse_look(look_to_json(look), BOOT, 4999.0) is None


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "[]", "7", "null", '{"at": 1}', json.dumps({**idle_look(1)._asdict(), "cpu_s": True}),
     json.dumps({**idle_look(1)._asdict(), "since": 1e400}),
     json.dumps({**idle_look(1)._asdict(), "at": "x"}),
     look_to_json(idle_look(1)).replace("5000.0", "NaN"), "[" * 100_000],
)  # fmt: skip
def test_what_is_no_look_is_none(text: str | None) -> None:
    assert parse_look(text, BOOT, 6000.0) is None
