"""Who takes part in the night: the workers by kind, the narrators, and the pressure."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

MIB = 1 << 20


class Kind(NamedTuple):
    """One kind of worker: its command, and the ends that are right for it.

    Whoever was stopped or killed on the way may end as that, whatever its kind.
    """

    command: list[str]
    ends: tuple[str, ...]  # done, or a verdict
    timeout: str = "off"


def sh(script: str) -> list[str]:
    return ["bash", "-c", script]


KINDS = {
    "quick": Kind(["true"], ("done",)),
    "short": Kind(sh("sleep 0.$((RANDOM % 9 + 1)); echo made >$ORCHESTRA_OUT/a"), ("done",)),
    "long": Kind(sh("for i in 1 2 3 4 5 6; do sleep 2; touch $ORCHESTRA_HEARTBEAT; done"), ("done",)),
    "chatty": Kind(sh("for ((i=0; i<2000; i++)); do echo line $i; done"), ("done",)),
    "failing": Kind(sh("echo why >&2; exit 3"), ("exit_code",)),
    "limited": Kind(sh("exit 75"), ("rate_limited",)),
    "typo": Kind(["no-such-program-at-all"], ("spawn_error",)),
    "killed": Kind(sh("sleep 0.3; kill -KILL $$"), ("signal", "oom")),
    "late": Kind(sh("sleep 600"), ("timeout",), timeout="4s"),
    "deaf": Kind(sh("trap '' TERM INT HUP; sleep 600"), ("timeout",), timeout="3s"),
    "parent": Kind(sh("setsid sleep 600 & (sleep 600 &) ; sleep 0.5"), ("done",)),
    "busy": Kind(sh("i=0; while ((i < 100000)); do ((i+=1)); done"), ("done",)),
    "big": Kind([sys.executable, "-c", "import time; x = b'x' * (80 << 20); time.sleep(2)"], ("done",)),
    "litterer": Kind(sh("mkdir -p $TMPDIR/deep/er; echo x >$TMPDIR/deep/er/file"), ("done",)),
}
LIKELY = [*KINDS, *["quick", "short", "long"] * 3]


class Orchestra:
    """The command line, in a root of its own."""

    def __init__(self, place: Path) -> None:
        self.root = place / "runs"
        self.tmp = place / "tmp"
        self.tmp.mkdir()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ORCHESTRA_")}
        self.env = {**kept, "ORCHESTRA_ROOT": str(self.root), "TMPDIR": str(self.tmp)}

    def start(self, *words: str, stdin: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestra", *words, "--json"],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(stdin)
            process.stdin.close()
        process.stdin = None
        return process

    def __call__(self, *words: str, stdin: str = "") -> tuple[int, dict[str, Any]]:
        """(exit status, answer)."""
        process = self.start(*words, stdin=stdin)
        out, err = process.communicate(timeout=300)
        lines = out.splitlines()
        if not lines or process.returncode == 70 or "Traceback" in err:
            raise AssertionError(
                f"orchestra {' '.join(words)}: {process.returncode}: {out[-500:]} {err[-2000:]}"
            )
        return process.returncode, json.loads(lines[-1])


class Night:
    """What all that take part share."""

    def __init__(self, place: Path, orchestra: Orchestra, ends_at: float) -> None:
        self.place = place
        self.orchestra = orchestra
        self.ends_at = ends_at
        self.asked: dict[str, dict[str, str]] = {}  # run -> worker -> kind
        self.stopped: set[tuple[str, str]] = set()
        self.did: Counter[str] = Counter()
        self.faults: list[str] = []
        self.lock = threading.Lock()

    def left_s(self) -> float:
        return max(0.0, self.ends_at - time.monotonic())

    def tally(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in sorted(self.did.items()))

    def plan(self) -> Path:
        """No phases that matter: limits, under which the pressure is felt."""
        import psutil

        free = psutil.virtual_memory().available
        plan = {
            "throttle": {"max_workers": 12, "memory_available": max(64 * MIB, free - 3000 * MIB)},
            "stall": "20s",
            "phases": [{"name": "p", "workers": [{"name": "First", "brief": "b", "command": ["true"]}]}],
        }
        path = self.place / "plan.json"
        path.write_text(json.dumps(plan))
        return path

    def remove(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)


def narrate(night: Night, run: str, dice: random.Random) -> None:
    """One narrator after the other, until the night is over."""
    night.asked[run] = {"First": "quick"}
    acts = [ask, ask, ask, wait, drain, conduct, stop, look, retry, kill_something, take_over]
    while night.left_s() > 0:
        act = dice.choice(acts)
        try:
            act(night, run, dice)
        except Exception as error:
            night.faults.append(f"{run}: {act.__name__}: {type(error).__name__}: {error}")
            return


def call(night: Night, dice: random.Random, *words: str, stdin: str = "", deadly: float = 0.25) -> None:
    """A command, which by chance is killed in the middle, its narrator being no more."""
    if dice.random() >= deadly:
        code, _ = night.orchestra(*words, stdin=stdin)
        night.did[words[0]] += 1
        if code not in (0, 1, 3, 4, 5):
            night.faults.append(f"orchestra {' '.join(words)} ended with {code}")
        return
    process = night.orchestra.start(*words, stdin=stdin)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=dice.uniform(0.05, 1.5))
    if process.poll() is None:
        process.send_signal(dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        process.communicate()
        night.did["narrators killed"] += 1


def ask(night: Night, run: str, dice: random.Random) -> None:
    rows = []
    for _ in range(dice.randint(1, 8)):
        kind = dice.choice(LIKELY)
        name = f"{kind}-{len(night.asked[run])}"
        night.asked[run][name] = kind
        made = KINDS[kind]
        rows.append({"name": name, "brief": kind, "command": made.command, "retries": 1}
                    | ({} if made.timeout == "off" else {"timeout": made.timeout}))  # fmt: skip
    text = json.dumps(rows)
    call(night, dice, "spawn", run, "--from", "-", stdin=text)
    call(night, dice, "spawn", run, "--from", "-", stdin=text, deadly=0)  # who comes next asks again
    night.did["workers"] += len(rows)


def wait(night: Night, run: str, dice: random.Random) -> None:
    call(night, dice, "wait", run, "--timeout", f"{dice.uniform(0, 3):.1f}")


def drain(night: Night, run: str, dice: random.Random) -> None:
    call(night, dice, "wait", run, "--drain", "--keep-going", "--timeout", f"{dice.uniform(1, 8):.1f}")


def conduct(night: Night, run: str, dice: random.Random) -> None:
    call(night, dice, "run", "--run", run, deadly=1.0)


def look(night: Night, run: str, dice: random.Random) -> None:
    call(night, dice, "status", run)
    call(night, dice, "explain", run, dice.choice(["First", *night.asked[run]][:1]))
    call(night, dice, "list")


def stop(night: Night, run: str, dice: random.Random) -> None:
    _, answer = night.orchestra("status", run, "--state", "running")
    names = [row["name"] for row in answer["workers"]]
    if names:
        name = dice.choice(names)
        night.stopped.add((run, name))
        call(night, dice, "stop", run, name, "--grace", dice.choice(["0", "0.5", "2"]))


def retry(night: Night, run: str, dice: random.Random) -> None:
    call(night, dice, "retry", run)


def take_over(night: Night, run: str, dice: random.Random) -> None:
    call(night, dice, "takeover", run, "--narrator", dice.choice(["anna", "bob"]))


def kill_something(night: Night, run: str, dice: random.Random) -> None:
    """A launcher, as the machine might; whoever it was the launcher of may end as lost."""
    _, answer = night.orchestra("status", run, "--state", "running")
    rows = [row for row in answer["workers"] if row["pid"]]
    if rows:
        row = dice.choice(rows)
        mark = night.orchestra.root / run / f".pid-{row['name']}.json"
        night.stopped.add((run, row["name"]))
        with contextlib.suppress(OSError, ValueError):
            if json.loads(mark.read_text())["pid"] == row["pid"]:
                os.kill(row["pid"], dice.choice([signal.SIGKILL, signal.SIGTERM]))
                night.did["launchers killed"] += 1


def press(night: Night, dice: random.Random) -> None:
    """Memory and CPUs, now and then."""
    hog = "import time; held = b'x' * (%d << 20); time.sleep(600)"
    while night.left_s() > 0:
        time.sleep(min(night.left_s(), dice.uniform(5, 20)))
        argvs = dice.choice(
            [
                [[sys.executable, "-c", hog % 2800]],
                [["nice", "sh", "-c", "while :; do :; done"]] * 16 * (os.cpu_count() or 1),
            ]
        )
        pressing = [subprocess.Popen(argv, stdin=subprocess.DEVNULL) for argv in argvs]
        time.sleep(min(night.left_s(), dice.uniform(3, 12)))
        for process in pressing:
            process.kill()
            process.wait()
        night.did["times of pressure"] += 1
