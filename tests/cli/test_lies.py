"""Workers that lie, block or get in the way: the narrator is neither fooled nor held up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Root, clean_environment, orchestra_argv, processes_of, wait_until

from orchestra.model import checkup_tools


def shell(text: str) -> list[str]:
    return ["bash", "-c", text]


def forging(text: str) -> list[str]:
    """A worker that does something to its own attempt's files, says so, and stays."""
    return shell(f'cd "$ORCHESTRA_RUN_DIR"; {text}; touch "$ORCHESTRA_OUT/forged"; sleep 300')


def spawn_forger(root: Root, text: str) -> None:
    root.init("r")
    assert root.spawn("r", {"W": forging(text)}).names("spawned") == ["W"]
    wait_until((root.run_dir("r") / "out-W" / "forged").exists, "the forgery")


def test_a_FIFO_in_place_of_a_result_holds_nobody_up(root: Root) -> None:
    spawn_forger(root, "mkfifo attempts/W/1/result.json")
    assert root.worker("r", "W")["state"] == "running"
    assert root("stop", "r", "--grace", "1").code == 0


def test_a_FIFO_in_place_of_a_mark_holds_nobody_up(root: Root) -> None:
    spawn_forger(root, "rm .pid-W.json; mkfifo .pid-W.json")
    assert root.worker("r", "W")["state"] == "running"
    assert root("stop", "r", "--grace", "1").code == 0


def test_a_forged_result_is_not_believed_while_the_launcher_lives(root: Root) -> None:
    spawn_forger(root, """echo '{"status":"done","attempt":1}' >attempts/W/1/result.json""")
    assert root.worker("r", "W")["state"] == "running"
    assert root("stop", "r", "--grace", "1").json["stopped"][0]["name"] == "W"


def test_a_forged_sentinel_is_not_believed_while_the_launcher_lives(root: Root) -> None:
    spawn_forger(root, """echo '{"attempt":1,"line":1,"command":"x"}' >.spawn-W.error""")
    assert root.worker("r", "W")["state"] == "running"


def test_a_mark_that_names_another_process_is_not_believed(root: Root) -> None:
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        start = Path(f"/proc/{bystander.pid}/stat").read_text().rpartition(")")[2].split()[19]
        forged = f's/"pid":[0-9]*/"pid":{bystander.pid}/; s/"process_start":[0-9]*/"process_start":{start}/'
        spawn_forger(root, f"sed -i '{forged}' .pid-W.json")
        assert root.mark("r", "W")["pid"] == bystander.pid
        assert root("stop", "r", "--grace", "1").code == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_who_only_reads_a_launcher_is_not_taken_for_it(root: Root) -> None:
    """Named by a forged mark, and no sign of life was recorded."""
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    log = root.run_dir("r") / "events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    reader = subprocess.Popen(["tail", "-f", str(root.run_dir("r") / ".run-W.sh")], stdout=subprocess.DEVNULL)
    try:
        launcher = root.mark("r", "W")["pid"]
        os.kill(launcher, signal.SIGKILL)
        wait_until(lambda: root.worker("r", "W")["verdict"] == "lost", "the launcher's end")
        start = Path(f"/proc/{reader.pid}/stat").read_text().rpartition(")")[2].split()[19]
        forged = root.mark("r", "W") | {"pid": reader.pid, "process_start": int(start)}
        (root.run_dir("r") / ".pid-W.json").write_text(json.dumps(forged) + "\n")
        log.write_text("".join(line for line in lines if '"kind":"spawned"' not in line))
        root("stop", "r", "--grace", "0")
        assert reader.poll() is None
    finally:
        reader.kill()
        reader.wait()


