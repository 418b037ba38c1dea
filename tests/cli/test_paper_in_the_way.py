"""What stands in the way of a worker's papers, or of all that is written, is named."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Root, clean_environment, orchestra_argv

IN_THE_WAY: dict[str, Callable[[Path], None]] = {
    "attempts": Path.touch,
    "attempts/W": Path.touch,
    "out-W": Path.touch,
    ".run-W.sh": Path.mkdir,
    "brief-W.md": Path.mkdir,
    "result-W.json": Path.mkdir,
}


@pytest.mark.parametrize("place", IN_THE_WAY)
def test_the_reason_names_what_stands_in_the_way(root: Root, place: str) -> None:
    root.init("r")
    path = root.run_dir("r") / place
    path.parent.mkdir(exist_ok=True)
    IN_THE_WAY[place](path)
    (failed,) = root.spawn("r", {"W": ["true"]}).json["failed"]
    expected = "not a directory" if path.is_file() else "Is a directory"
    assert failed["reason"] == f"could not start W ({path}): {expected}"
    os.rename(path, root.path / "aside")
    assert root("retry", "r", "W").names("spawned") == ["W"]


def test_a_file_where_the_attempt_before_is_to_be_kept_is_named(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["false"]})
    root("wait", "r")
    kept = root.run_dir("r") / "attempts" / "W" / "1"
    os.rename(kept, root.path / "aside")
    kept.touch()
    (failed,) = root("retry", "r", "W").json["failed"]
    assert failed["reason"] == f"could not start W ({kept}): not a directory"


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_stands_in_the_place_of_the_lock_is_named(root: Root, make: Callable[[Path], None]) -> None:
    root.init("r")
    lock = root.run_dir("r") / ".narrator.lock"
    make(lock)
    error = root.spawn("r", {"W": ["true"]}).json["error"]
    assert (error["code"], error["path"]) == ("storage", str(lock))
    assert "it is no directory: move it away" in error["message"]
    os.rename(lock, root.path / "aside")
    assert root.spawn("r", {"W": ["true"]}).names("spawned") == ["W"]


@pytest.mark.parametrize("verb", ["init", "spawn"])
def test_a_umask_that_takes_our_own_rights_is_refused_and_nothing_is_written(root: Root, verb: str) -> None:
    if verb == "spawn":
        root.init("r")
    before = sorted(root.path.rglob("*"))
    done = subprocess.run(
        orchestra_argv(verb, "r"),
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        capture_output=True,
        text=True,
        umask=0o477,
        timeout=60,
    )
    assert done.returncode == 2
    assert '"code":"usage"' in done.stdout
    assert "umask 0477" in done.stdout
    assert sorted(root.path.rglob("*")) == before
