"""Many who wait, for long: each answer names what speaks now, and neither log nor machine pays for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from conftest import CALM, Root

from orchestra.engine.conduct import Conductor, conduct
from orchestra.engine.fanout import FanOut
from orchestra.engine.narrator import Narrator
from orchestra.engine.outcome import RETOLD_S, is_told_lately, waits_alike
from orchestra.engine.paper import stage_trail
from orchestra.engine.room import Room
from orchestra.engine.spawn import candidates
from orchestra.host import cgroup
from orchestra.model.record import Deferral, State, WorkerRecord
from orchestra.store.layout import Layout
from orchestra.store.publish import Staging

NIGHT_S = 8 * 3600
SHORT = f"{{memory_available: {int(cgroup.memory_limit()) - 1}}}"  # of all that there is, something is in use
FULL = [{"signal": "max_workers", "value": 1, "limit": 1}]
POOR = [{"signal": "memory_available", "value": 1, "limit": 2}]


@pytest.fixture
def crowd(root: Root) -> Root:
    """One at work, and thirty that wait for it."""
    root.init("r")
    rows = [
        {"name": f"W{i}", "brief": "b", "command": ["sleep", "60"], "throttle": {**CALM, "max_workers": 1}}
        for i in range(31)
    ]
    assert len(root("spawn", "r", "--from", "-", stdin=json.dumps(rows)).names("deferred")) == 30
    return root


def deferrals(root: Root) -> list[str]:
    return [event["worker"] for event in root.events("r") if event["kind"] == "deferred"]


def test_what_speaks_by_turns_is_in_each_answer_and_once_in_the_log(crowd: Root) -> None:
    before = deferrals(crowd)
    assert len(before) == len(set(before)) == 30
    for _ in range(3):
        for limits, signal in ((SHORT, "memory_available"), ("", "max_workers")):
            answer = crowd("spawn", "r", env={"ORCHESTRA_THROTTLE": limits})
            told = {row["signals"][0]["signal"] for row in answer.json["deferred"]}
            assert (len(answer.json["deferred"]), told) == (30, {signal})
    assert deferrals(crowd) == before
    short_of_memory = {"ORCHESTRA_THROTTLE": SHORT}
    row = crowd("status", "r", "--state", "deferred", env=short_of_memory).json["workers"][0]
    assert [signal["signal"] for signal in row["deferred"]["now"]] == ["memory_available", "max_workers"]
    shown = crowd("status", "r", "--text", env=short_of_memory).stdout
    assert "memory available" in shown  # what speaks now, and not what once was told
    crowd("stop", "r", "--grace", "0")


def test_a_night_of_turns_is_told_some_dozens_of_times() -> None:
    deferral, told = Deferral("then", 1, "", FULL), 0
    for waited_s in range(0, NIGHT_S, 2):
        signals = POOR if waited_s % 4 else FULL
        if not waits_alike(deferral, signals) and not is_told_lately(deferral, signals, waited_s):
            deferral, told = Deferral("then", deferral.times + 1, "", signals), told + 1
    assert 25 <= told <= 35
    assert not is_told_lately(Deferral("then", 1, "", FULL), POOR, RETOLD_S)
    assert not is_told_lately(Deferral("then", 9, "", FULL), [], 1.0)  # no want of room: always told
    assert not waits_alike(Deferral("then", 1, "", []), [])


@pytest.fixture
def conductor(crowd: Root) -> Iterator[Conductor]:
    with conduct(Layout(str(crowd.run_dir("r"))), Narrator("test", None)) as held:
        yield held
    crowd("stop", "r", "--grace", "0")


def test_of_many_that_wait_for_the_same_few_are_asked_for(
    conductor: Conductor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    try_group = FanOut.try_group

    def watched(self: FanOut, records: list[WorkerRecord]) -> None:
        tried.extend(record.name for record in records)
        try_group(self, records)

    monkeypatch.setattr(FanOut, "try_group", watched)
    report = FanOut(conductor, Room(conductor.layout.root)).run(candidates(conductor))
    assert (tried, len(report.deferred)) == (["W1", "W2"], 30)
    assert {row["reason"] for row in report.deferred} == {report.deferred[0]["reason"]}


def test_an_interrupt_says_nothing_new_of_who_waited_before(
    conductor: Conductor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: FanOut, records: list[WorkerRecord]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FanOut, "try_group", interrupted)
    op = conductor.history.op
    with pytest.raises(KeyboardInterrupt):
        FanOut(conductor, None).run(candidates(conductor))
    assert conductor.history.op == op
    assert {record.state for record in candidates(conductor)} == {State.DEFERRED}


def test_a_batch_that_is_interrupted_leaves_no_half_built_file(
    conductor: Conductor, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def stage(conductor: Conductor, record: WorkerRecord, staging: Staging) -> None:
        if begun:
            assert [name for name in os.listdir(conductor.layout.run_dir) if name.endswith(".new")]
            raise KeyboardInterrupt
        begun.append(record.name)
        stage_trail(conductor, record, staging)

    monkeypatch.setattr("orchestra.engine.fanout.stage_trail", stage)
    with pytest.raises(KeyboardInterrupt):
        FanOut(conductor, None).run(candidates(conductor))
    assert begun == ["W1"]
    assert not [name for name in os.listdir(conductor.layout.run_dir) if name.endswith(".new")]
