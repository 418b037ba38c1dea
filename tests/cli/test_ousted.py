"""A narrator from whom the run was taken by force notices, also while nothing happens in it."""

from __future__ import annotations

import json

import pytest
from conftest import Root, wait_until

from orchestra.engine.conduct import conduct
from orchestra.engine.narrator import Narrator
from orchestra.engine.wait import pause
from orchestra.errors import Superseded
from orchestra.store.layout import Layout

QUIET = "command: [sleep, '300']\nphases:\n- {name: p, workers: [{name: W, brief: do it}]}\n"


def test_an_ousted_narrator_ends_within_its_beat_and_leaves_its_workers(root: Root) -> None:
    root.init("r", QUIET)
    running = root.start("run", "--run", "r", "--narrator", "bob")
    wait_until(lambda: root("status", "r").json["counts"]["running"], "the worker to run")
    assert root("unlock", "r", "--force", "--narrator", "bob").json["found"]["lock"] == "forced"
    told, _ = running.communicate(timeout=20)
    assert (running.returncode, json.loads(told)["error"]["code"]) == (3, "superseded")
    assert root.worker("r", "W")["state"] == "running"
    assert root("stop", "r", "--grace", "1").code == 0


def test_it_notices_also_where_it_waits_for_time_alone(root: Root) -> None:
    root.init("r")
    with (
        pytest.raises(Superseded),
        conduct(Layout(str(root.run_dir("r"))), Narrator("run")) as conductor,
    ):
        assert root("unlock", "r", "--force").code == 0
        pause(conductor, 30.0)


def test_a_lock_that_cannot_be_read_just_now_ousts_nobody(root: Root) -> None:
    root.init("r")
    holder = root.run_dir("r") / ".narrator.lock" / "holder.json"
    with conduct(Layout(str(root.run_dir("r"))), Narrator("run")) as conductor:
        text = holder.read_text()
        holder.write_text("")
        conductor.refresh()
        holder.write_text(text)
