"""Who waits behind whom: one rule for who starts them, who waits for it, and who asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Root, wait_until

from orchestra.engine import pickup
from orchestra.engine.admission import Admission, Refusal, forecast
from orchestra.engine.observe import Observer
from orchestra.engine.pickup import FIRST_PAUSE_S, LONGEST_PAUSE_S, Patience, has_room
from orchestra.engine.room import NOTHING, Room
from orchestra.host import clock
from orchestra.model.plan import WorkerEntry
from orchestra.model.record import Deferral, State, WorkerRecord
from orchestra.model.throttle import MIB, Signal
from orchestra.store.layout import Layout

LONG_AGO = "2026-01-31T23:59:59.123Z"


class FakeRoom(Room):
    """Room for so many MiB; a worker takes as many as the number that its command is."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.asked: list[str] = []

    def ask(self, entry: WorkerEntry, at_work: int, *, promised: Any = NOTHING) -> list[Signal]:
        taken = promised.get("memory_available", 0)
        need = int((entry.command or ("0",))[0])
        self.asked.append(entry.name)
        left = float(self.left - taken - need)
        return (
            [Signal("memory_available", left, 0.0, float(self.left), needs=float(need))] if left < 0 else []
        )

    def share(self, entry: WorkerEntry) -> dict[str, float]:
        return {"memory_available": float((entry.command or ("0",))[0])}

    def take(self, record: WorkerRecord, at_work: int, result: str) -> list[Signal]:
        spoke = self.ask(record.entry, at_work)
        self.left -= 0 if spoke else int((record.entry.command or ("0",))[0])
        return spoke

    def let_go(self, token: str) -> None:
        self.left += int(token)


def waits(name: str, need: int, since: str | None = None, **throttle: float | None) -> WorkerRecord:
    entry = WorkerEntry(name, "b", command=(str(need),), throttle=throttle)
    since = since or clock.now()
    deferral = Deferral(since, 1, "", [])
    return WorkerRecord(name, None, entry, 1, str(need), State.DEFERRED, since, 0, deferral=deferral)


LAYOUT = Layout("/nowhere/r")


def starts(room: Room, *records: WorkerRecord) -> dict[str, str | None]:
    """Who would, and why not."""
    return {r.name: refusal and refusal.reason for r, refusal in forecast(LAYOUT, room, 0, records)}


def test_smaller_ones_pass_but_not_one_that_has_waited_for_long() -> None:
    young = starts(FakeRoom(10), waits("Big", 50), waits("Small", 4), waits("Other", 4), waits("Third", 4))
    assert [name for name, why in young.items() if why is None] == ["Small", "Other"]
    old = starts(FakeRoom(10), waits("Big", 50, LONG_AGO), waits("Small", 4), waits("Free", 4, max_workers=9))
    assert [name for name, why in old.items() if why is None] == ["Free"]  # it has limits of its own
    assert str(old["Small"]).startswith(
        "waits behind Big, which has waited long enough to be passed by nobody"
    )


def test_who_asks_what_was_refused_is_not_asked_for_again_and_hears_of_itself() -> None:
    room = FakeRoom(10)
    found = starts(room, waits("A", 50, LONG_AGO), waits("B", 50), waits("C", 50))
    assert (room.asked, len(set(found.values()))) == (["A"], 1)
    assert "behind" not in str(found["C"])


def test_room_that_is_given_back_is_room_again() -> None:
    room = FakeRoom(10)
    admission = Admission(LAYOUT, room, 0)
    one, other = waits("A", 8), waits("B", 8)
    assert admission.ask(one) is None
    assert admission.ask(other) is not None
    admission.let_go(other)  # it never had any
    assert room.left == 2
    admission.let_go(one)
    assert (room.left, admission.ask(other)) == (10, None)


def test_too_many_at_a_time_are_spread_until_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "pause", lambda seconds: None)
    refusal = Refusal("", [{"signal": "starts_per_s", "value": 2, "limit": 1}])
    admission = Admission(LAYOUT, FakeRoom(0), 0)
    tries = 0

    def ask(record: WorkerRecord) -> Refusal | None:
        nonlocal tries
        tries += 1
        return None if tries == 5 else refusal

    monkeypatch.setattr(admission, "ask", ask)
    assert admission.pace(waits("A", 1), refusal) is None
    tries = 10
    assert admission.pace(waits("A", 1), refusal) == refusal
    assert admission.patience_s <= 0


def test_pauses_grow_up_to_the_longest_are_never_quite_alike_and_start_over() -> None:
    patience = Patience()
    pauses = [patience.next_s() for _ in range(20)]
    assert FIRST_PAUSE_S * 0.75 <= pauses[0] <= FIRST_PAUSE_S * 1.25
    assert all(LONGEST_PAUSE_S * 0.75 <= pause <= LONGEST_PAUSE_S * 1.25 for pause in pauses[-5:])
    assert len(set(pauses)) == 20
    patience.start_over()
    assert patience.next_s() <= FIRST_PAUSE_S * 1.25


