"""What `orchestra doctor` finds, under real conditions: full disks, dead holders, agents that hang."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Root, clean_environment, orchestra_argv, processes_of, wait_until

from orchestra.engine.doctor import Probe, carry_out, examine
from orchestra.host import cgroup, disk, kernel, load, process
from orchestra.model import checkup_tools
from orchestra.model.checkup import Cgroup, Check, Health
from orchestra.model.event import Event, encode

TOKEN = "0123456789abcdef"


def check(answer: Answer, name: str) -> dict[str, Any]:
    """The first line of that name."""
    rows: list[dict[str, Any]] = [row for row in answer.json["checks"] if row["check"] == name]
    assert rows, f"no {name!r} in {answer}"
    return rows[0]


def verdict(answer: Answer, name: str) -> str:
    told: str = check(answer, name)["verdict"]
    return told


def in_mounts(script: str, *words: str, root: Path, unshare: str = "-m", **env: str) -> Answer:
    """The command line behind a script that mounts, in namespaces of its own; $0 is the root."""
    if shutil.which("unshare") is None:
        pytest.skip("NOT RUN: no unshare here, so no mount of our own can be had")
    argv = [*orchestra_argv(*words), "--root", str(root)]
    done = subprocess.run(
        ["unshare", *unshare.split(), "sh", "-c", f'{{ {script}; }} || exit 99; exec "$@"', str(root), *argv],
        env=clean_environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == 99 or (not done.stdout and "unshare" in done.stderr):
        pytest.skip(f"NOT RUN: no namespace can be had here: {done.stderr.strip()}")
    return Answer(done.returncode, json.loads(done.stdout), done.stdout, done.stderr)


# --- the answer --------------------------------------------------------------------------


def test_every_line_says_what_was_checked_what_was_found_and_a_verdict(root: Root) -> None:
    answer = root("doctor")
    assert answer.json["ok"] is True
    assert {"command", "as_of", "next"} <= set(answer.json)
    for row in answer.json["checks"]:
        assert set(row) == {"check", "found", "verdict", "advice"}
        assert row["check"] and row["found"]
        assert row["verdict"] in ("ok", "warning", "bad", "unknown")
        if row["verdict"] in ("warning", "bad"):
            assert row["advice"], row
    assert answer.code == any(row["verdict"] == "bad" for row in answer.json["checks"])


def test_nothing_is_left_and_nothing_is_changed(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    root("wait", "r")
    wait_until(lambda: not processes_of(root.path), "the end of the launcher")
    before = {path: path.stat().st_mtime_ns for path in root.path.rglob("*") if path.is_file()}
    tmp = sorted(os.listdir(root.tmp))
    root("doctor", "r")
    assert {path: path.stat().st_mtime_ns for path in root.path.rglob("*") if path.is_file()} == before
    assert sorted(os.listdir(root.tmp)) == tmp


def test_people_get_a_table_with_one_line_for_each_check(root: Root) -> None:
    lines = root("doctor", "--text").stdout.splitlines()
    assert any("✓ ok" in line and "bash" in line for line in lines)
    assert " ok" in lines[-1]


def test_workers_of_a_run_whose_log_is_lost_are_not_told_to_be_killed(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    (root.run_dir("r") / "events.jsonl").unlink()
    answer = root("doctor", "r")
    row = check(answer, "leftover processes")
    assert (row["verdict"], row["advice"], "perhaps at work" in row["found"]) == ("unknown", None, True)
    assert answer.json["next"] == ["orchestra unlock r"]
    (root.run_dir("r") / "state.json").unlink()
    assert root("doctor", "r").json["next"] == []
    assert root("stop", "r").json["error"]["strays"][0]["worker"] == "W"


def test_who_is_stopped_is_told_with_what_wakes_it(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    launcher = root.mark("r", "W")["pid"]
    os.kill(launcher, signal.SIGSTOP)
    row = check(root("doctor", "r"), "workers")
    assert (row["verdict"], row["advice"]) == ("warning", f"kill -CONT {launcher}")


def test_what_is_wrong_with_the_run_that_is_asked_for_comes_first(root: Root) -> None:
    for run in ("mine", "other"):
        root.init(run)
        root.spawn(run, {"W": ["true"]})
        root("wait", run)
    dead_holder(root, "other")
    (root.run_dir("mine") / "events.jsonl").write_bytes(b"")
    assert root("doctor", "mine").json["next"][0] == "orchestra unlock mine"
    assert root("unlock", "mine").json["ok"]
    assert root.worker("mine", "W")["state"] == "done"


def test_a_root_that_does_not_exist_is_no_trouble(root: Root) -> None:
    answer = root("doctor", "--root", str(root.path / "not" / "yet"))
    assert "is not there yet" in check(answer, "root")["found"]
    assert str(root.path) in check(answer, "root")["found"]
    assert verdict(answer, "root") == "ok"
    assert verdict(answer, "root write") in ("ok", "warning")
    assert os.listdir(root.path) == []


def test_a_run_that_does_not_exist_is_bad_input(root: Root) -> None:
    answer = root("doctor", "nope")
    assert (answer.code, answer.json["error"]["code"]) == (2, "no_such_run")


# --- probes ------------------------------------------------------------------------------


def test_a_probe_that_hangs_or_throws_costs_only_its_own_line() -> None:
    def throws(_: threading.Event) -> list[Check]:
        raise RuntimeError("boo")

    def refuses(_: threading.Event) -> list[Check]:
        raise PermissionError(13, "Permission denied", "/proc/x")

    told: list[bool] = []

    def hangs(stop: threading.Event) -> list[Check]:
        told.append(stop.wait(30))
        return []

    (row,) = carry_out(Probe("a", throws))
    assert (row.verdict, "boo" in row.found) == (Health.UNKNOWN, True)
    (row,) = carry_out(Probe("b", refuses))
    assert row.found == "unknown: Permission denied (/proc/x)"
    began = time.monotonic()
    (row,) = examine([Probe("c", hangs, Health.BAD, 0.1)])
    assert time.monotonic() - began < 10
    assert (row.verdict, row.advice is not None) == (Health.BAD, True)
    wait_until(lambda: told == [True], "the probe to be told to stop")


def test_a_process_that_was_told_to_end_leaves_no_probe_and_no_agent(root: Root, fake_path: FakePath) -> None:
    fake_path.add("codex", "sleep 300")
    doctor = root.start("doctor", env=fake_path.env)
    wait_until(lambda: any(_runs(pid, "codex") for pid in processes_of(fake_path.bin)), "the agent")
    doctor.send_signal(signal.SIGTERM)
    out, _ = doctor.communicate(timeout=30)
    assert (doctor.returncode, json.loads(out)["error"]["code"]) == (130, "interrupted")
    wait_until(lambda: not processes_of(fake_path.bin), "the end of the agent")
    assert os.listdir(root.path) == []
    assert os.listdir(root.tmp) == []


def _runs(pid: int, word: str) -> bool:
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


# --- file systems ------------------------------------------------------------------------


def test_a_disk_that_is_almost_full_is_bad(root: Root) -> None:
    script = 'mount -t tmpfs -o size=4m none "$0" && head -c 3000000 /dev/zero >"$0/fill"'
    answer = in_mounts(script, "doctor", root=root.path)
    assert (answer.code, verdict(answer, "root space")) == (1, "bad")
    assert "of 4MiB free" in check(answer, "root space")["found"]
    assert check(answer, "root file system")["found"].startswith("tmpfs at ")
    assert verdict(answer, "root write") == "ok"


def test_a_disk_without_any_room_is_told_by_the_probe_file_too(root: Root) -> None:
    script = 'mount -t tmpfs -o size=1m none "$0" && ! cat /dev/zero >"$0/fill" 2>&-'
    answer = in_mounts(script, "doctor", root=root.path)
    assert (answer.code, verdict(answer, "root write")) == (1, "bad")
    assert "No space left" in check(answer, "root write")["found"]


def test_few_inodes_are_bad(root: Root) -> None:
    answer = in_mounts('mount -t tmpfs -o nr_inodes=100 none "$0"', "doctor", root=root.path)
    assert (answer.code, verdict(answer, "root inodes")) == (1, "bad")


def test_a_read_only_root_is_bad_and_is_not_written_to(root: Root) -> None:
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"'
    answer = in_mounts(script, "doctor", root=root.path)
    assert (answer.code, verdict(answer, "root")) == (1, "bad")
    assert "read-only" in check(answer, "root")["found"]
    assert verdict(answer, "root write") == "unknown"


def test_noexec_is_harmless_for_the_root_and_not_for_TMPDIR(root: Root) -> None:
    script = 'mount -t tmpfs -o noexec none "$0" && mkdir "$0/t"'
    answer = in_mounts(script, "doctor", root=root.path, TMPDIR=f"{root.path}/t")
    assert verdict(answer, "root noexec") == "ok"
    assert verdict(answer, "tmp noexec") == "warning"


def test_a_launcher_runs_where_nothing_may_be_executed(root: Root) -> None:
    """So that what doctor says of noexec is true."""
    script = 'mount -t tmpfs -o noexec none "$0" && echo b >"$0/b.md"'
    script += f' && {sys.executable} -m orchestra init r --root "$0" >&2'
    words = ["spawn", "r", "--worker", f"W={root.path}/b.md", "--no-throttle", "--", "true"]
    argv = [*orchestra_argv(*words[:5]), "--root", str(root.path), *words[5:]]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{{ {script}; }} || exit 99; exec "$@"', str(root.path), *argv],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == 99 or not done.stdout:
        pytest.skip(f"NOT RUN: no mount namespace can be had here: {done.stderr.strip()}")
    assert [row["name"] for row in json.loads(done.stdout)["spawned"]] == ["W"]


def test_a_TMPDIR_that_is_not_there_is_bad(root: Root) -> None:
    answer = root("doctor", env={"TMPDIR": str(root.path / "gone")})
    assert (answer.code, verdict(answer, "tmp")) == (1, "bad")


# A file system whose server never answers: nobody reads what the kernel asks through the descriptor.
HUNG = """
import ctypes, os, subprocess, sys
root, *argv = sys.argv[1:]
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
if ctypes.CDLL(None).mount(b"gone:/", os.fsencode(root), b"fuse.sshfs", 0, options):
    sys.exit(99)
