"""What large runs, many runs and long logs cost: runs written as orchestra would have left them.

Their logs and files are made with the project's own encoder, not by starting 10,000 processes;
only the quiet workers of `wait` are real ones.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measured import ORCHESTRA, Cost, Row, cost_of, orchestra

from orchestra.host import process
from orchestra.model.event import COMMANDS, OBSERVATIONS, Event, encode
from orchestra.model.plan import WorkerEntry, entry_to_json
from orchestra.model.trail import Result

ROUNDS = 7
AT = "2026-01-31T23:59:59.123Z"
BRIEF = "Look into this and say what you find. " * 13  # half a KB
COMMAND = ("claude", "-p", "--output-format", "stream-json", "--verbose")
LONG_BRIEF = BRIEF * 20  # 10 KB
MIB = 1024**2


def told(workers: int, running: int = 0, brief: str = BRIEF) -> Iterator[tuple[str, str, dict[str, object]]]:
    """(topic, kind, data) of a run's workers, the last of them still running, as this process."""
    me = process.this_process().to_json()
    for i in range(workers):
        name = f"Worker-{i:05}"
        entry = entry_to_json(WorkerEntry(name, brief, COMMAND, "/tmp", stall_s=600.0, retries=1))
        who = {"worker": name, "attempt": 1}
        yield COMMANDS, "spawn_intended", {**who, "phase": None, "token": f"{i:016x}", "entry": entry}
        yield OBSERVATIONS, "spawned", {**who, **me, "started_at": AT}
        if i < workers - running:
            yield OBSERVATIONS, "ended", {**who, **ending(i)}


def ending(i: int) -> dict[str, object]:
    failed = i % 50 == 49
    return {
        "status": "failed" if failed else "done",
        "verdict": "exit_code" if failed else None,
        "reason": "exit status 3" if failed else None,
        "exit_code": 3 if failed else 0,
        "signal": None,
        "started_at": AT,
        "ended_at": AT,
        "retry": "now" if failed else None,
    }


def write_log(run_dir: Path, facts: Iterator[tuple[str, str, dict[str, object]]]) -> None:
    """Go on with the run's log, as a narrator of epoch 1."""
    lines = (encode(Event(op, AT, topic, kind, 1, data)) for op, (topic, kind, data) in enumerate(facts, 2))
    with open(run_dir / "events.jsonl", "ab") as log:
        while batch := b"".join(itertools.islice(lines, 1000)):
            log.write(batch)


def write_files(run_dir: Path, workers: int, running: int) -> None:
    """What a worker's launcher and narrator leave: nine names in the run's directory and below."""
    for i in range(workers):
        name = f"Worker-{i:05}"
        own = run_dir / "attempts" / name / "1"
        own.mkdir(parents=True)
        (run_dir / f"out-{name}").mkdir()
        for file in (f"brief-{name}.md", f".prompt-{name}.txt", f".run-{name}.sh", f"log-{name}.out"):
            (run_dir / file).write_text("x\n")
        (run_dir / f"log-{name}.err").touch()
        mark = {"worker": name, "attempt": 1, "token": f"{i:016x}", "started_at": AT, "tmp_dir": ""}
        (run_dir / f".pid-{name}.json").write_text(json.dumps(mark | process.this_process().to_json()))
        if i < workers - running:
            end = ending(i)
            result = Result(name, 1, str(end["status"]), None, None, 0, None, AT, AT).to_json()
            (own / "result.json").write_text(json.dumps(result | {"verdict": end["verdict"]}) + "\n")
            os.link(own / "result.json", run_dir / f"result-{name}.json")


def large_run(root: Path, name: str, workers: int, running: int = 0, brief: str = BRIEF) -> None:
    """A run whose last command has just ended."""
    orchestra(root, "init", name)
    write_log(root / name, told(workers, running, brief))
    write_files(root / name, workers, running)
    orchestra(root, "unlock", name)


def planned_run(root: Path, name: str, workers: int) -> None:
    rows = [{"name": f"Worker-{i:05}", "brief": BRIEF} for i in range(workers)]
    plan = root / f"{name}.json"
    plan.write_text(json.dumps({"command": list(COMMAND), "phases": [{"name": "all", "workers": rows}]}))
    orchestra(root, "init", name, "--plan", str(plan))


def status_of(root: Path, name: str) -> Cost:
    return cost_of([ORCHESTRA, "--root", str(root), "status", name])