@pytest.fixture
def blocked(root: Root) -> Root:
    """Long is at work; Big has waited for so long that Small, which would fit, waits behind it."""
    import psutil

    root.init("r")
    calm = {
        key: "off" for key in ("load_per_cpu", "cpu_pressure", "io_pressure", "disk_queue", "memory_pressure")
    }
    limits = {"memory_available": int(psutil.virtual_memory().available - 2000 * MIB), **calm}
    big, small = ["tail", "-f", "/dev/null"], ["sleep", "0.01"]
    note = Path(root.path) / ".orchestra" / "needs.json"
    note.parent.mkdir(exist_ok=True)
    note.write_text(
        json.dumps({"tail -f /dev/null": [["t", 1e14, 1, 0, 0, 9]], "sleep 0.01": [["t", 1, 1, 0, 0, 9]]})
    )
    rows = [{"name": "Long", "brief": "b", "command": ["sleep", "300"], "throttle": limits}]
    rows += [{"name": "Big", "brief": "b", "command": big, "throttle": limits}]
    assert root("spawn", "r", "--from", "-", stdin=json.dumps(rows)).names("deferred") == ["Big"]
    age(root)
    small_row = json.dumps([{"name": "Small", "brief": "b", "command": small, "throttle": limits}])
    answer = root("spawn", "r", "--from", "-", stdin=small_row)
    assert answer.names("deferred") == ["Big", "Small"]
    reason = next(row["reason"] for row in answer.json["deferred"] if row["name"] == "Small")
    assert reason.startswith("waits behind Big")
    return root


def age(root: Root) -> None:
    """What the log has of a deferral, as of a minute before: written anew, with its checksums."""
    from orchestra.model.event import decode, encode

    log = root.run_dir("r") / "events.jsonl"
    events = [decode(line) for line in log.read_bytes().splitlines()]
    old = [e._replace(at=LONG_AGO) if e and e.kind == "deferred" else e for e in events]
    log.write_bytes(b"".join(encode(event) for event in old if event))
    (root.run_dir("r") / "state.json").unlink()


def test_who_waits_behind_another_is_told_so_by_all_and_nobody_spins(
    blocked: Root,
) -> None:
    rows = {row["name"]: row for row in blocked("status", "r").json["workers"]}
    assert rows["Small"]["reason"].startswith("waits behind Big")
    assert {signal["worker"] for signal in rows["Small"]["deferred"]["now"]} == {"Big"}
    assert (rows["Big"]["deferred"]["ahead"], rows["Small"]["deferred"]["ahead"]) == (0, 1)
    assert (
        blocked("explain", "r", "Small").json["worker"]["deferred"]["outlook"].startswith("waits behind Big")
    )
    preview = blocked("spawn", "r", "--dry-run")
    assert preview.names("deferred") == ["Big", "Small"]
    observer = Observer(Layout(str(blocked.run_dir("r")))).open()
    waiting = [observer.record_of("Big"), observer.record_of("Small")]
    assert not has_room(observer, Room(str(blocked.path)), waiting)
    assert has_room(observer, Room(str(blocked.path)), waiting[1:])  # it is Big alone that keeps it
    state = blocked.run_dir("r") / "state.json"
    before = state.stat().st_ino
    assert blocked("wait", "r", "--drain", "--keep-going", "--timeout", "3").code == 5
    assert state.stat().st_ino == before  # nothing was tried in vain
    blocked("stop", "r", "--grace", "0")


def test_a_drain_by_whom_the_seat_refuses_says_so_at_once(root: Root) -> None:
    root.init("r")
    alice, bob = ({"ORCHESTRA_NARRATOR": name} for name in ("alice", "bob"))
    row = ["spawn", "r", "--worker", f"W={root.brief('W')}", "--", "true"]
    root(*row, env={**alice, "ORCHESTRA_THROTTLE": "{pids_free: 1000000}"})
    refused = root("wait", "r", "--drain", "--timeout", "60", env=bob)
    assert (refused.code, refused.json["error"]["code"]) == (3, "narrator_already_active")
    assert "takeover" in refused.json["error"]["hint"]
    assert root("wait", "r", "--drain", "--timeout", "60", env=alice).code == 0


def test_a_drain_hears_of_a_config_that_was_mended_and_not_of_one_that_is_broken(
    root: Root, tmp_path: Path
) -> None:
    config = tmp_path / "config" / "orchestra" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("throttle: {pids_free: 1000000}")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    root.init("r")
    assert root("spawn", "r", "--worker", f"W={root.brief('W')}", "--", "true", env=env).code == 4
    draining = root.start("wait", "r", "--drain", "--timeout", "60", env=env)
    wait_until(lambda: "psutil" in Path(f"/proc/{draining.pid}/maps").read_text(), "the first look")
    config.write_text("throttle: {pids_free: ")
    clock.pause(2 * pickup.FIRST_PAUSE_S)  # for it to look, if it does
    assert draining.poll() is None
    config.write_text("throttle: {pids_free: 1}")
    wait_until(lambda: root.worker("r", "W")["state"] == "done", "the end")
    assert draining.wait(60) == 0