def test_an_emptied_mark_from_the_future_keeps_nobody_alive(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": shell('read -r; cd "$ORCHESTRA_RUN_DIR"; sleep 300')})
    pid = root.mark("r", "W")["pid"]
    mark = root.run_dir("r") / ".pid-W.json"
    mark.write_text("")
    subprocess.run(["touch", "-d", "+1 day", str(mark)], check=True)
    subprocess.run(["kill", "-9", str(pid)], check=True)
    assert root("wait", "r", "--timeout", "20").json["workers"][0]["verdict"] == "lost"


def test_an_empty_mark_from_the_future_is_no_claim_that_is_being_written(root: Root) -> None:
    """Of one of which the log has no sign of life either."""
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    os.kill(root.mark("r", "W")["pid"], signal.SIGKILL)
    root("unlock", "r")  # its worker ends as well
    log, mark = root.run_dir("r") / "events.jsonl", root.run_dir("r") / ".pid-W.json"
    lines = log.read_bytes().splitlines(keepends=True)
    meant = next(i for i, line in enumerate(lines) if b"spawn_intended" in line)
    log.write_bytes(b"".join(lines[: meant + 1]))
    (root.run_dir("r") / "state.json").unlink()
    mark.write_text("")
    subprocess.run(["touch", "-d", "+1 day", str(mark)], check=True)
    assert root("wait", "r", "--timeout", "20").json["workers"][0]["verdict"] == "lost"


def test_who_sits_on_the_lock_of_the_log_is_named(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": forging("exec 9<events.jsonl; flock 9")})
    wait_until((root.run_dir("r") / "out-W" / "forged").exists, "the lock")
    answer = root("spawn", "r", "--worker", f"B={root.brief('B')}", "--", "true")
    assert (answer.code, answer.json["error"]["code"]) == (1, "storage")
    assert "held its lock" in answer.json["error"]["message"]


def test_closed_standard_streams_are_no_bug(root: Root, tmp_path: Path) -> None:
    root.init("r")
    words = " ".join(orchestra_argv("status", "r"))
    done = subprocess.run(
        ["bash", "-c", f"{words} <&- >&-"],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forged_head_of_a_beat_is_no_bug(root: Root) -> None:
    from orchestra.model.event import Event, encode

    root.init("r")
    made_up = Event("x", [], {}, 7, "y", {"worker": "W", "attempt": 1})  # type: ignore[arg-type]
    (root.run_dir("r") / "telemetry.jsonl").write_bytes(encode(made_up))
    assert root("events", "r", "--topic", "telemetry").code in (0, 1)
    assert root("status", "r").code == 0


# --- a worker's own process group, and what its caller ignores -----------------------------------


def test_a_worker_that_signals_its_own_group_means_its_own_children(root: Root) -> None:
    root.init("r")
    cleans_up = shell("trap '' TERM; sleep 299 & kill -TERM 0; exit 0")
    root.spawn("r", {"Polite": cleans_up, "Rude": shell("kill -KILL 0")})
    root("wait", "r", "--keep-going")
    rows = {row["name"]: row for row in root("status", "r").json["workers"]}
    assert rows["Polite"]["state"] == "done"
    assert (rows["Rude"]["verdict"], rows["Rude"]["signal"]) == ("signal", 9)


IGNORANT = """
import os, signal, sys
for number in set(range(1, 32)) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "orchestra", *sys.argv[1:]])
"""


def test_signals_that_the_caller_ignores_are_not_ignored_by_workers_and_launchers(root: Root) -> None:
    root.init("r")
    env = clean_environment(ORCHESTRA_ROOT=str(root.path))
    words = ["spawn", "r", "--no-throttle", "--worker", f"W={root.brief('W')}", "--", "sleep", "300"]
    done = subprocess.run([sys.executable, "-c", IGNORANT, *words], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    launcher = root.mark("r", "W")["pid"]
    (worker,) = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    ignored = next(
        line for line in Path(f"/proc/{worker}/status").read_text().splitlines() if line.startswith("SigIgn")
    )
    assert int(ignored.split()[1], 16) & 0x7FFF_FFFF == 0  # those above are the C library's own
    stopped = root("stop", "r", "--grace", "5").json["stopped"]
    assert [row["verdict"] for row in stopped] == ["stopped"]


# --- from elsewhere, a PID proves nothing ---------------------------------------------------------


def from_elsewhere(root: Root, unshare: list[str], before: str, *words: str) -> dict[str, Any]:
    """The answer of a command that is called in other namespaces."""
    script = f"{before}; exec {' '.join(orchestra_argv(*words))}"
    done = subprocess.run(
        ["unshare", *unshare, "bash", "-c", script],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    if not done.stdout:
        pytest.skip(f"namespaces cannot be had here: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


RENAMED = (["--uts"], "echo renamed >/proc/sys/kernel/hostname")
OTHER_PIDS = (["--pid", "--fork", "--mount-proc"], ":")


@pytest.mark.parametrize("elsewhere", [RENAMED, OTHER_PIDS], ids=["renamed host", "other PIDs"])
def test_a_worker_that_is_not_proved_gone_is_not_lost(root: Root, elsewhere: tuple[list[str], str]) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    for words in (["wait", "r", "--timeout", "0.1"], ["spawn", "r"], ["status", "r"]):
        answer = from_elsewhere(root, *elsewhere, *words)
        assert answer["ok"], answer
    assert answer["workers"][0]["state"] == "running"
    assert root.worker("r", "W")["state"] == "running"


def test_who_cannot_be_reached_from_here_is_not_said_to_be_stopped(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    answer = from_elsewhere(root, *OTHER_PIDS, "stop", "r", "--grace", "0.1")
    assert answer["stopped"] == []
    assert [row["name"] for row in answer["still_alive"]] == ["W"]
    assert from_elsewhere(root, *OTHER_PIDS, "spawn", "r")["recovered"] == []
    assert root.worker("r", "W")["state"] == "running"
    root("stop", "r", "--grace", "1")  # what was meant is done as soon as it can be
    assert root.worker("r", "W")["verdict"] == "stopped"


def test_a_sentinel_that_a_worker_wrote_silences_no_exit_status(root: Root) -> None:
    """Whatever it is; and no result that the worker wrote in its launcher's name stays."""
    root.init("r")
    forged = '{"worker":"W","attempt":1,"status":"done","exit_code":0,"token":"%s"}'
    script = (
        f'printf \'{forged}\' "$ORCHESTRA_TOKEN" >"$ORCHESTRA_RUN_DIR/attempts/W/1/result.json"; '
        'touch "$ORCHESTRA_RUN_DIR/.spawn-W.error"; exit 70'
    )
    root.spawn("r", {"W": ["sh", "-c", script]})
    root("wait", "r")
    worker = root.worker("r", "W")
    assert (worker["verdict"], worker["exit_code"]) == ("exit_code", 70)


def test_a_run_of_another_container_at_the_same_path_is_not_ours(root: Root) -> None:
    brief = root.path.parent / "brief.md"
    brief.write_text("b")
    init = " ".join(orchestra_argv("init", "r"))
    spawn = ("spawn", "r", "--no-throttle", "--worker", f"W={brief}", "--", "sleep", "300")
    theirs = f"mount -t tmpfs none {root.path} && {init} >/dev/null"
    launcher = from_elsewhere(root, ["--mount"], theirs, *spawn)["spawned"][0]["pid"]
    try:
        gone = root("status", "r").json["error"]
        assert "pids" not in gone
        root.init("r")
        assert root("stop", "r", "--grace", "1").json["strays"] == []
        assert psutil.Process(launcher).status() != psutil.STATUS_ZOMBIE
    finally:
        os.kill(launcher, signal.SIGTERM)
        wait_until(lambda: not psutil.pid_exists(launcher), "its end")


def test_what_a_worker_started_in_a_sandbox_is_ours_all_the_same(root: Root) -> None:
    """By the run's directory, which it sees there too."""
    root.init("r")
    answer = root.spawn("r", {"W": ["unshare", "--mount", "sleep", "300"]})
    launcher = answer.json["spawned"][0]["pid"]
    log = root.run_dir("r") / "events.jsonl"
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0])
    (root.run_dir("r") / "state.json").unlink()
    wait_until(lambda: len(psutil.Process(launcher).children(recursive=True)) >= 1, "the worker")
    worker = psutil.Process(launcher).children(recursive=True)[-1].pid
    os.kill(launcher, signal.SIGKILL)
    told = root("stop", "r", "--grace", "1").json
    assert worker in [pid for row in told["strays"] for pid in row["pids"]], told
    wait_until(lambda: not psutil.pid_exists(worker), "its end")


# --- what a worker puts in its launcher's way ------------------------------------------------------

IN_THE_WAY = {
    "the grace": ('mkfifo "$here/grace"', 0),
    "the result": ('mkfifo "$here/result.new"', 0),
    "the mark": ("rm .pid-W.json; mkfifo .pid-W.json", 0),
    "standard error": ("rm log-W.err; mkfifo log-W.err", 3),
    "a directory for the result": ('mkdir -p "$here/result.new/x" "$here/result.json/x"', 0),
    "no directory at all": ("rm -r attempts", 0),
}


@pytest.mark.parametrize(("text", "status"), IN_THE_WAY.values(), ids=IN_THE_WAY.keys())
def test_what_a_worker_puts_in_the_way_keeps_no_launcher_from_its_end(
    root: Root, text: str, status: int
) -> None:
    root.init("r")
    prefix = 'cd "$ORCHESTRA_RUN_DIR"; here=attempts/W/1; '
    root.spawn("r", {"W": shell(f"{prefix}{text}; exit {status}")})
    answer = root("wait", "r", "--timeout", "30")
    assert answer.code == (1 if status else 0), answer
    assert root.worker("r", "W")["state"] == ("failed" if status else "done")


def test_a_forged_mark_has_no_directory_removed_but_the_attempts_own(root: Root, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "deep").mkdir(parents=True)
    forge = f's|"token":"[^"]*"|"token":"x/victim"|; s|"tmp_dir":"[^"]*"|"tmp_dir":"{victim}"|'
    root.init("r")
    root.spawn("r", {"W": shell(f"sed -i '{forge}' \"$ORCHESTRA_RUN_DIR/.pid-W.json\"; exit 1")})
    root("wait", "r")
    assert root("retry", "r", "W", "--", "true").names("spawned") == ["W"]
    root("wait", "r")
    assert (victim / "deep").is_dir()


def test_a_sentinel_that_a_worker_wrote_does_not_outrank_its_result(root: Root) -> None:
    root.init("r")
    forged = """echo '{"worker":"W","attempt":1}' >"$ORCHESTRA_RUN_DIR/.spawn-W.error"; exit 0"""
    root.spawn("r", {"W": shell(forged)})
    root("wait", "r")
    assert root.worker("r", "W")["state"] == "done"


DIES_AFTER_LAUNCH = """
import os, pathlib, sys, time
from orchestra.backend.local import LocalBatch
from orchestra.cli.main import main
def news(*_):
    while not pathlib.Path(os.environ["STARTS"]).exists():
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
LocalBatch.news = news
sys.argv[0] = "orchestra"
main()
"""


def test_a_worker_that_removed_its_mark_is_not_started_again(root: Root, tmp_path: Path) -> None:
    root.init("r")
    starts = tmp_path / "starts"
    worker = shell(f'rm "$ORCHESTRA_RUN_DIR/.pid-W.json"; echo start >>"{starts}"; exec sleep 300')
    env = clean_environment(ORCHESTRA_ROOT=str(root.path), STARTS=str(starts))
    words = ["spawn", "r", "--no-throttle", "--worker", f"W={root.brief('W')}", "--", *worker]
    killed = subprocess.run([sys.executable, "-c", DIES_AFTER_LAUNCH, *words], env=env, timeout=60)
    assert killed.returncode == -9
    assert root("spawn", "r", "--no-throttle").code == 0
    assert root.worker("r", "W")["state"] == "running"
    assert starts.read_text() == "start\n"
    assert root("stop", "r", "--grace", "1").json["still_alive"] == []
    assert processes_of(root.path) == []


def test_stop_ends_a_launcher_that_has_not_claimed_its_attempt_yet(root: Root, tmp_path: Path) -> None:
    root.init("r")
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin" / "bash"
    slow.write_text(f'#!/bin/sh\ntouch "{tmp_path}/up"\nsleep 60\nexec /bin/bash "$@"\n')
    slow.chmod(0o755)
    env = {"PATH": f"{slow.parent}:{os.environ['PATH']}"}
    words = ("spawn", "r", "--no-throttle", "--worker", f"W={root.brief('W')}", "--", "sleep", "300")
    narrator = root.start(*words, env=env)
    wait_until((tmp_path / "up").exists, "the launcher")
    narrator.kill()
    narrator.communicate()
    assert root("stop", "r", "--grace", "1").json["still_alive"] == []
    wait_until(lambda: processes_of(root.path) == [], "the end of all")
    assert root.worker("r", "W")["verdict"] == "stopped"


@pytest.mark.parametrize("rubbish", ["a[$(touch pwned)]", "09", "1e9", "999999"], ids=lambda text: text[:2])
def test_what_a_worker_writes_into_its_grace_runs_nothing_and_changes_no_end(
    root: Root, rubbish: str
) -> None:
    root.init("r")
    write = f"printf '%s\\n' '{rubbish}' >\"$ORCHESTRA_RUN_DIR/attempts/W/1/grace\"; trap '' TERM"
    root.spawn("r", {"W": shell(f"{write}; while :; do sleep 0.1; done")}, timeout="1s", cwd=str(root.path))
    assert root("wait", "r", "--timeout", "60").json["outcome"] == "failed"
    assert root.worker("r", "W")["verdict"] == "timeout"
    assert not list(root.path.rglob("pwned"))


# --- the end, told truly -----------------------------------------------------------------------------


def test_a_launcher_that_can_start_no_program_at_its_end_is_believed_all_the_same(
    root: Root, tmp_path: Path
) -> None:
    root.init("r")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bash").symlink_to("/bin/bash")
    env = {"PATH": str(tmp_path / "bin")}  # no mv, no sync, no ln
    words = ("spawn", "r", "--no-throttle", "--worker", f"W={root.brief('W')}", "--", "/bin/true")
    assert root(*words, env=env).names("spawned") == ["W"]
    assert root("wait", "r").json["workers"][0]["state"] == "done"
    root("spawn", "r")
    assert root.result("r", "W")["status"] == "done"


@pytest.mark.parametrize("how", ["stop", "timeout"])
def test_a_worker_that_had_ended_before_it_was_to_be_ended_is_done(root: Root, how: str) -> None:
    root.init("r")
    timeout = {"timeout": "10s"} if how == "timeout" else {}
    root.spawn("r", {"W": shell(f'until [ -e "{root.path}/go" ]; do sleep 0.05; done; exit 0')}, **timeout)
    launcher = root.mark("r", "W")["pid"]
    os.kill(launcher, signal.SIGSTOP)
    (root.path / "go").touch()
    wait_until(lambda: ended_children(launcher), "the worker's end")
    if how == "stop":
        root("stop", "r", "--grace", "1")
    else:
        wait_until(lambda: pending_alarm(launcher), "the timeout")
        os.kill(launcher, signal.SIGCONT)
        root("wait", "r", "--timeout", "30")
    assert root.worker("r", "W")["state"] == "done"


def ended_children(pid: int) -> bool:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    states = [Path(f"/proc/{kid}/stat").read_text().rpartition(")")[2].split()[0] for kid in children]
    return bool(states) and set(states) == {"Z"}


def pending_alarm(pid: int) -> bool:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("ShdPnd"))
    return bool(int(line.split()[1], 16) & 1 << (signal.SIGALRM - 1))


def test_a_locale_that_is_not_there_is_no_error_of_the_workers(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", "exit 1"]}, env={"LC_ALL": "xx_YY.UTF-8"})
    root("wait", "r")
    assert root.worker("r", "W")["verdict"] == "exit_code"
    assert (root.run_dir("r") / "log-W.err").read_text() == ""


NAMES_OF_BASH = {"FUNCNEST": "1", "EXECIGNORE": "*", "REPLY": "mine", "MAPFILE": "mine", "http_proxy": "p"}


def test_names_that_bash_obeys_reach_the_worker_and_rule_no_launcher(root: Root) -> None:
    root.init("r")
    words = ("spawn", "r", "--no-throttle", "--worker", f"W={root.brief('W')}", "--", "env", "-0")
    root(*words, env=NAMES_OF_BASH)
    assert root("wait", "r").code == 0
    seen = (root.run_dir("r") / "log-W.out").read_text().split("\0")
    assert {f"{name}={value}" for name, value in NAMES_OF_BASH.items()} <= set(seen)


def test_the_launchers_strict_mode_is_not_the_workers(root: Root) -> None:
    root.init("r")
    (root.path / "workers.json").write_text(
        json.dumps([{"name": "W", "brief": "b", "command": shell('false; echo "reached $UNSET"')}])
    )
    spawn = orchestra_argv("spawn", "r", "--no-throttle", "--from", f"{root.path}/workers.json")
    env = clean_environment(ORCHESTRA_ROOT=str(root.path))
    subprocess.run(shell(f"export SHELLOPTS; exec {' '.join(spawn)}"), env=env, check=True)
    root("wait", "r")
    assert (root.run_dir("r") / "log-W.out").read_text() == "reached \n"


@pytest.mark.parametrize("name", ["USR2", "XCPU", "QUIT", "ABRT", "HUP", "PWR", "IO", "STKFLT"])
def test_a_signal_to_a_launcher_ends_its_worker(root: Root, name: str) -> None:
    root.init("r")
    root.spawn("r", {"W": shell("sleep 299; true")})
    os.kill(root.mark("r", "W")["pid"], getattr(signal, f"SIG{name}"))
    assert root("wait", "r", "--timeout", "30").code == 1
    worker = root.worker("r", "W")
    assert (worker["verdict"], worker["signal"]) == ("signal", getattr(signal, f"SIG{name}"))
    wait_until(lambda: processes_of(root.path) == [], "the end of all")


@pytest.mark.parametrize("how", ["mkdir {0}", "mkdir elsewhere; ln -s elsewhere {0}"])
def test_a_directory_in_the_place_of_its_result_is_no_hiding_place(root: Root, how: str) -> None:
    root.init("r")
    root.spawn("r", {"W": shell('cd "$ORCHESTRA_RUN_DIR"; ' + how.format("result-W.json"))})
    root("wait", "r")
    assert root.result("r", "W")["status"] == "done"
    assert not list((root.run_dir("r")).glob("elsewhere/*"))


# --- what only looks like a result ----------------------------------------------------------


def test_a_result_of_a_run_that_was_here_before_is_not_this_workers(root: Root) -> None:
    """Its launcher lives on where the run was taken away, and writes by its path."""
    root.init("r")
    go = root.path / "go"
    root.spawn("r", {"W": ["bash", "-c", f"until [[ -e '{go}' ]]; do sleep 0.02; done"]})
    launcher = root.mark("r", "W")["pid"]
    root.run_dir("r").rename(root.run_dir("old"))
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["true"], "throttle": {"memory_available": "8PiB"}}
    assert root("spawn", "r", "--from", "-", stdin=json.dumps([row])).names("deferred") == ["W"]
    go.touch()
    wait_until(lambda: not Path(f"/proc/{launcher}").exists(), "the old launcher's end")
    assert root.worker("r", "W")["state"] == "deferred"


def test_a_launcher_whose_run_was_taken_away_begins_none_in_its_place(root: Root) -> None:
    root.init("r")
    go = root.path / "go"
    script = f"until [[ -e '{go}' ]]; do sleep 0.02; done; rm -rf -- \"$ORCHESTRA_RUN_DIR\"; exit 3"
    root.spawn("r", {"W": ["bash", "-c", script]})
    go.touch()  # the command that started it has written all that it writes
    wait_until(lambda: processes_of(root.path) == [], "the end of all")
    assert not root.run_dir("r").exists()
    root.init("r")


def test_a_result_in_the_launchers_name_does_not_hide_what_lives_on(root: Root) -> None:
    root.init("r")
    lie = '{"worker":"W","attempt":1,"status":"done","exit_code":0,"token":"%s"}'
    script = (
        f"kill -9 $PPID; printf '{lie}' $ORCHESTRA_TOKEN "
        '>"$ORCHESTRA_RUN_DIR/attempts/W/1/result.json"; exec sleep 298.7'
    )
    root.spawn("r", {"W": ["bash", "-c", script]})
    wait_until(lambda: root.worker("r", "W")["state"] != "running", "the lie")
    assert root("unlock", "r").code == 0
    told = [event for event in root.events("r") if event["kind"] == "leftovers_ended"]
    assert [event["worker"] for event in told] == ["W"]
    assert processes_of(root.path) == []


def test_a_result_that_cannot_be_read_just_now_is_not_taken_for_none(root: Root) -> None:
    if shutil.which("strace") is None:
        pytest.skip("NOT RUN: a disk that fails (strace is not here)")
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    result = root.run_dir("r") / "attempts" / "W" / "1" / "result.json"
    wait_until(lambda: processes_of(root.run_dir("r")) == [], "its end")
    inject = ["strace", "-f", "-o", "/dev/null", "-P", str(result), "-e", "inject=openat:error=ESTALE"]
    done = subprocess.run(
        [*inject, *orchestra_argv("wait", "r", "--timeout", "0")],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    (row,) = json.loads(done.stdout)["workers"]
    assert (done.returncode, row["state"]) == (5, "running")
    assert "cannot be read: Stale file handle" in row["reason"]
    assert root("wait", "r").json["counts"]["done"] == 1


def test_a_huge_file_in_the_marks_place_holds_no_launcher(root: Root) -> None:
    root.init("r")
    script = 'cd "$ORCHESTRA_RUN_DIR"; rm .pid-W.json; truncate -s 400G .pid-W.json'
    root.spawn("r", {"W": ["bash", "-c", script]})
    assert root("wait", "r", "--timeout", "30").code == 0
    assert root.worker("r", "W")["state"] == "done"


@pytest.mark.parametrize("missing", ["tr", "wc"])
def test_what_cannot_be_looked_at_is_not_told_as_blank(root: Root, tmp_path: Path, missing: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in (*checkup_tools.PROGRAMS, "bash"):
        if name != missing and (found := shutil.which(name)):
            (tools / name).symlink_to(found)
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["echo", "hello"], "expect": ["stdout"]}
    env = {"PATH": str(tools)}
    (tools / "echo").symlink_to(shutil.which("echo") or "")
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]), env=env)
    root("wait", "r")
    assert f"could not be looked at: {missing} failed" in root.result("r", "W")["reason"]


def test_an_alarm_is_no_timeout_where_there_is_none(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["bash", "-c", "kill -ALRM $PPID; sleep 298.6"]})
    root("wait", "r")
    assert (root.worker("r", "W")["verdict"], root.result("r", "W")["signal"]) == ("signal", 14)


def test_a_file_of_the_future_is_a_sign_of_now_alone(root: Root) -> None:
    root.init("r")
    script = 'touch -d 2100-01-01 "$ORCHESTRA_OUT/x"; exec sleep 298.5'
    row = {"name": "W", "brief": "b", "command": ["bash", "-c", script], "stall": "1s"}
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]))
    wait_until(lambda: root.worker("r", "W")["state"] == "stalled", "its stall")
    root("stop", "r")


