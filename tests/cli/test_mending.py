"""What a person or the next narrator mends: commands, half-done stops, runs that go on."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from conftest import Root, clean_environment, orchestra_argv, wait_until

from orchestra.engine.conduct import conduct
from orchestra.engine.narrator import Narrator
from orchestra.errors import Storage
from orchestra.model.event import ALERTS, Draft, Event, encode
from orchestra.store.eventlog import Appender
from orchestra.store.layout import Layout


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
    append_intent(log, grace_s=1.0)
    recovered = root("spawn", "r").json["recovered"]
    assert {"what": "half_done_stop", "worker": "W"} in recovered
    assert root.worker("r", "W")["verdict"] == "stopped"


def append_intent(log: Path, *, grace_s: float, at: str | None = None) -> None:
    """What `orchestra stop` writes before it ends anybody."""
    from orchestra.model.event import Event, encode

    last = json.loads(log.read_text().splitlines()[-1])
    data = {"worker": "W", "attempt": 1, "grace_s": grace_s}
    with log.open("ab") as file:
        file.write(
            encode(Event(last["op"] + 1, at or last["at"], "commands", "stop_intended", last["epoch"], data))
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
    aside = root.run_dir("r") / "events.damaged/77"
    aside.parent.mkdir()
    aside.write_bytes(b'{"op":9,"at"')
    dead_holder(root)
    root("unlock", "r")
    told = [e for e in root.events("r") if e["kind"] == "log_damaged"]
    assert [(e["offset"], e["kept"], e["saved_as"]) for e in told] == [(77, 12, str(aside))]
    dead_holder(root)
    root("unlock", "r")
    assert len([e for e in root.events("r") if e["kind"] == "log_damaged"]) == 1


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["^C", "full"]
)
def test_what_was_cut_off_and_could_not_be_told_is_told_by_the_next(
    root: Root, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    root.init("r")
    log = root.run_dir("r") / "events.jsonl"
    size = log.stat().st_size
    with log.open("ab") as file:
        file.write(b"torn")

    def fail(*_: object, **__: object) -> None:
        raise error

    layout, narrator = Layout(str(root.run_dir("r"))), Narrator("test", None)
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, Storage)):
        patch.setattr(Appender, "append", fail)
        with conduct(layout, narrator):
            pass
    assert log.stat().st_size == size
    assert [row["what"] for row in root("unlock", "r").json["recovered"]] == ["log_damaged"]
    (told,) = [e for e in root.events("r") if e["kind"] == "log_damaged"]
    assert (told["offset"], told["kept"]) == (size, 4)
    assert root("unlock", "r").json["recovered"] == []


def test_who_waits_in_between_hides_no_damage_that_was_not_told(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It records behind the place where the tail was cut off."""
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", 'until [ -e "$ORCHESTRA_RUN_DIR/../go" ]; do sleep 0.05; done']})
    log = root.run_dir("r") / "events.jsonl"
    size = log.stat().st_size
    with log.open("ab") as file:
        file.write(b"torn")

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    layout, narrator = Layout(str(root.run_dir("r"))), Narrator("test", None)
    for _ in range(3):
        with monkeypatch.context() as patch, pytest.raises(Storage):
            patch.setattr(os, "fdatasync", fail)
            with conduct(layout, narrator):
                pass
    (root.path / "go").touch()
    assert root("wait", "r").code == 0
    assert [row["what"] for row in root("unlock", "r").json["recovered"]] == ["log_damaged"]
    (told,) = [e for e in root.events("r") if e["kind"] == "log_damaged"]
    assert (told["offset"], told["kept"]) == (size, 4)


def test_what_could_not_be_told_is_told_with_what_is_recorded_next(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.init("r")
    log = root.run_dir("r") / "events.jsonl"

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with conduct(Layout(str(root.run_dir("r"))), Narrator("test", None)) as conductor:
        with log.open("ab") as file:
            file.write(b"torn")
        with monkeypatch.context() as patch, pytest.raises(Storage):
            patch.setattr(os, "fdatasync", fail)
            conductor.record([Draft(ALERTS, "mine", {})])
        kinds = [event.kind for event in conductor.record([Draft(ALERTS, "mine", {})])]
        assert kinds == ["log_damaged", "mine"]


def test_who_only_waits_records_ends_behind_damage_in_the_middle(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", 'until [ -e "$ORCHESTRA_RUN_DIR/../go" ]; do sleep 0.05; done']})
    log = root.run_dir("r") / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], b"bad\n", *lines[1:]]))
    (root.path / "go").touch()
    answer = root("wait", "r").json
    assert [alert["kind"] for alert in answer["alerts"]] == ["log_damage"]
    assert answer["next"][0] == "orchestra unlock r"
    assert log.read_bytes().count(b'"kind":"ended"') == 1
    assert root("unlock", "r").json["recovered"][0]["what"] == "log_damaged"
    assert root("status", "r").json["next"] == []


