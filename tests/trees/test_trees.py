"""Real process trees: whatever a worker starts ends with its attempt, and nothing is lost on the way."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Root, clean_environment, orchestra_argv, processes_of, wait_until

from orchestra.host import process
from orchestra.model.launcher_body import BODY
from orchestra.model.launcher_tree import TREE

LONG = bool(os.environ.get("ORCHESTRA_LONG"))
IMPATIENT_S = 8.0  # well under the default grace of 10 s, well over a call of the command line

# Every process of a tree has MARK, the first argument of the script, in its argv. `leaf NAME` becomes
# a process that does nothing; `ready` is told once the whole tree stands.
_PRELUDE = r"""
mark=$1
leaf() { exec -a "$mark-$1" sleep 300; }
export -f leaf
ready() { : >"$mark-ready"; }
"""

_FORKS = r"""
for i in 1 2 3; do leaf "$i" & done
(leaf deep & leaf deeper)&
ready; wait
"""
_SETSID = r"""
setsid bash -c 'exec -a "$0-own-session" sleep 300' "$mark" &
ready; wait
"""
_ORPHAN = r"""
setsid bash -c 'setsid bash -c "exec -a \"\$0-orphan\" sleep 300" "$0" & exit' "$mark"
"""
_SETSID_TWICE = _ORPHAN + "ready; leaf main"
_CLEAN_ENVIRONMENT = r"""
env -i setsid bash -c 'exec -a "$0-bare" sleep 300' "$mark" &
env -i bash -c 'setsid bash -c "exec -a \"\$0-bare-orphan\" sleep 300" "$0" & exit' "$mark"
ready; wait
"""
_STORM = r"""
for ((i = 0; i < 150; i++)); do leaf "$i" & done
ready; wait
"""
_RUNAWAY = r"""
# Each forks the next and is gone: 1000 of them, each an orphan in a session of its own.
run() { (($1 > 0)) || return; sleep 0.01; setsid bash -c 'run "$@"' "$mark-$1" $(($1 - 1)) & }
export -f run; export mark
run 1000
ready; leaf main
"""
_STOPPED = r"""
leaf stopped & kill -STOP $!
ready; kill -STOP $$; wait
"""
_IGNORES_TERM = r"""
trap '' TERM
setsid bash -c 'exec -a "$0-deaf" sleep 300' "$mark" &
ready; leaf deaf-main
"""
_IGNORES_ALL = r"""
trap '' $(seq 1 31) 2>/dev/null
env -i setsid bash -c 'exec -a "$0-deaf" sleep 300' "$mark" &
ready; leaf deaf-main
"""

POLITE = {
    "forks": _FORKS,
    "setsid": _SETSID,
    "setsid_twice": _SETSID_TWICE,
    "clean_environment": _CLEAN_ENVIRONMENT,
    "storm": _STORM,
    "stopped": _STOPPED,
}
DEAF = {"ignores_term": _IGNORES_TERM, "ignores_all": _IGNORES_ALL, "runaway": _RUNAWAY}


class Trees:
    """Workers that grow trees, in a run called `t`."""

    def __init__(self, root: Root, path: Path) -> None:
        self.root = root
        self.path = path
        root.init("t")

    @property
    def run_dir(self) -> Path:
        return self.root.run_dir("t")

    def command(self, script: str, name: str = "W") -> list[str]:
        file = self.path / f"{name}.sh"
        file.write_text(_PRELUDE + script)
        return ["bash", str(file), str(self.path / f"mark-{name}")]

    def grow(self, script: str, name: str = "W", **entry: Any) -> None:
        """Spawn a worker and wait until its tree stands."""
        answer = self.root.spawn("t", {name: self.command(script, name)}, **entry)
        assert (answer.code, answer.names("spawned")) == (0, [name]), answer
        wait_until((self.path / f"mark-{name}-ready").exists, "the tree")

    def alive(self, name: str = "W") -> list[int]:
        """The tree's living processes, by their argv."""
        needle = os.fsencode(self.path / f"mark-{name}")
        return [pid for pid in processes_of(self.path) if needle in _cmdline(pid)]

    def launcher(self, name: str = "W") -> int:
        return int(self.root.mark("t", name)["pid"])

    def main(self, name: str = "W") -> int:
        """The worker's own process."""
        children = Path(f"/proc/{self.launcher(name)}/task/{self.launcher(name)}/children").read_text()
        found = [int(pid) for pid in children.split() if str(self.path).encode() in _cmdline(int(pid))]
        assert found, children
        return found[0]

    def kill_launcher(self, name: str = "W") -> None:
        pid = self.launcher(name)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _lives(pid), "the launcher's end")

    def result(self, name: str = "W") -> dict[str, Any]:
        wait_until((self.run_dir / f"result-{name}.json").exists, "the result")
        return self.root.result("t", name)

    def stop(self, *words: str) -> tuple[Answer, float]:
        """(the answer, seconds from the word to the last end, by the log)."""
        answer = self.root("stop", "t", *words)
        events = self.root.events("t")
        meant = next(event for event in events if event["kind"] == "stop_intended")
        ended = [event for event in events if event["kind"] == "ended" and event["op"] > meant["op"]]
        assert ended, events
        return answer, _seconds(ended[-1]["at"]) - _seconds(meant["at"])


