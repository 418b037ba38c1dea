"""One run directory, two hosts: the lock where no PID proves anything and flock is of no help.

A host is a set of namespaces: another name, another boot id, PIDs of its own, a monotonic clock that is
days away, and a guard file of its own, so that flock never meets the other's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE_S, Answer, Root, clean_environment, orchestra_argv, wait_until

from orchestra.model.owner import Holder
from orchestra.model.trail import Process
from orchestra.store import lock
from orchestra.store.layout import Layout

LONG = os.environ.get("ORCHESTRA_LONG") == "1"
ROUNDS = 200 if LONG else 60
TTL_S = 6.0
PLAN = """\
command: [sleep, "600"]
phases:
  - name: only
    workers:
      - {name: W1, brief: do it}
"""
SET_UP = """
hostname "$1" && mount --bind "$2" /proc/sys/kernel/random/boot_id && mount --bind "$3" "$4" && echo up
exec sleep 600
"""


class Host:
    """A process that keeps the namespaces, and the command line in them."""

    def __init__(self, root: Root, name: str, clock_ahead_s: int) -> None:
        self.root = root
        self.name = name
        boot, guard = root.tmp / f"boot-{name}", root.tmp / f"guard-{name}"
        boot.write_text(f"{uuid.uuid4()}\n")
        guard.write_text("")
        shared = root.run_dir("r") / ".narrator.guard"
        self.keeper = subprocess.Popen(
            [
                *["unshare", "--mount", "--uts", "--pid", "--time", "--fork", "--kill-child", "--mount-proc"],
                *f"--monotonic {clock_ahead_s} --boottime {clock_ahead_s} sh -c".split(),
                *(SET_UP, "sh", name, str(boot), str(guard), str(shared)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.keeper.stdout and self.keeper.stderr
        if self.keeper.stdout.readline() != "up\n":
            pytest.skip(f"no namespaces can be made here: {self.keeper.stderr.read().strip()}")

    def start(self, *argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["nsenter", f"--target={child_of(self.keeper.pid)}", *["-m", "-u", "-p", "-T"], "--", *argv],
            env=clean_environment(
                ORCHESTRA_ROOT=str(self.root.path), TMPDIR=str(self.root.tmp), ORCHESTRA_LOCK_TTL=str(TTL_S)
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *words: str) -> Answer:
        called = self.start(*orchestra_argv(*words))
        stdout, stderr = called.communicate(timeout=90)
        answer = json.loads(stdout.splitlines()[-1]) if stdout else {}
        return Answer(called.returncode, answer, stdout, stderr)

    def end(self) -> None:
        self.keeper.kill()  # and with it all that runs there
        self.keeper.communicate()


def child_of(pid: int) -> int:
    def child() -> int | None:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return int(text.split()[0]) if text.strip() else None

    found: int = wait_until(child, f"a child of {pid}")
    return found


@pytest.fixture
def hosts(root: Root) -> Iterator[tuple[Host, Host]]:
    root.init("r", PLAN)
    (root.run_dir("r") / ".narrator.guard").touch()
    made: list[Host] = []
    try:
        for name, ahead in (("alpha", 900_000), ("bravo", 5)):
            made.append(Host(root, name, ahead))
        yield made[0], made[1]
    finally:
        for host in made:
            host.end()


def held_by(root: Root, name: str) -> Callable[[], Holder | None]:
    def holder() -> Holder | None:
        found = lock.look(Layout(str(root.run_dir("r")))).holder
        return found if found and found.process.host == name and found.epoch else None

    return holder


def narrator_on(host: Host) -> tuple[subprocess.Popen[str], int]:
    """`orchestra run` on that host, holding the lock; and its PID as we see it."""
    narrator = host.start(*orchestra_argv("run", "--run", "r", "--no-throttle"))
    wait_until(held_by(host.root, host.name), f"the lock held by {host.name}", 60)
    return narrator, child_of(narrator.pid)


@pytest.mark.timeout(300)
def test_a_holder_on_another_host_keeps_its_lock_while_it_beats_and_loses_it_when_it_stops(
    root: Root, hosts: tuple[Host, Host]
) -> None:
    alpha, bravo = hosts
    narrator, pid = narrator_on(alpha)

    refused = bravo("spawn", "r")
    first_seen = time.monotonic()
    assert (refused.code, refused.json["error"]["code"]) == (3, "narrator_already_active"), refused
    assert "heartbeat last changed" in refused.json["error"]["message"]
    assert "ask again in" in refused.json["error"]["hint"]
    beat = bravo("status", "r").json["lock"]["heartbeat"]
    assert 0 <= beat["quiet_s"] <= TTL_S and 0 < beat["ask_again_in_s"] <= TTL_S
    wait_until(lambda: time.monotonic() > first_seen + 1.5 * TTL_S, "more than its time to live")
    assert bravo("spawn", "r").code == 3, "it beats"
    unlocked = bravo("unlock", "r")
    assert (unlocked.code, unlocked.json["error"]["code"]) == (3, "holder_alive"), unlocked

    os.kill(pid, signal.SIGSTOP)
    stopped_at = time.monotonic()
    successor, other = narrator_on(bravo)  # it watches the heartbeat until that has stopped for long enough
    assert time.monotonic() > stopped_at + TTL_S / 2
    told = wait_until(
        lambda: next((e for e in root.events("r") if e["kind"] == "lock_taken_over"), None), "the alert"
    )
    assert (told["holder"]["host"], told["reason"]) == ("alpha", "its holder's heartbeat has stopped")

    os.kill(pid, signal.SIGCONT)
    narrator.send_signal(signal.SIGCONT)  # nsenter stops with its child
    stdout, stderr = narrator.communicate(timeout=PATIENCE_S)
    assert narrator.returncode == 3, (stdout, stderr)
    assert json.loads(stdout.splitlines()[-1])["error"]["code"] == "superseded"
    assert held_by(root, "bravo")(), "who woke up has removed nothing"
    later = [event for event in root.events("r") if event["op"] > told["op"]]
    assert all(event["epoch"] >= told["epoch"] for event in later), later

    os.kill(other, signal.SIGKILL)
    successor.communicate()
    freed = alpha("unlock", "r")
    assert (freed.code, freed.json["found"]["lock"]) == (0, "dead"), freed
    assert root("status", "r").json["lock"] == {"held": False}
    assert alpha("spawn", "r").code == bravo("spawn", "r").code == 0


# --- both hosts race for the locks of the dead ----------------------------------------------------------

RACER = """
import json, os, random, sys, time
import filelock
from orchestra.engine.conduct import is_gone
from orchestra.engine.vigil import Vigil
from orchestra.host import clock, process
from orchestra.model.owner import Holder
from orchestra.store import lock
from orchestra.store.layout import Layout

