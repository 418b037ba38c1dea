"""A dry run: what would happen, who would not start, and nothing written."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from conftest import CALM, Root, contents


def test_a_dry_run_says_what_would_happen_and_writes_nothing(root: Root) -> None:
    root.init("r")
    before = contents(root.path)
    rows = [
        {"name": "A", "brief": "b", "command": ["true"], "throttle": CALM},
        {"name": "B", "brief": "b", "command": ["true"], "throttle": {"memory_available": "64TiB"}},
    ]
    answer = root("spawn", "r", "--from", "-", "--dry-run", stdin=json.dumps(rows))
    assert (answer.code, answer.names("spawned"), answer.names("deferred")) == (4, ["A"], ["B"])
    assert contents(root.path) == before


def test_a_dry_run_of_nothing_proposes_what_would_do_something(root: Root) -> None:
    root.init("r", "phases:\n- {name: p, workers: [{name: W, brief: b, command: ['true']}]}\n")
    assert root("spawn", "r", "--dry-run").json["next"] == ["orchestra spawn r --phase p"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"command": ["clade", "-p"]}, "command not found or not executable: clade"),
        ({"command": ["true"], "env": {"PATH": "/nowhere:"}}, "command not found or not executable: true"),
        ({"command": ["./brief"]}, "command not found or not executable: ./brief"),
        ({"command": ["./pipe"]}, "command not found or not executable: ./pipe"),
        ({"command": ["true"], "cwd": "no/such"}, "cannot enter the worker's directory: "),
        ({"command": ["true", "x" * 131072]}, "a word of its command has 131072 bytes, more than one"),
        (
            {"command": ["true", "{prompt}"], "brief": "b " * 70000},
            "its prompt has 140000 bytes, more than one",
        ),
    ],
)
def test_a_dry_run_tells_who_would_not_start_as_spawn_does(
    root: Root, entry: dict[str, Any], reason: str
) -> None:
    root.init("r")
    (root.path / "brief").write_text("not executable")
    os.mkfifo(root.path / "pipe", 0o700)
    rows = json.dumps(
        [{"name": "A", "brief": "b", **entry}, {"name": "B", "brief": "b", "command": ["true"]}]
    )
    call = ("spawn", "r", "--no-throttle", "--from", "-")
    told = root(*call, "--dry-run", stdin=rows, cwd=root.path)
    assert (told.code, told.names("spawned"), told.names("failed")) == (1, ["B"], ["A"])
    assert told.json["failed"][0]["reason"].startswith(reason)
    done = root(*call, stdin=rows, cwd=root.path)
    assert (done.code, done.names("spawned"), done.names("failed")) == (1, ["B"], ["A"])
    assert done.json["failed"][0]["reason"].startswith(told.json["failed"][0]["reason"])


def test_the_longest_argument_that_there_may_be_is_no_trouble(root: Root) -> None:
    root.init("r")
    row = {"name": "W", "brief": "b" * 131070, "command": ["true", "{prompt}x", "y" * 131071]}
    for dry in (["--dry-run"], []):
        answer = root("spawn", "r", "--no-throttle", "--from", "-", *dry, stdin=json.dumps([row]))
        assert answer.names("spawned") == ["W"]
    assert root("wait", "r").code == 0


def test_a_dry_run_takes_a_brief_from_where_spawn_does(root: Root) -> None:
    """Of one that was deferred on its way to another attempt: its brief has left state.json."""
    root.init("r")
    rows = [{"name": f"W{i}", "brief": "b" * 200_000, "command": ["false"]} for i in range(7)]
    root("spawn", "r", "--no-throttle", "--from", "-", stdin=json.dumps(rows))
    root("wait", "r", "--keep-going")
    full = {"ORCHESTRA_THROTTLE": "{memory_available: 64TiB}"}
    assert root("retry", "r", "W1", "--", "echo", "{prompt}", env=full).names("deferred") == ["W1"]
    for dry in (["--dry-run"], []):
        (row,) = root("spawn", "r", "--no-throttle", *dry).json["failed"]
        assert row["reason"].startswith("its prompt has 200000 bytes")


def test_a_dry_run_finds_a_command_as_the_launcher_does(root: Root) -> None:
    root.init("r")
    tool = root.path / "tools" / "mytool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    entries: dict[str, dict[str, Any]] = {
        "A": {"command": ["./tools/mytool"]},
        "B": {"command": ["mytool"], "env": {"PATH": f"tools:{os.environ['PATH']}"}},
        "C": {"command": ["./mytool"], "cwd": "tools"},
        "D": {"command": ["{run_dir}/../tools/mytool"]},
    }
    rows = json.dumps([{"name": name, "brief": "b", **entry} for name, entry in entries.items()])
    for dry in (["--dry-run"], []):
        answer = root("spawn", "r", "--no-throttle", "--from", "-", *dry, stdin=rows, cwd=root.path)
        assert answer.names("spawned") == list(entries), answer.json