def test_damage_at_the_end_is_told_beside_a_dead_holder(root: Root) -> None:
    root.init("r")
    dead_holder(root)
    with (root.run_dir("r") / "events.jsonl").open("ab") as log:
        log.write(b"garbage\n")
    alerts = root("status", "r").json["alerts"]
    assert [alert["kind"] for alert in alerts] == ["dead_holder", "log_damage"]


def test_an_alert_that_does_not_say_enough_is_told_all_the_same(root: Root) -> None:
    root.init("r")
    log = root.run_dir("r") / "events.jsonl"
    with log.open("ab") as file:
        file.write(encode(Event(2, "2026-01-31T23:59:59.123Z", ALERTS, "log_damaged", 1, {})))
    answer = root("status", "r", "--text")
    assert (answer.code, "damaged: bytes at offset ?" in answer.stdout) == (0, True)


def test_what_cannot_be_set_aside_leaves_nothing_recorded(root: Root) -> None:
    root.init("r")
    log = root.run_dir("r") / "events.jsonl"
    (root.run_dir("r") / f"events.damaged/{log.stat().st_size}").mkdir(parents=True)
    with conduct(Layout(str(root.run_dir("r"))), Narrator("test", None)) as conductor:
        with log.open("ab") as file:
            file.write(b"bad\n" + encode(Event(2, "2026-01-31T23:59:59.123Z", ALERTS, "odd", 1, {})))
        before = log.read_bytes()
        for _ in range(2):
            with pytest.raises(Storage, match=r"events\.damaged"):
                conductor.record([Draft(ALERTS, "mine", {})])
        assert log.read_bytes() == before


def test_what_a_dead_holder_was_building_goes_with_its_lock(root: Root) -> None:
    root.init("r")
    dead_holder(root)
    notes = root.run_dir("r") / ".narrator"
    notes.mkdir(exist_ok=True)
    killed = subprocess.Popen(["true"])  # as it took over from one before it
    killed.wait()
    pids = (os.getpid(), killed.pid)
    litter = [place / f".built.{pid}.new" for place in (root.run_dir("r"), notes) for pid in pids]
    others = notes / ".built.1.new"
    for path in (*litter, others):
        path.touch()
    root("unlock", "r")
    assert [path.exists() for path in (*litter, others)] == [False] * 4 + [True]


def dead_holder(root: Root) -> None:
    """A lock as somebody leaves it who was killed in the middle of a command."""
    lock = root.run_dir("r") / ".narrator.lock"
    lock.mkdir()
    host = Path("/proc/sys/kernel/hostname").read_text().strip()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    holder = {"pid": os.getpid(), "process_start": 1, "host": host, "boot_id": boot, "token": "dead"}
    holder["pid_ns"] = os.stat("/proc/self/ns/pid").st_ino
    (lock / "holder.json").write_text(json.dumps(holder))


