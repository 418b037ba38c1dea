"""The seat: two narrators that take turns are as wrong as two at once."""

from __future__ import annotations

import pytest
from conftest import Root

MUTATING = {
    "spawn": ["spawn", "r"],
    "stop": ["stop", "r"],
    "retry": ["retry", "r"],
    "init": ["init", "r"],
}
LOOKING = {
    "status": ["status", "r"],
    "wait": ["wait", "r"],
    "explain": ["explain", "r", "W"],
    "logs": ["logs", "r", "W"],
    "events": ["events", "r"],
}


@pytest.fixture
def seated(root: Root) -> Root:
    """A run that `first` conducts."""
    root.init("r")
    assert root.spawn("r", {"W": ["true"]}, "--narrator", "first").code == 0
    root("wait", "r")
    return root


def test_the_first_to_change_the_run_sits_in_it(seated: Root) -> None:
    assert seated("status", "r").json["seat"] == "first"
    assert seated("spawn", "r", "--narrator", "first").code == 0


@pytest.mark.parametrize("words", MUTATING.values(), ids=MUTATING.keys())
def test_another_is_refused_and_told_who_and_since_when(seated: Root, words: list[str]) -> None:
    answer = seated(*words, "--narrator", "second")
    error = answer.json["error"]
    assert (answer.code, error["code"], error["seat"]) == (3, "narrator_already_active", "first")
    assert error["since"] in error["message"]
    assert "orchestra takeover r --narrator second" in error["hint"]


def test_the_variable_counts_as_the_option(seated: Root) -> None:
    answer = seated("spawn", "r", env={"ORCHESTRA_NARRATOR": "second"})
    assert answer.json["error"]["code"] == "narrator_already_active"
    assert seated("spawn", "r", env={"ORCHESTRA_NARRATOR": "first"}).code == 0


@pytest.mark.parametrize("words", LOOKING.values(), ids=LOOKING.keys())
def test_anybody_may_look(seated: Root, words: list[str]) -> None:
    assert seated(*words, "--narrator", "second").code == 0


def test_without_an_id_the_seat_is_not_looked_at(seated: Root) -> None:
    assert seated("spawn", "r").code == 0
    assert seated("status", "r").json["seat"] == "first"


def test_after_a_takeover_the_second_conducts(seated: Root) -> None:
    taken = seated("takeover", "r", "--narrator", "second")
    assert (taken.code, taken.json["seat"]) == (0, "second")
    assert seated("spawn", "r", "--narrator", "second").code == 0


def test_after_a_takeover_the_first_is_superseded(seated: Root) -> None:
    seated("takeover", "r", "--narrator", "second")
    answer = seated("spawn", "r", "--narrator", "first")
    error = answer.json["error"]
    assert (answer.code, error["code"], error["seat"]) == (3, "superseded", "second")
    assert "second" in error["message"]


def test_a_third_is_refused_not_superseded(seated: Root) -> None:
    seated("takeover", "r", "--narrator", "second")
    assert seated("spawn", "r", "--narrator", "third").json["error"]["code"] == "narrator_already_active"


def test_the_first_can_take_it_back(seated: Root) -> None:
    seated("takeover", "r", "--narrator", "second")
    assert seated("takeover", "r", "--narrator", "first").code == 0
    assert seated("spawn", "r", "--narrator", "first").code == 0
    assert seated("spawn", "r", "--narrator", "second").json["error"]["code"] == "superseded"


def test_taking_ones_own_seat_changes_nothing(seated: Root) -> None:
    before = seated("status", "r").json["op"]
    assert seated("takeover", "r", "--narrator", "first").code == 0
    assert seated("status", "r").json["op"] == before


def test_a_refused_narrator_has_changed_nothing(seated: Root) -> None:
    before = seated.events("r")
    seated.spawn("r", {"X": ["true"]}, "--narrator", "second")
    assert seated.events("r") == before


@pytest.mark.parametrize("narrator", ["a b", "o'brien; $(id)", "-x", "é 🎻", "x" * 300, "a\nb"])
def test_an_id_may_be_anything(root: Root, narrator: str) -> None:
    root.init("r")
    assert root("spawn", "r", f"--narrator={narrator}").code == 0
    refused = root("spawn", "r", "--narrator", "other")
    assert refused.json["error"]["seat"] == narrator


def test_the_hint_of_a_refusal_is_ready_to_run_whatever_the_id(seated: Root) -> None:
    hint = seated("spawn", "r", "--narrator", "my session; $(id)").json["error"]["hint"]
    assert "--narrator 'my session; $(id)'" in hint


def test_an_unlock_asks_nobody_for_the_seat_and_leaves_it_as_it_is(seated: Root) -> None:
    before = seated("status", "r").json["seat"]
    assert seated("unlock", "r", "--narrator", "second").json["ok"]
    assert seated("status", "r").json["seat"] == before
