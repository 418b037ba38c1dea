"""`oom` only with evidence: real workers that real limits kill, and some that only look like it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Answer, Root, clean_environment, orchestra_argv, wait_until

from orchestra.host import cgroup as cgroup_module
from orchestra.host import starter
from orchestra.host.memory_kills import memory_kills
from orchestra.model.launcher_body import BODY

CGROUPS = Path("/sys/fs/cgroup/memory")
HOG = "x = []\nwhile True: x.append(bytearray(1 << 20))"
NOT_KNOWN = "it is not known by whom"


class Cgroup:
    """A cgroup of ours with little memory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def join(self) -> str:
        """A line of shell after which the shell is in it."""
        return f"echo $$ >'{self.path}/cgroup.procs'"

    def spawn(self, root: Root, command: list[str]) -> Answer:
        """`orchestra spawn` from inside, so that the launcher is inside as well."""
        row = [{"name": "W", "brief": "b", "command": command}]
        script = f'{self.join()}; exec "$@"'
        done = subprocess.run(
            ["bash", "-c", script, "-", *orchestra_argv("spawn", "r", "--from", "-", "--no-throttle")],
            env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
            input=json.dumps(row), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return Answer(done.returncode, json.loads(done.stdout or "{}"), done.stdout, done.stderr)


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    path = CGROUPS / f"orchestra-test-{os.getpid()}"
    try:
        path.mkdir()
        (path / "memory.limit_in_bytes").write_text("128M")
        if (swap := path / "memory.memsw.limit_in_bytes").exists():
            swap.write_text("128M")
    except OSError as error:
        if path.exists():
            path.rmdir()
        pytest.skip(f"NOT RUN: real memory kills need a memory cgroup (v1) that can be made here: {error}")
    yield Cgroup(path)
    wait_until(lambda: not (path / "cgroup.procs").read_text(), "the end of all in the cgroup")
    path.rmdir()


def verdict(root: Root) -> tuple[str | None, str | None, int | None, int | None]:
    root("wait", "r", "--timeout", "60")
    row = root.worker("r", "W")
    return row["verdict"], row["retry"], row["signal"], row["exit_code"]


def test_a_worker_that_the_kernel_killed_in_its_cgroup_is_oom(root: Root, cgroup: Cgroup) -> None:
    root.init("r")
    cgroup.spawn(root, [sys.executable, "-c", HOG])
    assert verdict(root) == ("oom", "later", 9, None)
    reason = root.worker("r", "W")["reason"]
    assert "ended by SIGKILL; while it ran, the kernel killed 1 in its cgroup for want of memory" in reason
    assert root.result("r", "W")["verdict"] == "oom"
    story = root("explain", "r", "W").json["worker"]
    assert "max_workers" in story["meaning"]


@pytest.mark.parametrize(("then", "code"), [("exit $?", 137), ("exit 3", 3)])
def test_a_shell_whose_child_the_kernel_killed_is_oom(
    root: Root, cgroup: Cgroup, then: str, code: int
) -> None:
    root.init("r")
    cgroup.spawn(root, ["bash", "-c", f"{sys.executable} -c '{HOG}'; {then}"])
    assert verdict(root) == ("oom", "later", None, code)


def test_the_counter_alone_is_no_evidence(root: Root, cgroup: Cgroup) -> None:
    root.init("r")
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOG!r}]); sys.exit(3)"
    cgroup.spawn(root, [sys.executable, "-c", parent])
    assert verdict(root)[0] == "exit_code"
    assert "oom_kill 1" in (cgroup.path / "memory.oom_control").read_text()


def test_a_worker_killed_by_somebody_else_is_a_signal_and_says_what_is_not_known(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["bash", "-c", "kill -KILL $$"]})
    assert verdict(root) == ("signal", "now", 9, None)
    assert NOT_KNOWN in root.worker("r", "W")["reason"]


def test_one_in_the_cgroup_that_was_killed_by_hand_is_a_signal(root: Root, cgroup: Cgroup) -> None:
    root.init("r")
    cgroup.spawn(root, ["bash", "-c", "kill -KILL $$"])
    assert verdict(root)[0] == "signal"


def test_the_kernels_log_tells_of_a_worker_in_a_cgroup_of_its_own(root: Root, cgroup: Cgroup) -> None:
    root.init("r")
    before = set(memory_kills())  # a full log loses an old one for each that comes
    hog = f"{cgroup.join()}; exec {sys.executable} -c '{HOG}'"
    root.spawn("r", {"W": ["bash", "-c", hog]})
    told = verdict(root)
    if not set(memory_kills()) - before:
        pytest.skip("NOT RUN: the kernel's log cannot be read here, or its PIDs are not ours")
    assert told == ("oom", "later", 9, None)
    row = root.worker("r", "W")
    assert f"Killed process {root.result('r', 'W')['worker_pid']} (" in row["reason"]
    root("spawn", "r")  # the next command that changes the run tells it in the flat result as well
    assert root.result("r", "W")["verdict"] == "oom"


# --- the counter, in cgroups that this machine does not have ------------------------------------------

V2 = "low 0\nhigh 7\nmax 9\noom 5\noom_kill 3\noom_group_kill 1\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"


@pytest.mark.parametrize(
    ("version", "file"), [("cgroup2", "memory.events"), ("cgroup", "memory.oom_control")]
)
def test_the_counter_is_that_of_our_own_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, file: str
) -> None:
    own = tmp_path / "a:b c"
    own.mkdir()
    for group in (own, tmp_path):
        (group / file).touch()
    lineage = [cgroup_module.Group(str(group), version) for group in (own, tmp_path)]
    monkeypatch.setattr(cgroup_module, "lineage", lambda controller: lineage)
    assert cgroup_module.kill_counter() == f"{own}/{file}"
    (own / file).unlink()
    assert cgroup_module.kill_counter() == ""


def test_without_cgroups_there_is_no_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_module, "lineage", lambda controller: [])
    assert cgroup_module.kill_counter() == ""


@pytest.mark.parametrize(("text", "number"), [(V2, "3"), (V1, "4"), ("", ""), ("oom 5\n", "")])
def test_before_and_after_the_counter_is_read_alike(tmp_path: Path, text: str, number: str) -> None:
    counter = tmp_path / "a counter"
    counter.write_text(text)
    assert starter.kills(os.fsencode(counter)) == number.encode()
    match = re.search(r"^memory_kills\(\).*?^}$", BODY, re.MULTILINE | re.DOTALL)
    assert match is not None
    script = f'set -euo pipefail\nkill_counter=$1\n{match[0]}\nmemory_kills\nprintf %s "$kills"'
    done = subprocess.run(
        ["bash", "-c", script, "-", str(counter)], capture_output=True, text=True, check=True
    )
    assert done.stdout == number


def test_a_counter_that_is_none_is_no_number(tmp_path: Path) -> None:
    assert starter.kills(b"") == starter.kills(os.fsencode(tmp_path)) == b""


def test_a_signal_other_than_sigkill_says_nothing_of_memory(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["bash", "-c", f"kill -{signal.SIGTERM} $$"]})
    verdict(root)
    assert NOT_KNOWN not in root.worker("r", "W")["reason"]
