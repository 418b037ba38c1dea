"""Every way in which a worker can end: its verdict, the evidence, and what a retry is worth."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Root, orchestra_argv, wait_until

FOREVER = ["sleep", "300"]


class Case(NamedTuple):
    """A worker, and what must be said of it."""

    entry: dict[str, Any]
    verdict: str
    retry: str
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""  # must be in it


def sh(script: str, **more: Any) -> dict[str, Any]:
    return {"command": ["sh", "-c", script], **more}


CASES = {
    "exit status": Case(sh("exit 3"), "exit_code", "now", 3, reason="3"),
    "exit 137 by itself": Case(sh("exit 137"), "exit_code", "now", 137),
    "exit 143 by itself": Case(sh("exit 143"), "exit_code", "now", 143),
    "exit 255": Case(sh("exit 255"), "exit_code", "now", 255),
    "exit 70 by itself": Case(sh("exit 70"), "exit_code", "now", 70),
    "exit 126 by itself": Case(sh("exit 126"), "exit_code", "now", 126),
    "a shell's 127": Case(sh("no-such-program"), "exit_code", "now", 127),
    "SIGKILL": Case(sh("kill -KILL $$"), "signal", "now", signal=9, reason="SIGKILL"),
    "SIGTERM": Case(sh("kill -TERM $$"), "signal", "now", signal=15, reason="SIGTERM"),
    "SIGSEGV": Case(sh("kill -SEGV $$"), "signal", "now", signal=11, reason="SIGSEGV"),
    "timeout": Case(sh("sleep 300", timeout="1500ms"), "timeout", "now", signal=15, reason="1.5 s"),
    "missing file": Case(sh(":", expect=["report.md"]), "empty", "now", 0, reason="report.md"),
    "file too small": Case(
        sh('printf 1234 >"$ORCHESTRA_OUT/r"', expect=[{"file": "r", "min_bytes": 5}]),
        "empty", "now", 0, reason="4 bytes of at least 5",
    ),
    "empty file": Case(sh(': >"$ORCHESTRA_OUT/r"', expect=["r"]), "empty", "now", 0),
    "directory instead of a file": Case(sh('mkdir "$ORCHESTRA_OUT/r"', expect=["r"]), "empty", "now", 0),
    "empty stdout": Case(sh("echo hi >&2", expect=["stdout"]), "empty", "now", 0, reason="standard output"),
    "exit 75": Case(sh("exit 75"), "rate_limited", "later", 75),
    "429 on stderr": Case(sh("echo 'HTTP error 429: slow down' >&2; exit 1"), "rate_limited", "later", 1),
    "rate limit on stderr": Case(sh("echo 'Rate limit reached' >&2; exit 1"), "rate_limited", "later", 1),
    "usage limit on stderr": Case(sh("echo 'usage limit reached' >&2; exit 1"), "rate_limited", "later", 1),
    "rate limit on stdout alone": Case(sh("echo 'HTTP error 429 rate limit'; exit 1"), "exit_code", "now", 1),
    "a line number of 429": Case(sh("echo 'main.c:429: bad' >&2; exit 1"), "exit_code", "now", 1),
    "401 on stderr": Case(sh("echo 'status 401 Unauthorized' >&2; exit 1"), "auth", "never", 1),
    "bad key on stderr": Case(sh("echo 'Invalid API key' >&2; exit 1"), "auth", "never", 1),
    "no such command": Case({"command": ["no-such-tool"]}, "spawn_error", "never", reason="no-such-tool"),
    "no such path": Case({"command": ["/no/such"]}, "spawn_error", "never", reason="/no/such"),
    "not executable": Case({"command": ["/etc/passwd"]}, "spawn_error", "never", reason="/etc/passwd"),
    "a directory": Case({"command": ["/etc"]}, "spawn_error", "never", reason="/etc"),
    "no such cwd": Case({"command": ["true"], "cwd": "/no/such"}, "spawn_error", "never", reason="/no/such"),
    "cwd is a file": Case({"command": ["true"], "cwd": "/etc/passwd"}, "spawn_error", "never"),
}  # fmt: skip


def ended(root: Root, entry: dict[str, Any], name: str = "W") -> dict[str, Any]:
    """Spawn one worker, wait for its end, and give its row in `status`."""
    if not root.run_dir("r").exists():
        root.init("r")
    row = {"name": name, "brief": "b", **entry}
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]))
    assert root("wait", "r", "--for", name, "--timeout", "60").code == 1
    return root.worker("r", name)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_failure_has_its_verdict_advice_and_evidence(root: Root, case: Case) -> None:
    row = ended(root, case.entry)
    assert (row["state"], row["verdict"], row["retry"]) == ("failed", case.verdict, case.retry), row
    assert case.reason in row["reason"]
    if case.exit_code is not None:
        assert row["exit_code"] == case.exit_code
    assert row["signal"] == case.signal

    story = root("explain", "r", "W").json["worker"]
    assert (story["verdict"], story["retry"]) == (case.verdict, case.retry)
    assert story["meaning"]
    assert {"exit_code", "signal", "stderr_tail"} <= set(story["evidence"])
    assert story["attempts"][-1]["verdict"] == case.verdict
    assert ("orchestra retry r W" in root("status", "r").json["next"]) == (case.retry != "never")
    result = root.result("r", "W")
    assert (result["status"], result["verdict"]) == ("failed", case.verdict)


@pytest.mark.parametrize("language", ["", "de"])
def test_a_script_with_a_bad_interpreter_is_a_spawn_error(root: Root, language: str) -> None:
    script = root.path / "tool"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    root.init("r")
    spoken = {"LANGUAGE": language, "LANG": "C.UTF-8"}  # in which bash words its errors
    root("spawn", "r", "--no-throttle", "--worker", f"W={root.brief('W')}", "--", str(script), env=spoken)
    root("wait", "r")
    row = root.worker("r", "W")
    assert (row["verdict"], row["retry"]) == ("spawn_error", "never")
    assert str(script) in row["reason"]


def test_a_file_that_is_no_program_is_a_spawn_error(root: Root) -> None:
    script = root.path / "tool"
    script.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(64))
    script.chmod(0o755)
    row = ended(root, {"command": [str(script)]})
    assert row["verdict"] == "spawn_error"
    assert str(script) in row["reason"]


def test_standard_error_is_the_evidence(root: Root) -> None:
    ended(root, sh("echo first >&2; echo last >&2; exit 3"))
    evidence = root("explain", "r", "W").json["worker"]["evidence"]
    assert (evidence["stderr_tail"], evidence["exit_code"]) == (["first", "last"], 3)


def test_what_is_missing_is_the_evidence(root: Root) -> None:
    ended(root, sh(":", expect=["a.md", {"file": "b.md", "min_bytes": 9}]))
    missing = root("explain", "r", "W").json["worker"]["evidence"]["expected"]
    out = f"{root.run_dir('r')}/out-W"
    assert [(row["path"], row["size_bytes"]) for row in missing] == [
        (f"{out}/a.md", None),
        (f"{out}/b.md", None),
    ]


def test_what_was_expected_and_is_there_is_done(root: Root) -> None:
    root.init("r")
    entry = sh(
        'printf 12345 | tee "$ORCHESTRA_OUT/a b.md"', expect=["stdout", {"file": "a b.md", "min_bytes": 5}]
    )
    root(
        "spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([{"name": "W", "brief": "b", **entry}])
    )
    assert root("wait", "r").code == 0
    row = root.worker("r", "W")
    assert (row["state"], row["verdict"], row["retry"], row["exit_code"]) == ("done", None, None, 0)


def test_a_limit_told_on_the_way_to_success_is_success(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", "echo 'error 429, trying again' >&2"]})
    assert root("wait", "r").code == 0


# --- ended by others ---------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    return [int(kid) for kid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_stopped_worker_is_stopped_and_never_retried_by_itself(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    assert root("stop", "r", "W").code == 0
    row = root.worker("r", "W")
    assert (row["state"], row["verdict"], row["retry"]) == ("failed", "stopped", "never")
    assert root("explain", "r", "W").json["worker"]["evidence"]


def test_a_worker_killed_from_outside_is_a_signal(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    (worker,) = wait_until(lambda: children(root.mark("r", "W")["pid"]), "the worker")
    os.kill(worker, signal.SIGKILL)
    assert root("wait", "r").code == 1
    row = root.worker("r", "W")
    assert (row["verdict"], row["signal"], row["exit_code"]) == ("signal", 9, None)


def kill_launcher(root: Root) -> int:
    """SIGKILL for the launcher alone; returns the worker's PID."""
    launcher = root.mark("r", "W")["pid"]
    (worker,) = wait_until(lambda: children(launcher), "the worker")
    os.kill(launcher, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{launcher}/exe").exists(), "the launcher's end")
    return int(worker)


def test_a_worker_that_was_killed_with_its_launcher_is_lost(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    os.kill(kill_launcher(root), signal.SIGKILL)
    row = root.worker("r", "W")
    assert (row["state"], row["verdict"], row["retry"]) == ("failed", "lost", "now")
    assert root("explain", "r", "W").json["worker"]["meaning"]


def test_a_worker_that_outlived_its_launcher_is_told_and_ended_by_the_next_command(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    worker = kill_launcher(root)
    status = root("status", "r").json
    assert {"kind": "leftovers", "worker": "W", "pids": [worker]} in status["alerts"]
    assert status["next"][0] == "orchestra stop r W"
    root("stop", "r", "W")
    wait_until(lambda: not Path(f"/proc/{worker}/exe").exists(), "the worker's end")
    assert root.worker("r", "W")["verdict"] == "lost"


# --- alive ---------------------------------------------------------------------------------------------


def test_a_quiet_worker_is_stalled_and_named(root: Root) -> None:
    root.init("r")
    row = {"name": "W", "brief": "b", "command": FOREVER, "stall": "200ms"}
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]))
    found = wait_until(lambda: (w := root.worker("r", "W"))["state"] == "stalled" and w, "the stall")
    assert "no sign at all" in found["reason"]
    assert root("status", "r").json["counts"]["stalled"] == 1


