"""What a person or the next narrator mends: commands, half-done stops, runs that go on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from conftest import Root, orchestra_argv, wait_until


def test_retry_with_a_command_mends_a_typo(root: Root) -> None:
    root.init("r")
    assert root.spawn("r", {"W": ["no-such-command"]}).code == 1
    assert root("retry", "r", "W", "--", "true").names("spawned") == ["W"]
    assert root("wait", "r").code == 0
    assert root("explain", "r", "W").json["worker"]["command"] == ["true"]


def test_a_bare_retry_leaves_alone_what_a_retry_cannot_help(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"Typo": ["no-such-command"], "Fails": ["false"]})
    root("wait", "r", "--keep-going")
    answer = root("retry", "r")
    assert answer.names("spawned") == ["Fails"]
    root("wait", "r", "--keep-going")


def test_a_stop_whose_narrator_died_is_finished_by_the_next_command(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    log = root.run_dir("r") / "events.jsonl"
    append_intent(log)
    recovered = root("spawn", "r").json["recovered"]
    assert {"what": "half_done_stop", "worker": "W"} in recovered
    assert root.worker("r", "W")["verdict"] == "stopped"


def append_intent(log: Path) -> None:
    """What `orchestra stop` writes before it ends anybody."""
    from orchestra.model.event import Event, encode

    last = json.loads(log.read_text().splitlines()[-1])
    data = {"worker": "W", "attempt": 1, "grace_s": 1.0}
    with log.open("ab") as file:
        file.write(
            encode(Event(last["op"] + 1, last["at"], "commands", "stop_intended", last["epoch"], data))
        )


def test_a_TERM_from_elsewhere_is_a_signal_and_no_stop(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    os.kill(root.mark("r", "W")["pid"], signal.SIGTERM)
    assert root("wait", "r").code == 1
    worker = root.worker("r", "W")
    assert (worker["verdict"], worker["signal"], worker["retry"]) == ("signal", 15, "now")


def test_a_run_goes_on_without_its_plan(root: Root) -> None:
    plan = "command: ['true']\nphases:\n- {name: p, workers: [{name: A, brief: do it}]}\n"
    root.init("r", plan)
    answer = root("run", "--run", "r")
    assert (answer.code, answer.json["counts"]["done"]) == (0, 1)


def test_nohup_is_heeded(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    waiting = root.start("wait", "r", "--timeout", "300", "--follow", preexec_fn=ignore_hangup)
    try:
        assert waiting.stdout is not None
        wait_until(lambda: ignores_hangup(waiting.pid), "the command to be up")
        waiting.send_signal(signal.SIGHUP)
        assert json.loads(waiting.stdout.readline())["worker"]["state"] == "running"
        root("stop", "r", "--grace", "1")
        assert json.loads(waiting.stdout.readline())["worker"]["state"] == "failed"
    finally:
        waiting.kill()
        waiting.communicate()


def ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def ignores_hangup(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigIgn:")[1].split()[0], 16) & 1)


def test_waiting_for_nobody_is_no_success(root: Root) -> None:
    root.init("r")
    assert (root("wait", "r").code, root("wait", "r").json["outcome"]) == (4, "blocked")


def test_the_same_plan_in_another_place_is_another_plan(root: Root, tmp_path: Path) -> None:
    plan = "command: [cat]\nphases:\n- {name: p, workers: [{name: A, brief: a.md}]}\n"
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "plan.yaml").write_text(plan)
        (tmp_path / place / "a.md").write_text(place)
    assert root("init", "r", "--plan", str(tmp_path / "one" / "plan.yaml")).code == 0
    answer = root("init", "r", "--plan", str(tmp_path / "two" / "plan.yaml"))
    assert (answer.code, answer.json["error"]["code"]) == (2, "name_taken")


def test_what_a_worker_beats_is_told_by_explain_and_how_far_it_is_by_status(root: Root) -> None:
    root.init("r")
    beat = " ".join(orchestra_argv("beat", "--progress", "3/6", "--note", "half"))
    root.spawn("r", {"W": ["sh", "-c", f"{beat}; exit 1"]})
    root("wait", "r")
    told = root("explain", "r", "W").json["worker"]["beat"]
    assert (told["done"], told["total"], told["note"]) == (3, 6, "half")
    progress = root.worker("r", "W")["progress"]
    assert (progress["done"], progress["total"], "note" in progress) == (3, 6, False)
    assert "3/6" in root("status", "r", "--text").stdout
    root("retry", "r", "W", "--", "true")
    assert "progress" not in root.worker("r", "W")  # it was another attempt's


def test_damage_that_a_dead_holder_took_out_and_did_not_tell_is_told_by_the_next(root: Root) -> None:
    root.init("r")
    aside = root.run_dir("r") / "events.damaged.77"
    aside.write_bytes(b'{"op":9,"at"')
    dead_holder(root)
    root("unlock", "r")
    told = [e for e in root.events("r") if e["kind"] == "log_damaged"]
    assert [(e["offset"], e["size"], e["saved_as"]) for e in told] == [(77, 12, str(aside))]
    dead_holder(root)
    root("unlock", "r")
    assert len([e for e in root.events("r") if e["kind"] == "log_damaged"]) == 1


def dead_holder(root: Root) -> None:
    """A lock as somebody leaves it who was killed in the middle of a command."""
    lock = root.run_dir("r") / ".narrator.lock"
    lock.mkdir()
    host = Path("/proc/sys/kernel/hostname").read_text().strip()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    holder = {"pid": os.getpid(), "process_start": 1, "host": host, "boot_id": boot, "token": "dead"}
    (lock / "holder.json").write_text(json.dumps(holder))


def test_a_log_that_is_gone_is_not_begun_anew_over_what_workers_left(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    root("wait", "r")
    (root.run_dir("r") / "events.jsonl").write_bytes(b"")
    for words in (["init", "r"], ["status", "r"], ["spawn", "r"]):
        answer = root(*words)
        assert (answer.code, answer.json["error"]["code"]) == (1, "corrupt_log"), answer


def test_the_temporary_directory_of_a_worker_that_was_never_started_goes_with_it(root: Root) -> None:
    root.init("r")
    (root.run_dir("r") / ".run-W.sh").mkdir()  # the trail cannot be finished
    (root.run_dir("r") / ".run-W.sh" / "x").touch()
    assert root.spawn("r", {"W": ["true"]}).names("failed") == ["W"]
    (root.run_dir("r") / ".run-W.sh" / "x").unlink()
    (root.run_dir("r") / ".run-W.sh").rmdir()
    assert root("retry", "r").names("spawned") == ["W"]
    root("wait", "r")
    wait_until(lambda: os.listdir(root.tmp) == [], "the end of all temporary directories")


def test_a_beat_that_a_worker_made_up_spoils_no_answer(root: Root) -> None:
    from orchestra.model.event import Event, encode

    root.init("r")
    root.spawn("r", {"W": ["true"]})
    root("wait", "r")
    made_up: list[dict[str, object]] = [
        {"worker": [], "attempt": {}},
        {"worker": "W", "attempt": "1", "done": 1, "total": 2},
        {"worker": "W", "attempt": 1, "done": "\x1b[2J", "total": []},
    ]
    lines = [encode(Event(0, "then", "telemetry", "beat", 0, data)) for data in made_up]
    (root.run_dir("r") / "telemetry.jsonl").write_bytes(b"".join(lines) + b"\xff no line at all")
    assert "progress" not in root.worker("r", "W")
    assert root("status", "r", "--text").code == 0
    assert root("explain", "r", "W").json["worker"]["beat"]["total"] == []
