from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestra.model.plan import (
    Expect,
    Phase,
    Plan,
    WorkerEntry,
    brief_is_path,
    effective,
    entry_from_json,
    entry_to_json,
    parse_expect,
    plan_from_json,
    plan_to_json,
)
from orchestra.model.plan_text import parse_plan, parse_workers_and_positions
from orchestra.model.units import BadValue


def test_an_entry_without_settings_takes_the_plans() -> None:
    plan = Plan(("c",), "dir", {"A": "1"}, 5.0, 6.0, 2, throttle={"max_workers": 3}, first_sign_s=4.0)
    assert effective(plan, WorkerEntry("w", "b")) == WorkerEntry(
        "w", "b", ("c",), "dir", {"A": "1"}, 5.0, 6.0, 2, (), {"max_workers": 3}, 4.0, "warn"
    )


def test_what_an_entry_says_wins() -> None:
    entry = WorkerEntry("w", "b", ("d",), "own", {}, 1.0, 2.0, 0, (Expect(None),), {}, 1.0, "stop")
    assert effective(Plan(("c",), "dir", {}, 5.0, 6.0, 2), entry) == entry


def test_the_entrys_env_and_throttle_overlay_the_plans() -> None:
    plan = Plan(env={"A": "1", "B": "2"}, throttle={"max_workers": 3, "disk_queue": 4.0})
    worker = effective(plan, WorkerEntry("w", "b", env={"B": "3"}, throttle={"disk_queue": None}))
    assert (worker.env, worker.throttle) == ({"A": "1", "B": "3"}, {"max_workers": 3, "disk_queue": None})


@pytest.mark.parametrize(("word", "expect"), [("stdout", Expect(None)), ("a/b..c", Expect("a/b..c"))])
def test_a_word_says_what_to_expect(word: str, expect: Expect) -> None:
    assert parse_expect(word) == expect


@pytest.mark.parametrize("word", ["", "/a", "..", "a/..", "a/", "a\0"])
def test_a_word_that_is_no_file_in_out_is_refused(word: str) -> None:
    with pytest.raises(BadValue, match="write 'stdout'"):
        parse_expect(word)


@pytest.mark.parametrize("brief", ["briefs/a", "a.md", "a.txt", "/x", "./a", "a.b.yaml", "x.7z"])
def test_a_word_like_a_path_was_meant_as_one(brief: str) -> None:
    assert brief_is_path(brief)


@pytest.mark.parametrize("brief", ["", "Go", "Go.", "a b/c", "a.md\n", "x.toolong", "a/" + "b" * 254, "a.é"])
def test_any_other_brief_is_the_text(brief: str) -> None:
    assert not brief_is_path(brief)


# To JSON and back

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
filled = texts.map(lambda text: "x" + text)
env = st.dictionaries(st.from_regex(r"_[A-Z]{1,4}", fullmatch=True), texts, max_size=2)
seconds = st.none() | st.integers(1, 10**6).map(float)
retries = st.integers(0, 9)
limits = st.sampled_from(["max_workers", "disk_queue"])
throttle = st.dictionaries(limits, st.none() | st.integers(1, 99), max_size=2)
expects = st.builds(Expect, st.none() | st.just("a.md"), st.integers(0, 10**6))
commands = st.lists(filled, min_size=1, max_size=3).map(tuple)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
entries = st.builds(
    WorkerEntry, names, filled, st.none() | commands, st.none() | filled, env, seconds, seconds,
    st.none() | retries, st.lists(expects, max_size=2).map(tuple), throttle, seconds,
    st.none() | st.sampled_from(["warn", "stop"]),
)  # fmt: skip
phases = st.lists(
    st.builds(Phase, names, st.lists(entries, max_size=2).map(tuple)), min_size=1, max_size=2
).map(tuple)
plans = st.builds(
    Plan, commands, filled, env, seconds, seconds, retries, st.sampled_from(["stop", "continue"]), throttle,
    phases, positions=st.just({}), first_sign_s=seconds, stall_action=st.sampled_from(["warn", "stop"]),
)  # fmt: skip
whatever = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


@whatever
@given(entries)
def test_an_entry_survives_json(entry: WorkerEntry) -> None:
    assert entry_from_json(json.loads(json.dumps(entry_to_json(entry)))) == entry


@whatever
@given(plans)
def test_a_plan_survives_json(plan: Plan) -> None:
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


def test_json_holds_no_positions() -> None:
    assert "positions" not in plan_to_json(Plan(positions={"w": (1, 2)}))


def test_reading_json_ignores_what_it_does_not_know_and_defaults_what_is_missing() -> None:
    assert plan_from_json({"new": 1}) == Plan()
    assert entry_from_json({"name": "w", "new": 1, "expect": [{"file": "a"}]}) == WorkerEntry(
        "w", "", expect=(Expect("a"),)
    )


def test_no_limit_survives_json_though_the_default_is_a_limit() -> None:
    assert plan_from_json(plan_to_json(Plan(stall_s=None))).stall_s is None


def as_written(entry: WorkerEntry) -> dict[str, Any]:
    data = entry_to_json(entry)
    for key in ("timeout", "stall", "first_sign"):
        data[key] = data.pop(f"{key}_s")
    data["throttle"] = {key: "off" if value is None else value for key, value in entry.throttle.items()}
    data["expect"] = [
        {"stdout": True, "min_bytes": least} if file is None else {"file": file, "min_bytes": least}
        for file, least in entry.expect
    ]
    return {key: value for key, value in data.items() if value is not None}


@whatever
@given(entries)
def test_an_entry_written_as_json_is_read_as_itself(entry: WorkerEntry) -> None:
    assert parse_workers_and_positions(json.dumps([as_written(entry)]), file="w")[0] == (entry,)


@whatever
@given(entries)
def test_an_entry_written_as_yaml_is_read_as_itself(entry: WorkerEntry) -> None:
    assert parse_workers_and_positions(yaml.safe_dump([as_written(entry)]), file="w")[0] == (entry,)


def test_a_worker_switches_off_what_the_plan_limits() -> None:
    text = """
command: ["true"]
timeout: 5m
phases:
  - name: p
    workers:
      - {name: A, brief: b, timeout: off, stall: off}
      - {name: B, brief: b}
"""
    plan = parse_plan(text, file="plan.yaml")
    off, on = (effective(plan, entry) for entry in plan.phases[0].workers)
    assert (off.timeout_s, off.stall_s) == (None, None)
    assert (on.timeout_s, on.stall_s) == (300, 600)
