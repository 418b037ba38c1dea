"""Real pressure, made by real processes: the right signal is named, and who waited starts when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Root, clean_environment, orchestra_argv, wait_until
from groups import group, inside

from orchestra.host import load
from orchestra.model.record import State
from orchestra.model.reservation import Known, learn
from orchestra.model.throttle import LIMITS
from orchestra.model.usage import Usage
from orchestra.store.layout import notes_of

MIB = 1 << 20
NO_PRESSURE = {key: "off" for key, limit in LIMITS.items() if limit.kind == "soft"}
SPINNER = ["nice", "-n", "19", "sh", "-c", "while :; do :; done"]
HOG = "import sys, time; held = b'x' * (int(sys.argv[1]) << 20); print('full', flush=True); time.sleep(300)"


@contextlib.contextmanager
def pressing(argvs: list[list[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that press until the end of the block."""
    pressed = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) for argv in argvs
    ]
    try:
        yield pressed
    finally:
        for process in pressed:
            process.kill()
            process.communicate()


def workers(count: int, command: list[str], **throttle: Any) -> str:
    rows = [
        {"name": f"W{i}", "brief": "b", "command": command, "throttle": throttle} for i in range(1, count + 1)
    ]
    return json.dumps(rows)


def spawn(root: Root, rows: str, *words: str) -> Answer:
    return root("spawn", "r", "--from", "-", *words, stdin=rows)


def signals(answer: Answer, name: str) -> list[str]:
    [row] = [row for row in answer.json["deferred"] if row["name"] == name]
    return [signal["signal"] for signal in row["signals"]]


def call_inside(place: Path, root: Root, *words: str, stdin: str = "") -> Answer:
    done = subprocess.run(
        inside(place, orchestra_argv(*words)),
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=90,
    )
    return Answer(done.returncode, json.loads(done.stdout.splitlines()[-1]), done.stdout, done.stderr)


def test_spinning_cpus_let_one_run_and_the_next_wait_until_they_stop(root: Root) -> None:
    root.init("r")
    with pressing([SPINNER] * 16 * (os.cpu_count() or 1)):  # more than other tests could be
        first = spawn(root, workers(2, ["sleep", "60"], load_per_cpu=12))
        assert (first.code, first.names("spawned")) == (4, ["W1"])
        assert signals(first, "W2") == ["load_per_cpu"]
        [told] = first.json["deferred"][0]["signals"]
        assert told["value"] > told["limit"] == 12
    answer = wait_until(lambda: (a := root("spawn", "r")).names("spawned") and a, "room")
    assert answer.names("spawned") == ["W2"]
    root("stop", "r", "--grace", "0")


def test_pressure_stall_information_is_heard(root: Root) -> None:
    if not os.path.exists("/proc/pressure/cpu"):
        pytest.skip("NOT RUN: this kernel has no pressure stall information")
    root.init("r")
    spinners = 4 * (os.cpu_count() or 1)
    with pressing([SPINNER] * spinners):
        wait_until(lambda: _pressure() > 20, "pressure on the CPUs")
        answer = spawn(root, workers(2, ["sleep", "60"], cpu_pressure=5))
        assert (answer.names("spawned"), signals(answer, "W2")) == (["W1"], ["cpu_pressure"])
    root("stop", "r", "--grace", "0")


def _pressure() -> float:
    return float(Path("/proc/pressure/cpu").read_text().split("avg10=")[1].split()[0])


def test_in_a_container_its_own_memory_counts_and_drain_starts_who_waited(root: Root) -> None:
    root.init("r")
    with group("memory", 400 * MIB) as place:
        rows = workers(1, ["true"], memory_available="200MiB")
        with pressing([inside(place, [sys.executable, "-c", HOG, "280"])]) as [hog]:
            assert hog.stdout and hog.stdout.readline() == "full\n"
            answer = call_inside(place, root, "spawn", "r", "--from", "-", stdin=rows)
            assert signals(answer, "W1") == ["memory_available"]  # hard: not even the first
            assert answer.json["deferred"][0]["signals"][0]["value"] < 200 * MIB
            drain = subprocess.Popen(
                inside(place, orchestra_argv("wait", "r", "--drain", "--timeout", "60")),
                env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
                stdout=subprocess.PIPE,
                text=True,
            )
            with pytest.raises(subprocess.TimeoutExpired):
                drain.wait(1.5)
            assert root.worker("r", "W1")["state"] == State.DEFERRED
        said, _ = drain.communicate(timeout=60)
    assert (drain.returncode, json.loads(said)["counts"]["done"]) == (0, 1)


