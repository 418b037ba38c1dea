"""The limits of a call, and of a config: kept for who goes on, judged by for who asks, named where wrong."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import Root, wait_until

TWO = "{max_workers: 2}"


@pytest.fixture
def night(root: Root) -> Root:
    """A plan of six that would all start at once."""
    rows = [{"name": f"W{i}", "brief": "b"} for i in range(6)]
    plan = {"command": ["sleep", "300"], "phases": [{"name": "p", "workers": rows}]}
    path = root.path.parent / "plan.json"
    path.write_text(json.dumps(plan))
    root("init", "r", "--plan", str(path))
    return root


def narrating(root: Root) -> subprocess.Popen[str]:
    running = root.start("run", "--run", "r", env={"ORCHESTRA_THROTTLE": TWO})
    wait_until(lambda: root("status", "r").json["counts"]["deferred"] == 4, "the deferrals")
    return running


def test_who_waits_is_judged_by_the_limits_of_the_narrator_at_work(night: Root) -> None:
    running = narrating(night)
    rows = [row for row in night("status", "r").json["workers"] if row["state"] == "deferred"]
    assert {row["deferred"]["now"][0]["value"] for row in rows} == {2}
    assert {row["deferred"]["now"][0]["signal"] for row in rows} == {"max_workers"}
    assert {row["deferred"]["now"][0]["limit"] for row in rows} == {2}
    told = night("explain", "r", "W5").json["worker"]["deferred"]
    assert "workers at work 2, at most 2 allowed" in told["outlook"]
    host = night("host", "r").json
    [row] = [row for row in host["signals"] if row["signal"] == "max_workers"]
    assert (row["value"], row["limit"], row["verdict"]) == (2, 2, "speaks")
    assert host["would_start"]["workers"] == 0
    running.send_signal(signal.SIGTERM)
    said, _ = running.communicate(timeout=60)
    again = f"env ORCHESTRA_THROTTLE='{TWO}' orchestra run --run r"
    assert json.loads(said)["next"] == [again]
    after = night("status", "r").json
    assert after["next"][0] == again
    assert [row["deferred"]["now"] for row in after["workers"] if row["state"] == "deferred"] == [[]] * 4
    night("stop", "r", "--grace", "0")


def test_only_as_many_as_would_fit_have_room_now(night: Root) -> None:
    night("spawn", "r", "--phase", "p", env={"ORCHESTRA_THROTTLE": TWO})
    three = {"ORCHESTRA_THROTTLE": "{max_workers: 3}"}
    rows = [row for row in night("status", "r", env=three).json["workers"] if row["state"] == "deferred"]
    assert [row["deferred"]["now"] == [] for row in rows] == [True, False, False, False]
    assert rows[0]["reason"] == "there is room for it now: orchestra spawn r starts it"
    assert (rows[0]["deferred"]["expected_s"], rows[1]["deferred"]["ahead"]) == (None, 1)
    night("stop", "r", "--grace", "0")


def test_who_can_never_start_here_is_ahead_of_nobody(root: Root) -> None:
    root.init("r")
    never, later = {"memory_available": "900TiB"}, {"max_workers": 1}
    rows = [
        {"name": name, "brief": "b", "command": ["sleep", "300"], "throttle": throttle}
        for name, throttle in (("First", {}), ("Never", never), ("Later", later))
    ]
    root("spawn", "r", "--from", "-", stdin=json.dumps(rows))
    ahead = {row["name"]: row.get("deferred", {}).get("ahead") for row in root("status", "r").json["workers"]}
    assert ahead == {"First": None, "Never": None, "Later": 0}
    root("stop", "r", "--grace", "0")


@pytest.mark.parametrize("how", ["the variable", "the config"])
def test_wrong_limits_are_named_by_doctor_and_keep_nobody_from_an_answer(
    night: Root, tmp_path: Path, how: str
) -> None:
    night("spawn", "r", "--phase", "p", env={"ORCHESTRA_THROTTLE": TWO})
    env = {"ORCHESTRA_THROTTLE": "{max_workers: -3}"}
    if how == "the config":
        config = tmp_path / "config" / "orchestra" / "config.yaml"
        config.parent.mkdir(parents=True)
        config.write_text("throttle: {max_workers: 8")
        env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    for words in (("status", "r"), ("explain", "r", "W5"), ("wait", "r", "--timeout", "0")):
        answer = night(*words, env=env)
        assert answer.code in (0, 5), answer
        assert "what speaks now is not known" in answer.stdout
    checks = night("doctor", env=env)
    [check] = [row for row in checks.json["checks"] if row["check"] == "settings"]
    assert (checks.code, check["verdict"]) == (1, "bad")
    assert "max_workers" in check["found"] if how == "the variable" else "config.yaml:1" in check["found"]
    [check] = [row for row in night("doctor").json["checks"] if row["check"] == "settings"]
    assert check["verdict"] == "ok"
    night("stop", "r", "--grace", "0")


@pytest.mark.parametrize(
    ("limits", "problem", "hint"),
    [
        ("{memory_available: 2}", "is only 2 bytes", "write 2GiB or 2MiB; 2B where bytes are meant"),
        ("{cpu_pressure: 120}", "120 is never exceeded", "write at most 100, or off"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(root: Root, limits: str, problem: str, hint: str) -> None:
    refused = root("host", env={"ORCHESTRA_THROTTLE": limits})
    assert (refused.code, refused.json["error"]["code"]) == (2, "bad_config")
    assert problem in refused.json["error"]["message"]
    assert hint in refused.json["error"]["hint"]