def test_a_log_that_is_gone_is_not_begun_anew_over_what_workers_left(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    root("wait", "r")
    (root.run_dir("r") / "events.jsonl").write_bytes(b"")
    (root.run_dir("r") / "state.json").unlink()  # else it comes back from there
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
    heartbeat = root.run_dir("r") / "attempts" / "W" / "1" / "heartbeat"
    for line in (b"\xff no line at all", *lines):
        heartbeat.write_bytes(line)
        assert "progress" not in root.worker("r", "W")
        assert root("status", "r", "--text").code == 0
        assert root("explain", "r", "W", "--text").code == 0
    assert root("explain", "r", "W").json["worker"]["beat"]["total"] == []


def test_a_stop_that_is_finished_by_the_next_command_gives_the_grace_that_was_meant(root: Root) -> None:
    root.init("r")
    deaf = """trap 'date +%s.%N >>"$ORCHESTRA_OUT/told"' TERM; echo up; while :; do sleep 0.1; done"""
    root.spawn("r", {"W": ["bash", "-c", deaf]})
    wait_until((root.run_dir("r") / "log-W.out").read_text, "the trap")
    not_yet_begun = "2999-01-01T00:00:00.000Z"
    append_intent(root.run_dir("r") / "events.jsonl", grace_s=3.0, at=not_yet_begun)
    root("spawn", "r")
    result = root.result("r", "W")
    assert result["verdict"] == "stopped"
    told = float((root.run_dir("r") / "out-W" / "told").read_text().split()[0])
    assert 2.5 < seconds(result["ended_at"]) - told < 9


def test_a_stop_that_is_finished_later_does_not_give_its_grace_anew(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["bash", "-c", "trap '' TERM; while :; do sleep 0.1; done"]})
    long_ago = "2020-01-01T00:00:00.000Z"
    append_intent(root.run_dir("r") / "events.jsonl", grace_s=3600.0, at=long_ago)
    root("spawn", "r")
    assert root.worker("r", "W")["verdict"] == "stopped"


def seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def test_workers_that_never_ran_take_no_place_from_others(root: Root) -> None:
    root.init("r")
    rows = [
        {"name": name, "brief": "b", "command": command, "throttle": {**CALM, "max_workers": 2}}
        for name, command in {
            "TypoA": ["no-such"],
            "TypoB": ["no-such"],
            "C": ["sleep", "300"],
            "D": ["sleep", "300"],
            "E": ["sleep", "300"],
        }.items()
    ]
    answer = root("spawn", "r", "--from", "-", stdin=json.dumps(rows))
    assert answer.names("failed") == ["TypoA", "TypoB"]
    assert answer.names("spawned") == ["C", "D"]
    (signal_,) = answer.json["deferred"][0]["signals"]
    assert (signal_["signal"], signal_["value"], signal_["limit"]) == ("max_workers", 2, 2)


CALM = {"load_per_cpu": "off", "disk_queue": "off", "memory_available": "1B"}


def test_an_artefact_of_any_size_must_be_there(root: Root) -> None:
    root.init("r")
    expect = [{"file": "report.md", "min_bytes": 0}]
    root.spawn("r", {"No": ["true"], "Yes": ["sh", "-c", '>"$ORCHESTRA_OUT/report.md"']}, expect=expect)
    root("wait", "r", "--keep-going")
    assert root.worker("r", "No")["verdict"] == "empty"
    assert root.worker("r", "Yes")["state"] == "done"


@pytest.mark.parametrize("least", ["18446744073709551616", "²"])
def test_a_size_that_is_none_is_met_with_an_error(root: Root, least: str) -> None:
    root.init("r")
    brief = f"W={root.brief('W')}"
    answer = root("spawn", "r", "--worker", brief, "--expect", f"report.md:{least}", "--", "true")
    if answer.code == 0:  # taken for the name of a file
        root("wait", "r")
        assert root.worker("r", "W")["verdict"] == "empty"
    else:
        assert (answer.code, answer.json["error"]["code"]) == (2, "usage")


def test_a_planned_worker_is_not_taken_over_by_another_of_its_name(root: Root) -> None:
    root.init("r", "command: [cat]\nphases:\n- {name: p, workers: [{name: A, brief: a}]}\n")
    for words in (["--worker", f"A={root.brief('A')}"], ["--from", "-"]):
        answer = root("spawn", "r", *words, "--", "true", stdin='[{"name": "A", "brief": "x"}]')
        assert (answer.code, answer.json["error"]["code"]) == (2, "name_taken")
    assert root.worker("r", "A")["state"] == "planned"
    assert root("spawn", "r", "--phase", "p", "--no-throttle").names("spawned") == ["A"]