def test_a_name_that_only_a_later_worker_limits_is_counted_all_the_same(root: Root) -> None:
    root.init("r")
    rows = [
        {"name": "A", "brief": "b", "command": ["sleep", "60"], "throttle": {}},
        {"name": "B", "brief": "b", "command": ["sleep", "60"], "throttle": {"processes": {"sleep": 1}}},
    ]
    answer = root("spawn", "r", "--from", "-", stdin=json.dumps(rows))
    assert (answer.names("spawned"), answer.names("deferred")) == (["A"], ["B"])
    root("stop", "r", "--grace", "0")


def test_a_run_at_work_takes_up_a_config_that_was_changed(root: Root, tmp_path: Path) -> None:
    config = tmp_path / "config" / "orchestra" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("throttle: {max_workers: 1}")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    rows = [{"name": name, "brief": "b"} for name in ("A", "B")]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"command": ["sleep", "300"], "phases": [{"name": "p", "workers": rows}]}))
    running = root.start("run", str(plan), "--run", "r", env=env)
    wait_until(
        lambda: root.run_dir("r").exists() and root("status", "r").json["counts"]["deferred"] == 1, "B"
    )
    config.write_text("throttle: {max_workers: 2}")
    wait_until(lambda: root("status", "r").json["counts"]["running"] == 2, "room")
    running.terminate()
    running.communicate(timeout=60)
    root("stop", "r", "--grace", "0")


def test_who_was_tried_in_vain_twice_is_told_behind_one_alone(root: Root) -> None:
    room = FakeRoom(10)
    a, b, c = waits("A", 50, LONG_AGO), waits("B", 40, LONG_AGO), waits("C", 4, LONG_AGO)
    found = starts(room, a, b, c)
    assert [str(found[name]).count("waits behind") for name in ("A", "B", "C")] == [0, 1, 1]
    assert str(found["C"]).startswith("waits behind A,")


def test_a_drain_hears_that_a_limit_is_never_met_any_more_and_that_it_is_again(root: Root) -> None:
    root.init("r")
    rows = [
        {"name": n, "brief": "b", "command": ["sleep", "1"], "throttle": {"max_workers": 1}}
        for n in ("A", "B")
    ]
    never = {"ORCHESTRA_THROTTLE": "{memory_available: 900TiB}"}
    root("spawn", "r", "--from", "-", stdin=json.dumps(rows))
    blocked = root("wait", "r", "--drain", "--keep-going", "--timeout", "60", env=never)
    assert (blocked.code, blocked.json["outcome"]) == (4, "blocked")
    assert blocked.json["next"][0] == "orchestra explain r B"
    ended = root("wait", "r", "--drain", "--keep-going", "--timeout", "60")
    assert (ended.code, ended.json["outcome"]) == (0, "ended")


def test_who_follows_a_drain_hears_of_every_failed_attempt_and_the_cursor_only_grows(root: Root) -> None:
    root.init("r")
    rows = [
        {"name": name, "brief": "b", "command": command, "throttle": {"max_workers": 1}}
        for name, command in (("L", ["sleep", "6"]), ("B", ["true"]), ("A", ["sh", "-c", "exit 3"]))
    ]
    root("spawn", "r", "--from", "-", stdin=json.dumps(rows[:2]))
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps(rows[2:]))
    words = ("wait", "r", "--drain", "--keep-going", "--follow", "--timeout", "60")
    following = root.start(*words)
    assert following.stdout is not None
    lines = [json.loads(following.stdout.readline())]
    while lines[-1].get("worker", {}).get("name") != "A":
        lines.append(json.loads(following.stdout.readline()))
    for _ in range(3):
        wait_until(lambda: root.worker("r", "A")["state"] == "failed", "the end")
        root("retry", "r", "A", "--no-throttle")
    lines += [json.loads(line) for line in following.communicate(timeout=60)[0].splitlines()]
    heard: list[dict[str, Any]] = [line["worker"] for line in lines if "worker" in line]
    told = [row["attempt"] for row in heard if (row["name"], row["state"]) == ("A", "failed")]
    assert told == [1, 2, 3, 4]
    ops = [line["op"] for line in lines]
    assert ops == sorted(ops)


def test_a_worker_that_is_called_off_ends_no_drain(root: Root) -> None:
    root.init("r")
    rows = [
        {"name": name, "brief": "b", "command": ["sleep", "2"], "throttle": {"max_workers": 1}}
        for name in ("A", "B", "C")
    ]
    assert root("spawn", "r", "--from", "-", stdin=json.dumps(rows)).names("spawned") == ["A"]
    assert root("stop", "r", "B").code == 0
    assert root("wait", "r", "--drain", "--timeout", "60").code == 1  # at its end it is told
    assert root.worker("r", "C")["state"] == "done"