@pytest.mark.parametrize(
    "place", ["log-W.out", "log-W.err", ".pid-W.json", "attempts/W/1/reserve", "attempts/W/1/launcher.err"]
)
def test_a_pipe_in_the_place_of_a_file_holds_nobody(root: Root, place: str) -> None:
    root.init("r")
    path = root.run_dir("r") / place
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    answer = root.spawn("r", {"W": ["true"], "Other": ["true"]})
    assert "Other" in answer.names("spawned")
    assert sorted(answer.names("spawned") + answer.names("failed")) == ["Other", "W"]
    assert root("wait", "r", "--keep-going", "--timeout", "60").json["counts"]["running"] == 0


@pytest.mark.parametrize("token", [None, "forged"])
def test_a_result_of_nobody_makes_nobody_done(root: Root, token: str | None) -> None:
    root.init("r")
    root.spawn("r", {"A": ["sleep", "300"]})
    env = {"ORCHESTRA_THROTTLE": "{max_workers: 1}"}
    root("spawn", "r", "--worker", f"B={root.brief('B')}", "--", "sleep", "300", env=env)
    assert root.worker("r", "B")["state"] == "deferred"
    place = root.run_dir("r") / "attempts/B/1"
    place.mkdir(parents=True)
    lie = {"worker": "B", "attempt": 1, "status": "done", "token": token}
    (place / "result.json").write_text(json.dumps(lie))
    mark = {**root.mark("r", "A"), "worker": "B", "token": token or "x", "pid": 2**22 + 1}
    (root.run_dir("r") / ".pid-B.json").write_text(json.dumps(mark))
    assert root.worker("r", "B")["state"] == "deferred"
    root("stop", "r", "--grace", "1")