def test_a_cursor_of_another_run_is_refused(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    answer = root("wait", "r", "--since", "99")
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")
    assert "no cursor of this run" in answer.json["error"]["message"]


def test_where_all_is_over_the_next_step_is_not_to_wait(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    assert root("wait", "r").json["next"][0] == "orchestra status r"
    assert root("status", "r").json["next"] == []


def test_a_run_without_a_plan_cannot_be_conducted(root: Root) -> None:
    root.init("r")
    answer = root("run", "--run", "r")
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")


def test_every_end_of_every_attempt_is_told_by_the_built_in_narrator(root: Root) -> None:
    plan = root.path / "p.yaml"
    rows = ", ".join(f"{{name: W{i}, brief: b}}" for i in range(6))
    plan.write_text(f"command: ['false']\nretries: 1\nphases:\n- {{name: p, workers: [{rows}]}}\n")
    shown = root("run", str(plan), "--text", "--no-throttle").stdout
    assert shown.count("✗ failed") == 12, shown
    assert shown.count("(attempt 2): exit_code") == 6, shown


def test_a_beat_is_no_part_of_what_a_worker_prints(root: Root) -> None:
    root.init("r")
    beat = " ".join(orchestra_argv("beat", "--progress", "1/2"))
    into_a_pipe = f'[ "$({beat})" != "" ] && exit 5; exit 6'
    root.spawn("r", {"W": ["sh", "-c", beat]}, expect=["stdout"])
    root.spawn("r", {"P": ["sh", "-c", into_a_pipe]})
    root("wait", "r", "--keep-going")
    assert root.worker("r", "W")["verdict"] == "empty"
    assert root.worker("r", "P")["exit_code"] == 5


def test_what_is_expected_holds_more_than_white_space_whatever_its_least_size(root: Root) -> None:
    root.init("r")
    blank = ["printf", "\\n%300s\\n", ""]
    root.spawn("r", {"Long": blank}, expect=[{"stdout": True, "min_bytes": 200}])
    root.spawn("r", {"Any": blank}, expect=[{"stdout": True, "min_bytes": 0}])
    root("wait", "r", "--keep-going")
    assert root.worker("r", "Long")["verdict"] == "empty"
    assert "white space" in root.worker("r", "Long")["reason"]
    assert root.worker("r", "Any")["state"] == "done"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        ("mkdir", "is no regular file"),
        ("mkfifo", "is no regular file"),
        ("ln -s /dev/zero", "is no regular file"),
    ],
)
def test_what_is_expected_and_is_no_file_is_told_as_such(root: Root, make: str, reason: str) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", f"{make} $ORCHESTRA_OUT/r"]}, expect=["r"])
    root("wait", "r")
    assert root.worker("r", "W")["reason"] == f"exit 0, but r {reason}"


@pytest.mark.parametrize(
    ("make", "state"),
    [("truncate -s 8T", "done"), ("head -c 99999999 /dev/zero | tr '\\0' ' ' >", "failed")],
    ids=["no-line-ends", "white-space"],
)
def test_what_is_expected_is_looked_at_in_next_to_no_memory(root: Root, make: str, state: str) -> None:
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["bash", "-c", f"{make} $ORCHESTRA_OUT/report.md"]}
    rows = json.dumps([{**row, "expect": ["report.md"]}])
    words = ("spawn", "r", "--no-throttle", "--from", "-")
    assert root(*words, stdin=rows, limits=f"-v {1 << 16}").names("spawned") == ["W"]
    root("wait", "r", "--timeout", "60")
    worker = root.worker("r", "W")
    assert worker["state"] == state
    assert ("white space" in (worker["reason"] or "")) == (state == "failed")


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "forced"])
def test_an_unlock_clears_up_behind_a_dead_holder_even_by_force(root: Root, force: tuple[str, ...]) -> None:
    root.init("r")
    (root.run_dir("r") / "events.damaged").mkdir()
    (root.run_dir("r") / "events.damaged/77").write_bytes(b"torn")
    dead_holder(root)
    answer = root("unlock", "r", *force)
    assert answer.json["found"]["lock"] == "dead"
    assert [row["what"] for row in answer.json["recovered"]] == ["log_damaged", "lock_taken_over"]
    told = [e["kind"] for e in root.events("r")]
    assert told == ["run_created", "lock_taken_over", "log_damaged"]


# --- what is proposed next ------------------------------------------------------------------------


def test_explain_proposes_no_retry_that_would_end_alike(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["false"]})
    root("wait", "r")
    assert "orchestra retry r W" in root("explain", "r", "W").json["next"]
    root("retry", "r")
    root("wait", "r")
    story = root("explain", "r", "W").json
    assert story["next"] == []  # what is left to do takes a person: it is told in words
    assert "then: orchestra retry r W (" in story["worker"]["way_out"]