def test_in_a_container_its_own_cpus_count(root: Root) -> None:
    """A quarter of one CPU: the host has time to spare, and in here there is none."""
    root.init("r")
    with group("cpu", 25_000) as place:

        def ask(name: str, **limits: int) -> Answer:
            throttle = {**NO_PRESSURE, **limits}
            row = {"name": name, "brief": "b", "command": ["sleep", "60"], "throttle": throttle}
            return call_inside(place, root, "spawn", "r", "--from", "-", stdin=json.dumps([row]))

        assert ask("W").names("spawned") == ["W"]
        at_work = len((place / "cgroup.procs").read_text().split())
        with pressing([inside(place, ["sh", "-c", "while :; do :; done"])] * 3):
            wait_until(lambda: len((place / "cgroup.procs").read_text().split()) >= 3 + at_work, "the crowd")
            assert signals(ask("V", load_per_cpu=11), "V") == ["load_per_cpu"]  # three for a quarter: 12
            wait_until(lambda: throttled(place) > 20, "a spent quota")
            answer = ask("U", cpu_pressure=50)
            assert signals(answer, "U") == ["cpu_pressure"]
    root("stop", "r", "--grace", "0")


def throttled(place: Path) -> int:
    """Periods in which the group had spent its quota."""
    rows = dict(line.split() for line in (place / "cpu.stat").read_text().splitlines())
    return int(rows["nr_throttled"])


def test_a_crowd_of_processes_leaves_no_head_room(root: Root) -> None:
    root.init("r")
    with group("pids", 100) as place:
        crowd = "for i in $(seq 60); do sleep 300 & done; echo full; wait"
        rows = workers(1, ["true"], pids_free=50)
        with pressing([inside(place, ["bash", "-c", crowd])]) as [crowded]:
            assert crowded.stdout and crowded.stdout.readline() == "full\n"
            answer = call_inside(place, root, "spawn", "r", "--from", "-", stdin=rows)
            assert signals(answer, "W1") == ["pids_free"]
            for pid in (place / "cgroup.procs").read_text().split():
                if int(pid) != crowded.pid:
                    os.kill(int(pid), 9)
            # The dead count until their parent has heard of them.
            wait_until(lambda: int((place / "pids.current").read_text()) < 10, "the end of the crowd")
            answer = call_inside(place, root, "spawn", "r")
            assert answer.names("spawned") == ["W1"]


WRITER = "while :; do dd if=/dev/zero of=$0 bs=1M count=8 oflag=direct conv=notrunc 2>/dev/null; done"


def test_disk_writers_let_one_run_and_the_next_wait_until_they_stop(root: Root) -> None:
    root.init("r")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:  # where a disk is, not memory
        before = load.count()
        subprocess.run(
            ["dd", "if=/dev/zero", f"of={place}/0", "bs=1M", "count=64", "oflag=direct"], check=False
        )
        if not load.rates(before, load.count()).get("disk_busy"):
            pytest.skip("NOT RUN: /var/tmp is on no disk that this kernel counts")
        assert spawn(root, workers(1, ["sleep", "60"])).names("spawned") == ["W1"]  # the first of two looks
        before = load.count()
        with pressing([["bash", "-c", WRITER, f"{place}/{i}"] for i in range(3)]):
            wait_until(lambda: load.rates(before, load.count()).get("disk_busy", 0) > 30, "a busy disk")
            answer = spawn(root, workers(2, ["sleep", "60"], disk_busy=10))
            assert signals(answer, "W2") == ["disk_busy"]
    wait_until(lambda: root("spawn", "r").names("spawned") == ["W2"], "room")
    root("stop", "r", "--grace", "0")


def test_a_full_disk_is_told_before_anything_is_started(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("NOT RUN: no file system can be mounted here")
    try:
        root = Root(place / "runs")
        root.init("r")
        (place / "filler").write_bytes(b"x" * 40 * MIB)
        answer = spawn(root, workers(1, ["true"], disk_free="30MiB", tmp_free="off"))
        assert signals(answer, "W1") == ["disk_free"]
        (place / "filler").unlink()
        assert root("spawn", "r").names("spawned") == ["W1"]
        assert root("wait", "r").code == 0
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_with_every_soft_limit_spent_one_runs_at_a_time(root: Root) -> None:
    spent = {
        "load_per_cpu": 0.0001,
        "cpu_pressure": 0.0001,
        "io_pressure": 0.0001,
        "memory_pressure": 0.0001,
        "disk_queue": 0.0001,
    }
    busy = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"  # so that there is a load to speak of
    names = [f"W{i}" for i in range(1, 5)]
    plan = {
        "command": ["sh", "-c", busy],
        "throttle": spent,
        "phases": [{"name": "p", "workers": [{"name": name, "brief": "b"} for name in names]}],
    }
    path = root.path.parent / "plan.yaml"
    path.write_text(json.dumps(plan))
    with pressing([SPINNER] * 2):
        answer = root("run", str(path), "--run", "r")
    assert (answer.code, answer.json["counts"]["done"]) == (0, 4)
    at_work = most = 0
    for event in root.events("r"):
        at_work += {"spawned": 1, "ended": -1}.get(event["kind"], 0)
        most = max(most, at_work)
    assert most == 1


def test_too_many_starts_at_a_time_are_spread_and_nobody_is_deferred(root: Root) -> None:
    root.init("r")
    began = time.monotonic()
    answer = spawn(root, workers(9, ["true"], starts_per_s=3))
    assert (answer.code, len(answer.names("spawned"))) == (0, 9)
    assert time.monotonic() - began >= 2.0
    assert root("wait", "r").code == 0


def test_processes_of_a_name_are_counted_over_all_runs(root: Root, tmp_path: Path) -> None:
    program = tmp_path / "claudette"
    program.symlink_to("/bin/sleep")
    rows = workers(2, [str(program), "60"], **NO_PRESSURE, processes={"claudette": 1})
    root.init("r")
    assert spawn(root, rows, "--dry-run").names("spawned") == ["W1"]
    with pressing([[str(program), "300"]]) as [process]:
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "claudette\n", "its name")
        answer = spawn(root, rows)
        assert signals(answer, "W1") == ["processes.claudette"]
    assert root("spawn", "r").names("spawned") == ["W1"]
    root("stop", "r", "--grace", "0")


