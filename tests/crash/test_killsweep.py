"""Killed or failing at any system call, the next command puts it right: a sample of scripts/killsweep."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def killsweep(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "killsweep.d" / "killsweep.py"), *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


def strace_or_skip() -> None:
    if shutil.which("strace") is None:
        pytest.skip("NOT RUN: killing orchestra at each system call needs strace (apt-get install strace)")
    tried = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"NOT RUN: strace may not trace here: {tried.stderr.strip()}")


@pytest.mark.timeout(300)
def test_at_a_sample_of_all_points_nothing_is_lost_and_nothing_is_started_twice() -> None:
    strace_or_skip()
    done = killsweep("--short")
    assert done.returncode == 0, f"{done.stderr[-6000:]}\n{done.stdout}"
    assert " 0 failures" in done.stdout


@pytest.mark.timeout(300)
def test_the_same_holds_where_a_long_log_is_read_on_from_its_checkpoint() -> None:
    strace_or_skip()
    done = killsweep(
        "--short", "--long", "--kill-only", "--sweep", "spawn/narrator", "--sweep", "retry/narrator"
    )
    assert done.returncode == 0, f"{done.stderr[-6000:]}\n{done.stdout}"
    assert " 0 failures" in done.stdout


def test_without_strace_the_sweep_says_how_to_get_it(tmp_path: Path) -> None:
    for tool in ("bash", "env", "dirname", "python3"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "/nowhere")
    done = killsweep("--short", PATH=str(tmp_path))
    assert done.returncode != 0
    assert "apt-get install strace" in done.stderr


def test_a_point_that_is_none_is_refused() -> None:
    strace_or_skip()
    done = killsweep("--only", "spawn/nobody/KILL/write/1")
    assert done.returncode != 0
    assert "is no point" in done.stderr


def test_the_sweep_explains_itself() -> None:
    done = subprocess.run([str(SCRIPTS / "killsweep"), "--help"], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0
    assert all(
        word in done.stdout
        for word in ("--short", "--long", "--kill-only", "--errors-only", "--only", "--jobs")
    )