def test_nothing_is_proposed_that_a_living_command_would_refuse() -> None:
    from orchestra.model.advice import Standing, next_steps
    from orchestra.model.snapshot import Snapshot, Views, WorkerView

    def nobody(name: str) -> WorkerView:
        raise KeyError(name)

    alerts = [{"kind": "leftovers", "worker": "W", "pids": [1]}]
    conducted = Snapshot(3, Views({}, nobody), True, {"held": True}, None, alerts)
    assert next_steps(Standing("r", conducted)) == []
    assert next_steps(Standing("r", conducted._replace(conducted=False))) == ["orchestra stop r W"]


def test_a_retry_is_not_proposed_for_ever(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["false"]})
    assert "orchestra retry r W" in root("wait", "r").json["next"]
    root("retry", "r")
    root("wait", "r")
    assert not any(step.startswith("orchestra retry") for step in root("status", "r").json["next"])
    assert root.worker("r", "W")["retry"] == "now"  # it is still told what it is worth


def test_whom_only_a_person_can_mend_is_explained_first(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"Fails": ["false"], "Typo": ["no-such-command"]})
    root("wait", "r", "--keep-going")
    assert root("status", "r").json["next"][0] == "orchestra explain r Typo"


def test_explain_leads_on_where_the_run_does(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"Typo": ["no-such-command"], "Works": ["sleep", "300"]})
    steps = root("explain", "r", "Typo").json["next"]
    assert any(step.startswith("orchestra wait r ") for step in steps)


def test_an_error_says_as_well_what_to_do_next(root: Root) -> None:
    root.init("r")
    assert root("status", "x").json["next"] == ["orchestra list"]
    assert root("explain", "r", "Nobody").json["next"] == ["orchestra status r"]


def test_the_narrators_id_is_carried_on(root: Root) -> None:
    root.init("r")
    words = ("spawn", "r", "--narrator", "me", "--worker", f"W={root.brief('W')}", "--", "sleep", "300")
    (step,) = root(*words).json["next"]
    assert step.startswith("orchestra wait r --narrator me --since ")
    assert root(*step.split()[1:], "--timeout", "0").code == 5


def test_what_a_dry_run_proposes_is_the_call_itself(root: Root) -> None:
    root.init("r")
    words = (
        "spawn",
        "r",
        "--dry-run",
        "--no-throttle",
        "--worker",
        f"W={root.brief('W')}",
        "--",
        "cat",
        "--dry-run",
    )
    (step,) = root(*words).json["next"]
    again = shlex.split(step)
    assert again == ["orchestra", *words[:2], *words[3:]]


def test_who_has_ended_before_the_answer_is_told_so_in_it(root: Root) -> None:
    root.init("r")
    words = ["spawn", "r", "--no-throttle", "--worker", f"W={root.brief('W')}", "--", "false"]
    env = clean_environment(
        ORCHESTRA_ROOT=str(root.path),
        TMPDIR=str(root.tmp),
        RESULT=str(root.run_dir("r") / "result-W.json"),
        MARK=str(root.run_dir("r") / ".pid-W.json"),
    )
    done = subprocess.run(
        [sys.executable, "-c", LETS_THEM_END, *words], env=env, capture_output=True, timeout=60
    )
    answer = json.loads(done.stdout)
    ended = [(row["name"], row.get("state"), row.get("verdict")) for row in answer["spawned"]]
    assert ended == [("W", "failed", "exit_code")]
    assert any(step.startswith("orchestra wait r ") for step in answer["next"])


LETS_THEM_END = """
import json, os, sys, time
from orchestra.backend.local import LocalBatch
from orchestra.cli.main import main
from orchestra.host.process import start_of
close = LocalBatch.close
def close_at_the_end(batch):
    while not os.path.exists(os.environ["RESULT"]):
        time.sleep(0.01)
    with open(os.environ["MARK"]) as mark:
        pid = json.load(mark)["pid"]
    while start_of(pid) is not None:  # its last words come before its end
        time.sleep(0.01)
    close(batch)
LocalBatch.close = close_at_the_end
sys.argv[0] = "orchestra"
main()
"""


