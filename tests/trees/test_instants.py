"""Launchers at the instant that matters: told to end on the way, given up as they claim, broken."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import clean_environment, processes_of, wait_until
from grown import SETSID, SETSID_TWICE, Trees, abandon, by_hand, hooked, insert, state_of

from orchestra.host import process
from orchestra.model.launcher_body import BODY
from orchestra.model.launcher_tree import TREE


def test_a_launcher_that_was_given_up_as_it_claimed_starts_nothing_when_it_comes_back(trees: Trees) -> None:
    script = abandon(trees, 'echo "$ORCHESTRA_ATTEMPT" >>"$mark-starts"; ready; leaf main')
    mark = trees.run_dir / ".pid-W.json"
    insert(
        script, "set -T\ntrap '[[ $BASH_COMMAND != *printf*\\$claim* || ! -e $mark ]] || kill -STOP $$' DEBUG"
    )
    with subprocess.Popen(["bash", str(script)], env=clean_environment()) as first:
        wait_until(lambda: state_of(first.pid) == "T", "the launcher's stop")
        assert mark.read_text() == ""
        os.utime(mark, (1, 1))  # as if it had been so for a long time
        assert trees.root("wait", "t").json["workers"][0]["verdict"] == "lost"
        assert trees.root("retry", "t", "--no-throttle").names("spawned") == ["W"]
        wait_until((trees.path / "mark-W-starts").exists, "the second attempt")
        second = mark.read_bytes()
        os.kill(first.pid, signal.SIGCONT)
        try:
            assert first.wait(timeout=10) == 75
        finally:
            first.kill()
    assert mark.read_bytes() == second
    assert (trees.path / "mark-W-starts").read_text() == "2\n"


def test_a_launcher_that_looks_only_after_the_kill_still_says_stopped(trees: Trees) -> None:
    script = abandon(trees, "ready; leaf main")
    fired = hooked(trees, script, "asked=*", 'until is_gone "$pid"; do :; done')
    with subprocess.Popen(["bash", str(script)], env=clean_environment()):
        wait_until((trees.path / "mark-W-ready").exists, "the tree")
        answer, _ = trees.stop("--grace", "0")
    assert fired.exists()
    assert [row["verdict"] for row in answer.json["stopped"]] == ["stopped"]
    assert trees.result()["reason"] == "stopped on request"


@pytest.mark.parametrize("fault", ["unset -v why", "end_tree() { false; }"], ids=["EXIT", "ERR"])
def test_a_launcher_that_fails_with_its_worker_at_work_ends_it_and_says_so(trees: Trees, fault: str) -> None:
    script = abandon(trees, SETSID)
    fired = hooked(trees, script, "asked=*", fault)
    with subprocess.Popen(["bash", str(script)], env=clean_environment(), stderr=subprocess.PIPE) as launcher:
        wait_until((trees.path / "mark-W-ready").exists, "the tree")
        os.kill(trees.main(), signal.SIGTERM)
        assert launcher.wait(timeout=30) == 70
    assert fired.exists()
    result = trees.result()
    assert result["verdict"] == "lost"
    assert "its launcher failed at line" in result["reason"]
    assert processes_of(trees.path) == []
    assert not (trees.run_dir / ".spawn-W.error").exists()
    assert trees.root("wait", "t").json["workers"][0]["retry"] == "now"
    assert trees.root("retry", "t", "--no-throttle").names("spawned") == ["W"]


def test_a_launcher_by_hand_that_cannot_start_its_worker_says_why(trees: Trees) -> None:
    script = abandon(trees, "exit 3")
    script.write_text(re.sub(r"^argv=.*$", "argv=(/no/such/command)", script.read_text(), flags=re.MULTILINE))
    done = by_hand(script)
    assert done.returncode == 70
    assert done.stderr.startswith("W could not start: command not found or not executable")


@pytest.mark.parametrize("fault", ["false", ': "$no_such_variable"', "exec -- /"])
def test_a_process_that_breaks_before_it_is_the_worker_is_told_as_a_failed_start(
    trees: Trees, fault: str
) -> None:
    script = abandon(trees, "true")
    text = script.read_text()
    assert text.count('  set -- "${argv[@]}"\n') == 1
    script.write_text(text.replace('  set -- "${argv[@]}"\n', f'  set -- "${{argv[@]}}"\n  {fault}\n'))
    done = by_hand(script)
    assert (done.returncode, trees.result()["verdict"]) == (70, "spawn_error"), done
    assert (trees.run_dir / ".spawn-W.error").exists()


def test_every_text_that_a_launcher_quotes_is_json(tmp_path: Path) -> None:
    """The name of a host, say: the kernel takes any bytes for it."""
    text = "".join(map(chr, range(1, 0x80))) + "é\\n\\\\"
    (tmp_path / "text").write_text(text, encoding="utf-8")
    quote = re.search(r"^json\(\) .*?^}$", BODY, flags=re.MULTILINE | re.DOTALL)
    assert quote is not None
    script = f'{quote[0]}\nIFS= read -r -d \'\' text <text || :; json "$text"; printf %s "$quoted"'
    done = subprocess.run(
        ["bash", "-eu", "-c", script, "bash"], cwd=tmp_path, capture_output=True, timeout=60
    )
    assert json.loads(done.stdout) == text


@pytest.mark.parametrize("name", ["SYS", "SEGV"])
def test_a_launcher_by_hand_that_breaks_while_it_waits_ends_its_orphans_too(trees: Trees, name: str) -> None:
    script = abandon(trees, SETSID_TWICE)
    looks = trees.path / "looks"
    text = script.read_text()
    assert text.count("\n  local dir variable\n") == 1  # of a look at all processes
    script.write_text(text.replace("\n  local dir variable\n", f"\n  local dir variable; echo >>{looks}\n"))
    with subprocess.Popen(["bash", str(script)], env=clean_environment(), stderr=subprocess.PIPE) as launcher:
        wait_until((trees.path / "mark-W-ready").exists, "the tree")
        launcher.send_signal(signal.Signals[f"SIG{name}"])
        launcher.wait(timeout=60)
    assert trees.result()["verdict"] == "lost"
    assert len(looks.read_text()) <= 20  # its own dead, which bash does not reap then, keep it no longer
    wait_until(lambda: processes_of(trees.path) == [], "the end of all")


@pytest.mark.parametrize("name", ["SEGV", "SYS"])
def test_a_launcher_that_breaks_ends_its_worker_and_says_so(trees: Trees, name: str) -> None:
    trees.grow(SETSID)
    os.kill(trees.launcher(), signal.Signals[f"SIG{name}"])
    assert trees.result()["verdict"] == "lost"
    wait_until(lambda: processes_of(trees.path) == [], "the end of all")
    assert not (trees.run_dir / ".spawn-W.error").exists()


def test_helpers_that_end_with_their_worker_never_confuse_its_launcher(trees: Trees) -> None:
    """Each end is a signal to the launcher, while it goes on from the worker's."""
    helpers = (
        "import os, subprocess, time\n"
        "for _ in range(4): subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)\n"
        "time.sleep(0.2)\n"
        "os._exit(0)"
    )
    names = [f"W{i}" for i in range(60)]
    trees.root.spawn("t", {name: [sys.executable, "-c", helpers] for name in names})
    ends = trees.root("wait", "t").json["workers"]
    assert [(row["name"], row["state"]) for row in ends if row["state"] != "done"] == []
    wait_until(lambda: processes_of(trees.path) == [], "the end of all")


