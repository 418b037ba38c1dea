"""Small notes beside the runs: whoever cannot have the lock changes nothing, and is not held up twice."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from orchestra.store import note
from orchestra.store.note import Note


def test_what_is_changed_is_read_again(tmp_path: Path) -> None:
    kept = Note(str(tmp_path / "a" / "note.json"))
    with kept.changing() as value:
        value["x"] = 1
    assert Note(kept.path).read() == {"x": 1}


def test_who_cannot_have_the_lock_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(note, "PATIENCE_S", 0.2)
    path = tmp_path / "note.json"
    path.write_text('{"x": 1}')
    kept = Note(str(path))
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for _ in range(2):
            with kept.changing() as value:
                assert value == {"x": 1}
                value["x"] = 2
        began = time.monotonic()
        for _ in range(100):
            with kept.changing():
                pass
        assert time.monotonic() - began < 0.2 * 50  # not a wait for each
    assert kept.read() == {"x": 1}
    with kept.changing() as value:
        value["x"] = 3
    assert kept.read() == {"x": 3}


@pytest.mark.parametrize("text", ["", "[]", '{"x":', "[" * 100_000, "\0"])
def test_one_that_cannot_be_read_is_as_good_as_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "note.json"
    path.write_text(text)
    assert Note(str(path)).read() == {}
    with Note(str(path)).changing() as value:
        value["y"] = 1
    assert Note(str(path)).read() == {"y": 1}


def test_one_that_has_swollen_is_as_good_as_empty_and_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    path.write_text('{"x": 1}')
    os.truncate(path, 1 << 40)
    assert Note(str(path)).read() == {}
    with Note(str(path)).changing() as value:
        value["y"] = 1
    assert path.read_text() == '{"y":1}'


def test_a_pipe_in_its_place_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    os.mkfifo(path)
    assert Note(str(path)).read() == {}
    with Note(str(path)).changing() as value:
        assert value == {}
        value["y"] = 1
    assert Note(str(path)).read() == {}
