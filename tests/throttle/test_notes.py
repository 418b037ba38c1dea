"""What is kept beside the runs: learned from many at once, bounded, and harmless whatever stands there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import CALM, Root

from orchestra.engine.room import Room
from orchestra.host import clock, load
from orchestra.model.plan import WorkerEntry
from orchestra.model.record import State, WorkerRecord
from orchestra.model.reservation import COMMANDS, UNKNOWN, WATCHED, Known, learn, needs_of
from orchestra.model.throttle import MIB
from orchestra.model.usage import Usage
from orchestra.store.layout import notes_of

HUGE = 10**400  # as an int no float holds it


def write(root: Root, name: str, value: dict[str, Any]) -> Path:
    path = Path(getattr(notes_of(str(root.path)), name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def hold(**changed: Any) -> dict[str, Any]:
    return {
        "holds": [{"token": "x", "command": ["true"], "at": clock.since_boot(), "result": "/x"} | changed]
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("needs", {"true": [["t", HUGE, 1, 1, 1, 9]]}),
        ("needs", {"true": [["t", 1e308, 1, 1, 1, 9]]}),
        ("needs", {"true": [["t", True, 1, 1, 1, 9]]}),
        ("holds", hold(command=[1])),
        ("holds", hold(command=[None])),
        ("holds", hold(command=[["a"]])),
        ("holds", hold(at=HUGE)),
        ("holds", {"counters": {"at": HUGE, "totals": {}}}),
        ("holds", {"counters": {"at": 1e9, "totals": {"swapped_pages all": HUGE}}}),
        ("holds", {"counters": {"at": 0.0, "totals": {"swapped_pages all": float("-inf")}}}),
    ],
)
def test_what_a_worker_has_forged_there_harms_nobody(root: Root, name: str, value: dict[str, Any]) -> None:
    if "counters" in value and value["counters"]["at"] == 0.0:
        value["counters"]["at"] = clock.since_boot() - 1
    root.init("r")
    write(root, name, value)
    row = [{"name": "W", "brief": "b", "command": ["true"], "throttle": CALM}]
    answer = root("spawn", "r", "--from", "-", stdin=json.dumps(row))
    assert (answer.code, answer.names("spawned")) == (0, ["W"])
    assert root("host").code == 0
    assert "Infinity" not in (root.run_dir("r") / "events.jsonl").read_text()


@pytest.mark.parametrize("count", [16, 17, 64, WATCHED])
def test_of_many_alike_at_work_at_once_what_they_take_is_learned(count: int) -> None:
    known: Known = {}
    for age_s in range(1, 400, 10):
        for i in range(count):
            learn(known, ["agent"], f"t{i}", Usage(int(50 * MIB), 3, 0.0), float(age_s))
    needs = needs_of(known, ["agent"])
    assert (needs.memory, needs.processes) == (50 * MIB, 3)
    assert len(known["agent"]) <= WATCHED


def test_who_only_comes_up_pushes_out_nobody_who_is_coming_up() -> None:
    known: Known = {}
    for i in range(WATCHED + 50):
        learn(known, ["agent"], f"t{i}", Usage(1, 1, 0.0), 1.0)
    assert {row[0] for row in known["agent"]} == {f"t{i}" for i in range(WATCHED)}
    assert needs_of(known, ["agent"]) == UNKNOWN


def test_the_note_keeps_so_many_commands_and_no_more(root: Root) -> None:
    known: Known = {}
    for i in range(COMMANDS):
        learn(known, [f"p{i}"], "t", Usage(1, 1, 0.0), 1.0)
    path = write(root, "needs", known)
    room = Room(str(root.path))
    holds = [(f"q{i}", f"token-{i}") for i in range(5)]
    for program, token in holds:
        record = record_of(program, token)
        assert room.take(record, 0, "/nowhere") == []
    # each of them is at work as this very process
    room.seen = None
    members = {token: [os.getpid()] for _, token in holds}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestra.engine.room.tree.carrying", lambda: members)
        room.look(room.limits({}))
    kept = json.loads(path.read_text())
    assert len(kept) == COMMANDS
    assert list(kept)[-5:] == [program for program, _ in holds]
    assert "p0" not in kept


def record_of(program: str, token: str, **throttle: float | None) -> WorkerRecord:
    entry = WorkerEntry(token, "b", command=(program,), throttle=throttle)
    return WorkerRecord(token, None, entry, 1, token, State.SPAWNING, "", 0)


def test_who_does_not_run_under_its_name_yet_counts_under_it_all_the_same(root: Root) -> None:
    """However long the look after which it was started lies behind."""
    room = Room(str(root.path))
    limits: dict[str, float | None] = {"processes.no-such-name": 2.0, "starts_per_s": None}
    calm: dict[str, float | None] = {"load_per_cpu": None, "cpu_pressure": None, "memory_available": 1.0}
    taken = []
    for i in range(4):
        room.seen = None  # as after a while
        taken.append(room.take(record_of("no-such-name", f"t{i}", **limits, **calm), 1, "/nowhere"))
    assert [[signal.signal for signal in spoke] for spoke in taken] == [
        [],
        [],
        ["processes.no-such-name"],
        ["processes.no-such-name"],
    ]


def test_two_looks_that_lie_far_apart_make_no_rate(root: Root) -> None:
    room = Room(str(root.path))
    room.look(room.limits({}))
    assert room.counters is not None
    for ago_s, told in ((61, False), (59, True)):
        room.counters = load.Counters(room.counters.at - ago_s, room.counters.totals)
        assert ("swap_rate" in room.look(room.limits({}), fresh=True).figures) is told
