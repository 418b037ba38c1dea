from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra import errors
from orchestra.model.names import check_name, is_name, shown

GOOD = ["a", "Research-1", "1.5", "no", "0", "a" * 64, "a_b.c-d", "con", "x--", "9lives"]
BAD = [
    "",
    "a" * 65,
    ".hidden",
    "..",
    "-rf",
    "_a",
    "a b",
    "a/b",
    "../a",
    "a\n",
    "\na",
    "a\0",
    "a\x1b[31m",
    "é",
    "a\u0301",
    "\ud800",
    "\u0661",
    "a:b",
    "a*",
    "{name}",
    "a😀",
]


@pytest.mark.parametrize("name", GOOD)
def test_a_name_of_the_allowed_characters_is_given_back(name: str) -> None:
    assert check_name("worker", name) == name


@pytest.mark.parametrize("name", BAD)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(errors.BadName):
        check_name("worker", name)


@pytest.mark.parametrize("name", BAD)
def test_a_refusal_can_be_printed_whatever_the_name(name: str) -> None:
    with pytest.raises(errors.BadName) as caught:
        check_name("worker", name)
    assert caught.value.message.encode("utf-8")
    assert all(character.isprintable() for character in caught.value.message)


def test_a_refusal_names_the_kind_and_the_name_and_gives_the_rule() -> None:
    with pytest.raises(errors.BadName, match=r"'a b' cannot be the name of a phase") as caught:
        check_name("phase", "a b")
    assert "1 to 64" in caught.value.hint


def test_a_long_name_is_shortened_in_the_refusal() -> None:
    with pytest.raises(errors.BadName) as caught:
        check_name("run", "x" * 100_000)
    assert len(caught.value.message) < 150
    assert "(100000 characters)" in caught.value.message


@given(st.text())
def test_is_name_says_what_check_name_does(name: str) -> None:
    try:
        check_name("worker", name)
    except errors.BadName:
        assert not is_name(name)
    else:
        assert is_name(name)


@given(st.text())
def test_shown_text_is_printable_and_short(text: str) -> None:
    assert shown(text).isprintable()
    assert len(shown(text)) < 64 * 10 + 40