sys.exit(subprocess.run(argv).returncode)
"""


def test_a_root_whose_server_is_gone_hangs_nobody(root: Root) -> None:
    if shutil.which("unshare") is None or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("NOT RUN: a file system that hangs needs unshare and /dev/fuse")
    argv = [*orchestra_argv("doctor"), "--root", str(root.path)]
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", HUNG, str(root.path), *argv],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == 99 or not done.stdout:
        pytest.skip(f"NOT RUN: no file system of our own can be mounted here: {done.stderr.strip()}")
    answer = Answer(done.returncode, json.loads(done.stdout), done.stdout, done.stderr)
    assert (answer.code, verdict(answer, "root")) == (1, "bad")
    assert "no answer within" in check(answer, "root")["found"]
    for name in ("root space", "locks", "half-built files"):  # after the first, none has the whole bound
        assert check(answer, name)["found"] == "unknown: no answer within 0.5 s"
    assert verdict(answer, "bash") == "ok"


def test_the_mount_of_a_path_is_the_deepest() -> None:
    assert disk.mount_of("/proc/self").kind == "proc"
    assert disk.mount_of("/").point == "/"


# --- limits ------------------------------------------------------------------------------


def test_few_open_files_are_bad(root: Root) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (48, 512))

    doctor = root.start("doctor", preexec_fn=lower)
    answer = json.loads(doctor.communicate(timeout=60)[0])
    row = next(row for row in answer["checks"] if row["check"] == "open files")
    assert (doctor.returncode, row["verdict"], row["advice"]) == (1, "bad", "ulimit -n 512")
    assert "48" in row["found"]


def test_no_inotify_instance_left_is_a_warning(root: Root) -> None:
    script = "echo 0 >/proc/sys/user/max_inotify_instances"
    answer = in_mounts(script, "doctor", root=root.path, unshare="-Ur")
    assert verdict(answer, "inotify instances") == "warning"
    assert "none to be had" in check(answer, "inotify instances")["found"]


def test_an_inotify_instance_in_use_is_counted(root: Root) -> None:
    def used(kind: str) -> int:
        return int(check(root("doctor"), f"inotify {kind}")["found"].split()[0])

    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    waiting = root.start("wait", "r", "--timeout", "60")
    try:
        mine = f"/proc/{waiting.pid}/fd"

        def watches() -> bool:
            with contextlib.suppress(OSError):
                return any("inotify" in os.readlink(f"{mine}/{fd}") for fd in os.listdir(mine))
            return False

        wait_until(watches, "the watch")
        assert used("instances") >= 1
        assert used("watches") >= 1
    finally:
        waiting.kill()
        waiting.communicate()


def test_a_namespace_of_its_own_and_hidepid_are_told(root: Root) -> None:
    script = "mount -t proc -o hidepid=2 proc /proc"
    answer = in_mounts(script, "doctor", root=root.path, unshare="-m -p -f")
    assert "one of its own" in check(answer, "pid namespace")["found"]
    assert "off" not in check(answer, "hidepid")["found"]
    assert verdict(answer, "proc") == "ok"


def test_a_proc_that_shows_processes_alone_is_bad(root: Root) -> None:
    script = "mount -t proc -o subset=pid proc /proc"
    answer = in_mounts(script, "doctor", root=root.path, unshare="-m -p -f")
    assert (answer.code, verdict(answer, "proc")) == (1, "bad")
    assert "boot_id" in check(answer, "proc")["found"]


def test_the_tightest_limit_of_the_cgroups_above_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the checkup and for the throttle alike."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "a" / "memory.max").write_text("1200\n")
    (tmp_path / "a" / "memory.high").write_text("1000\n")  # above that nothing moves any more
    (tmp_path / "a" / "memory.current").write_text("900\n")
    (tmp_path / "a" / "memory.stat").write_text("anon 800\ninactive_file 100\n")
    (inner / "memory.max").write_text("5000\n")
    (inner / "memory.current").write_text("10\n")
    (inner / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "a" / "cpu.max").write_text("max 100000\n")
    groups = [cgroup.Group(str(place), "cgroup2") for place in (inner, tmp_path / "a", tmp_path)]
    monkeypatch.setattr(cgroup, "lineage", lambda controller: groups)
    assert cgroup.memory() == (1000, 800)
    assert kernel.cgroup() == Cgroup("2", 1000, 800, 1.5, None, None)
    assert load.memory_available() == 200


# --- programs ----------------------------------------------------------------------------


class FakePath:
    """A directory of programs, to be the whole PATH or the first of it."""

    def __init__(self, path: Path) -> None:
        self.bin = path / "bin"
        self.bin.mkdir()
        self.env = {"PATH": f"{self.bin}:{os.environ['PATH']}"}

    def add(self, name: str, script: str) -> None:
        file = self.bin / name
        file.write_text(f"#!/bin/bash\n{script}\n")
        file.chmod(0o755)

    def only(self, *names: str) -> dict[str, str]:
        """An environment in which there are these of the system's programs and no others."""
        for name in names:
            found = shutil.which(name)
            assert found
            (self.bin / name).symlink_to(found)
        return {"PATH": str(self.bin)}