@pytest.fixture
def trees(root: Root, tmp_path: Path) -> Trees:
    return Trees(root, tmp_path)


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _lives(pid: int) -> bool:
    return _state(pid) not in "ZX"


# --- orchestra stop ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", POLITE)
def test_stop_ends_every_descendant_within_its_grace(trees: Trees, kind: str) -> None:
    trees.grow(POLITE[kind])
    assert trees.alive()
    answer, took_s = trees.stop()
    assert (answer.code, answer.json["still_alive"]) == (0, [])
    assert processes_of(trees.path) == []
    assert took_s < IMPATIENT_S
    assert trees.result()["verdict"] == "stopped"


@pytest.mark.parametrize("kind", DEAF)
def test_stop_takes_about_the_grace_that_it_was_given(trees: Trees, kind: str) -> None:
    trees.grow(DEAF[kind])
    answer, took_s = trees.stop("W", "--grace", "1")
    assert (answer.code, answer.json["still_alive"]) == (0, [])
    assert processes_of(trees.path) == []
    assert took_s < IMPATIENT_S
    assert trees.result()["verdict"] == "stopped"


def test_a_tree_that_ignores_term_is_left_its_grace(trees: Trees) -> None:
    trees.grow(_IGNORES_TERM)
    _, took_s = trees.stop("--grace", "2")
    assert 2.0 <= took_s < IMPATIENT_S


def test_a_term_handler_has_time_to_tidy_up(trees: Trees) -> None:
    trees.grow("trap 'echo tidy >\"$ORCHESTRA_OUT/tidy\"; exit 0' TERM\nready; sleep 300 & wait")
    trees.stop()
    assert (trees.run_dir / "out-W" / "tidy").read_text() == "tidy\n"


@pytest.mark.parametrize("grace", ["0", "0.00001", "0.5"])
def test_any_small_grace_ends_a_deaf_tree_as_stopped(trees: Trees, grace: str) -> None:
    trees.grow(_IGNORES_ALL)
    answer, took_s = trees.stop("--grace", grace)
    assert [row["verdict"] for row in answer.json["stopped"]] == ["stopped"]
    assert processes_of(trees.path) == []
    assert took_s < IMPATIENT_S


def test_several_deaf_trees_share_one_grace(trees: Trees) -> None:
    names = ["A", "B", "C"]
    for name in names:
        trees.grow(_IGNORES_TERM, name)
    answer, took_s = trees.stop("--grace", "2")
    assert sorted(row["name"] for row in answer.json["stopped"]) == names
    assert processes_of(trees.path) == []
    assert took_s < 2 + IMPATIENT_S / 2


def test_stop_of_one_worker_leaves_the_other_alone(trees: Trees) -> None:
    trees.grow(_FORKS, "A")
    trees.grow(_SETSID_TWICE, "B")
    before = sorted(trees.alive("B"))
    trees.stop("A")
    assert trees.alive("A") == []
    assert sorted(trees.alive("B")) == before


def test_stop_ends_a_worker_whose_launcher_is_stopped(trees: Trees) -> None:
    trees.grow(_SETSID)
    os.kill(trees.launcher(), signal.SIGSTOP)
    wait_until(lambda: _state(trees.launcher()) == "T", "the launcher's stop")
    answer, took_s = trees.stop("--grace", "1")
    assert (answer.code, answer.json["still_alive"]) == (0, [])
    assert [row["verdict"] for row in answer.json["stopped"]] == ["stopped"]
    assert processes_of(trees.path) == []
    assert took_s < IMPATIENT_S


# --- the end of the main process ------------------------------------------------------------


_BACKGROUND = r"""
setsid bash -c 'exec -a "$0-left" sleep 300' "$mark" &
env -i setsid bash -c 'exec -a "$0-left-bare" sleep 300' "$mark" &
(leaf left-plain &)
"""


@pytest.mark.parametrize(("code", "verdict"), [(0, None), (3, "exit_code")])
def test_background_children_end_with_the_attempt(trees: Trees, code: int, verdict: str | None) -> None:
    trees.grow(f"{_BACKGROUND}\nready; exit {code}")
    assert (trees.result()["verdict"], trees.result()["exit_code"]) == (verdict, code)
    assert trees.alive() == []
    wait_until(lambda: processes_of(trees.path) == [], "the launcher's end")


def test_a_main_process_killed_takes_its_children_along(trees: Trees) -> None:
    trees.grow(_BACKGROUND + "\nready; leaf main")
    os.kill(trees.main(), signal.SIGKILL)
    result = trees.result()
    assert (result["verdict"], result["signal"], result["exit_code"]) == ("signal", 9, None)
    assert trees.alive() == []


def test_exit_status_137_is_no_signal(trees: Trees) -> None:
    trees.grow("ready; exit 137")
    assert (trees.result()["verdict"], trees.result()["exit_code"]) == ("exit_code", 137)