def test_a_stop_ends_what_lives_of_a_worker_that_has_told_its_own_end(root: Root) -> None:
    root.init("r")
    lie = (
        'printf \'{"worker":"W","attempt":1,"status":"done","token":"%s"}\' $ORCHESTRA_TOKEN '
        '>"$ORCHESTRA_RUN_DIR/attempts/W/1/result.json"; kill -9 $PPID; exec sleep 300'
    )
    root.spawn("r", {"W": ["sh", "-c", lie]})
    root("wait", "r")
    assert root.worker("r", "W")["state"] == "done"
    for words in (["stop", "r", "W"], ["stop", "r"]):
        ended = [row["worker"] for row in root(*words, "--grace", "1").json["strays"]]
        assert ended == (["W"] if "W" in words else [])


def test_a_retry_ends_what_lives_of_the_attempt_before(root: Root) -> None:
    root.init("r")
    lie = (
        '[ $ORCHESTRA_ATTEMPT = 1 ] || exit 0; echo $$ >"$ORCHESTRA_RUN_DIR/../pid"; '
        'printf \'{"worker":"W","attempt":1,"status":"failed","verdict":"exit_code","token":"%s"}\' '
        '$ORCHESTRA_TOKEN >"$ORCHESTRA_RUN_DIR/attempts/W/1/result.json"; kill -9 $PPID; exec sleep 300'
    )
    root.spawn("r", {"W": ["sh", "-c", lie]})
    root("wait", "r")
    pid = int((root.path / "pid").read_text())
    assert Path(f"/proc/{pid}").exists()
    assert root("retry", "r", "W").names("spawned") == ["W"]
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the first attempt")