def test_a_timeout_in_the_very_instant_of_the_end_is_no_timeout_and_keeps_nobody(trees: Trees) -> None:
    script = abandon(trees, "leaf left &\nready; exit 0")
    ends = 'while { read -r line <"/proc/$pid/stat"; } 2>/dev/null && [[ ${line##*) } != Z* ]]; do :; done'
    fired = hooked(trees, script, "reap*", f"{ends}; kill -ALRM $$")
    done = by_hand(script)
    assert (fired.exists(), done.returncode) == (True, 0)
    assert trees.result()["status"] == "done"
    assert processes_of(trees.path) == []


def test_an_end_that_bash_has_forgotten_is_not_told_as_exit_status_127(trees: Trees) -> None:
    script = abandon(trees, "ready; exit 0")
    fired = hooked(
        trees, script, "asked=*", "why=timeout by_itself=''; wait() { return 127; }; jobs() { return 1; }"
    )
    done = by_hand(script)
    assert (fired.exists(), done.returncode) == (True, 0)
    assert (trees.result()["verdict"], trees.result()["exit_code"]) == ("timeout", None)


@pytest.mark.parametrize("before", ["umask*", "wait*"])
@pytest.mark.parametrize(("told", "verdict"), [("ALRM", "timeout"), ("USR1", "stopped"), ("HUP", "signal")])
def test_a_launcher_that_is_told_to_end_on_its_way_says_why(
    trees: Trees, told: str, verdict: str, before: str
) -> None:
    script = abandon(trees, "ready; leaf main", timeout="1h")
    fired = hooked(trees, script, before, f"kill -{told} $$")
    insert(script, "set -T")  # also what its functions run
    done = by_hand(script)
    assert fired.exists()
    assert (done.returncode, done.stderr) == (0, "")
    assert trees.result()["verdict"] == verdict
    assert processes_of(trees.path) == []


