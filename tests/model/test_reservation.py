"""What workers that have just started hold, on plain values."""

from __future__ import annotations

from orchestra.model.reservation import (
    COMMANDS,
    LONGEST_SETTLE_S,
    REMEMBERED,
    UNKNOWN,
    Hold,
    Known,
    known_from,
    learn,
    needs_of,
    outstanding,
    touched,
)
from orchestra.model.usage import Usage

CLAUDE = ("claude", "-p")


def grown(known: Known, token: str, command: tuple[str, ...] = CLAUDE, *, peak: int = 300) -> None:
    """A worker that grows for two seconds, and then stays as it is."""
    for age_s, memory in ((0.5, peak // 4), (1.0, peak // 2), (2.0, peak), (4.0, peak)):
        learn(known, command, token, Usage(memory, 3, age_s / 2), age_s)


def test_nothing_known_is_a_guess() -> None:
    assert needs_of({}, CLAUDE) == UNKNOWN


def test_a_worker_that_still_grows_teaches_nothing() -> None:
    known: Known = {}
    learn(known, CLAUDE, "t", Usage(10, 1, 0.1), 0.3)
    learn(known, CLAUDE, "t", Usage(200, 1, 0.1), 1.0)
    assert needs_of(known, CLAUDE) == UNKNOWN


def test_a_settled_worker_teaches_its_peak_and_when_it_came() -> None:
    known: Known = {}
    grown(known, "t")
    needs = needs_of(known, CLAUDE)
    assert (needs.memory, needs.processes, needs.cpus) == (300, 3, 0.5)
    assert needs.settle_s == 2.5


def test_the_most_of_the_latest_counts_and_the_oldest_is_forgotten() -> None:
    known: Known = {}
    grown(known, "big", peak=900)
    for i in range(REMEMBERED - 1):
        grown(known, f"t{i}")
    assert needs_of(known, CLAUDE).memory == 900
    grown(known, "one more")
    assert needs_of(known, CLAUDE).memory == 300


def test_only_the_latest_commands_are_remembered() -> None:
    known: Known = {}
    for i in range(COMMANDS + 5):
        learn(known, (f"program-{i}",), "t", Usage(1, 1, 0.0), 1.0)
    assert len(known) == COMMANDS
    assert f"program-{COMMANDS + 4}" in known


def test_another_command_of_the_same_program_is_the_next_best_guess() -> None:
    known: Known = {}
    grown(known, "t")
    assert needs_of(known, ("claude", "--other")).memory == 300
    assert needs_of(known, ("codex",)) == UNKNOWN


def test_a_hold_is_what_is_still_to_come_and_ends_when_it_has_settled() -> None:
    known: Known = {}
    grown(known, "t")
    needs, hold = needs_of(known, CLAUDE), Hold("u", CLAUDE, 100.0, "")
    assert outstanding(hold, needs, None, 100.1) == needs
    rest = outstanding(hold, needs, Usage(100, 2, 0.0), 101.0)
    assert rest is not None and (rest.memory, rest.processes) == (200, 1)
    over = outstanding(hold, needs, Usage(999, 9, 9.0), 101.0)
    assert over is not None and over[:3] == (0, 0, 0)
    assert outstanding(hold, needs, Usage(100, 2, 0.0), 100.0 + needs.settle_s + 0.1) is None
    assert outstanding(hold, needs, None, 99.0) is None  # of an earlier boot


def test_nothing_is_held_for_longer_than_the_bound() -> None:
    known: Known = {}
    learn(known, CLAUDE, "t", Usage(100, 1, 1.0), 500.0)
    learn(known, CLAUDE, "t", Usage(100, 1, 1.0), 900.0)
    assert needs_of(known, CLAUDE).settle_s == LONGEST_SETTLE_S


def test_needs_stand_under_the_limits_that_they_touch() -> None:
    assert touched(UNKNOWN, 2.0) == {
        "memory_available": UNKNOWN.memory,
        "worker_processes": UNKNOWN.processes,
        "pids_free": UNKNOWN.processes,
        "load_per_cpu": UNKNOWN.cpus / 2,
    }


def test_a_note_of_another_make_is_read_as_far_as_it_goes() -> None:
    row = ["t", 1, 2, 3, 4, 5]
    strange = {"a": [row, ["t"], [1, 2, 3, 4, 5, 6], "x", None], "b": 7, "c": {}}
    assert known_from(strange) == {"a": [row]}
