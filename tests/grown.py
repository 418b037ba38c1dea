"""Workers that grow process trees, and launchers that are run by hand or hooked at an instant."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from conftest import Answer, Root, clean_environment, processes_of, wait_until

LONG = bool(os.environ.get("ORCHESTRA_LONG"))
IMPATIENT_S = 8.0  # well under the default grace of 10 s, well over a call of the command line

# Every process of a tree has MARK, the first argument of the script, in its argv. `leaf NAME` becomes
# a process that does nothing; `ready` is told once the whole tree stands.
PRELUDE = r"""
mark=$1
leaf() { exec -a "$mark-$1" sleep 300; }
export -f leaf
ready() { : >"$mark-ready"; }
"""

FORKS = r"""
for i in 1 2 3; do leaf "$i" & done
(leaf deep & leaf deeper)&
ready; wait
"""
SETSID = r"""
setsid bash -c 'exec -a "$0-own-session" sleep 300' "$mark" &
ready; wait
"""
ORPHAN = r"""
setsid bash -c 'setsid bash -c "exec -a \"\$0-orphan\" sleep 300" "$0" & exit' "$mark"
"""
SETSID_TWICE = ORPHAN + "ready; leaf main"
CLEAN_ENVIRONMENT = r"""
env -i setsid bash -c 'exec -a "$0-bare" sleep 300' "$mark" &
env -i bash -c 'setsid bash -c "exec -a \"\$0-bare-orphan\" sleep 300" "$0" & exit' "$mark"
ready; wait
"""
STORM = r"""
for ((i = 0; i < 150; i++)); do leaf "$i" & done
ready; wait
"""
RUNAWAY = r"""
# Each forks the next and is gone: 1000 of them, each an orphan in a session of its own.
run() { (($1 > 0)) || return; sleep 0.01; setsid bash -c 'run "$@"' "$mark-$1" $(($1 - 1)) & }
export -f run; export mark
run 1000
ready; leaf main
"""
STOPPED = r"""
leaf stopped & kill -STOP $!
ready; kill -STOP $$; wait
"""
IGNORES_TERM = r"""
trap '' TERM
setsid bash -c 'exec -a "$0-deaf" sleep 300' "$mark" &
ready; leaf deaf-main
"""
IGNORES_ALL = r"""
trap '' $(seq 1 31) 2>/dev/null
env -i setsid bash -c 'exec -a "$0-deaf" sleep 300' "$mark" &
ready; leaf deaf-main
"""

POLITE = {
    "forks": FORKS,
    "setsid": SETSID,
    "setsid_twice": SETSID_TWICE,
    "clean_environment": CLEAN_ENVIRONMENT,
    "storm": STORM,
    "stopped": STOPPED,
}
DEAF = {"ignores_term": IGNORES_TERM, "ignores_all": IGNORES_ALL, "runaway": RUNAWAY}


class Trees:
    """Workers that grow trees, in a run called `t`."""

    def __init__(self, root: Root, path: Path) -> None:
        self.root = root
        self.path = path
        root.init("t")

    @property
    def run_dir(self) -> Path:
        return self.root.run_dir("t")

    def command(self, script: str, name: str = "W") -> list[str]:
        file = self.path / f"{name}.sh"
        file.write_text(PRELUDE + script)
        return ["bash", str(file), str(self.path / f"mark-{name}")]

    def grow(self, script: str, name: str = "W", **entry: Any) -> None:
        """Spawn a worker and wait until its tree stands."""
        answer = self.root.spawn("t", {name: self.command(script, name)}, **entry)
        assert (answer.code, answer.names("spawned")) == (0, [name]), answer
        wait_until((self.path / f"mark-{name}-ready").exists, "the tree")

    def alive(self, name: str = "W") -> list[int]:
        """The tree's living processes, by their argv."""
        needle = os.fsencode(self.path / f"mark-{name}")
        return [pid for pid in processes_of(self.path) if needle in cmdline_of(pid)]

    def launcher(self, name: str = "W") -> int:
        return int(self.root.mark("t", name)["pid"])

    def main(self, name: str = "W") -> int:
        """The worker's own process."""
        children = Path(f"/proc/{self.launcher(name)}/task/{self.launcher(name)}/children").read_text()
        found = [int(pid) for pid in children.split() if str(self.path).encode() in cmdline_of(int(pid))]
        assert found, children
        return found[0]

    def kill_launcher(self, name: str = "W") -> None:
        pid = self.launcher(name)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), "the launcher's end")

    def result(self, name: str = "W") -> dict[str, Any]:
        wait_until((self.run_dir / f"result-{name}.json").exists, "the result")
        return self.root.result("t", name)

    def stop(self, *words: str) -> tuple[Answer, float]:
        """(the answer, seconds from the word to the last end, by the log)."""
        answer = self.root("stop", "t", *words)
        events = self.root.events("t")
        meant = next(event for event in events if event["kind"] == "stop_intended")
        ended = [event for event in events if event["kind"] == "ended" and event["op"] > meant["op"]]
        assert ended, events
        return answer, seconds_of(ended[-1]["at"]) - seconds_of(meant["at"])


def seconds_of(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def cmdline_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def is_alive(pid: int) -> bool:
    return state_of(pid) not in "ZX"


def by_hand(script: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(script)], env=clean_environment(**env), capture_output=True, text=True, timeout=60
    )


DIE_BEFORE_LAUNCH = """
import os, sys
from orchestra.backend.local import LocalBatch
from orchestra.cli.main import main
LocalBatch.launch = lambda *_: os.kill(os.getpid(), 9)
sys.argv[0] = "orchestra"
main()
"""


def abandon(trees: Trees, script: str, **entry: Any) -> Path:
    """A spawn whose narrator dies with everything written and nothing started; the launcher's path."""
    row = {"name": "W", "brief": "b", "command": trees.command(script), **entry}
    done = subprocess.run(
        [sys.executable, "-c", DIE_BEFORE_LAUNCH, "spawn", "t", "--from", "-", "--no-throttle"],
        env=clean_environment(ORCHESTRA_ROOT=str(trees.root.path)),
        input=json.dumps([row]),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done
    wait_until(lambda: processes_of(trees.path) == [], "the end of all")
    return trees.run_dir / ".run-W.sh"


HOOK = r"""
# As soon as the launcher is about to run a command that looks like {pattern}, once, this is done.
hook() {
  [[ -z ${HOOKED-} && $1 == {pattern} ]] || return 0
  HOOKED=yes
  printf '%s\n' "$1" >{fired}
  {action}
}
trap 'hook "$BASH_COMMAND"' DEBUG
"""


def hooked(trees: Trees, script: Path, pattern: str, action: str) -> Path:
    """Makes a launcher do `action` before that command; returns what tells that it did."""
    fired = trees.path / "hook-fired"
    hook = HOOK.replace("{pattern}", pattern).replace("{action}", action)
    insert(script, hook.replace("{fired}", shlex.quote(str(fired))))
    return fired


def insert(script: Path, text: str) -> None:
    """At the beginning of a launcher, behind its first line."""
    first, rest = script.read_text().split("\n", 1)
    script.write_text(f"{first}\n{text}\n{rest}")
