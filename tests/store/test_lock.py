"""Never two narrators inside, whatever became of the one before."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import PATIENCE_S, Root, wait_until

from orchestra.engine.conduct import is_gone
from orchestra.host import process
from orchestra.model.owner import Holder, parse_holder
from orchestra.model.trail import Process
from orchestra.store import lock
from orchestra.store.layout import Layout

LONG = os.environ.get("ORCHESTRA_LONG") == "1"
NARRATORS = 50
ROUNDS = 200 if LONG else 8


# --- many narrators at once -------------------------------------------------------------------
#
# One small process forks them all, so that a round is quick. Each tries to take the lock until
# it has been inside once (or, where nobody may get in, once). Inside, it makes a file that only
# one may make. Some are killed inside; some between making the lock and signing it.

CROWD = """
import json, os, random, signal, sys, time
import filelock
from orchestra.engine.conduct import is_gone
from orchestra.engine.vigil import Vigil
from orchestra.engine.conduct import is_gone
from orchestra.host import process
from orchestra.model.owner import Holder
from orchestra.store import lock
from orchestra.store.layout import Layout

run_dir, count, may_enter, doomed = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1", sys.argv[4] == "1"
layout = Layout(run_dir)
process.boot_id(), process.host_name(), process.machine_id()
go_read, go_write = os.pipe()
said_read, said_write = os.pipe()

