"""What orchestra costs, against the least that the same thing can cost on this machine now.

Run by scripts/bench. Every figure is a median over several rounds in which the floor and
orchestra take turns, so that a noisy minute hits both.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from measure_scale import SCALE
from measured import ORCHESTRA, Row, cpu_of, orchestra

WORKERS = 200
ROUNDS = 9
QUIET_S = 2.0
IDLE = ["sleep", "987.6"]


@contextlib.contextmanager
def run_of(root: Path, name: str, workers: int) -> Iterator[float]:
    """A run with idle workers; yields how long the spawn took, and kills them.

    ext4 gives out no inode again for up to five minutes after its end, and looks past each when it
    wants one. So nothing is deleted before all is measured: no launcher clears anything away.
    """
    rows = [{"name": f"W{i}", "brief": "x" * 500} for i in range(workers)]
    plan = root / f"{name}.yaml"
    plan.write_text(json.dumps({"command": IDLE, "phases": [{"name": "all", "workers": rows}]}))
    orchestra(root, "init", name, "--plan", str(plan))
    began = time.perf_counter()
    answer = orchestra(root, "spawn", name, "--no-throttle", "--phase", "all")
    took = time.perf_counter() - began
    assert len(answer["spawned"]) == workers, answer
    try:
        yield took
    finally:
        for mark in (root / name).glob(".pid-*.json"):
            with contextlib.suppress(OSError):  # it has been killed already
                kill_both(root, name, mark.name.removeprefix(".pid-").removesuffix(".json"))


FLOOR = r"""
import os, subprocess, sys
directory, launcher, workers = sys.argv[1], open(sys.argv[2], "rb").read(), int(sys.argv[3])
def publish(name, data):
    path = f"{directory}/{name}"
    fd = os.open(path + ".new", os.O_CREAT | os.O_WRONLY, 0o700)
    os.write(fd, data); os.fsync(fd); os.close(fd)
    os.rename(path + ".new", path)
    fd = os.open(directory, os.O_RDONLY); os.fsync(fd); os.close(fd)