def test_the_timeout_holds_where_its_first_signal_is_missed(trees: Trees) -> None:
    """With a timer of orchestra's: a bash that swallows what comes in the first two seconds."""
    directory = trees.path / "bin"
    directory.mkdir()
    bash = directory / "bash"
    bash.write_text('#!/bin/sh\ntrap : ALRM\nsleep 2 & wait; wait\nexec /bin/bash "$@"\n')
    bash.chmod(0o755)
    row = {"name": "W", "brief": "b", "command": ["sleep", "300"], "timeout": "1s"}
    env = {"PATH": f"{directory}:{os.environ['PATH']}"}
    answer = trees.root("spawn", "t", "--from", "-", "--no-throttle", stdin=json.dumps([row]), env=env)
    assert answer.names("spawned") == ["W"]
    assert trees.result()["verdict"] == "timeout"


def test_the_timeout_holds_by_hand_where_its_first_signal_is_missed(trees: Trees) -> None:
    script = abandon(trees, "ready; leaf main", timeout="1s")
    fired = hooked(trees, script, "set?+m", "trap '' ALRM; sleep 1.5; trap 'why=timeout' ALRM")
    assert by_hand(script).returncode == 0
    assert fired.exists()
    assert trees.result()["verdict"] == "timeout"
    assert processes_of(trees.path) == []


def test_an_end_in_the_very_instant_of_a_stop_is_told_with_no_status_that_it_had_not(trees: Trees) -> None:
    """What bash says of a child is another thing while it is only just ending."""
    trees.root.spawn("t", {f"W{i}": ["bash", "-c", "kill -USR1 $PPID; exec true"] for i in range(60)})
    rows = trees.root("wait", "t", "--keep-going", "--timeout", "60").json["workers"]
    told = {(row["verdict"], row["exit_code"]) for row in rows}
    assert told <= {(None, 0), ("stopped", 0), ("stopped", 143), ("stopped", None)}, told


def test_stop_leaves_a_launcher_that_reports_what_helps_it_to(trees: Trees) -> None:
    """Its worker has ended well, and it looks at what that made."""
    helpers = trees.path / "helpers"
    helpers.mkdir()
    real = shutil.which("tr")
    (helpers / "tr").write_text(f'#!/bin/sh\n: >"{helpers}/asked"; sleep 4; exec {real} "$@"\n')
    (helpers / "tr").chmod(0o755)
    row = {"name": "W", "brief": "b", "command": ["echo", "the result"], "expect": ["stdout"]}
    env = {"PATH": f"{helpers}:{os.environ['PATH']}"}
    trees.root("spawn", "t", "--from", "-", "--no-throttle", stdin=json.dumps([row]), env=env)
    wait_until((helpers / "asked").exists, "the launcher's question")
    answer, _ = trees.stop("W", "--grace", "0")
    assert answer.code == 0
    assert trees.result()["status"] == "done"
    left = [path.name for path in (trees.run_dir / "attempts/W/1").iterdir()]
    assert set(left) & {"reserve", "grace", "result.new"} == set()