place, rounds, takers = sys.argv[1], int(sys.argv[2]), 4
host = process.host_name()
layouts = [Layout(f"{place}/{turn}") for turn in range(rounds)]
for layout in layouts:
    layout.lock_guard = f"{place}/guard-{host}"     # flock does not reach the other host

def dead(layout):
    return Vigil(layout).dead(lock.look(layout))

def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.0005)

def tell(layout, **what):     # whole lines, also from several threads
    os.write(1, (json.dumps({"turn": layout.run_id, **what}) + "\\n").encode())

def racer(layout, number):
    mine = Holder(process.this_process(), "spawn", None, os.urandom(8).hex(), 0, "", 60.0)
    while True:
        taken = lock.take(layout, mine, Vigil(layout).dead, is_gone)
        if isinstance(taken, lock.Taken):
            break
        time.sleep(random.random() / 200)
    freed = taken.before.holder.token if taken.before.holder else None
    try:
        os.close(os.open(layout.run_dir + "/inside", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        tell(layout, two=number)
        os._exit(2)
    if lock.is_lost(layout, taken.holder.token):
        tell(layout, not_mine=number)
    os.unlink(layout.run_dir + "/inside")
    os.close(taken.record)
    lock.release(layout, taken.holder.token, is_gone)
    tell(layout, inside=number, freed=freed)

while not all([dead(layout) for layout in layouts]):
    time.sleep(0.05)
for turn, layout in enumerate(layouts):
    open(f"{place}/ready-{turn}-{host}", "w").close()
    await_file(f"{place}/go-{turn}")
    children = []
    for number in range(takers):
        pid = os.fork()
        if pid == 0:
            try:
                racer(layout, number)
            finally:
                os._exit(1)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
"""


def plant_dead(place: Path, turn: int) -> str:
    """A lock of a third host, which beats no more."""
    layout = Layout(str(place / str(turn)))
    os.makedirs(layout.lock)
    os.mkdir(layout.lock_notes)
    who = Process(77, 12345, str(uuid.uuid4()), "charlie", 4026531836)
    holder = Holder(who, "run", None, os.urandom(8).hex(), 3, "2026-01-31T23:59:59.123Z", 1.0, beat=17)
    Path(f"{layout.lock}/holder.json").write_text(holder.to_text())
    return holder.token


def at_the_line(line: Path, racer: subprocess.Popen[str]) -> bool:
    return line.exists() or racer.poll() is not None


@pytest.mark.timeout(900)
def test_both_hosts_race_for_the_locks_of_the_dead_and_never_two_are_inside(
    root: Root, hosts: tuple[Host, Host]
) -> None:
    place = root.path.parent / "race"
    tokens = [plant_dead(place, turn) for turn in range(ROUNDS)]
    racers = [host.start(sys.executable, "-c", RACER, str(place), str(ROUNDS)) for host in hosts]
    for turn in range(ROUNDS):
        for host, racer in zip(hosts, racers, strict=True):
            line = place / f"ready-{turn}-{host.name}"
            wait_until(partial(at_the_line, line, racer), "both at the line", 60)
        (place / f"go-{turn}").touch()
    told: list[dict[str, Any]] = []
    for racer in racers:
        stdout, stderr = racer.communicate(timeout=120)
        assert racer.returncode == 0, stderr
        told += map(json.loads, stdout.splitlines())
    assert not [row for row in told if "inside" not in row]
    assert len(told) == ROUNDS * 8
    for turn, token in enumerate(tokens):
        freed = [row["freed"] for row in told if row["turn"] == str(turn)]
        assert freed.count(token) == 1, "one took it over from the dead"
        assert not os.path.exists(place / str(turn) / ".narrator.lock")
