"""What people read: sentences, and nothing kept from them that the JSON says."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from conftest import Root, wait_until

from orchestra.cli.sentences import alert_sentences, recovered_sentences
from orchestra.model.event import Event, encode


def test_a_retry_that_does_nothing_says_why(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"Count": ["true"]})
    root("wait", "r")
    assert "Count: done; it has not failed: nothing was done" in root("retry", "r", "Count", "--text").stdout


def test_a_stop_of_a_planned_one_says_that_it_will_start_all_the_same(root: Root) -> None:
    root.init("r", "command: ['true']\nphases:\n- {name: p, workers: [{name: Summary, brief: b}]}\n")
    (row,) = root("stop", "r", "Summary").json["already"]
    assert row["state"] == "planned"
    assert "starts all the same" in row["note"]


def test_stop_says_that_it_ended_what_another_left(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"], "X": ["sleep", "300"]})
    launcher = root.mark("r", "W")["pid"]
    kids = Path(f"/proc/{launcher}/task/{launcher}/children")
    (worker,) = wait_until(lambda: kids.read_text().split(), "the worker's process")
    os.kill(launcher, signal.SIGKILL)
    told = root("stop", "r", "X", "--grace", "1", "--text").stdout
    assert f"put right: ended what lost workers had left running: W (pids {worker})" in told


def test_many_of_a_kind_are_one_sentence(root: Root) -> None:
    root.init("r")
    log = root.run_dir("r") / "events.jsonl"
    last = json.loads(log.read_text().splitlines()[-1])
    entry = {"name": "", "brief": "b", "command": ["true"]}
    with log.open("ab") as file:  # what a spawn that was killed behind its intents leaves
        for i in range(30):
            data: dict[str, Any] = {"worker": f"M{i}", "phase": None, "attempt": 1, "token": f"{i:016x}"}
            data |= {"entry": {**entry, "name": f"M{i}"}}
            file.write(
                encode(
                    Event(last["op"] + 1 + i, last["at"], "commands", "spawn_intended", last["epoch"], data)
                )
            )
    alerts = [line for line in root("status", "r", "--text").stdout.splitlines() if line.startswith("alert")]
    assert len(alerts) == 1 and "M0" in alerts[0] and "and 25 more" in alerts[0]
    lines = root("unlock", "r", "--text").stdout.splitlines()
    (said,) = [line for line in lines if line.startswith("put right")]
    assert "left half-done" in said and "and 25 more" in said


def test_no_sentence_has_words_of_the_wire() -> None:
    who = {"pid": 7, "command": "run", "host": "h"}
    alerts: list[dict[str, Any]] = [
        {"kind": "lock_freed", "op": 3, "at": "2026-01-31T23:59:59.123Z", "holder": who, "forced": True},
        {"kind": "lock_taken_over", "op": 4, "at": "2026-01-31T23:59:59.123Z", "holder": who, "reason": ""},
        {"kind": "log_damage", "offset": 5, "size": 6, "torn": True},
        {"kind": "leftovers", "worker": "W", "pids": [1, 2]},
        {"kind": "late_result", "worker": "W", "attempt": 1},
        {"kind": "dead_holder", "pid": 7, "command": "spawn"},
        {"kind": "unreadable_lock", "path": "/l"},
    ]
    recovered: list[dict[str, Any]] = [
        {"what": "half_done_stop", "worker": "W"},
        {"what": "lock_taken_over", "pid": 7},
    ]
    told = [*alert_sentences(alerts), *recovered_sentences(recovered)]
    assert len(told) == len(alerts) + len(recovered)
    assert not [sentence for sentence in told if "_" in sentence or "True" in sentence]


def test_what_has_no_sentence_yet_is_told_all_the_same() -> None:
    assert alert_sentences([{"kind": "brand_new", "op": 1, "worker": "W"}]) == ["brand_new: worker W"]


def test_an_end_at_once_is_in_the_text_of_spawn(root: Root) -> None:
    root.init("r")
    words = [word for i in range(20) for word in ("--worker", f"W{i}={root.brief(f'W{i}')}")]
    told = root("spawn", "r", *words, "--no-throttle", "--text", "--", "false").stdout
    ended = [line for line in told.splitlines() if "✗ failed" in line]
    assert ended and all("exit_code" in line for line in ended)