def test_who_has_just_started_holds_what_it_will_need_also_against_another_run(root: Root) -> None:
    """Room for two of an unknown command, and they have not taken any of it yet."""
    import psutil

    free = psutil.virtual_memory().available
    limit = free - 1100 * MIB  # an unknown command holds 400 MiB
    root.init("r")
    root.init("s")
    rows = workers(2, ["sleep", "60"], memory_available=limit, **NO_PRESSURE)
    first = spawn(root, rows)
    assert first.names("spawned") == ["W1", "W2"]
    other = json.dumps([*json.loads(rows)]).replace("W", "V")
    second = root("spawn", "s", "--from", "-", stdin=other)
    assert second.names("spawned") == ["V1"]  # soft for the first of a run
    assert signals(second, "V2") == ["memory_available"]
    [told] = second.json["deferred"][0]["signals"]
    assert told["held"] > 2 * 300 * MIB and told["needs"] == 400 * MIB
    for run in ("r", "s"):
        root("stop", run, "--grace", "0")


@pytest.mark.parametrize(("overtaken_s", "bucket"), [(0.0, "deferred"), (60.0, "spawned")])
def test_who_was_passed_over_for_long_is_overtaken_by_nobody_with_the_same_limits(
    root: Root, overtaken_s: float, bucket: str
) -> None:
    """Greedy takes what an unknown command does; of what Small takes something is known."""
    import psutil

    root.init("r")
    spawn(root, json.dumps([{"name": "First", "brief": "b", "command": ["sleep", "300"]}]), "--no-throttle")
    known: Known = {}
    for age_s in (1.0, 100.0):
        learn(known, ["true"], "before", Usage(1 * MIB, 1, 0.0), age_s)
    note = Path(notes_of(str(root.path)).needs)
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps(known))
    limits = {"memory_available": psutil.virtual_memory().available - 250 * MIB, **NO_PRESSURE}
    rows = [
        {"name": name, "brief": "b", "command": command, "throttle": limits}
        for name, command in (("Greedy", ["tail", "-f", "/dev/null"]), ("Small", ["true"]))
    ]
    assert signals(spawn(root, json.dumps(rows[:1])), "Greedy") == ["memory_available"]
    program = (
        "import sys, orchestra.engine.admission as admission\n"
        "from orchestra.cli.main import main\n"
        f"admission.OVERTAKEN_S = {overtaken_s}\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "spawn", "r", "--from", "-"],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        input=json.dumps(rows[1:]),
        capture_output=True,
        text=True,
        timeout=60,
    )
    answer = json.loads(done.stdout)
    assert "Small" in [row["name"] for row in answer[bucket]], done.stdout
    assert "Greedy" in [row["name"] for row in answer["deferred"]]
    root("stop", "r", "--grace", "0")


def test_a_worker_that_did_not_start_gives_its_room_back(root: Root) -> None:
    root.init("r")
    rows = [{"name": "Typo", "brief": "b", "command": ["no-such-command"]}]
    assert spawn(root, json.dumps(rows)).names("failed") == ["Typo"]
    assert json.loads(Path(notes_of(str(root.path)).holds).read_text())["holds"] == []


def test_a_worker_that_has_ended_holds_nothing(root: Root) -> None:
    import psutil

    limit = psutil.virtual_memory().available - 1100 * MIB
    root.init("r")
    for i in range(4):
        row = [{"name": f"W{i}", "brief": "b", "command": ["true"], "throttle": {"memory_available": limit}}]
        assert spawn(root, json.dumps(row)).names("spawned") == [f"W{i}"]
        assert root("wait", "r").code == 0