def test_a_heartbeat_keeps_a_quiet_worker_from_being_stalled(root: Root) -> None:
    root.init("r")
    beat = 'while :; do touch "$ORCHESTRA_HEARTBEAT"; sleep 0.1; done'
    row = {"name": "W", "brief": "b", "command": ["sh", "-c", beat], "stall": "20s"}
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]))
    log = root.run_dir("r") / "log-W.out"
    heartbeat = root.run_dir("r") / "attempts" / "W" / "1" / "heartbeat"
    wait_until(heartbeat.exists, "the first beat")
    hour_ago = log.stat().st_mtime - 3600
    for path in (log, log.with_suffix(".err"), root.run_dir("r") / "out-W"):
        os.utime(path, (hour_ago, hour_ago))
    assert root.worker("r", "W")["state"] == "running"


def test_a_beat_reaches_heartbeat_and_telemetry(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": orchestra_argv("beat", "--progress", "3/10", "--note", "a\n'b' 🎻")})
    assert root("wait", "r").code == 0
    assert (root.run_dir("r") / "attempts" / "W" / "1" / "heartbeat").exists()
    (event,) = map(json.loads, root("events", "r", "--topic", "telemetry").stdout.splitlines())
    told = (event["worker"], event["done"], event["total"], event["note"])
    assert told == ("W", 3, 10, "a\n'b' 🎻")


def test_a_worker_that_conducts_is_refused(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": orchestra_argv("spawn", "r")})
    assert root("wait", "r").code == 1
    assert json.loads(root("logs", "r", "W").json["text"])["error"]["code"] == "nested_spawn"


def test_a_planned_worker_is_planned(root: Root) -> None:
    root.init("r", "command: ['true']\nphases: [{name: p, workers: [{name: W, brief: b}]}]\n")
    row = root.worker("r", "W")
    assert (row["state"], row["phase"], row["verdict"], row["pid"]) == ("planned", "p", None, None)


def test_every_alert_of_a_living_worker_can_be_told_in_words(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]}, stall="1s")
    wait_until(lambda: root.worker("r", "W")["state"] == "stalled", "the stall")
    shown = root("status", "r", "--text")
    assert (shown.code, shown.stderr) == (0, "")
    assert "shows no sign of progress: W\n" in shown.stdout
    root("stop", "r", "--grace", "1")


def test_a_worker_that_is_deferred_again_has_waited_since_the_first_time(root: Root) -> None:
    root.init("r")
    for limit in ("63TiB", "64TiB"):
        words = ["spawn", "r", "--worker", f"W={root.brief('W')}", "--", "true"]
        root(*words, env={"ORCHESTRA_THROTTLE": f"{{memory_available: {limit}}}"})
    deferred = [event["at"] for event in root.events("r") if event["kind"] == "deferred"]
    assert (len(deferred), root.worker("r", "W")["since"]) == (2, deferred[0])
