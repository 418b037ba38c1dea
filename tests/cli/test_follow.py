"""`wait --follow`: each line is a change that happened, and its `op` a cursor that misses nothing."""

from __future__ import annotations

import json
from typing import Any

from conftest import Root

UNTIL = 'until [ -e "$ORCHESTRA_RUN_DIR/../go" ]; do sleep 0.05; done'


def followed(root: Root, *words: str) -> list[dict[str, Any]]:
    """The changes that were told."""
    lines = root("wait", "r", "--follow", "--timeout", "60", *words).stdout.splitlines()
    return [change for change in map(json.loads, lines) if "worker" in change]


def test_a_stalled_worker_does_not_run_again_by_being_ended(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]}, stall="1s", timeout="5s")
    told = [change["worker"]["state"] for change in followed(root)]
    assert told[told.index("stalled") :] == ["stalled", "failed"]


def test_the_line_of_a_stalled_worker_carries_its_event_s_operation(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]}, stall="1s", timeout="5s")
    told = {change["worker"]["state"]: change["op"] for change in followed(root)}
    logged = {event["kind"]: event["op"] for event in root.events("r")}
    assert told["stalled"] == logged["stalled"]
    assert told["failed"] == logged["ended"]


def test_the_cursor_never_falls(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"A": ["sh", "-c", UNTIL], "B": ["true"], "C": ["sh", "-c", UNTIL], "D": ["true"]})
    root("wait", "r", "--for", "B", "--for", "D")
    (root.path / "go").touch()
    root("wait", "r")
    changes = followed(root, "--since", "1")
    ops = [change["op"] for change in changes]
    assert ops == sorted(ops)
    for change in changes:
        rest = [later["worker"]["name"] for later in changes if later["op"] > change["op"]]
        assert [c["worker"]["name"] for c in followed(root, "--since", str(change["op"]))] == rest