@pytest.fixture
def fake_path(tmp_path: Path) -> Iterator[FakePath]:
    yield FakePath(tmp_path)


def test_no_bash_on_the_path_is_bad(root: Root, fake_path: FakePath) -> None:
    answer = root("doctor", env=fake_path.only(*checkup_tools.PROGRAMS))
    assert (answer.code, verdict(answer, "bash")) == (1, "bad")
    assert verdict(answer, "coreutils") == "unknown"


def test_an_old_bash_is_bad(root: Root, fake_path: FakePath) -> None:
    fake_path.add("bash", "printf 4.4.20")
    answer = root("doctor", env=fake_path.env)
    assert (answer.code, verdict(answer, "bash")) == (1, "bad")
    assert "4.4.20" in check(answer, "bash")["found"]


def test_a_program_that_launchers_call_and_that_is_not_there_is_named(
    root: Root, fake_path: FakePath
) -> None:
    answer = root(
        "doctor",
        env=fake_path.only("bash", *(n for n in checkup_tools.PROGRAMS if n not in ("sync", "tail"))),
    )
    assert (answer.code, check(answer, "coreutils")["found"]) == (1, "not on the PATH: sync, tail")


def test_a_program_that_cannot_do_what_launchers_ask_is_named(root: Root, fake_path: FakePath) -> None:
    fake_path.add("tr", "echo 'tr: unknown class' >&2; exit 2")
    answer = root("doctor", env=fake_path.env)
    assert verdict(answer, "bash") == "ok"
    assert (answer.code, "tr -d [:space:]" in check(answer, "coreutils")["found"]) == (1, True)


