"""The first things that a newcomer does."""

from __future__ import annotations

from conftest import Root


def test_a_plain_command_runs_and_its_output_is_there(root: Root) -> None:
    root.init("first")
    answer = root("spawn", "first", "--worker", f"W1={root.brief('W1', 'hello')}", "--", "cat")
    assert (answer.code, answer.names("spawned")) == (0, ["W1"])
    answer = root("wait", "first")
    assert (answer.code, answer.json["outcome"]) == (0, "ended")
    assert root("logs", "first", "W1").json["text"] == "hello"
    assert root.result("first", "W1")["status"] == "done"
