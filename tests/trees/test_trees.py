"""Real process trees: whatever a worker starts ends with its attempt, and nothing is lost on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import clean_environment, orchestra_argv, processes_of, wait_until
from grown import (
    CLEAN_ENVIRONMENT,
    DEAF,
    FORKS,
    IGNORES_ALL,
    IGNORES_TERM,
    IMPATIENT_S,
    POLITE,
    SETSID,
    SETSID_TWICE,
    STOPPED,
    Trees,
    is_alive,
    state_of,
)

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
    trees.grow(IGNORES_TERM)
    _, took_s = trees.stop("--grace", "2")
    assert 2.0 <= took_s < IMPATIENT_S


def test_a_term_handler_has_time_to_tidy_up(trees: Trees) -> None:
    trees.grow("trap 'echo tidy >\"$ORCHESTRA_OUT/tidy\"; exit 0' TERM\nready; sleep 300 & wait")
    trees.stop()
    assert (trees.run_dir / "out-W" / "tidy").read_text() == "tidy\n"


@pytest.mark.parametrize("grace", ["0", "0.00001", "0.5"])
def test_any_small_grace_ends_a_deaf_tree_as_stopped(trees: Trees, grace: str) -> None:
    trees.grow(IGNORES_ALL)
    answer, took_s = trees.stop("--grace", grace)
    assert [row["verdict"] for row in answer.json["stopped"]] == ["stopped"]
    assert processes_of(trees.path) == []
    assert took_s < IMPATIENT_S


def test_several_deaf_trees_share_one_grace(trees: Trees) -> None:
    names = ["A", "B", "C"]
    for name in names:
        trees.grow(IGNORES_TERM, name)
    answer, took_s = trees.stop("--grace", "2")
    assert sorted(row["name"] for row in answer.json["stopped"]) == names
    assert processes_of(trees.path) == []
    assert took_s < 2 + IMPATIENT_S / 2


def test_stop_of_one_worker_leaves_the_other_alone(trees: Trees) -> None:
    trees.grow(FORKS, "A")
    trees.grow(SETSID_TWICE, "B")
    before = sorted(trees.alive("B"))
    trees.stop("A")
    assert trees.alive("A") == []
    assert sorted(trees.alive("B")) == before


def test_stop_ends_a_worker_whose_launcher_is_stopped(trees: Trees) -> None:
    trees.grow(SETSID)
    os.kill(trees.launcher(), signal.SIGSTOP)
    wait_until(lambda: state_of(trees.launcher()) == "T", "the launcher's stop")
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
    trees.grow(SETSID)
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
    trees.grow(SETSID_TWICE)
    trees.kill_launcher()
    if recorded == "seen_by_wait":
        answer = trees.root("wait", "t")
        assert (answer.code, answer.json["workers"][0]["verdict"]) == (1, "lost")
    assert trees.alive()
    trees.root(verb[0], "t", *verb[1:])
    assert trees.alive() == []


def test_what_a_dead_launcher_left_is_still_named_after_a_wait_has_recorded_it(trees: Trees) -> None:
    trees.grow(SETSID)
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
        + IGNORES_TERM
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
    wait_until(lambda: not (is_alive(main) or is_alive(launcher)), "the end of both")
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
        assert is_alive(stranger.pid)
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
    if is_alive(first):
        os.kill(first, signal.SIGCONT)
        wait_until(lambda: not is_alive(first), "the end of the first launcher")
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


# --- many at once ---------------------------------------------------------------------------


def test_stop_ends_twenty_trees_of_all_kinds_at_once(trees: Trees) -> None:
    kinds = [FORKS, SETSID_TWICE, CLEAN_ENVIRONMENT, STOPPED]
    commands = {f"W{i}": trees.command(kinds[i % len(kinds)], f"W{i}") for i in range(20)}
    answer = trees.root.spawn("t", commands)
    assert answer.code == 0
    for name in commands:
        wait_until((trees.path / f"mark-{name}-ready").exists, "the tree")
    answer, _ = trees.stop("--grace", "3")
    assert len(answer.json["stopped"]) == 20
    assert processes_of(trees.path) == []