def medians(call: Callable[[], Cost], rounds: int = ROUNDS) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*(call() for _ in range(rounds)), strict=True)))


def measure_large_status(root: Path) -> list[Row]:
    sizes = (1_000, 10_000, 20_000)
    for size in sizes:
        large_run(root, f"ended-{size}", size)
    large_run(root, "running", 10_000, running=500)
    large_run(root, "long-briefs", 10_000, brief=LONG_BRIEF)
    planned_run(root, "planned", 10_000)
    rows = []
    costs = {}
    kinds = {
        "mostly ended": "ended-10000",
        "500 of them running": "running",
        "all ended, with briefs of 10 KB": "long-briefs",
        "all of them planned": "planned",
    }
    for what, run in kinds.items():
        cost = costs[run] = medians(lambda run=run: status_of(root, run))  # type: ignore[misc]
        rows.append(
            Row(
                f"`status` of a run with 10,000 workers, {what}",
                f"{cost.wall_s:.2f} s, {cost.peak_bytes / MIB:.0f} MiB resident at most",
                "1 s, 150 MB",
                cost.wall_s <= 1 and cost.peak_bytes <= 150e6,
            )
        )
    small, middle, large = (medians(lambda n=n: status_of(root, f"ended-{n}")).cpu_s for n in sizes)  # type: ignore[misc]
    early, late = (middle - small) / (sizes[1] - sizes[0]), (large - middle) / (sizes[2] - sizes[1])
    rows.append(
        Row(
            "CPU time for each worker more, from 1,000 to 10,000 and from there to 20,000",
            f"{early * 1e6:.1f} and {late * 1e6:.1f} µs",
            "no faster than the workers",
            late <= 1.25 * early,
        )
    )
    shutil.rmtree(root / "ended-20000")
    return rows


def spawn_one(root: Path, run: str, number: Iterator[int]) -> Cost:
    row = json.dumps([{"name": f"One-{next(number)}", "brief": "x", "command": ["true"]}])
    argv = [ORCHESTRA, "--root", str(root), "spawn", run, "--no-throttle", "--from", "-"]
    return cost_of(argv, stdin=row)


def measure_spawn_into_large(root: Path) -> list[Row]:
    large_run(root, "ten", 10)
    large_run(root, "many", 10_000)
    number = itertools.count()
    pairs = []
    for _ in range(2 * ROUNDS):
        pairs.append((spawn_one(root, "many", number).wall_s, spawn_one(root, "ten", number).wall_s))
    ratio = statistics.median(many / ten for many, ten in pairs)
    many, ten = (statistics.median(column) for column in zip(*pairs, strict=True))
    return [
        Row(
            "spawn of one worker into a run of 10,000, against a run of ten",
            f"{ratio:.2f} × ({many * 1e3:.0f} ms against {ten * 1e3:.0f} ms)",
            "1.5 ×",
            ratio <= 1.5,
        )
    ]


def measure_list(root: Path) -> list[Row]:
    there = root / "runs"
    there.mkdir()
    for i in range(1_000):
        large_run(there, "first", 10) if i == 0 else shutil.copytree(there / "first", there / f"run-{i}")
    argv = [ORCHESTRA, "--root", str(there), "list"]
    short, whole = medians(lambda: cost_of(argv)), medians(lambda: cost_of([*argv, "--limit", "0"]))
    return [
        Row(f"`list` of 1,000 runs{what}", f"{cost.wall_s:.2f} s", "0.5 s", cost.wall_s <= 0.5)
        for what, cost in ((", the latest 100 told", short), (", all told (`--limit 0`)", whole))
    ]


def night(events: int) -> Iterator[tuple[str, str, dict[str, object]]]:
    """10,000 workers, started, ended, tried again and deferred, until there are enough events."""
    names = [f"Worker-{i:05}" for i in range(10_000)]
    rest = iter(range(events))
    me = process.this_process().to_json()
    signals = [{"signal": "memory_available", "value": 1_900_000_000, "limit": 2_147_483_648}]
    for attempt in itertools.count(1):
        for i, name in enumerate(names):
            entry = entry_to_json(WorkerEntry(name, BRIEF, COMMAND, "/tmp", stall_s=600.0, retries=1))
            who = {"worker": name, "attempt": attempt}
            begun = (
                (COMMANDS, "spawn_intended", {**who, "phase": None, "token": f"{i:016x}", "entry": entry})
                if attempt == 1
                else (COMMANDS, "retry_intended", {**who, "token": f"{i:016x}"})
            )
            deferred = (
                OBSERVATIONS,
                "deferred",
                {**who, "reason": "memory_available is 1.8 GiB, below 2 GiB", "signals": signals},
            )
            spawned = (OBSERVATIONS, "spawned", {**who, **me, "started_at": AT})
            ended = (OBSERVATIONS, "ended", {**who, **ending(49)})
            for fact in (begun, *[deferred] * 7, spawned, ended):
                if next(rest, None) is None:
                    return
                yield fact