@pytest.mark.parametrize(
    "given",
    [
        {"pid": "1"},
        {"SHELLOPTS": "keyword"},
        {"SHELLOPTS": "noglob:nounset"},
        {"BASH_FUNC_printf%%": "() { exit 3; }"},
    ],
    ids=str,
)
def test_what_is_set_for_bash_does_not_rule_a_launcher_by_hand(trees: Trees, given: dict[str, str]) -> None:
    script = abandon(trees, "exit 3")
    done = subprocess.run(
        ["bash", str(script)], env=clean_environment(**given), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (trees.result()["verdict"], trees.result()["exit_code"]) == ("exit_code", 3)


@pytest.mark.parametrize("name", ["pid", "timer", "tree"])
def test_a_launcher_that_cannot_start_its_worker_ends_no_stranger(trees: Trees, name: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        row = {"name": "W", "brief": "b", "command": ["/no/such/command"]}
        env = {name: str(stranger.pid)}
        answer = trees.root("spawn", "t", "--from", "-", "--no-throttle", stdin=json.dumps([row]), env=env)
        assert answer.names("failed") == ["W"]
        assert trees.result()["worker_pid"] is None
        assert stranger.poll() is None
        stranger.kill()


def test_a_process_that_becomes_another_program_is_seen_at_every_look(tmp_path: Path) -> None:
    """By the commands and by the launcher: while it does, the kernel shows no environment of it."""
    again = tmp_path / "again"
    again.write_text(f"#!/bin/sh\nexec /bin/sh {shlex.quote(str(again))}\n")
    look = tmp_path / "look"
    look.write_text(TREE + 'tree=(); for ((i = 0; i < 100; i++)); do carriers; done; echo "${#tree[@]}"')
    token = tmp_path.name
    with subprocess.Popen(["sh", str(again)], env={process.TOKEN: token}, start_new_session=True) as restless:
        try:
            wait_until(lambda: process.carriers(token), "its first program")
            assert [len(process.carriers(token)) for _ in range(200)] == [1] * 200
            asked = ["bash", "-c", f"token={shlex.quote(token)}; . {shlex.quote(str(look))}"]
            assert subprocess.run(asked, capture_output=True, text=True, timeout=60).stdout == "100\n"
        finally:
            restless.kill()


_THROWS_AWAY = """
import ctypes, os, time
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
begin, end, page = int(fields[47]), int(fields[48]), os.sysconf("SC_PAGE_SIZE")
libc = ctypes.CDLL(None, use_errno=True)
first = begin - begin % page
assert libc.munmap(ctypes.c_void_p(first), ctypes.c_size_t(end - first)) == 0
print("done", flush=True)
time.sleep(300)
"""


def test_who_throws_its_environment_away_holds_no_look_up(tmp_path: Path) -> None:
    """It is not to be told from one that is becoming another program but by asking again: not for ever."""
    look = tmp_path / "look"
    look.write_text(TREE + 'for ((i = 0; i < 20; i++)); do look_at "$1"; done; echo "$i ${#variables[@]}"')
    words = [sys.executable, "-c", _THROWS_AWAY]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env={"X": "y" * 20_000}) as hides:
        try:
            assert hides.stdout is not None
            assert hides.stdout.readline() == b"done\n"
            assert process.read(hides.pid, "environ") == b""
            began = sum(os.times()[:4])  # of CPU time, also of children that have ended
            assert [process.environment(hides.pid) for _ in range(20)] == [b""] * 20
            asked = ["bash", "-c", f". {shlex.quote(str(look))}", "bash", str(hides.pid)]
            done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
            assert done.stdout == "20 0\n"
            assert sum(os.times()[:4]) - began < 2.0
        finally:
            hides.kill()