def test_agents_are_asked_side_by_side_and_none_holds_the_answer_up(root: Root, fake_path: FakePath) -> None:
    fake_path.add("claude", "echo '2.1.9 (Claude Code)'")
    fake_path.add("llm", "echo 'llm, version 0.36' >&2")
    fake_path.add("codex", "setsid sleep 300 & sleep 300")
    fake_path.add("gemini", "sleep 300")
    fake_path.add("qwen", "yes rubbish")
    fake_path.add("aider", "echo 'no module named aider'; exit 1")
    fake_path.add("mini", "sleep 300 & echo 2.4.1")  # a child of its holds the pipe open
    fake_path.add("opencode", 'cat; echo "proxy at ${HTTPS_PROXY##*:}"; touch "$TMPDIR/litter"')
    began = time.monotonic()
    answer = root("doctor", env=fake_path.env)
    took = time.monotonic() - began
    assert took < 10, "five that hang must not cost five times the bound, which is 3 s"
    assert check(answer, "agent claude")["found"] == f"{fake_path.bin}/claude, 2.1.9"
    assert check(answer, "agent llm")["found"].endswith("/llm, 0.36")
    assert "-n" in check(answer, "agent llm")["advice"]
    assert check(answer, "agent mini")["found"].endswith("2.4.1")
    for name in ("codex", "gemini"):
        assert "did not answer" in check(answer, f"agent {name}")["found"]
        assert verdict(answer, f"agent {name}") == "unknown"
    assert verdict(answer, "agent qwen") == "unknown"
    assert len(check(answer, "agent qwen")["found"]) < 300
    assert verdict(answer, "agent aider") == "warning"
    assert "ends with 1" in check(answer, "agent aider")["found"]
    assert verdict(answer, "agent opencode") == "unknown"
    assert "'proxy at 9'" in check(answer, "agent opencode")["found"]
    assert processes_of(fake_path.bin) == []
    assert os.listdir(root.tmp) == []


