"""Launchers that a person runs, where a narrator died before it started them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from conftest import clean_environment, processes_of, wait_until
from grown import ORPHAN, SETSID, SETSID_TWICE, Trees, abandon, by_hand


def test_a_launcher_run_a_second_time_starts_no_second_worker(trees: Trees) -> None:
    trees.grow("ready; leaf main")
    before = sorted(processes_of(trees.path))
    assert by_hand(trees.run_dir / ".run-W.sh").returncode == 75
    assert sorted(processes_of(trees.path)) == before
    assert trees.root.worker("t", "W")["state"] == "running"


def test_a_launcher_run_again_after_its_end_starts_no_second_worker(trees: Trees) -> None:
    trees.grow('echo started >>"$mark-starts"; ready; exit 0')
    before = trees.result()
    wait_until(lambda: processes_of(trees.path) == [], "the launcher's end")
    assert by_hand(trees.run_dir / ".run-W.sh").returncode == 75
    assert (trees.path / "mark-W-starts").read_text() == "started\n"
    assert trees.result() == before


def test_a_launcher_that_nobody_started_runs_by_hand(trees: Trees) -> None:
    script = abandon(trees, f'{ORPHAN}\necho "hello $ORCHESTRA_WORKER"\nready; exit 0')
    done = by_hand(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert trees.root.result("t", "W")["status"] == "done"
    assert (trees.run_dir / "log-W.out").read_text() == "hello W\n"
    assert processes_of(trees.path) == []
    assert trees.root.worker("t", "W")["state"] == "done"


def test_a_result_is_on_the_disk_before_it_has_its_name(trees: Trees) -> None:
    """Else a power failure leaves an empty one. The launcher calls `sync` for that."""
    script = abandon(trees, "true")
    result, told = trees.run_dir / "attempts/W/1/result.json", trees.path / "synced"
    sync = trees.path / "bin" / "sync"
    sync.parent.mkdir()
    sync.write_text(f'#!/bin/sh\n[ -e {result} ] || cat -- "$2" >{told}\nexec {shutil.which("sync")} "$@"\n')
    sync.chmod(0o755)
    assert by_hand(script, PATH=f"{sync.parent}:{os.environ['PATH']}").returncode == 0
    assert told.read_text() == result.read_text()


def test_the_result_of_an_attempt_that_was_given_up_is_not_told_as_the_workers(trees: Trees) -> None:
    """Another attempt's mark stands by the time it ends."""
    script = abandon(trees, "rm .pid-W.json; echo other >.pid-W.json", cwd=str(trees.run_dir))
    assert by_hand(script).returncode == 0
    kept = json.loads((trees.run_dir / "attempts/W/1/result.json").read_text())
    assert kept["status"] == "done"
    assert not (trees.run_dir / "result-W.json").exists()


def test_a_launcher_run_by_hand_enforces_the_timeout_over_the_tree(trees: Trees) -> None:
    script = abandon(trees, SETSID, timeout="1s")
    assert by_hand(script).returncode == 0
    assert trees.root.result("t", "W")["verdict"] == "timeout"
    assert processes_of(trees.path) == []


def test_what_was_started_by_hand_can_be_stopped(trees: Trees) -> None:
    script = abandon(trees, SETSID_TWICE)
    with subprocess.Popen(["bash", str(script)], env=clean_environment()) as launcher:
        wait_until((trees.path / "mark-W-ready").exists, "the tree")
        assert trees.root.worker("t", "W")["state"] == "running"
        answer, _ = trees.stop()
        assert [row["verdict"] for row in answer.json["stopped"]] == ["stopped"]
        assert launcher.wait(timeout=30) == 0
    assert processes_of(trees.path) == []


def test_what_a_launcher_of_another_name_started_has_its_grace(trees: Trees) -> None:
    tidies = "trap 'sleep 0.5; echo tidy >\"$mark-tidy\"; exit 0' TERM\nready; sleep 300 & wait"
    copy = abandon(trees, tidies).rename(trees.path / "by-another-name.sh")
    with subprocess.Popen(["bash", str(copy)], env=clean_environment()) as launcher:
        wait_until((trees.path / "mark-W-ready").exists, "the tree")
        assert trees.root.worker("t", "W")["state"] == "running"
        answer, _ = trees.stop("--grace", "60")
        assert (trees.path / "mark-W-tidy").read_text() == "tidy\n"
        assert answer.names("stopped") == ["W"]
        assert trees.root("explain", "t", "W").json["worker"]["reason"] != "stopped before it was started"
        launcher.wait(timeout=30)


def test_what_was_started_by_hand_among_other_pids_is_not_lost(trees: Trees) -> None:
    script = abandon(trees, 'echo started >>"$mark-starts"; ready; leaf main')
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
    script = abandon(trees, 'echo started >>"$mark-starts"; ready; leaf main')
    with subprocess.Popen(["bash", str(script)], env=clean_environment()) as launcher:
        wait_until((trees.path / "mark-W-ready").exists, "the tree")
        assert trees.root("spawn", "t", "--no-throttle").code == 0
        assert (trees.path / "mark-W-starts").read_text() == "started\n"
        assert trees.root.worker("t", "W")["state"] == "running"
        trees.stop()
        launcher.wait(timeout=30)


def test_a_spawn_picks_up_what_a_dead_narrator_left_unstarted(trees: Trees) -> None:
    abandon(trees, 'echo started >>"$mark-starts"; ready; exit 0')
    answer = trees.root("spawn", "t", "--no-throttle")
    assert (answer.code, answer.names("spawned")) == (0, ["W"])
    assert trees.result()["status"] == "done"
    assert (trees.path / "mark-W-starts").read_text() == "started\n"


def test_a_pipe_in_the_place_of_a_launchers_own_words_holds_nobody_up(trees: Trees) -> None:
    abandon(trees, "true")
    os.mkfifo(trees.run_dir / "attempts/W/1/launcher.err")
    assert trees.root("spawn", "t", "--no-throttle", timeout=20).names("spawned") == ["W"]
    assert trees.result()["status"] == "done"


def test_what_was_stopped_before_it_started_cannot_start_any_more(trees: Trees) -> None:
    script = abandon(trees, 'echo started >>"$mark-starts"; ready; exit 0')
    answer, _ = trees.stop("W")
    assert [row["verdict"] for row in answer.json["stopped"]] == ["stopped"]
    by_hand(script)  # a launcher that comes up late
    assert not (trees.path / "mark-W-starts").exists()
