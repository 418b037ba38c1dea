"""What every test stands on: a root of its own, the real command line, and no process left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from orchestra.store.eventlog import EventLog

if TYPE_CHECKING:
    from grown import Trees

PATIENCE_S = 30.0

# Commands inherit what is ignored; whoever starts the tests from a script ignores interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
for signum in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(signum, signal.SIG_DFL)


CALM = {"load_per_cpu": "off", "disk_queue": "off", "memory_available": "1B"}
"""Limits that no machine at work meets."""


class Answer(NamedTuple):
    """What a call of the command line gave back."""

    code: int
    json: dict[str, Any]
    stdout: str
    stderr: str

    def names(self, bucket: str) -> list[str]:
        """The workers in one of spawn's buckets."""
        return [row["name"] for row in self.json[bucket]]


def orchestra_argv(*words: str) -> list[str]:
    """The real command line, under the interpreter that runs the tests."""
    return [sys.executable, "-m", "orchestra", *words]


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment without anything that an outer orchestra may have put there."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ORCHESTRA_", "_ORCHESTRA"))}
    return {**kept, "XDG_CONFIG_HOME": str(Path(__file__).parent / "config"), **extra}


class Root:
    """A runs root in a temporary directory, and the command line over it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tmp = path.parent / "tmp"
        self.tmp.mkdir(exist_ok=True)

    def run_dir(self, run: str) -> Path:
        return self.path / run

    def start(self, *words: str, env: dict[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        """The command line in the background."""
        more.setdefault("stdout", subprocess.PIPE)
        more.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen(
            orchestra_argv(*words),
            env=clean_environment(ORCHESTRA_ROOT=str(self.path), **{"TMPDIR": str(self.tmp), **(env or {})}),
            text=True,
            **more,
        )

    def __call__(
        self,
        *words: str,
        stdin: str | None = None,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 90.0,
        limits: str = "",
    ) -> Answer:
        """Call it and parse its one JSON object (the last line where there are several).

        `limits`: options of `ulimit`, where it has them.
        """
        argv = orchestra_argv(*words)
        if limits:
            argv = ["bash", "-c", f'ulimit {limits} && exec "$@"', "bash", *argv]
        done = subprocess.run(
            argv,
            env=clean_environment(ORCHESTRA_ROOT=str(self.path), **{"TMPDIR": str(self.tmp), **(env or {})}),
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=timeout,
        )
        lines = done.stdout.splitlines()
        answer = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        return Answer(done.returncode, answer, done.stdout, done.stderr)

    def brief(self, name: str, text: str = "do it\n") -> str:
        """A brief file beside the root; returns its path."""
        path = self.path.parent / f"brief of {name}.md"
        path.write_text(text)
        return str(path)

    def init(self, run: str, plan: str | None = None) -> None:
        """A run, of a plan's text if one is given."""
        words = ["init", run]
        if plan is not None:
            file = self.path.parent / f"{run}.yaml"
            file.write_text(plan)
            words += ["--plan", str(file)]
        answer = self(*words)
        assert answer.code == 0, answer

    def spawn(self, run: str, workers: dict[str, list[str]], *words: str, **entry: Any) -> Answer:
        """Spawn workers, each with a command of its own; `entry` is added to each of them."""
        rows = [{"name": n, "brief": f"brief of {n}", "command": c, **entry} for n, c in workers.items()]
        return self("spawn", run, "--from", "-", "--no-throttle", *words, stdin=json.dumps(rows))

    def worker(self, run: str, name: str) -> dict[str, Any]:
        """One worker as `status` tells it."""
        rows = self("status", run, "--limit", "0").json["workers"]
        found: dict[str, Any] = next(row for row in rows if row["name"] == name)
        return found

    def result(self, run: str, name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.run_dir(run) / f"result-{name}.json").read_text())
        return loaded

    def mark(self, run: str, name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.run_dir(run) / f".pid-{name}.json").read_text())
        return loaded

    def events(self, run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run_dir(run) / "events.jsonl").read_text().splitlines()]


def log_at(folder: Path, data: bytes) -> EventLog:
    """A log of these bytes, and a reader of it."""
    (folder / "events.jsonl").write_bytes(data)
    return EventLog(str(folder / "events.jsonl"), str(folder / "events.damaged"))


def contents(top: Path) -> dict[str, tuple[int, bytes]]:
    """Every path below with its mode and what is in it."""
    return {
        str(path.relative_to(top)): (path.lstat().st_mode, b"" if path.is_dir() else path.read_bytes())
        for path in sorted(top.rglob("*"))
    }


def wait_until(
    condition: Callable[[], Any], what: str = "the condition", timeout_s: float = PATIENCE_S
) -> Any:
    """The condition's first true value; fails at the bound."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    pytest.fail(f"{what} did not come true within {timeout_s:g} s")


def watches(pid: int) -> bool:
    """Whether a process waits for changes to files."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return "anon_inode:inotify" in found


def processes_of(path: Path) -> list[int]:
    """Every living process whose argv or environment names this directory, but for the tests themselves."""
    needle = os.fsencode(str(path))
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in (os.getpid(), os.getppid()):
            continue
        try:
            text = Path(f"/proc/{entry}/cmdline").read_bytes() + Path(f"/proc/{entry}/environ").read_bytes()
            state = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:
            continue
        if needle in text and state not in (b"Z", b"X"):
            found.append(int(entry))
    return found


def with_descendants(pids: list[int]) -> list[int]:
    """These, and what descends from them: it may have cleared its environment."""
    import psutil

    family = set(pids)
    for pid in pids:
        try:
            family |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
        except psutil.Error:
            continue
    return sorted(family)


def end_processes_of(path: Path) -> None:
    """End whatever a test has started in its directory, until nothing is left."""
    deadline = time.monotonic() + PATIENCE_S
    while pids := processes_of(path):
        for pid in with_descendants(pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        assert time.monotonic() < deadline, f"could not end {pids}"
        time.sleep(0.01)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """No process of any test may be left."""
    if hasattr(session.config, "workerinput"):
        return  # one of several that test side by side: who started them looks
    base = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    for pid in processes_of(base):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            print(f"\nLEFT by the tests: {pid} {os.fsdecode(words)}")
            session.exitstatus = 1


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Root]:
    """A runs root; whatever was started under it is ended with the test, whose own is TMPDIR."""
    path = tmp_path / "runs"
    path.mkdir()
    root = Root(path)
    monkeypatch.setenv("TMPDIR", str(root.tmp))
    yield root
    end_processes_of(tmp_path)


@pytest.fixture
def trees(root: Root, tmp_path: Path) -> Trees:
    from grown import Trees  # it needs what stands here

    return Trees(root, tmp_path)
