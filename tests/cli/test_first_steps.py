"""The first things that a newcomer does."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Root

from orchestra.model.plan_text import PLAN_KEYS, WORKER_KEYS

README = Path(__file__).parents[2] / "README.md"


def test_a_plain_command_runs_and_its_output_is_there(root: Root) -> None:
    root.init("first")
    answer = root("spawn", "first", "--worker", f"W1={root.brief('W1', 'hello')}", "--", "cat")
    assert (answer.code, answer.names("spawned")) == (0, ["W1"])
    answer = root("wait", "first")
    assert (answer.code, answer.json["outcome"]) == (0, "ended")
    assert root("logs", "first", "W1").json["text"] == "hello"
    assert root.result("first", "W1")["status"] == "done"


@pytest.mark.parametrize("key", sorted({*PLAN_KEYS, *WORKER_KEYS}))
def test_every_key_of_a_plan_is_in_the_table_of_the_README(key: str) -> None:
    rows = [line.split("|")[1] for line in README.read_text().splitlines() if line.startswith("| `")]
    assert any(f"`{key}`" in row for row in rows)
