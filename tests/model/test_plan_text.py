from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestra import errors
from orchestra.model.plan import Expect, Phase, Plan, WorkerEntry
from orchestra.model.plan_text import parse_plan, parse_workers_and_positions

FULL = """\
command: [claude, -p]
cwd: sub
env: {LANG: C.UTF-8}
timeout: 45m
stall: 10m
retries: 1
on_failure: continue
throttle: {memory_available: 2GiB, max_workers: 8, load_per_cpu: 1.5, disk_queue: off}
phases:
  - name: research
    workers:
      - {name: Research-1, brief: briefs/research-1.md, expect: [report.md, stdout]}
      - name: Research-2
        brief: "Find every caller of …"
        expect: [{file: report.md, min_bytes: 200}, {stdout: true, min_bytes: 2KiB}]
        command: [sleep, 5]
        env: {A: b}
        retries: 0
"""
WORKER = "phases: [{name: p, workers: [{name: w, brief: b, command: [c]}]}]\n"


whatever = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
TRICKY = "ab:-[]{}&*!|>'\"%@,#?\\ \n\t0<~"


@pytest.fixture(params=["libyaml", "python"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test with libyaml, and as where PyYAML was built without it."""
    if request.param == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    yield


def refused(text: str) -> errors.BadPlan:
    with pytest.raises(errors.BadPlan) as caught:
        parse_plan(text, file="p.yaml")
    return caught.value


def only_worker(text: str) -> WorkerEntry:
    [worker] = parse_workers_and_positions(text, file="w.yaml")[0]
    return worker


def test_a_full_plan_is_read_whole(loader: None) -> None:
    assert parse_plan(FULL, file="p.yaml") == Plan(
        command=("claude", "-p"),
        cwd="sub",
        env={"LANG": "C.UTF-8"},
        timeout_s=2700,
        stall_s=600,
        retries=1,
        on_failure="continue",
        throttle={"memory_available": 2 * 1024**3, "max_workers": 8, "load_per_cpu": 1.5, "disk_queue": None},
        phases=(
            Phase(
                "research",
                (
                    WorkerEntry(
                        "Research-1",
                        "briefs/research-1.md",
                        expect=(Expect("report.md"), Expect(None)),
                    ),
                    WorkerEntry(
                        "Research-2",
                        "Find every caller of …",
                        expect=(Expect("report.md", 200), Expect(None, 2048)),
                        command=("sleep", "5"),
                        env={"A": "b"},
                        retries=0,
                    ),
                ),
            ),
        ),
        positions={"Research-1": (12, 35), "Research-2": (14, 16)},
    )


def test_a_short_plan_takes_the_defaults() -> None:
    worker = WorkerEntry("w", "b", command=("c",))
    assert parse_plan(WORKER, file="p.yaml") == Plan(
        None, ".", {}, None, 600.0, 0, "stop", {}, (Phase("p", (worker,)),), {"w": (1, 47)}
    )


@pytest.mark.parametrize(
    "name", ["no", "1.5", "on", "yes", "007", "1e3", "true", "2024-01-01", "0x1F", "'null'"]
)
def test_a_plain_word_is_taken_by_its_text(name: str, loader: None) -> None:
    assert only_worker(f"[{{name: {name}, brief: {name}}}]").name == name.strip("'")


def test_words_of_a_command_are_taken_by_their_text() -> None:
    command = only_worker("[{name: w, brief: b, command: [sleep, 5, yes, 010, 1.50, '', '~']}]").command
    assert command == ("sleep", "5", "yes", "010", "1.50", "", "~")


def test_a_limit_can_be_switched_off() -> None:
    plan = parse_plan("timeout: off\nstall: off\nthrottle: {max_workers: 'off'}\n" + WORKER, file="p.yaml")
    assert (plan.timeout_s, plan.stall_s, plan.throttle) == (None, None, {"max_workers": None})


def test_a_phase_may_be_left_to_be_filled_later() -> None:
    assert parse_plan("phases: [{name: p, workers: []}]", file="p.yaml").phases == (Phase("p"),)


def test_an_anchor_can_be_used_again() -> None:
    text = "- {name: a, brief: b, command: &c [x, &y z]}\n- {name: b, brief: *y, command: *c}\n"
    assert [worker.command for worker in parse_workers_and_positions(text, file="w")[0]] == [
        ("x", "z"),
        ("x", "z"),
    ]


def test_a_merged_mapping_yields_to_what_stands_there() -> None:
    text = "- &a {name: a, brief: b, cwd: x, retries: 2}\n- {<<: [{cwd: z}, *a], name: b, retries: 3}\n"
    assert parse_workers_and_positions(text, file="w")[0][1] == WorkerEntry("b", "b", cwd="z", retries=3)


@pytest.mark.parametrize("text", ["[]", "workers: []", "{workers: []}"])
def test_a_list_of_workers_may_be_empty(text: str) -> None:
    assert parse_workers_and_positions(text, file="w")[0] == ()


def test_a_list_of_workers_may_stand_under_workers() -> None:
    text = "workers:\n- {name: w, brief: b}\n"
    assert parse_workers_and_positions(text, file="w") == ((WorkerEntry("w", "b"),), {"w": (2, 20)})


def test_a_byte_order_mark_is_no_part_of_the_plan(loader: None) -> None:
    assert refused("\ufeffphase: []").details == {"file": "p.yaml", "line": 1, "column": 1}


@pytest.mark.parametrize("indent", [None, 1, "\t"])
@pytest.mark.parametrize("ascii_only", [True, False])
@given(brief=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_json_means_in_a_list_what_it_means_elsewhere(brief: str, ascii_only: bool, indent: Any) -> None:
    brief = "x" + brief
    text = json.dumps([{"name": "w", "brief": brief}], ensure_ascii=ascii_only, indent=indent)
    assert only_worker(text).brief == brief


def test_a_backslash_before_what_looks_like_an_escape_is_kept() -> None:
    brief = r"\ud83d\ude00 is 😀"
    assert only_worker(json.dumps([{"name": "w", "brief": brief}])).brief == brief


def test_a_document_that_multiplies_its_aliases_is_refused(loader: None) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for old, new in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]")
    assert "more than 200000 values" in refused("\n".join(lines)).message


def test_aliases_that_nest_too_deep_are_refused() -> None:
    lines = ["a0: &a0 " + "[" * 40 + "]" * 40]
    lines += [f"a{n}: &a{n} " + "[" * 40 + f"*a{n - 1}" + "]" * 40 for n in range(1, 100)]
    assert "levels deep" in refused("\n".join(lines)).message


def test_a_document_of_too_many_values_is_refused() -> None:
    assert "more than 200000 values" in refused("[" + "a," * 200_001 + "]").message


@whatever
@given(st.text() | st.text(TRICKY, max_size=40))
def test_any_text_is_a_plan_or_a_refusal_with_a_place(loader: None, text: str) -> None:
    try:
        parse_plan(text, file="p")
    except errors.BadPlan as error:
        assert error.message.startswith(f"p:{error.details['line']}:{error.details['column']}: ")


@whatever
@given(at=st.integers(0, len(FULL)), cut=st.integers(0, 9), put=st.text(TRICKY, max_size=3))
def test_any_damage_to_a_plan_is_survived_or_refused(loader: None, at: int, cut: int, put: str) -> None:
    try:
        parse_plan(FULL[:at] + put + FULL[at + cut :], file="p")
    except errors.BadPlan as error:
        lines = (FULL[:at] + put + FULL[at + cut :]).split("\n")
        assert 1 <= error.details["line"] <= len(lines)


def test_the_plan_can_be_imported_without_yaml() -> None:
    code = "import sys, orchestra.model.plan_text; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