def test_the_counts_of_a_phase_are_the_phases(root: Root) -> None:
    phases = "".join(f"- {{name: {p}, workers: [{{name: {p}1, brief: b}}]}}\n" for p in "ab")
    root.init("r", f"command: [cat]\nphases:\n{phases}")
    assert root("status", "r", "--phase", "a").json["counts"]["planned"] == 1
    assert root("status", "r").json["counts"]["planned"] == 2


def test_how_far_a_worker_is_stays_known_however_much_another_beats(root: Root) -> None:
    root.init("r")
    slow, chatty = " ".join(orchestra_argv("beat", "--progress", "1/9")), "x" * 400_000
    root.spawn("r", {"Slow": ["sh", "-c", f"{slow}; exit 1"]})
    root("wait", "r")
    with open(root.run_dir("r") / "telemetry.jsonl", "a") as file:
        file.write(chatty)
    assert root.worker("r", "Slow")["progress"]["done"] == 1
    lied = root.run_dir("r") / "attempts" / "Slow" / "1" / "heartbeat"
    lied.write_text('{"op":0}\n')
    assert "progress" not in root.worker("r", "Slow")


@pytest.mark.parametrize("note", ["[" * 100_000, '{"true": [["tok", Infinity, 1, 1, 0, 100]]}'])
def test_damaged_notes_beside_the_runs_harm_nobody(root: Root, note: str) -> None:
    root.init("r")
    (root.path / ".orchestra").mkdir(exist_ok=True)
    for name in ("holds", "needs", "quiet"):
        (root.path / ".orchestra" / f"{name}.json").write_text(note)
    assert root("host", "r").code == 0
    row = json.dumps([{"name": "W", "brief": "b", "command": ["true"], "throttle": CALM}])
    assert root("spawn", "r", "--from", "-", stdin=row).code == 0
    assert root("wait", "r").code == 0


def test_hints_name_the_root_and_the_narrator_that_the_call_did(root: Root, tmp_path: Path) -> None:
    """Whoever follows one may stand elsewhere than the root that is meant by default."""
    where = ["--root", str(root.path), "--narrator", "one"]
    root("init", "r")
    root.spawn("r", {"W": ["true"]})
    hint = root("explain", *where, "r", "Nobody").json["error"]["hint"]
    assert f"orchestra status r --root {root.path} --narrator one" in hint
    root("takeover", *where, "r")
    refused = root("spawn", "--root", str(root.path), "--narrator", "two", "r").json["error"]
    assert f"orchestra takeover r --root {root.path} --narrator two" in refused["hint"]


def test_a_run_that_is_copied_whole_goes_on_as_one_of_its_own(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"Good": ["true"], "Bad": ["false"]})
    root("wait", "r", "--keep-going")
    shutil.copytree(root.run_dir("r"), root.run_dir("copy"), symlinks=True)
    shutil.rmtree(root.run_dir("r"))
    states = {row["name"]: row["state"] for row in root("status", "copy").json["workers"]}
    assert states == {"Good": "done", "Bad": "failed"}
    assert root("retry", "copy", "Bad", "--no-throttle", "--", "true").names("spawned") == ["Bad"]
    assert root("wait", "copy").code == 0


def test_explain_tells_the_way_out_where_a_retry_alone_would_end_alike(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["no-such-command"]})
    told = root("explain", "r", "W").json["worker"]["way_out"]
    assert told.startswith("mend what is wrong, then: orchestra retry r W (")


@pytest.mark.parametrize(
    ("limit", "least"), [("files_free", 500), ("tmp_free", "9PiB"), ("disk_free", "9PiB")]
)
def test_below_a_hard_limit_not_even_the_first_starts(root: Root, limit: str, least: object) -> None:
    root.init("r")
    row = json.dumps([{"name": "W", "brief": "b", "command": ["true"], "throttle": {limit: least}}])
    words = orchestra_argv("spawn", "r", "--from", "-")
    done = subprocess.run(
        ["bash", "-c", 'ulimit -Sn 400; exec "$@"', "bash", *words],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        input=row,
        capture_output=True,
        text=True,
        timeout=60,
    )
    (deferred,) = json.loads(done.stdout)["deferred"]
    assert (done.returncode, [s["signal"] for s in deferred["signals"]]) == (4, [limit])