def say(**what):
    os.write(said_write, json.dumps(what).encode() + b"\\n")

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def narrator(i):
    os.close(go_write)
    os.read(go_read, 1)
    mine = Holder(process.this_process(), "spawn", None, os.urandom(8).hex(), 0, "", 60.0)
    if doomed and i % 10 == 3:
        os.mkdir = die                      # before the lock is made
    link, unlink = os.link, os.unlink
    if doomed and i % 10 == 6:              # after it was made, before it is signed
        os.link = die
    if doomed and i % 10 == 7:              # after it was signed, before the claim is gone
        os.unlink = lambda path: die() if "/claim-" in path else unlink(path)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        taken = lock.take(layout, mine, Vigil(layout).dead, is_gone)
        if isinstance(taken, lock.Taken):
            break
        if not may_enter:
            return
        time.sleep(random.random() / 100)   # nobody asks without a pause
    else:
        say(late=i)
        return
    os.close(taken.record)
    if taken.before.holder:
        say(freed=taken.before.holder.token)
    if doomed and i % 10 == 9:
        die()                               # inside
    try:
        os.close(os.open(run_dir + "/inside", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        say(two=i)
        return
    say(inside=i)
    os.unlink(run_dir + "/inside")
    lock.release(layout, taken.holder.token, is_gone)

children = []
for i in range(count):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            narrator(i)
            code = 0
        except Exception as error:
            say(broke=f"{type(error).__name__}: {error}")
        finally:
            os._exit(code)
    children.append(pid)
os.close(said_write)
os.close(go_write)                          # they are off
with os.fdopen(said_read) as said:
    told = said.read()
ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
print(json.dumps({"told": [json.loads(line) for line in told.splitlines()], "ends": ends}))
"""


class Crowd(NamedTuple):
    inside: list[int]
    two: list[int]
    late: list[int]
    freed: list[str]
    broke: list[str]
    ends: list[int]


def crowd(run_dir: Path, *, may_enter: bool = True, doomed: bool = False, count: int = NARRATORS) -> Crowd:
    done = subprocess.run(
        [sys.executable, "-c", CROWD, str(run_dir), str(count), str(int(may_enter)), str(int(doomed))],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)

    def told(key: str) -> list[Any]:
        return [row[key] for row in said["told"] if key in row]

    return Crowd(told("inside"), told("two"), told("late"), told("freed"), told("broke"), said["ends"])


def a_dead_process() -> Process:
    """Who a real process was that has ended."""
    child = subprocess.Popen(["sleep", "60"])
    start = process.start_of(child.pid)
    child.kill()
    child.wait()
    assert start
    return process.known(child.pid, start)


def holder_of(who: Process) -> Holder:
    return Holder(who, "spawn", None, os.urandom(8).hex(), 3, "2026-01-31T23:59:59.123Z", 60.0)


def plant(layout: Layout, holder: Holder | None, text: str | None = None) -> None:
    os.mkdir(layout.lock, 0o700)
    Path(f"{layout.lock}/holder.json").write_text(json.dumps(holder.to_json()) if holder else text or "")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path / "r"))
    os.makedirs(layout.lock_notes)
    return layout


def left(layout: Layout) -> list[str]:
    """What there is of a lock and its takers."""
    kept = {os.path.basename(path) for path in (layout.lock_guard, layout.lock_notes)}
    return [n for n in os.listdir(layout.run_dir) if n not in kept] + os.listdir(layout.lock_notes)


def planted_dead(layout: Layout) -> str:
    holder = holder_of(a_dead_process())
    plant(layout, holder)
    return holder.token


def planted_recycled(layout: Layout) -> str:
    """The PID lives, and is not the one that took the lock."""
    holder = holder_of(process.this_process()._replace(start=1))
    plant(layout, holder)
    return holder.token


def planted_before_reboot(layout: Layout) -> str:
    holder = holder_of(process.this_process()._replace(boot_id="0d4113db-0000-0000-0000-000000000000"))
    plant(layout, holder)
    return holder.token


def planted_unsigned(layout: Layout) -> str:
    """Killed between making the lock and signing it."""
    holder = holder_of(a_dead_process())
    Path(layout.lock_claim(holder.token)).write_text(json.dumps(holder.to_json()))
    os.mkdir(layout.lock, 0o700)
    return holder.token


DEAD: list[Callable[[Layout], str]] = [
    planted_dead,
    planted_recycled,
    planted_before_reboot,
    planted_unsigned,
]


def test_of_fifty_at_once_never_two_are_inside_and_all_get_in(layout: Layout) -> None:
    for _ in range(max(2, ROUNDS // 5)):
        told = crowd(Path(layout.run_dir))
        assert (told.two, told.late, told.broke, sorted(told.inside)) == ([], [], [], list(range(NARRATORS)))
        assert not os.path.exists(layout.lock)


@pytest.mark.timeout(3600 if LONG else 120)
def test_of_fifty_after_a_dead_holder_one_takes_over_and_never_two_are_inside(layout: Layout) -> None:
    for turn in range(ROUNDS):
        token = DEAD[turn % len(DEAD)](layout)
        told = crowd(Path(layout.run_dir))
        assert (told.two, told.late, told.broke) == ([], [], []), (turn, DEAD[turn % len(DEAD)].__name__)
        assert told.freed == [token]
        assert len(told.inside) == NARRATORS
        assert left(layout) == [], "nothing is left behind"


@pytest.mark.timeout(3600 if LONG else 120)
def test_narrators_that_are_killed_inside_let_the_next_in_and_never_two(layout: Layout) -> None:
    for turn in range(max(2, ROUNDS // 5)):
        told = crowd(Path(layout.run_dir), doomed=True)
        assert (told.two, told.late, told.broke) == ([], [], []), turn
        living = [i for i in range(NARRATORS) if i % 10 not in (3, 6, 7, 9)]
        assert sorted(told.inside) == living
        killed = [i for i, end in enumerate(told.ends) if end == -signal.SIGKILL]
        assert killed == [i for i in range(NARRATORS) if i not in living]
        assert len(crowd(Path(layout.run_dir), count=1).inside) == 1, "the last one of them was dead"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"pid": 1}', '{"pid": "x", "token": "t"}', "\0" * 200, "[" * 5000],
    ids=["empty", "torn", "list", "null", "pid-only", "wrong-type", "nul", "deep"],
)
def test_an_unreadable_holder_is_never_taken_over(layout: Layout, text: str) -> None:
    plant(layout, None, text)
    told = crowd(Path(layout.run_dir), may_enter=False, count=8)
    assert (told.inside, told.ends) == ([], [0] * 8)
    assert Path(f"{layout.lock}/holder.json").read_text() == text


def test_a_lock_that_nobody_signed_and_nobody_claimed_is_never_taken_over(layout: Layout) -> None:
    os.mkdir(layout.lock)
    told = crowd(Path(layout.run_dir), may_enter=False, count=20)
    assert (told.inside, os.listdir(layout.lock)) == ([], [])


def test_a_lock_of_another_host_with_a_fresh_heartbeat_is_never_taken_over(layout: Layout) -> None:
    """Its PID is one of ours that is dead, and its boot another: on another host neither proves anything."""
    holder = holder_of(a_dead_process()._replace(host="elsewhere", boot_id="another"))
    plant(layout, holder)
    told = crowd(Path(layout.run_dir), may_enter=False, count=20)
    assert told.inside == []
    assert lock.look(layout).holder == holder


def test_a_lock_of_a_living_holder_is_never_taken_over(layout: Layout) -> None:
    holder = holder_of(process.this_process())
    plant(layout, holder)
    told = crowd(Path(layout.run_dir), may_enter=False, count=20)
    assert told.inside == []
    assert lock.look(layout).holder == holder


# --- letting go -----------------------------------------------------------------------------------


def never(sight: lock.LockSight) -> bool:
    return False


def always(sight: lock.LockSight) -> bool:
    return True


def take(layout: Layout, mine: Holder, may: Callable[[lock.LockSight], bool] = never) -> lock.Taken | None:
    taken = lock.take(layout, mine, may, is_gone)
    return taken if isinstance(taken, lock.Taken) else None


def release(layout: Layout, mine: Holder) -> None:
    lock.release(layout, mine.token, is_gone)


def me() -> Holder:
    return holder_of(process.this_process())


def test_releasing_frees_and_leaves_nothing(layout: Layout) -> None:
    mine = me()
    taken = take(layout, mine)
    assert taken and taken.before == lock.FREE
    assert not lock.is_lost(layout, mine.token)
    release(layout, mine)
    assert left(layout) == []


def test_releasing_what_is_not_ours_does_nothing(layout: Layout) -> None:
    mine = me()
    take(layout, mine)
    release(layout, me())
    assert not lock.is_lost(layout, mine.token)


def test_a_lock_that_was_killed_while_it_was_released_is_cleared_away(layout: Layout) -> None:
    let_go = layout.lock_after("abc")
    os.mkdir(let_go)
    Path(f"{let_go}/holder.json").write_text("{}")
    take(layout, me())
    assert not os.path.exists(let_go)


def test_claims_and_successions_of_the_dead_are_cleared_away_those_of_the_living_are_not(
    layout: Layout,
) -> None:
    dead, living = holder_of(a_dead_process()), me()
    Path(layout.lock_claim(dead.token)).write_text(dead.to_text())
    Path(layout.lock_claim("a1")).write_text("")
    Path(layout.lock_after("a2")).write_text(living._replace(robbed=dead.process).to_text())
    kept = [layout.lock_claim(living.token), layout.lock_after("a3")]
    Path(kept[0]).write_text(living.to_text())
    Path(kept[1]).write_text(dead._replace(robbed=living.process).to_text())
    mine = me()
    take(layout, mine)
    release(layout, mine)
    assert sorted(left(layout)) == sorted(map(os.path.basename, kept))


def test_writing_anew_keeps_the_lock_and_tells_the_new_facts(layout: Layout) -> None:
    mine = me()
    taken = take(layout, mine)
    assert taken
    lock.write(taken.record, mine._replace(epoch=9, beat=12345))
    assert lock.look(layout).holder == mine._replace(epoch=9, beat=12345)
    assert os.listdir(layout.lock) == ["holder.json"]


def test_who_was_forced_out_writes_into_its_own_record_and_removes_nothing(layout: Layout) -> None:
    mine, theirs, third = me(), me(), me()
    taken = take(layout, mine)
    assert taken and take(layout, theirs, always)
    release(layout, mine)
    lock.write(taken.record, mine._replace(beat=7))
    assert lock.look(layout).holder == theirs._replace(robbed=mine.process)
    release(layout, theirs)
    assert take(layout, third)
    release(layout, mine)
    lock.write(taken.record, mine._replace(beat=8))
    assert lock.look(layout).holder == third


def test_one_that_let_go_while_it_was_taken_for_dead_is_not_taken_over(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = me(), me()
    assert take(layout, mine)
    link = os.link

    def slow_link(claim: str, path: str) -> None:
        monkeypatch.undo()
        release(layout, mine)
        link(claim, path)

    monkeypatch.setattr(os, "link", slow_link)
    taken = take(layout, theirs, always)
    assert taken and taken.before == lock.FREE
    assert len(lock.look(layout).chain) == 1


def test_who_took_over_and_was_robbed_before_it_knew_keeps_the_way_barred(layout: Layout) -> None:
    """Else the one that both have robbed could wake up and take away a lock that is none of its own."""
    first, second, third, last = me(), me(), me(), me()
    assert take(layout, first)
    look = lock.look
    looks: list[None] = []

    def rob_at_the_last_look(layout: Layout) -> lock.LockSight:
        looks.append(None)
        if len(looks) == 3:  # the one behind the link
            lock.look = look
            assert take(layout, third, always)
            release(layout, third)
        return look(layout)

    lock.look = rob_at_the_last_look
    try:
        assert take(layout, second, always), "at the second try"
    finally:
        lock.look = look
    lock.release(layout, lock.look(layout).chain[-1][0], is_gone)
    assert take(layout, last)
    with pytest.raises(OSError):
        os.rename(layout.lock, layout.lock_after(first.token))  # as it would, waking up


def test_where_there_are_no_hard_links_all_is_the_same(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(claim: str, path: str) -> None:
        raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(os, "link", no_links)
    mine, theirs, third = holder_of(a_dead_process()), me(), me()
    assert take(layout, mine)
    assert not take(layout, third)
    assert take(layout, theirs, always)
    release(layout, mine)
    assert not lock.is_lost(layout, theirs.token)
    release(layout, theirs)
    assert left(layout) == []


def test_a_guard_that_somebody_sits_on_does_not_keep_anybody_out(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "GUARD_PATIENCE_S", 0.05)
    planted_dead(layout)
    with open(layout.lock_guard, "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        assert take(layout, me(), always)


def test_a_guard_that_is_none_does_not_keep_anybody_out(layout: Layout) -> None:
    planted_dead(layout)
    os.mkdir(layout.lock_guard)
    assert take(layout, me(), always)


def test_who_finds_it_free_or_rightly_held_needs_no_guard(layout: Layout) -> None:
    assert take(layout, me())
    assert not take(layout, me())
    assert not os.path.exists(layout.lock_guard)


@contextmanager
def child(work: Callable[[], None]) -> Iterator[int]:
    """A process that does this over and over, until it is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                work()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_release_never_takes_away_the_lock_of_who_forced_us_out(layout: Layout) -> None:
    rename = os.rename

    def slowly(source: str, target: str) -> None:
        time.sleep(0.002)  # the instant between looking whose it is and removing it
        rename(source, target)

    def take_and_release() -> None:
        theirs = me()
        os.rename = slowly  # type: ignore[assignment]
        if taken := take(layout, theirs):
            os.close(taken.record)
            release(layout, taken.holder)
        time.sleep(0.004)

    forced = 0
    with child(take_and_release) as pid:
        deadline = time.monotonic() + PATIENCE_S
        while forced < 10:
            assert time.monotonic() < deadline, f"forced it {forced} times only"
            mine = me()
            if taken := take(layout, mine, always):
                mine = taken.holder  # with the token of the try that came to it
                os.close(taken.record)
                forced += taken.before.holder is not None and taken.before.holder.process.pid == pid
                until = time.monotonic() + 0.006
                while time.monotonic() < until:
                    assert not lock.is_lost(layout, mine.token), f"gone after {forced} times"
                release(layout, mine)
            time.sleep(0.004)


def test_what_a_holder_says_reads_back() -> None:
    holder = holder_of(process.this_process())
    assert parse_holder(json.dumps(holder.to_json())) == holder
    robber = holder._replace(epoch=12, beat=7, robbed=holder.process)
    assert parse_holder(robber.to_text()) == robber
    assert len(robber.to_text()) == len(robber._replace(epoch=0, beat=9999999999).to_text())


@pytest.mark.parametrize("token", ["../../etc", "", "a b", "a/b", "é", "x" * 65])
def test_a_token_that_could_lead_elsewhere_is_no_holder(token: str) -> None:
    assert parse_holder(me()._replace(token=token).to_text()) is None


# --- through the command line ------------------------------------------------------------------------

LONG_PLAN = """\
command: [sleep, "600"]
phases:
  - name: only
    workers:
      - {name: W1, brief: do it}
"""


@contextmanager
def narrator_inside(root: Root, run: str) -> Iterator[subprocess.Popen[str]]:
    """`orchestra run`, which holds the lock as long as its worker runs."""
    plan = root.path.parent / "long.yaml"
    plan.write_text(LONG_PLAN)
    narrator = root.start("run", str(plan), "--run", run, "--no-throttle")
    try:
        wait_until(lambda: (root.run_dir(run) / ".pid-W1.json").exists(), "the worker's mark")
        wait_until(lambda: root.worker(run, "W1")["state"] == "running", "a running worker")
        yield narrator
    finally:
        narrator.kill()
        narrator.communicate()


def kinds_of(root: Root, run: str) -> list[str]:
    return [alert["kind"] for alert in root("status", run).json["alerts"]]


def test_a_second_narrator_is_told_who_is_inside(root: Root) -> None:
    with narrator_inside(root, "r") as narrator:
        answer = root("spawn", "r")
    assert (answer.code, answer.json["error"]["code"]) == (3, "narrator_already_active")
    assert answer.json["error"]["pid"] == narrator.pid
    assert "orchestra unlock r" in answer.json["error"]["hint"]


def test_status_answers_while_a_narrator_is_inside(root: Root) -> None:
    with narrator_inside(root, "r") as narrator:
        answer = root("status", "r")
    assert (answer.code, answer.json["lock"]["pid"], answer.json["lock"]["dead"]) == (0, narrator.pid, False)


def test_after_a_narrator_was_killed_inside_the_next_command_takes_over_and_says_so(root: Root) -> None:
    with narrator_inside(root, "r") as narrator:
        narrator.kill()
        narrator.wait()
        assert "dead_holder" in kinds_of(root, "r")
        answer = root("spawn", "r")
        assert answer.code == 0, answer
        assert {"what": "lock_taken_over", "pid": narrator.pid} in answer.json["recovered"]
        assert "lock_taken_over" in kinds_of(root, "r")
        assert root.worker("r", "W1")["state"] == "running", "the worker outlives its narrator"
        assert root("status", "r").json["lock"] == {"held": False}


@pytest.mark.parametrize("text", ["", "no json", None], ids=["empty", "garbage", "unsigned"])
def test_an_unreadable_lock_refuses_and_unlock_frees_it(root: Root, text: str | None) -> None:
    root.init("r")
    os.mkdir(root.run_dir("r") / ".narrator.lock")
    if text is not None:
        (root.run_dir("r") / ".narrator.lock" / "holder.json").write_text(text)
    answer = root("spawn", "r")
    assert (answer.code, answer.json["error"]["code"]) == (3, "narrator_already_active")
    assert "orchestra unlock r" in answer.json["error"]["hint"]
    status = root("status", "r")
    assert [alert["kind"] for alert in status.json["alerts"]] == ["unreadable_lock"]
    assert "orchestra unlock r" in status.json["next"]
    answer = root("unlock", "r")
    assert (answer.code, answer.json["found"]) == (0, {"lock": "unreadable"})
    assert root("spawn", "r").code == 0
    assert "lock_freed" in kinds_of(root, "r")


def test_a_lock_killed_between_making_and_signing_lets_the_next_command_proceed(root: Root) -> None:
    root.init("r")
    planted_unsigned(Layout(os.path.realpath(root.run_dir("r"))))
    answer = root("spawn", "r")
    assert (answer.code, [row["what"] for row in answer.json["recovered"]]) == (0, ["lock_taken_over"])
    assert not list(root.run_dir("r").glob(".narrator.lock*"))
    assert not list(root.run_dir("r").glob(".narrator/*"))


def test_unlock_of_a_run_that_is_not_locked_says_so(root: Root) -> None:
    root.init("r")
    answer = root("unlock", "r")
    assert (answer.code, answer.json["found"], answer.json["recovered"]) == (0, {"lock": "none"}, [])


def test_unlock_refuses_while_the_holder_is_alive(root: Root) -> None:
    with narrator_inside(root, "r") as narrator:
        answer = root("unlock", "r")
        assert (answer.code, answer.json["error"]["code"]) == (3, "holder_alive")
        assert answer.json["error"]["pid"] == narrator.pid
        assert root("status", "r").json["lock"]["pid"] == narrator.pid


def test_a_narrator_that_was_forced_out_notices_and_records_nothing_afterwards(root: Root) -> None:
    with narrator_inside(root, "r") as narrator:
        answer = root("unlock", "r", "--force")
        assert (answer.code, answer.json["found"]["lock"]) == (0, "forced")
        freed = next(event for event in root.events("r") if event["kind"] == "lock_freed")
        assert freed["forced"] is True
        assert root("stop", "r", "--grace", "0.1").code == 0
        stdout, stderr = narrator.communicate(timeout=PATIENCE_S)
        assert narrator.returncode == 3, (stdout, stderr)
        assert json.loads(stdout.splitlines()[-1])["error"]["code"] == "superseded"
        later = [event for event in root.events("r") if event["op"] > freed["op"]]
        assert later and all(event["epoch"] >= freed["epoch"] for event in later)
        assert not [event for event in later if event["epoch"] < freed["epoch"]]
        state = json.loads((root.run_dir("r") / "state.json").read_text())
        assert state["workers"]["W1"]["verdict"] == "stopped"


def test_a_lock_that_is_a_file_says_storage_and_no_bug(root: Root) -> None:
    root.init("r")
    (root.run_dir("r") / ".narrator.lock").write_text("")
    answer = root("spawn", "r")
    assert (answer.code, answer.json["error"]["code"]) in ((1, "storage"), (3, "narrator_already_active"))


@pytest.mark.parametrize("ttl", ["abc", "0", "0.5", "3601", "nan", "-1"])
def test_a_time_to_live_that_makes_no_sense_is_refused(root: Root, ttl: str) -> None:
    answer = root("init", "r", env={"ORCHESTRA_LOCK_TTL": ttl})
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")
    assert ttl in answer.json["error"]["message"]
    assert not root.run_dir("r").exists()


def test_commands_of_one_host_come_to_the_judgement_together(root: Root) -> None:
    root.init("r")
    layout = Layout(str(root.run_dir("r")))
    elsewhere = Process(1, 1, "another", "elsewhere")
    plant(layout, holder_of(elsewhere)._replace(ttl_s=1.0))
    assert root("status", "r").json["lock"]["heartbeat"]["quiet_s"] == 0
    assert [name for name in os.listdir(layout.lock_notes) if name.startswith("seen-")]
    wait_until(lambda: root("status", "r").json["lock"]["dead"], "the judgement")
    answer = root("spawn", "r")
    assert (answer.code, answer.json["recovered"][0]["what"]) == (0, "lock_taken_over")
    assert not [name for name in os.listdir(layout.lock_notes) if name.startswith("seen-")]