here, there = os.pipe()
script = b"echo ready >&%d\nsleep 987.6 %d>&- &\nexec %d>&-\nwait\n" % (there, there, there)
script += b"#" * (len(launcher) - len(script) - 1) + b"\n"
for i in range(workers):
    publish(f"brief-{i}", b"x" * 500)
    publish(f"prompt-{i}", b"x" * 500)
    publish(f"run-{i}", script)
    child = subprocess.Popen(
        ["bash", f"{directory}/run-{i}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=[there], start_new_session=True)
    print(child.pid)
ready = 0
while ready < workers:
    ready += os.read(here, 65536).count(b"ready")
sys.stdout.flush()
os._exit(0)
"""


def floor(directory: Path, launcher: Path) -> float:
    """The bare loop: the same three files as durably, then bash, which starts the worker and waits."""
    directory.mkdir()
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", FLOOR, str(directory), str(launcher), str(WORKERS)],
        capture_output=True,
        text=True,
        check=True,
    )
    took = time.perf_counter() - began
    for pid in done.stdout.split():
        os.killpg(int(pid), signal.SIGKILL)
    return took


def gnu_parallel() -> float | None:
    """Seconds for each of as many jobs that do nothing; None where it is not installed."""
    program = shutil.which("parallel")
    if program is None:
        return None
    jobs = "".join(f"{i}\n" for i in range(WORKERS))
    began = time.perf_counter()
    subprocess.run(
        [program, "--will-cite", "-j", str(WORKERS), "true"],
        input=jobs,
        capture_output=True,
        text=True,
        check=True,
    )
    return (time.perf_counter() - began) / WORKERS


def measure_spawn(root: Path) -> list[Row]:
    ours: list[float] = []
    floors: list[float] = []
    parallels: list[float] = []
    with run_of(root, "sample", 1):
        launcher = root / "sample" / ".run-W0.sh"
        for i in range(ROUNDS):
            time.sleep(QUIET_S)
            floors.append(floor(root / f"floor-{i}", launcher))
            time.sleep(QUIET_S)
            with run_of(root, f"spawn-{i}", WORKERS) as took:
                ours.append(took)
            if (each := gnu_parallel()) is not None:
                parallels.append(each)
    ratio = statistics.median(o / f for o, f in zip(ours, floors, strict=True))
    mine, bare = statistics.median(ours), statistics.median(floors)
    rows = [
        Row(
            f"spawn of {WORKERS} workers, call to all signs of life, against a bare loop",
            f"{ratio:.2f} × ({mine:.2f} s against {bare:.2f} s)",
            "1.5 ×",
            ratio <= 1.5,
        )
    ]
    each = mine / WORKERS * 1e3
    if parallels:
        theirs = statistics.median(parallels) * 1e3
        rows.append(
            Row(
                "the same for each worker, against GNU parallel for each job",
                f"{each:.1f} ms against {theirs:.1f} ms",
                "below it",
                each < theirs,
            )
        )
    else:
        rows.append(Row("GNU parallel", "not installed: not compared", "below it", None))
    return rows


class Follower:
    """`wait --follow` on a run; when each line came."""

    def __init__(self, root: Path, run: str) -> None:
        words = ["wait", run, "--follow", "--keep-going", "--timeout", "600", "--root", str(root)]
        self.process = subprocess.Popen([ORCHESTRA, *words], stdout=subprocess.PIPE, text=True)
        self.came: dict[tuple[str, str], float] = {}
        self.news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            at = time.time()
            worker = json.loads(line).get("worker")
            if worker:
                with self.news:
                    self.came.setdefault((worker["name"], worker["state"]), at)
                    self.news.notify_all()

    def when(self, name: str, state: str) -> float:
        with self.news:
            assert self.news.wait_for(lambda: (name, state) in self.came, 60), f"{name} never {state}"
            return self.came[name, state]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def kill_both(root: Path, run: str, name: str) -> float:
    """SIGKILL worker and launcher; returns when."""
    launcher = json.loads((root / run / f".pid-{name}.json").read_text())["pid"]
    workers = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    at = time.time()
    os.kill(launcher, signal.SIGKILL)
    for pid in workers:
        os.kill(int(pid), signal.SIGKILL)
    return at


def measure_notice(root: Path) -> list[Row]:
    """From a death to the line on stdout, with all the workers watched."""
    killed: list[float] = []
    failed: list[float] = []
    with run_of(root, "notice", WORKERS):
        follower = Follower(root, "notice")
        try:
            follower.when(f"W{WORKERS - 1}", "running")
            for i in range(100):
                at = kill_both(root, "notice", f"W{i}")
                killed.append(follower.when(f"W{i}", "failed") - at)
            for i in range(50):
                row = json.dumps([{"name": f"T{i}", "brief": "x", "command": ["no-such-command"]}])
                orchestra(root, "spawn", "notice", "--no-throttle", "--from", "-", stdin=row)
                told = json.loads((root / "notice" / f".spawn-T{i}.error").read_text())["at"]
                failed.append(follower.when(f"T{i}", "failed") - datetime.fromisoformat(told).timestamp())
        finally:
            follower.close()
    return [
        latency("SIGKILL of worker and launcher", killed),
        latency("a launcher's failure", failed),
    ]


def latency(what: str, seconds: list[float]) -> Row:
    ordered = sorted(s * 1e3 for s in seconds)
    middle, late = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    return Row(
        f"{what} to the line of `wait --follow`, {WORKERS} workers watched",
        f"{middle:.0f} ms median, {late:.0f} ms at the 99th percentile",
        "50 ms, 250 ms",
        middle <= 50 and late <= 250,
    )


def measure_status(root: Path) -> list[Row]:
    with run_of(root, "status", 10):
        argv = [ORCHESTRA, "status", "status", "--root", str(root)]
        cpu_of(argv)
        pairs = [(cpu_of(argv), cpu_of([sys.executable, "-c", "pass"])) for _ in range(25)]
    mine, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    return [
        Row(
            "CPU time of `orchestra status` on ten workers, against `python -c pass`",
            f"{mine / bare:.1f} × ({mine * 1e3:.0f} ms against {bare * 1e3:.0f} ms)",
            "8 ×",
            mine / bare <= 8,
        )
    ]


def measure_resident(root: Path) -> list[Row]:
    """Who is there while no command runs."""
    with run_of(root, "resident", 50):
        needle = os.fsencode(root / "resident")
        ours: list[tuple[str, int]] = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if needle in (entry / "cmdline").read_bytes():
                    ours.append(((entry / "comm").read_text().strip(), private_bytes(entry)))
    others = [name for name, _ in ours if name != "bash"]
    size = statistics.median(size for _, size in ours) / 1024
    return [
        Row(
            "resident while no command runs, for 50 workers",
            f"{len(ours)} processes, {others if others else 'all bash'}, {size:.0f} KiB private each",
            "one bash each",
            len(ours) == 50 and not others,
        )
    ]


DECISION = """
import sys, time
from orchestra.engine.room import Room
from orchestra.model.plan import WorkerEntry
room = Room(sys.argv[1])
entry = WorkerEntry("W", "b", command=("sleep", "300"), throttle={"processes.sleep": 1000})
took = []
for _ in range(41):
    room.seen = None
    wall, cpu = time.perf_counter(), time.process_time()
    assert not [s for s in room.ask(entry, 1) if s.signal == "processes.sleep"]
    took.append((time.process_time() - cpu, time.perf_counter() - wall))
print(*(sorted(column)[20] * 1e3 for column in zip(*took)))
"""


def measure_throttle(root: Path) -> list[Row]:
    """One decision, with a fresh look at every signal, while 50 workers are at work."""
    with run_of(root, "throttle", 50):
        done = subprocess.run(
            [sys.executable, "-c", DECISION, str(root)], capture_output=True, text=True, check=True
        )
        processes = sum(entry.name.isdigit() for entry in Path("/proc").iterdir())
    cpu_ms, wall_ms = map(float, done.stdout.split())
    return [
        Row(
            f"one decision of the throttle, with all signals, {processes} processes on the machine",
            f"{cpu_ms:.1f} ms of CPU, {wall_ms:.1f} ms in all",
            "5 ms of CPU",
            cpu_ms <= 5,
        )
    ]


def private_bytes(process: Path) -> int:
    lines = (process / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


MEASURES: dict[str, Callable[[Path], list[Row]]] = {
    "spawn": measure_spawn,
    "notice": measure_notice,
    "status": measure_status,
    "resident": measure_resident,
    "throttle": measure_throttle,
    **SCALE,
}


def main(words: list[str]) -> int:
    unknown = [word for word in words if word not in MEASURES]
    if unknown:
        print(f"there is no measure {unknown[0]!r}; there are: {', '.join(MEASURES)}", file=sys.stderr)
        return 2
    print(f"{machine()}, {disk(tempfile.gettempdir())}, bash up in {bash_s() * 1e3:.1f} ms, ", end="")
    print(f"{datetime.now(UTC):%Y-%m-%d}\n")
    print("| what | measured | at most | |\n| --- | --- | --- | --- |", flush=True)
    kept = True
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as directory:
        os.environ["TMPDIR"] = f"{directory}/tmp"
        os.mkdir(os.environ["TMPDIR"])
        for name in words or MEASURES:
            for row in MEASURES[name](Path(directory)):
                print(row, flush=True)
                kept = kept and row.kept is not False
    return 0 if kept else 1


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def disk(path: str) -> str:
    """What `path` is on; how dear a file is there depends on it."""
    device = os.stat(path).st_dev
    place = f" {os.major(device)}:{os.minor(device)} "
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    kind, source = next(line for line in mounts if place in line).partition(" - ")[2].split()[:2]
    if kind != "ext4":
        return kind
    journal = list(Path("/proc/fs/jbd2").glob(f"{Path(source).resolve().name}-*"))
    return f"ext4 with{'' if journal else 'out'} a journal"


def bash_s() -> float:
    """How long bash takes to start and end: what two of these tell of two machines, before all else."""
    took = []
    for _ in range(100):
        began = time.perf_counter()
        subprocess.run(["bash", "-c", ":"], check=True)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