# --- what old runs have left --------------------------------------------------------------


def dead_holder(root: Root, run: str) -> None:
    """A lock as somebody leaves it who was killed in the middle of a command."""
    lock = root.run_dir(run) / ".narrator.lock"
    lock.mkdir()
    holder = {**process.this_process().to_json(), "process_start": 1, "token": "dead"}
    (lock / "holder.json").write_text(json.dumps(holder))


def test_a_dead_holder_is_found_and_the_step_that_is_proposed_mends_it(root: Root) -> None:
    for run in ("q", "r"):
        root.init(run)
    dead_holder(root, "r")
    answer = root("doctor")
    assert verdict(answer, "locks") == "warning"
    assert f"pid {os.getpid()}" in check(answer, "locks")["found"]
    assert answer.json["next"] == ["orchestra unlock r"]
    assert verdict(root("doctor", "r"), "lock") == "warning"
    assert root(*answer.json["next"][0].split()[1:]).code == 0
    answer = root("doctor", "r")
    assert (verdict(answer, "locks"), verdict(answer, "lock"), answer.json["next"]) == ("ok", "ok", [])


def test_a_proposed_step_names_the_root_where_it_was_given(root: Root) -> None:
    root.init("r")
    dead_holder(root, "r")
    answer = root("doctor", "--root", str(root.path))
    assert answer.json["next"] == [f"orchestra unlock r --root {root.path}"]