def test_exit_status_137_is_no_signal_after_a_thousand_orphans(trees: Trees) -> None:
    trees.grow("for ((i = 0; i < 1000; i++)); do (: &); done\nready; exit 137")
    assert (trees.result()["verdict"], trees.result()["exit_code"]) == ("exit_code", 137)


def test_a_worker_that_closes_its_output_is_done_when_it_ends(trees: Trees) -> None:
    trees.grow("exec >&- 2>&- <&-\nready; exit 0")
    assert trees.result()["status"] == "done"


# --- the timeout ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["setsid", "setsid_twice", "clean_environment", "stopped"])
def test_the_timeout_holds_with_no_narrator_alive(trees: Trees, kind: str) -> None:
    trees.grow(POLITE[kind], timeout="5s")
    result = trees.result()
    assert (result["verdict"], result["status"]) == ("timeout", "failed")
    assert trees.alive() == []
    wait_until(lambda: processes_of(trees.path) == [], "the launcher's end")
    answer = trees.root("wait", "t")
    assert (answer.code, answer.json["workers"][0]["verdict"]) == (1, "timeout")


_LEADER_GONE = """
import ctypes, pathlib, sys, threading, time
def lead_on():
    while pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    pathlib.Path(sys.argv[1] + "-ready").touch()
    time.sleep(300)
threading.Thread(target=lead_on).start()
ctypes.CDLL(None).syscall(60, 0)  # exit, of this thread alone
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="NOT RUN: the number of exit is another here")
def test_a_worker_whose_main_thread_has_ended_still_times_out(trees: Trees) -> None:
    program = trees.path / "leader-gone.py"
    program.write_text(_LEADER_GONE)
    trees.grow(f'exec {sys.executable} {program} "$mark"', timeout="3s")
    assert trees.result()["verdict"] == "timeout"
    wait_until(lambda: processes_of(trees.path) == [], "the launcher's end")


# --- a launcher killed ----------------------------------------------------------------------


def _leftover_alerts(trees: Trees) -> list[int]:
    alerts = trees.root("status", "t").json["alerts"]
    return sorted(pid for alert in alerts if alert["kind"] == "leftovers" for pid in alert["pids"])


def test_status_names_what_lives_on_when_the_launcher_is_killed(trees: Trees) -> None:
    trees.grow(_SETSID)
    trees.kill_launcher()
    worker = trees.root.worker("t", "W")
    assert (worker["state"], worker["verdict"], worker["retry"]) == ("failed", "lost", "now")
    assert _leftover_alerts(trees) == sorted(trees.alive())
    for pid in trees.alive():
        assert str(pid) in worker["reason"]


@pytest.mark.parametrize("verb", [("unlock",), ("spawn",), ("stop",), ("stop", "W")])
@pytest.mark.parametrize("recorded", ["unseen", "seen_by_wait"])
def test_the_next_mutating_command_ends_what_a_dead_launcher_left(
    trees: Trees, verb: tuple[str, ...], recorded: str
) -> None:
    trees.grow(_SETSID_TWICE)
    trees.kill_launcher()
    if recorded == "seen_by_wait":
        answer = trees.root("wait", "t")
        assert (answer.code, answer.json["workers"][0]["verdict"]) == (1, "lost")
    assert trees.alive()
    trees.root(verb[0], "t", *verb[1:])
    assert trees.alive() == []


def test_what_a_dead_launcher_left_is_still_named_after_a_wait_has_recorded_it(trees: Trees) -> None:
    trees.grow(_SETSID)
    trees.kill_launcher()
    trees.root("wait", "t")
    assert _leftover_alerts(trees) == sorted(trees.alive())


def test_retry_starts_a_second_attempt_only_once_the_first_is_dead(trees: Trees) -> None:
    # The second attempt sees whether anything of the first still lives.
    trees.grow(
        r"""
        for file in /proc/[0-9]*/environ; do
          mapfile -d '' -t environment <"$file"
          [[ " ${environment[*]} " == *" ORCHESTRA_RUN_DIR=$ORCHESTRA_RUN_DIR "* ]] &&
            printf '%s\n' "${environment[@]}" | grep '^ORCHESTRA_ATTEMPT=' >>"$ORCHESTRA_OUT/seen"
        done 2>/dev/null
        """
        + _IGNORES_TERM
    )
    first = set(trees.alive())
    trees.kill_launcher()
    assert set(trees.alive()) == first
    (trees.path / "mark-W-ready").unlink()
    answer = trees.root("retry", "t", "W", "--no-throttle")
    assert (answer.code, answer.names("spawned")) == (0, ["W"])
    wait_until((trees.path / "mark-W-ready").exists, "the second tree")
    assert not first & set(trees.alive())
    seen = (trees.run_dir / "out-W" / "seen").read_text().split()
    assert set(seen) == {"ORCHESTRA_ATTEMPT=2"}


def test_launcher_and_worker_killed_is_lost_and_can_be_retried(trees: Trees) -> None:
    trees.grow("ready; leaf main")
    main, launcher = trees.main(), trees.launcher()
    os.kill(launcher, signal.SIGKILL)
    os.kill(main, signal.SIGKILL)
    wait_until(lambda: not (_lives(main) or _lives(launcher)), "the end of both")
    answer = trees.root("wait", "t")
    assert (answer.code, answer.json["workers"][0]["verdict"]) == (1, "lost")
    answer = trees.root("retry", "t", "--no-throttle")
    assert (answer.code, answer.names("spawned")) == (0, ["W"])
    assert trees.root.worker("t", "W")["attempt"] == 2


def test_the_temporary_directory_goes_with_an_attempt_whose_launcher_was_killed(trees: Trees) -> None:
    trees.grow('printf %s "$TMPDIR" >"$ORCHESTRA_OUT/tmpdir"\nready; leaf main')
    tmp_dir = Path((trees.run_dir / "out-W" / "tmpdir").read_text())
    assert tmp_dir.is_dir()
    trees.kill_launcher()
    trees.root("unlock", "t")
    left = tmp_dir.exists()
    shutil.rmtree(tmp_dir, ignore_errors=True)
    assert not left


# --- identity -------------------------------------------------------------------------------


def _forge_mark(trees: Trees, **fields: Any) -> None:
    path = trees.run_dir / ".pid-W.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}) + "\n")


def _forget_the_sign_of_life(trees: Trees) -> None:
    """As if the narrator had died before it could record it: then the mark is all there is."""
    log = trees.run_dir / "events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if '"kind":"spawned"' not in line))


def test_a_mark_whose_pid_belongs_to_another_process_is_lost(trees: Trees) -> None:
    trees.grow("ready; leaf main")
    start = trees.root.mark("t", "W")["process_start"]
    _forget_the_sign_of_life(trees)
    _forge_mark(trees, process_start=start + 1)
    worker = trees.root.worker("t", "W")
    assert (worker["state"], worker["verdict"]) == ("failed", "lost")


def test_stop_does_not_signal_a_stranger_that_has_the_pid_of_a_mark(trees: Trees) -> None:
    trees.grow("ready; leaf main")
    trees.kill_launcher()
    with subprocess.Popen(["sleep", "300"], env={"OF": str(trees.path)}) as stranger:
        _forge_mark(trees, pid=stranger.pid)
        trees.root("stop", "t", "--grace", "0")
        trees.root("retry", "t", "--no-throttle")
        assert _lives(stranger.pid)
        stranger.kill()


def test_a_late_result_of_an_abandoned_attempt_changes_nothing(trees: Trees) -> None:
    trees.grow("ready; leaf main")
    first = trees.launcher()
    os.kill(first, signal.SIGSTOP)
    _forget_the_sign_of_life(trees)
    _forge_mark(trees, process_start=1)  # as if its launcher were gone: nobody ends it
    events = trees.run_dir / "events.jsonl"
    assert trees.root("wait", "t").json["workers"][0]["verdict"] == "lost"
    answer = trees.root("retry", "t", "--no-throttle")
    assert (answer.code, answer.names("spawned")) == (0, ["W"])
    before = events.read_bytes()
    if _lives(first):
        os.kill(first, signal.SIGCONT)
        wait_until(lambda: not _lives(first), "the end of the first launcher")
    late = trees.run_dir / "attempts" / "W" / "1" / "result.json"
    if not late.exists():
        late.write_text('{"worker":"W","attempt":1,"status":"done","verdict":null}\n')
    assert not (trees.run_dir / "result-W.json").exists()
    status = trees.root("status", "t").json
    assert [(w["state"], w["attempt"]) for w in status["workers"]] == [("running", 2)]
    assert {"kind": "late_result", "worker": "W", "attempt": 1} in status["alerts"]
    assert events.read_bytes() == before
    trees.root("stop", "t")
    assert trees.root.result("t", "W")["attempt"] == 2


# --- what is resident -----------------------------------------------------------------------


def test_one_bash_for_each_worker_is_all_that_stays(trees: Trees) -> None:
    names = ["A", "B", "C"]
    for name in names:
        trees.grow("ready; leaf main", name)
    expected = {trees.launcher(name) for name in names}
    trees_own = {pid for name in names for pid in trees.alive(name)}
    ours = set(processes_of(trees.path)) - trees_own
    assert ours == expected
    assert {Path(f"/proc/{pid}/comm").read_text().strip() for pid in ours} == {"bash"}


def test_nothing_is_resident_once_all_workers_have_ended(trees: Trees) -> None:
    trees.grow("ready; exit 0")
    wait_until(lambda: processes_of(trees.path) == [], "the launcher's end")


def test_a_worker_inherits_no_descriptor_of_the_narrator(trees: Trees) -> None:
    read_end, write_end = os.pipe()
    row = {"name": "W", "brief": "b", "command": ["bash", "-c", "ls -l /proc/self/fd; exec sleep 300"]}
    done = subprocess.run(
        orchestra_argv("spawn", "t", "--from", "-", "--no-throttle"),
        env=clean_environment(ORCHESTRA_ROOT=str(trees.root.path)),
        input=json.dumps([row]),
        text=True,
        capture_output=True,
        pass_fds=[write_end],
        timeout=60,
    )
    assert done.returncode == 0, done
    os.close(write_end)
    os.set_blocking(read_end, False)
    assert os.read(read_end, 1) == b""  # all who could write are gone
    os.close(read_end)


# --- by hand --------------------------------------------------------------------------------


def _by_hand(script: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(script)], env=clean_environment(**env), capture_output=True, text=True, timeout=60
    )


def test_a_launcher_run_a_second_time_starts_no_second_worker(trees: Trees) -> None:
    trees.grow("ready; leaf main")
    before = sorted(processes_of(trees.path))
    assert _by_hand(trees.run_dir / ".run-W.sh").returncode == 75
    assert sorted(processes_of(trees.path)) == before
    assert trees.root.worker("t", "W")["state"] == "running"


def test_a_launcher_run_again_after_its_end_starts_no_second_worker(trees: Trees) -> None:
    trees.grow('echo started >>"$mark-starts"; ready; exit 0')
    before = trees.result()
    wait_until(lambda: processes_of(trees.path) == [], "the launcher's end")
    assert _by_hand(trees.run_dir / ".run-W.sh").returncode == 75
    assert (trees.path / "mark-W-starts").read_text() == "started\n"
    assert trees.result() == before


_DIE_BEFORE_LAUNCH = """
import os, sys
from orchestra.backend.local import LocalBatch
from orchestra.cli.main import main
LocalBatch.launch = lambda *_: os.kill(os.getpid(), 9)
sys.argv[0] = "orchestra"
main()
"""


def _abandon(trees: Trees, script: str, **entry: Any) -> Path:
    """A spawn whose narrator dies with everything written and nothing started; the launcher's path."""
    row = {"name": "W", "brief": "b", "command": trees.command(script), **entry}
    done = subprocess.run(
        [sys.executable, "-c", _DIE_BEFORE_LAUNCH, "spawn", "t", "--from", "-", "--no-throttle"],
        env=clean_environment(ORCHESTRA_ROOT=str(trees.root.path)),
        input=json.dumps([row]),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done
    wait_until(lambda: processes_of(trees.path) == [], "the end of all")
    return trees.run_dir / ".run-W.sh"


def test_a_launcher_that_nobody_started_runs_by_hand(trees: Trees) -> None:
    script = _abandon(trees, f'{_ORPHAN}\necho "hello $ORCHESTRA_WORKER"\nready; exit 0')
    done = _by_hand(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert trees.root.result("t", "W")["status"] == "done"
    assert (trees.run_dir / "log-W.out").read_text() == "hello W\n"
    assert processes_of(trees.path) == []
    assert trees.root.worker("t", "W")["state"] == "done"


def test_a_result_is_on_the_disk_before_it_has_its_name(trees: Trees) -> None:
    """Else a power failure leaves an empty one. The launcher calls `sync` for that."""
    script = _abandon(trees, "true")
    result, told = trees.run_dir / "attempts/W/1/result.json", trees.path / "synced"
    sync = trees.path / "bin" / "sync"
    sync.parent.mkdir()
    sync.write_text(f'#!/bin/sh\n[ -e {result} ] || cat -- "$2" >{told}\nexec {shutil.which("sync")} "$@"\n')
    sync.chmod(0o755)
    assert _by_hand(script, PATH=f"{sync.parent}:{os.environ['PATH']}").returncode == 0
    assert told.read_text() == result.read_text()


def test_the_result_of_an_attempt_that_was_given_up_is_not_told_as_the_workers(trees: Trees) -> None:
    """Another attempt's mark stands by the time it ends."""
    script = _abandon(trees, "rm .pid-W.json; echo other >.pid-W.json", cwd=str(trees.run_dir))
    assert _by_hand(script).returncode == 0
    kept = json.loads((trees.run_dir / "attempts/W/1/result.json").read_text())
    assert kept["status"] == "done"
    assert not (trees.run_dir / "result-W.json").exists()


def test_a_launcher_run_by_hand_enforces_the_timeout_over_the_tree(trees: Trees) -> None:
    script = _abandon(trees, _SETSID, timeout="1s")
    assert _by_hand(script).returncode == 0
    assert trees.root.result("t", "W")["verdict"] == "timeout"
    assert processes_of(trees.path) == []


def test_what_was_started_by_hand_can_be_stopped(trees: Trees) -> None:
    script = _abandon(trees, _SETSID_TWICE)
    with subprocess.Popen(["bash", str(script)], env=clean_environment()) as launcher:
        wait_until((trees.path / "mark-W-ready").exists, "the tree")
        assert trees.root.worker("t", "W")["state"] == "running"
        answer, _ = trees.stop()
        assert [row["verdict"] for row in answer.json["stopped"]] == ["stopped"]
        assert launcher.wait(timeout=30) == 0
    assert processes_of(trees.path) == []


def test_what_a_launcher_of_another_name_started_has_its_grace(trees: Trees) -> None:
    tidies = "trap 'sleep 0.5; echo tidy >\"$mark-tidy\"; exit 0' TERM\nready; sleep 300 & wait"
    copy = _abandon(trees, tidies).rename(trees.path / "by-another-name.sh")
    with subprocess.Popen(["bash", str(copy)], env=clean_environment()) as launcher:
        wait_until((trees.path / "mark-W-ready").exists, "the tree")
        assert trees.root.worker("t", "W")["state"] == "running"
        answer, _ = trees.stop("--grace", "60")
        assert (trees.path / "mark-W-tidy").read_text() == "tidy\n"
        assert answer.names("stopped") == ["W"]
        assert trees.root("explain", "t", "W").json["worker"]["reason"] != "stopped before it was started"
        launcher.wait(timeout=30)


def test_what_was_started_by_hand_among_other_pids_is_not_lost(trees: Trees) -> None:
    script = _abandon(trees, 'echo started >>"$mark-starts"; ready; leaf main')
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("NOT RUN: a launcher in another PID namespace (unshare --pid is not to be had here)")
    with subprocess.Popen([*unshare, "bash", str(script)], env=clean_environment()) as launcher:
        wait_until((trees.path / "mark-W-ready").exists, "the tree")
        assert trees.root.worker("t", "W")["state"] == "running"
        assert trees.root("wait", "t", "--timeout", "0").code == 5
        assert trees.root("spawn", "t", "--no-throttle").code == 0
        assert (trees.path / "mark-W-starts").read_text() == "started\n"
        launcher.kill()


def test_what_was_started_by_hand_is_not_started_again_by_spawn(trees: Trees) -> None:
    script = _abandon(trees, 'echo started >>"$mark-starts"; ready; leaf main')
    with subprocess.Popen(["bash", str(script)], env=clean_environment()) as launcher:
        wait_until((trees.path / "mark-W-ready").exists, "the tree")
        assert trees.root("spawn", "t", "--no-throttle").code == 0
        assert (trees.path / "mark-W-starts").read_text() == "started\n"
        assert trees.root.worker("t", "W")["state"] == "running"
        trees.stop()
        launcher.wait(timeout=30)


def test_a_spawn_picks_up_what_a_dead_narrator_left_unstarted(trees: Trees) -> None:
    _abandon(trees, 'echo started >>"$mark-starts"; ready; exit 0')
    answer = trees.root("spawn", "t", "--no-throttle")
    assert (answer.code, answer.names("spawned")) == (0, ["W"])
    assert trees.result()["status"] == "done"
    assert (trees.path / "mark-W-starts").read_text() == "started\n"


def test_a_pipe_in_the_place_of_a_launchers_own_words_holds_nobody_up(trees: Trees) -> None:
    _abandon(trees, "true")
    os.mkfifo(trees.run_dir / "attempts/W/1/launcher.err")
    (failed,) = trees.root("spawn", "t", "--no-throttle", timeout=20).json["failed"]
    assert failed["reason"] == "its launcher could not be started: No such device or address"


def test_what_was_stopped_before_it_started_cannot_start_any_more(trees: Trees) -> None:
    script = _abandon(trees, 'echo started >>"$mark-starts"; ready; exit 0')
    answer, _ = trees.stop("W")
    assert [row["verdict"] for row in answer.json["stopped"]] == ["stopped"]
    _by_hand(script)  # a launcher that comes up late
    assert not (trees.path / "mark-W-starts").exists()


_HOOK = r"""
# As soon as the launcher is about to run a command that looks like {pattern}, once, this is done.
hook() {
  [[ -z ${HOOKED-} && $1 == {pattern} ]] || return 0
  HOOKED=yes
  printf '%s\n' "$1" >{fired}
  {action}
}
trap 'hook "$BASH_COMMAND"' DEBUG
"""


def _hook(trees: Trees, script: Path, pattern: str, action: str) -> Path:
    """Makes a launcher do `action` before that command; returns what tells that it did."""
    fired = trees.path / "hook-fired"
    hook = _HOOK.replace("{pattern}", pattern).replace("{action}", action)
    _insert(script, hook.replace("{fired}", shlex.quote(str(fired))))
    return fired


def _insert(script: Path, text: str) -> None:
    """At the beginning of a launcher, behind its first line."""
    first, rest = script.read_text().split("\n", 1)
    script.write_text(f"{first}\n{text}\n{rest}")


def test_a_launcher_that_was_given_up_as_it_claimed_starts_nothing_when_it_comes_back(trees: Trees) -> None:
    script = _abandon(trees, 'echo "$ORCHESTRA_ATTEMPT" >>"$mark-starts"; ready; leaf main')
    mark = trees.run_dir / ".pid-W.json"
    _insert(
        script, "set -T\ntrap '[[ $BASH_COMMAND != *printf*\\$claim* || ! -e $mark ]] || kill -STOP $$' DEBUG"
    )
    with subprocess.Popen(["bash", str(script)], env=clean_environment()) as first:
        wait_until(lambda: _state(first.pid) == "T", "the launcher's stop")
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
    script = _abandon(trees, "ready; leaf main")
    fired = _hook(trees, script, "asked=*", 'until is_gone "$pid"; do :; done')
    with subprocess.Popen(["bash", str(script)], env=clean_environment()):
        wait_until((trees.path / "mark-W-ready").exists, "the tree")
        answer, _ = trees.stop("--grace", "0")
    assert fired.exists()
    assert [row["verdict"] for row in answer.json["stopped"]] == ["stopped"]
    assert trees.result()["reason"] == "stopped on request"


@pytest.mark.parametrize("fault", ["unset -v why", "end_tree() { false; }"], ids=["EXIT", "ERR"])
def test_a_launcher_that_fails_with_its_worker_at_work_ends_it_and_says_so(trees: Trees, fault: str) -> None:
    script = _abandon(trees, _SETSID)
    fired = _hook(trees, script, "asked=*", fault)
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
    script = _abandon(trees, "exit 3")
    script.write_text(re.sub(r"^argv=.*$", "argv=(/no/such/command)", script.read_text(), flags=re.MULTILINE))
    done = _by_hand(script)
    assert done.returncode == 70
    assert done.stderr.startswith("W could not start: command not found or not executable")


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
    script = _abandon(trees, _SETSID)
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
    trees.grow(_SETSID)
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
    script = _abandon(trees, "leaf left &\nready; exit 0")
    ends = 'while { read -r line <"/proc/$pid/stat"; } 2>/dev/null && [[ ${line##*) } != Z* ]]; do :; done'
    fired = _hook(trees, script, "reap*", f"{ends}; kill -ALRM $$")
    done = _by_hand(script)
    assert (fired.exists(), done.returncode) == (True, 0)
    assert trees.result()["status"] == "done"
    assert processes_of(trees.path) == []


def test_an_end_that_bash_has_forgotten_is_not_told_as_exit_status_127(trees: Trees) -> None:
    script = _abandon(trees, "ready; exit 0")
    fired = _hook(
        trees, script, "asked=*", "why=timeout by_itself=''; wait() { return 127; }; jobs() { return 1; }"
    )
    done = _by_hand(script)
    assert (fired.exists(), done.returncode) == (True, 0)
    assert (trees.result()["verdict"], trees.result()["exit_code"]) == ("timeout", None)


@pytest.mark.parametrize("before", ["umask*", "wait*"])
@pytest.mark.parametrize(("told", "verdict"), [("ALRM", "timeout"), ("USR1", "stopped"), ("HUP", "signal")])
def test_a_launcher_that_is_told_to_end_on_its_way_says_why(
    trees: Trees, told: str, verdict: str, before: str
) -> None:
    script = _abandon(trees, "ready; leaf main", timeout="1h")
    fired = _hook(trees, script, before, f"kill -{told} $$")
    _insert(script, "set -T")  # also what its functions run
    done = _by_hand(script)
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
    script = _abandon(trees, "ready; leaf main", timeout="1s")
    fired = _hook(trees, script, "set?+m", "trap '' ALRM; sleep 1.5; trap 'why=timeout' ALRM")
    assert _by_hand(script).returncode == 0
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
    (helpers / "grep").write_text(f'#!/bin/sh\n: >"{helpers}/asked"; sleep 4; exec /bin/grep "$@"\n')
    (helpers / "grep").chmod(0o755)
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
    script = _abandon(trees, "exit 3")
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


# --- the worker's environment ---------------------------------------------------------------


_LAUNCHER_WORDS = [
    *("worker", "attempt", "token", "run_dir", "tmp_dir", "prompt_file", "out", "stdin", "cwd", "argv"),
    *("expect", "reason", "why", "mark", "sentinel", "here", "supervised", "status", "pid", "host", "tree"),
]


def test_the_environment_reaches_the_worker_whatever_its_names(trees: Trees) -> None:
    given = {word: f"mine-{word}" for word in _LAUNCHER_WORDS}
    row = {"name": "W", "brief": "b", "command": ["env", "-0"]}
    answer = trees.root("spawn", "t", "--from", "-", "--no-throttle", stdin=json.dumps([row]), env=given)
    assert answer.code == 0
    trees.result()
    seen = (trees.run_dir / "log-W.out").read_text().split("\0")
    assert {f"{k}={v}" for k, v in given.items()} - set(seen) == set()


def test_the_plans_environment_does_not_change_what_the_launcher_does(trees: Trees) -> None:
    given = {word: f"mine-{word}" for word in _LAUNCHER_WORDS}
    answer = trees.root.spawn("t", {"W": ["env", "-0"]}, env=given)
    assert answer.code == 0
    assert trees.result()["status"] == "done"
    seen = dict(pair.split("=", 1) for pair in (trees.run_dir / "log-W.out").read_text().split("\0") if pair)
    assert given.items() <= seen.items()
    assert seen["ORCHESTRA_WORKER"] == "W"
    assert seen["ORCHESTRA_RUN_DIR"] == str(trees.run_dir)
    assert seen["ORCHESTRA_TOKEN"] == trees.root.mark("t", "W")["token"]


def _in_german(trees: Trees, command: list[str]) -> dict[str, Any]:
    row = {"name": "W", "brief": "b", "command": command}
    german = {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "LANGUAGE": "de"}
    trees.root("spawn", "t", "--from", "-", "--no-throttle", stdin=json.dumps([row]), env=german)
    return trees.result()


def test_a_verdict_does_not_hang_on_the_language_of_bash(trees: Trees) -> None:
    result = _in_german(trees, ["bash", "-c", "exit 137"])
    assert (result["verdict"], result["exit_code"]) == ("exit_code", 137)


def test_a_command_that_cannot_be_executed_is_told_in_any_language(trees: Trees) -> None:
    bad = trees.path / "bad-interpreter"
    bad.write_text("#!/nonexistent/interpreter\n")
    bad.chmod(0o700)
    assert _in_german(trees, [str(bad)])["verdict"] == "spawn_error"


# --- output and disk ------------------------------------------------------------------------


def test_a_worker_may_print_a_great_deal_at_once(trees: Trees) -> None:
    size = 1_000_000_000 if LONG else 200_000_000
    log = trees.run_dir / "log-W.out"
    try:
        trees.grow(f"ready; yes 0123456789abcdef | head -c {size}; echo; echo end")
        assert trees.result()["status"] == "done"
        assert log.stat().st_size == size + len("\nend\n")
        began = time.monotonic()
        assert trees.root("logs", "t", "W", "--tail", "1").json["text"].strip() == "end"
        assert time.monotonic() - began < IMPATIENT_S
    finally:
        log.unlink(missing_ok=True)


class SmallDisk:
    """A tmpfs in a mount namespace of its own, held by a sleeping process."""

    def __init__(self, path: Path, size: str) -> None:
        path.mkdir()
        script = 'mount -t tmpfs -o "size=$1" none "$2" && echo up && exec -a "$2" sleep 600'
        self.holder = subprocess.Popen(
            ["unshare", "-m", "bash", "-c", script, "disk", size, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.holder.stdout is not None
        self.up = self.holder.stdout.readline() == "up\n"
        self.path = path

    def seen(self, *parts: str) -> Path:
        """A path on the disk, as it can be opened from outside."""
        return Path(f"/proc/{self.holder.pid}/root{self.path}", *parts)

    def __call__(self, *words: str, stdin: str = "") -> Answer:
        inside = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--"]
        done = subprocess.run(
            [*inside, *orchestra_argv(*words, "--root", str(self.path))],
            env=clean_environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Answer(done.returncode, json.loads(done.stdout or "{}"), done.stdout, done.stderr)

    def close(self) -> None:
        self.holder.kill()
        self.holder.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "disk", "2m")
    if not disk.up:
        disk.close()
        pytest.skip(
            "NOT RUN: a worker that fills a small disk (no tmpfs can be mounted with unshare -m here)"
        )
    yield disk
    for pid in processes_of(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    disk.close()


def _fill_and(last: str) -> list[dict[str, Any]]:
    script = f'cat /dev/zero >"$ORCHESTRA_OUT/fill"; : >"$ORCHESTRA_OUT/full"; {last}'
    return [{"name": "W", "brief": "b", "command": ["bash", "-c", script]}]


@pytest.mark.parametrize(("code", "verdict"), [(0, None), (3, "exit_code"), (137, "exit_code")])
def test_a_full_disk_does_not_silence_the_result(
    small_disk: SmallDisk, code: int, verdict: str | None
) -> None:
    assert small_disk("init", "t").code == 0
    rows = json.dumps(_fill_and(f"exit {code}"))
    assert small_disk("spawn", "t", "--from", "-", "--no-throttle", stdin=rows).code == 0
    wait_until(small_disk.seen("t", "attempts", "W", "1", "result.json").exists, "the result")
    worker = small_disk("status", "t").json["workers"][0]
    state = "failed" if code else "done"
    assert (worker["state"], worker["verdict"], worker["exit_code"]) == (state, verdict, code)
    answer = small_disk("wait", "t", "--timeout", "5")
    assert answer.json["outcome"] == ("failed" if code else "ended")


def test_a_worker_can_be_stopped_on_a_full_disk(small_disk: SmallDisk) -> None:
    assert small_disk("init", "t").code == 0
    rows = json.dumps(_fill_and("sleep 300"))
    assert small_disk("spawn", "t", "--from", "-", "--no-throttle", stdin=rows).code == 0
    wait_until(small_disk.seen("t", "out-W", "full").exists, "the full disk")
    small_disk("stop", "t", "--grace", "1")
    left = [pid for pid in processes_of(small_disk.path) if pid != small_disk.holder.pid]
    assert left == []


# --- many at once ---------------------------------------------------------------------------


def test_stop_ends_twenty_trees_of_all_kinds_at_once(trees: Trees) -> None:
    kinds = [_FORKS, _SETSID_TWICE, _CLEAN_ENVIRONMENT, _STOPPED]
    commands = {f"W{i}": trees.command(kinds[i % len(kinds)], f"W{i}") for i in range(20)}
    answer = trees.root.spawn("t", commands)
    assert answer.code == 0
    for name in commands:
        wait_until((trees.path / f"mark-{name}-ready").exists, "the tree")
    answer, _ = trees.stop("--grace", "3")
    assert len(answer.json["stopped"]) == 20
    assert processes_of(trees.path) == []
