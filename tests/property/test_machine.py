"""Whatever befalls a run, in whatever order: no worker is lost from sight, none has two lives.

Hypothesis makes up the story: spawns, kills of workers, launchers and narrators, retries, stops, clearing
up. The launchers and processes are real. After each step the run is held against a simple model.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from conftest import clean_environment, end_processes_of, orchestra_argv, processes_of, wait_until
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from orchestra.cli.main import run
from orchestra.model.event import decode
from orchestra.model.record import State
from orchestra.model.verdict import Retry, Verdict

LONG = bool(os.environ.get("ORCHESTRA_LONG"))
RUN = "m"

# It tells its start before anything else, then does as its kind does.
WORKER = """
echo start >>"$2/$ORCHESTRA_WORKER.$ORCHESTRA_ATTEMPT"
case $1 in ok) exit 0 ;; fail) exit 3 ;; long) exec sleep 300 ;; esac
"""

OFF = {"memory_available": "off", "load_per_cpu": "off", "disk_queue": "off", "max_workers": "off"}
IMPOSSIBLE = {**OFF, "memory_available": "1000TiB"}

Fate = tuple[str, str | None]  # state, verdict
RUNNING: Fate = ("running", None)
DEFERRED: Fate = ("deferred", None)
UNSTARTED: set[Fate] = {("spawning", None), DEFERRED}  # a narrator died over it
OK: set[Fate] = {RUNNING, ("done", None)}
FATES: dict[str, set[Fate]] = {
    "ok": OK,
    "fail": {RUNNING, ("failed", "exit_code")},
    "long": {RUNNING},
}
MOMENTS = ("at once", "lock", "intent", "brief", "launcher", "mark", "sign", "late")


class Call(NamedTuple):
    code: int
    json: dict[str, Any]


class Child:
    """A worker as the model has it."""

    def __init__(self, name: str, kind: str, throttle: dict[str, str], certain: bool = True) -> None:
        self.name = name
        self.kind = kind
        self.throttle = throttle
        self.certain = certain  # whether it must be in the run: not if its narrator was killed
        self.attempt = 1
        self.fates: set[Fate] = set()
        self.told: Fate | None = None  # how the current attempt ended, once a status has said so
        self.row: dict[str, Any] = {}

    def begin(self, *, throttled: bool = True) -> None:
        """A new attempt, or the first."""
        impossible = throttled and self.throttle is IMPOSSIBLE
        self.fates = {DEFERRED} if impossible else set(FATES[self.kind])
        self.told = None

    @property
    def state(self) -> str:
        return str(self.row.get("state", ""))


class Machine(RuleBasedStateMachine):
    """The model, and the story's steps. Subclasses say how the command line is called.

    A step for which there is nobody does nothing. It has no precondition: who is there hangs on how
    fast the processes are, and Hypothesis wants the same choices at each telling.
    """

    in_process: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="orc-machine-"))
        self.root = self.path / "runs"
        self.starts = self.path / "starts"
        self.run_dir = self.root / RUN
        for directory in (self.root, self.starts, self.path / "tmp"):
            directory.mkdir()
        self.children: dict[str, Child] = {}
        self.log = b""
        self.seat: str | None = None
        self.unseated: set[str] = set()
        self.mutated = False  # whether the last step was a mutating command

    def teardown(self) -> None:
        end_processes_of(self.path)
        shutil.rmtree(self.path, ignore_errors=True)

    # --- calling --------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        return clean_environment(TMPDIR=str(self.path / "tmp"), ORCHESTRA_ROOT=str(self.root))

    def call(self, *words: str) -> Call:
        argv = ["--json", *words]
        code, out = self.call_here(argv) if self.in_process else self.call_there(argv)
        assert code != 70, (words, out)
        return Call(code, json.loads(out.splitlines()[-1]))

    def call_there(self, argv: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            orchestra_argv(*argv),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
        )
        return done.returncode, done.stdout

    def call_here(self, argv: list[str]) -> tuple[int, str]:
        before = dict(os.environ)
        handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP)}
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        os.environ.clear()
        os.environ.update(self.environment())
        try:
            with contextlib.redirect_stdout(out):
                code = run(argv)
        finally:
            os.environ.clear()
            os.environ.update(before)
            for signum, handler in handlers.items():
                signal.signal(signum, handler)
        out.flush()
        out.seek(0)
        return code, out.read()

    def mutate(self, *words: str) -> Call:
        self.mutated = True
        return self.call(*words)

    # --- looking --------------------------------------------------------------------------

    def living(self) -> dict[str, dict[str, list[int]]]:
        """Worker -> token -> PIDs of all that carries it."""
        found: dict[str, dict[str, list[int]]] = {}
        needle = f"ORCHESTRA_RUN_DIR={self.run_dir}"
        for pid in processes_of(self.run_dir):
            try:
                environ = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if needle in environ:
                values = dict(pair.split("=", 1) for pair in environ if "=" in pair)
                tokens = found.setdefault(values["ORCHESTRA_WORKER"], {})
                tokens.setdefault(values["ORCHESTRA_TOKEN"], []).append(pid)
        return found

    def mark(self, child: Child) -> dict[str, Any] | None:
        try:
            loaded: dict[str, Any] = json.loads((self.run_dir / f".pid-{child.name}.json").read_text())
        except (OSError, ValueError):
            return None
        return loaded if loaded["attempt"] == child.attempt else None

    def unclaimed(self) -> list[int]:
        """Launchers, and what starts them, that have not shown yet whether they will start a worker."""
        found = []
        for pid in processes_of(self.path):
            with contextlib.suppress(OSError):
                argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                if any(word.endswith("starter.py") for word in argv):
                    found.append(pid)
                script = next((word for word in argv if "/.run-" in word), None)
                if script is not None:
                    name = Path(script).name.removeprefix(".run-").removesuffix(".sh")
                    if not self.claimed(name):
                        found.append(pid)
        return found

    def claimed(self, name: str) -> bool:
        with contextlib.suppress(OSError):
            return (self.run_dir / f".pid-{name}.json").stat().st_size > 0
        return False

    def at(self, state: str, kind: str | None = None) -> list[Child]:
        found = [c for c in self.children.values() if c.state == state and kind in (None, c.kind)]
        return sorted(found, key=lambda c: c.name)

    # --- the story ------------------------------------------------------------------------

    @initialize()
    def init(self) -> None:
        assert self.call("init", RUN).code == 0

    def list_of(self, children: list[Child]) -> str:
        """A file for `--from`."""
        command = ["bash", "-c", WORKER, "worker"]
        rows = [
            {
                "name": child.name,
                "brief": f"be {child.kind}",
                "command": [*command, child.kind, str(self.starts)],
                "throttle": child.throttle,
            }
            for child in children
        ]
        file = self.path / "workers.json"
        file.write_text(json.dumps(rows))
        return str(file)

    def new(self, kind: str, throttle: dict[str, str], certain: bool = True) -> Child:
        child = Child(f"W{len(self.children)}", kind, throttle, certain)
        self.children[child.name] = child
        child.begin()
        return child

    def picked_up(self, *, throttled: bool) -> None:
        """What every spawn does besides: it starts what stands unstarted."""
        for child in self.children.values():
            if child.fates & UNSTARTED:
                started = set(FATES[child.kind])
                if child.throttle is IMPOSSIBLE and throttled:
                    # A launcher that was ordered without throttle may have been at it already.
                    child.fates = {DEFERRED} | (child.fates - UNSTARTED)
                else:
                    child.fates = started | (child.fates - UNSTARTED)

    @rule(kinds=st.lists(st.sampled_from(["ok", "fail", "long"]), min_size=1, max_size=3))
    def spawn_new(self, kinds: list[str]) -> None:
        self.picked_up(throttled=True)
        children = [self.new(kind, OFF) for kind in kinds]
        answer = self.mutate("spawn", RUN, "--from", self.list_of(children))
        spawned = [row["name"] for row in answer.json["spawned"]]
        assert {c.name for c in children} <= set(spawned), answer
        assert answer.code == (4 if answer.json["deferred"] else 0), answer

    @rule()
    def spawn_what_must_be_deferred(self) -> None:
        self.picked_up(throttled=True)
        child = self.new("long", IMPOSSIBLE)
        answer = self.mutate("spawn", RUN, "--from", self.list_of([child]))
        deferred = {row["name"]: row for row in answer.json["deferred"]}
        assert answer.code == 4, answer
        assert [s["signal"] for s in deferred[child.name]["signals"]] == ["memory_available"]

    @rule(pick=st.integers(0, 99))
    def make_the_same_call_again(self, pick: int) -> None:
        if not self.children:
            return
        child = list(self.children.values())[pick % len(self.children)]
        known = bool(child.row)
        self.picked_up(throttled=True)
        answer = self.mutate("spawn", RUN, "--from", self.list_of([child]))
        buckets = [
            b
            for b in ("spawned", "deferred", "failed", "already")
            for r in answer.json[b]
            if r["name"] == child.name
        ]
        assert len(buckets) == 1, answer
        child.certain = True
        if not known:
            child.begin()

    @rule(throttled=st.booleans())
    def pick_up(self, throttled: bool) -> None:
        self.picked_up(throttled=throttled)
        answer = self.mutate("spawn", RUN, *([] if throttled else ["--no-throttle"]))
        assert answer.code in (0, 4), answer

    @rule(pick=st.integers(0, 99), who=st.sampled_from(["worker", "launcher", "both"]))
    def kill(self, pick: int, who: str) -> None:
        running = [c for c in self.at("running", "long") if ("failed", "signal") not in c.fates]
        if not running:
            return
        child = running[pick % len(running)]
        launcher = self.mark(child)
        assert launcher is not None
        wait_until(lambda: child.name in self.living(), "the worker's own process")
        if who in ("launcher", "both"):
            os.kill(launcher["pid"], signal.SIGKILL)
            wait_until(lambda: launcher["pid"] not in processes_of(self.path), "the launcher's end")
        if who in ("worker", "both"):
            for pids in self.living().get(child.name, {}).values():
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        child.fates = {RUNNING, ("failed", "signal")} if who == "worker" else {("failed", "lost")}

    @rule(
        kinds=st.lists(st.sampled_from(["ok", "fail", "long"]), min_size=1, max_size=3),
        moment=st.sampled_from(MOMENTS),
        more_ms=st.integers(0, 20),
    )
    def kill_narrator(self, kinds: list[str], moment: str, more_ms: int) -> None:
        children = [self.new(kind, OFF, certain=False) for kind in kinds]
        for child in self.children.values():
            if child.fates & UNSTARTED and child.throttle is not IMPOSSIBLE:
                child.fates |= FATES[child.kind]
        for child in children:
            child.fates |= UNSTARTED
        with subprocess.Popen(
            orchestra_argv("spawn", RUN, "--from", self.list_of(children)),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as narrator:
            has_come = self.moment(moment, children[-1].name)
            wait_until(lambda: narrator.poll() is not None or has_come(), moment)
            ends = time.monotonic() + more_ms / 1000
            wait_until(lambda: time.monotonic() >= ends)
            narrator.kill()
        wait_until(lambda: not self.unclaimed(), "the launchers' claims")

    def moment(self, moment: str, name: str) -> Callable[[], bool]:
        files = {
            "lock": ".narrator.lock",
            "brief": f"brief-{name}.md",
            "launcher": f".run-{name}.sh",
            "mark": f".pid-{name}.json",
        }
        if moment in files:
            return (self.run_dir / files[moment]).exists
        needle = {"intent": b'"worker":"%s"' % name.encode(), "sign": b'"kind":"spawned"'}.get(moment)
        seen = len(self.log)
        if needle is not None:
            return lambda: needle in (self.run_dir / "events.jsonl").read_bytes()[seen:]
        return lambda: moment == "at once"

    @rule(timeout_s=st.sampled_from(["0", "0.05"]), keep_going=st.booleans())
    def wait_a_little(self, timeout_s: str, keep_going: bool) -> None:
        words = ["--keep-going"] if keep_going else []
        assert self.call("wait", RUN, "--timeout", timeout_s, *words).code in (0, 1, 4, 5)

    @rule()
    def wait_for_the_brief_ones(self) -> None:
        names = [word for child in self.brief_ones() for word in ("--for", child.name)]
        if not names:
            return
        answer = self.call("wait", RUN, "--keep-going", "--timeout", "30", *names)
        assert answer.code in (0, 1), answer
        for child in self.brief_ones():
            child.fates -= {RUNNING}

    def brief_ones(self) -> list[Child]:
        return [c for c in self.children.values() if c.kind != "long" and c.row and not c.fates & UNSTARTED]

    @rule(pick=st.none() | st.integers(0, 99))
    def retry(self, pick: int | None) -> None:
        failed = self.at("failed")
        if not failed:
            return
        worth_it = [child for child in failed if child.row["retry"] != Retry.NEVER]
        chosen = worth_it if pick is None else [failed[pick % len(failed)]]
        answer = self.mutate("retry", RUN, *([] if pick is None else [chosen[0].name]))
        rows = {r["name"]: b for b in ("spawned", "deferred", "failed") for r in answer.json[b]}
        for child in chosen:
            child.attempt += 1
            child.begin()
            deferred = child.throttle is IMPOSSIBLE
            assert rows[child.name] == ("deferred" if deferred else "spawned"), answer
        for name in set(rows) - {c.name for c in chosen}:  # it failed between our look and the retry
            assert pick is None
            self.children[name].attempt += 1
            self.children[name].begin()

    @rule(pick=st.none() | st.integers(0, 99))
    def stop(self, pick: int | None) -> None:
        known = [c for c in self.children.values() if c.row]
        if not known:
            return
        chosen = known if pick is None else [known[pick % len(known)]]
        answer = self.mutate("stop", RUN, "--grace", "1", *([] if pick is None else [chosen[0].name]))
        assert (answer.code, answer.json["still_alive"]) == (0, []), answer
        for child in chosen:
            ended = {fate for fate in child.fates if fate[0] in ("done", "failed")}
            child.fates = ended | ({("failed", "stopped")} if child.fates - ended else set())

    @rule()
    def unlock(self) -> None:
        answer = self.mutate("unlock", RUN)
        assert answer.code == 0, answer
        for child in self.children.values():
            if ("spawning", None) in child.fates:
                child.fates.add(DEFERRED)

    @rule(narrator=st.sampled_from("AB"))
    def takeover(self, narrator: str) -> None:
        answer = self.mutate("takeover", RUN, "--narrator", narrator)
        assert (answer.code, answer.json["seat"]) == (0, narrator)
        if self.seat not in (None, narrator):
            self.unseated.add(str(self.seat))
        self.unseated.discard(narrator)
        self.seat = narrator

    @rule(narrator=st.sampled_from("ABC"))
    def spawn_as(self, narrator: str) -> None:
        answer = self.mutate("spawn", RUN, "--narrator", narrator)
        if self.seat in (None, narrator):
            self.seat = narrator
            self.picked_up(throttled=True)
            assert answer.code in (0, 4), answer
        else:
            code = "superseded" if narrator in self.unseated else "narrator_already_active"
            assert (answer.code, answer.json["error"]["code"]) == (3, code)
            self.mutated = False

    @rule()
    def delete_the_derived_state(self) -> None:
        state = self.run_dir / "state.json"
        events = self.run_dir / "events.jsonl"
        for _ in range(20):  # workers end when they like: compare where nothing came in between
            self.unlock()
            before, log = state.read_text(), events.read_bytes()
            state.unlink()
            self.unlock()
            if log == events.read_bytes():
                assert json.loads(state.read_text()) == json.loads(before)
                return
        pytest.fail("the log never came to rest")

    # --- what must be true after each step ------------------------------------------------

    @invariant()
    def all_is_well(self) -> None:
        if not self.run_dir.exists():
            return
        self.every_line_of_the_log_counts()
        self.every_worker_is_where_it_may_be()
        self.nobody_lives_twice()
        self.nobody_was_started_twice()
        self.mutated = False

    def every_line_of_the_log_counts(self) -> None:
        log = (self.run_dir / "events.jsonl").read_bytes()
        assert log.startswith(self.log)
        assert log.endswith(b"\n")
        self.log = log
        events = [decode(line) for line in log.splitlines()]
        ops = [event.op for event in events if event is not None]
        assert len(ops) == len(events)
        assert all(a < b for a, b in pairwise(ops)), ops

    def every_worker_is_where_it_may_be(self) -> None:
        answer = self.call("status", RUN, "--limit", "0")
        assert answer.code == 0, answer
        rows = answer.json["workers"]
        names = [row["name"] for row in rows]
        assert len(names) == len(set(names))
        assert set(names) >= {c.name for c in self.children.values() if c.certain or c.row}
        assert set(names) <= set(self.children)
        assert answer.json["counts"] == {**{s.value: 0 for s in State}, **Counter(r["state"] for r in rows)}
        for row in rows:
            child = self.children[row["name"]]
            fate = (row["state"], row["verdict"])
            assert fate in child.fates, (row, child.fates)
            assert row["attempt"] == child.attempt, row
            if row["state"] == "failed":
                assert row["verdict"] in {v.value for v in Verdict}
                assert row["retry"] in {r.value for r in Retry}
            if child.told is not None:
                assert fate == child.told, row
            if row["state"] in ("done", "failed"):
                child.told = fate
                child.fates = {fate}
            child.row = row

    def nobody_lives_twice(self) -> None:
        living = self.living()
        for name, tokens in living.items():
            assert len(tokens) == 1, (name, tokens)
        if self.mutated:
            left = {name for name in living if self.children[name].told is not None}
            assert not left, (left, living)

    def nobody_was_started_twice(self) -> None:
        for file in self.starts.iterdir():
            name, attempt = file.name.rsplit(".", 1)
            assert file.read_text() in ("", "start\n"), file.name  # empty: it is writing
            assert int(attempt) <= self.children[name].attempt


class MachineOfCommands(Machine):
    """The same story, each command in a process of its own."""

    in_process = False


SETTINGS = settings(
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    # With real processes, shrinking takes minutes; a story that fails is told as it was.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if LONG else [])],
    suppress_health_check=list(HealthCheck),
    max_examples=150 if LONG else 15,
    stateful_step_count=25,
)


@pytest.mark.timeout(1800 if LONG else 240)
def test_no_story_loses_a_worker_or_gives_it_two_lives() -> None:
    run_state_machine_as_test(Machine, settings=SETTINGS)


@pytest.mark.timeout(1800 if LONG else 240)
def test_no_story_told_in_commands_loses_a_worker_or_gives_it_two_lives() -> None:
    few = settings(SETTINGS, max_examples=20 if LONG else 2, stateful_step_count=12)
    run_state_machine_as_test(MachineOfCommands, settings=few)