@contextlib.contextmanager
def bearing(token: str, run_dir: Path, *wrapper: str) -> Iterator[int]:
    env = clean_environment(ORCHESTRA_TOKEN=token, ORCHESTRA_RUN_DIR=str(run_dir))
    process = subprocess.Popen([*wrapper, "sleep", "300"], env=env)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def leftover_of(answer: Answer, pid: int) -> dict[str, Any] | None:
    """The line that names the process, if any; other tests' processes have lines of their own."""
    rows = [row for row in answer.json["checks"] if row["check"] == "leftover processes"]
    return next((row for row in rows if f"{pid}" in row["found"].replace(")", " ").split()), None)


def test_a_process_of_a_run_that_was_removed_is_found(root: Root) -> None:
    with bearing(TOKEN, root.path / "removed") as pid:
        row = leftover_of(root("doctor"), pid)
        assert row is not None
        assert (row["verdict"], "which is gone" in row["found"]) == ("warning", True)
        assert row["advice"].startswith(f"kill {pid} ")


def test_a_process_that_sees_other_files_is_not_judged_by_ours(root: Root) -> None:
    """Of a container, say: its run may be there."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("NOT RUN: no mount namespace can be had here")
    with bearing(TOKEN, root.path / "removed", "unshare", "-m") as pid:
        wait_until(
            lambda: os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"), "its mounts"
        )
        row = leftover_of(root("doctor"), pid)
        assert row is not None
        assert (row["verdict"], row["advice"]) == ("unknown", None)


def test_a_process_of_an_attempt_that_is_over_is_found(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    root("wait", "r")
    token = next(e["token"] for e in root.events("r") if "token" in e)
    with bearing(token, root.run_dir("r")) as pid:
        row = leftover_of(root("doctor"), pid)
        assert row is not None
        assert "that attempt is over" in row["found"]


def test_a_worker_at_work_is_nobodys_leftover_under_whatever_root(root: Root, tmp_path: Path) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    launcher = root.mark("r", "W")["pid"]
    other = tmp_path / "elsewhere"
    other.mkdir()
    for words in ([], ["--root", str(other)], ["--root", str(other), str(root.run_dir("r"))]):
        assert leftover_of(root("doctor", *words), launcher) is None


def test_what_outlived_its_launcher_is_ended_by_the_step_that_is_proposed(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    launcher = root.mark("r", "W")["pid"]
    os.kill(launcher, signal.SIGKILL)
    wait_until(lambda: root.worker("r", "W")["state"] == "failed", "the loss to be seen")
    answer = root("doctor", "r")
    assert verdict(answer, "ended workers") == "warning"
    assert "orchestra unlock r" in answer.json["next"]
    root("unlock", "r")
    wait_until(lambda: not processes_of(root.run_dir("r")), "the end of the worker")
    assert verdict(root("doctor", "r"), "ended workers") == "ok"


def test_a_stale_TMPDIR_is_found_with_its_size_and_a_young_one_is_left_alone(root: Root) -> None:
    stale, young, used = (root.tmp / f"orc-{digit * 16}" for digit in "abc")
    for directory in (stale, young, used):
        directory.mkdir()
    (stale / "socket").write_bytes(b"x" * 100_000)
    for directory in (stale, used):
        os.utime(directory, (1e9, 1e9))
    with bearing("c" * 16, root.path / "removed"):
        row = check(root("doctor"), "leftover TMPDIRs")
    assert (row["verdict"], row["advice"]) == ("warning", f"rm -rf -- {stale}")
    assert "KiB" in row["found"]
    assert stale.is_dir()


def test_half_built_files_of_the_dead_are_found(root: Root) -> None:
    root.init("r")
    dead = subprocess.Popen(["true"])
    dead.wait()
    litter = root.run_dir("r") / f".state.json.{dead.pid}.new"
    litter.touch()
    (root.run_dir("r") / f".state.json.{os.getpid()}.new").touch()  # that one is being built
    probe = root.path / disk.probe_names()[0].replace(
        str(os.getpid()), str(dead.pid)
    )  # a killed doctor's own
    probe.touch()
    row = check(root("doctor"), "half-built files")
    assert (row["verdict"], row["advice"]) == ("warning", f"rm -rf -- {litter} {probe}")


# --- a run's directory --------------------------------------------------------------------


@pytest.fixture
def done(root: Root) -> Root:
    root.init("r")
    assert root.spawn("r", {"W": ["echo", "hello"]}).code == 0
    assert root("wait", "r").code == 0
    wait_until(lambda: not processes_of(root.path), "the end of the launcher")
    return root


def test_a_run_in_order_has_nothing_to_mend(done: Root) -> None:
    answer = done("doctor", "r")
    names = "run directory,permissions,event log,lock,state.json,seat,workers,trail,late results"
    for name in (*names.split(","), "ended workers", "strange files", "sizes"):
        assert verdict(answer, name) == "ok", check(answer, name)
    assert check(answer, "workers")["found"] == "1 done"


def test_a_torn_end_of_the_log_is_told_with_its_offset_and_mended(done: Root) -> None:
    log = done.run_dir("r") / "events.jsonl"
    size = log.stat().st_size
    with log.open("ab") as file:
        file.write(b'{"op":99,"at"')
    answer = done("doctor", "r")
    row = check(answer, "event log")
    assert (row["verdict"], f"13 bytes at {size}" in row["found"]) == ("warning", True)
    assert "orchestra unlock r" in answer.json["next"]
    done("unlock", "r")
    row = check(done("doctor", "r"), "event log")
    assert (row["verdict"], "set aside before, in events.damaged: 1" in row["found"]) == ("ok", True)


def test_damage_in_the_middle_of_the_log_is_bad(done: Root) -> None:
    log = done.run_dir("r") / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"op"', b'"oq"')
    log.write_bytes(b"".join(lines))
    answer = done("doctor", "r")
    row = check(answer, "event log")
    assert (answer.code, row["verdict"]) == (1, "bad")
    assert f"at {len(lines[0]) + len(lines[1])}" in row["found"]


@pytest.mark.parametrize("text", [None, b"", b"garbage\n"])
def test_a_log_without_its_beginning_is_bad_and_crashes_nothing(done: Root, text: bytes | None) -> None:
    log = done.run_dir("r") / "events.jsonl"
    log.unlink() if text is None else log.write_bytes(text)
    answer = done("doctor", "r")
    assert (answer.code, verdict(answer, "event log")) == (1, "bad")
    assert verdict(answer, "workers") == "unknown"
    assert verdict(answer, "lock") == "ok"


def test_what_stands_in_the_place_of_the_log_is_bad_and_the_advice_mends_it(done: Root) -> None:
    log = done.run_dir("r") / "events.jsonl"
    log.rename(done.path / "log")
    log.mkdir()
    answer = done("doctor", "r")
    assert (answer.code, verdict(answer, "event log")) == (1, "bad")
    aside, unlock = check(answer, "event log")["advice"].split("   #")[0].split(" && ")
    subprocess.run(shlex.split(aside), check=True)
    assert done(*shlex.split(unlock)[1:]).code == 0
    assert done("status", "r").code == 0


def test_operations_that_do_not_grow_are_told(done: Root) -> None:
    log = done.run_dir("r") / "events.jsonl"
    with log.open("ab") as file:
        file.write(encode(Event(1, "2026-01-01T00:00:00.000Z", "alerts", "copied", 1, {})))
    assert verdict(done("doctor", "r"), "event log") == "warning"


def test_a_state_that_knows_more_than_the_log_is_bad(done: Root) -> None:
    state = done.run_dir("r") / "state.json"
    told = json.loads(state.read_text())
    state.write_text(json.dumps({**told, "op": 999}))
    answer = done("doctor", "r")
    assert (answer.code, verdict(answer, "state.json")) == (1, "bad")


def test_a_state_that_is_missing_or_says_otherwise_is_written_anew_by_the_step_that_is_proposed(
    done: Root,
) -> None:
    state = done.run_dir("r") / "state.json"
    done("unlock", "r")
    told = json.loads(state.read_text())
    told["workers"]["W"]["state"] = "failed"
    for text in (json.dumps(told), "no JSON", None):
        state.unlink() if text is None else state.write_text(text)
        answer = done("doctor", "r")
        assert verdict(answer, "state.json") == "warning", check(answer, "state.json")
        done(*answer.json["next"][0].split()[1:])
        assert verdict(done("doctor", "r"), "state.json") == "ok"


def test_what_others_may_read_and_what_belongs_to_nobody_is_named(done: Root) -> None:
    (done.run_dir("r") / "events.jsonl").chmod(0o644)
    (done.run_dir("r") / "notes.txt").write_text("mine")
    (done.run_dir("r") / "notes.txt").chmod(0o600)
    (done.run_dir("r") / "out-W" / "made.txt").touch(0o666)  # a worker's own
    answer = done("doctor", "r")
    assert check(answer, "permissions")["found"] == "open to others: events.jsonl"
    assert check(answer, "strange files")["found"] == "1: notes.txt"


def test_a_run_that_may_not_be_looked_into_is_unknown_in_every_line(done: Root) -> None:
    """What is not seen is not taken for what is not there."""
    without = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("NOT RUN: root sees everything, and there is no setpriv to lay that down")
        without = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    done.run_dir("r").chmod(0)
    called = subprocess.run(
        [*without, *orchestra_argv("doctor", "r", "--root", str(done.path))],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    done.run_dir("r").chmod(0o700)
    answer = Answer(called.returncode, json.loads(called.stdout), called.stdout, called.stderr)
    for name in ("runs", "permissions", "event log", "lock", "workers", "sizes"):
        assert verdict(answer, name) == "unknown", check(answer, name)
    assert verdict(answer, "run directory") == "warning"


def test_a_gap_in_the_trail_is_told_and_spawn_is_proposed(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    root("wait", "r")
    last = root.events("r")[-1]
    intended = next(e for e in root.events("r") if e["kind"] == "spawn_intended")
    data = {**{k: intended[k] for k in ("phase", "entry", "attempt")}, "worker": "Gap", "token": TOKEN}
    with (root.run_dir("r") / "events.jsonl").open("ab") as file:
        file.write(encode(Event(last["op"] + 1, last["at"], "commands", "spawn_intended", 9, data)))
    answer = root("doctor", "r")
    assert (verdict(answer, "trail"), "Gap" in check(answer, "trail")["found"]) == ("warning", True)
    assert "orchestra spawn r" in answer.json["next"]