REPLAY = """
import sys, gc
gc.disable()
from orchestra.engine.observe import Observer
from orchestra.store.layout import Layout
observer = Observer(Layout(sys.argv[1])).open()
assert observer.history.op == int(sys.argv[2]), observer.history.op
"""


def measure_night(root: Path) -> list[Row]:
    orchestra(root, "init", "night")
    write_log(root / "night", night(999_999))
    size = (root / "night" / "events.jsonl").stat().st_size / MIB
    (root / "night" / "state.json").unlink()
    argv = [sys.executable, "-c", REPLAY, str(root / "night"), "1000000"]
    replay = medians(lambda: cost_of(argv), 5)
    orchestra(root, "unlock", "night")
    status = medians(lambda: status_of(root, "night"))
    return [
        Row(
            f"a run's state from a log of 1,000,000 events ({size:.0f} MiB), without state.json",
            f"{replay.wall_s:.1f} s, {replay.peak_bytes / MIB:.0f} MiB",
            "5 s",
            replay.wall_s <= 5,
        ),
        Row("`status` of that run, with state.json", f"{status.wall_s:.2f} s", "1 s", status.wall_s <= 1),
    ]


def measure_wait(root: Path) -> list[Row]:
    """CPU time of `wait` on 1,000 real, quiet workers, over a minute."""
    rows = [{"name": f"Q{i}", "brief": "x", "command": ["sleep", "987.6"]} for i in range(1_000)]
    orchestra(root, "init", "quiet")
    try:
        orchestra(root, "spawn", "quiet", "--no-throttle", "--from", "-", stdin=json.dumps(rows))
        argv = [ORCHESTRA, "--root", str(root), "wait", "quiet", "--timeout", "600"]
        waiting = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        try:
            time.sleep(15)  # it has come up, and has looked at each of them
            before = used_by(waiting.pid)
            time.sleep(60)
            share = (used_by(waiting.pid) - before) / 60
            peak = peak_of(waiting.pid)
        finally:
            waiting.kill()
            waiting.wait()
    finally:
        orchestra(root, "stop", "quiet", "--grace", "2")
    return [
        Row(
            "`wait` on 1,000 quiet running workers",
            f"{share:.2%} of one core, {peak / MIB:.0f} MiB",
            "1 %, 100 MB",
            share <= 0.01 and peak <= 100e6,
        )
    ]


def used_by(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def measure_thousand(root: Path) -> list[Row]:
    """A plan of a thousand, eight at a time, by the built-in narrator: is it always busy?"""
    count, at_once, seconds = 1_000, 8, 1
    rows = [{"name": f"W{i}", "brief": "x"} for i in range(count)]
    plan = {
        "command": ["sleep", str(seconds)],
        "throttle": {"max_workers": at_once},
        "phases": [{"name": "all", "workers": rows}],
    }
    path = root / "thousand.json"
    path.write_text(json.dumps(plan))
    ours = cost_of([ORCHESTRA, "--root", str(root), "run", str(path), "--run", "thousand"])
    argv = ["xargs", "-P", str(at_once), "-n", "1", "sh", "-c", f"sleep {seconds}"]
    theirs = cost_of(argv, stdin="x\n" * count)
    return [
        Row(
            f"`orchestra run` of {count} workers of {seconds} s, {at_once} at a time, against `xargs -P`",
            f"{ours.wall_s / theirs.wall_s:.2f} × ({ours.wall_s:.0f} s against {theirs.wall_s:.0f} s), "
            f"{ours.cpu_s / ours.wall_s:.0%} of one core",
            "1.25 ×",
            ours.wall_s <= 1.25 * theirs.wall_s,
        )
    ]


SCALE: dict[str, Callable[[Path], list[Row]]] = {
    "large-status": measure_large_status,
    "large-spawn": measure_spawn_into_large,
    "list": measure_list,
    "night": measure_night,
    "wait": measure_wait,
    "thousand": measure_thousand,
}
