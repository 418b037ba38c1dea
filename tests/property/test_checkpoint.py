"""A checkpoint and what came after it say the same as all events from the first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.model.checkpoint import parse, render
from orchestra.model.event import ALERTS, COMMANDS, CONTROL, OBSERVATIONS, TOPICS, Event, Place
from orchestra.model.history import History
from orchestra.model.plan import WorkerEntry, entry_to_json
from orchestra.model.record import ENDED, State
from orchestra.model.snapshot import WorkerView
from orchestra.model.workers import TRAITS

NAMES = ["A", "B", "C-1", "planned", "D.d"]
TEXTS = st.sampled_from(["", "plain", 'q"uo\\te\n', "Grüße \u2028 世界", "\udce9", '},\n"A":{"state":"done"'])
PLAN = {"phases": [{"name": "all", "workers": [entry_to_json(WorkerEntry("planned", "brief"))]}]}
PLACE = Place(4711, '"crc":"\xff0000000"}\n')
PROCESS = {"pid": 7, "process_start": 8, "boot_id": "b", "host": "h", "pid_ns": 9}
VERDICTS = st.sampled_from([None, "lost", "exit_code", "stopped"])

ATTEMPT = st.fixed_dictionaries({"worker": st.sampled_from(NAMES), "attempt": st.integers(1, 3)})


def fact(topic: str, kind: str, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, str, Any]]:
    data = st.tuples(ATTEMPT, st.fixed_dictionaries(more)).map(lambda both: {**both[0], **both[1]})
    return data.map(lambda made: (topic, kind, made))


def entries() -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda name, brief, stall_s, command: entry_to_json(
            WorkerEntry(name, brief, command, "/x", {"K": brief}, None, stall_s, 2)
        ),
        st.sampled_from(NAMES),
        TEXTS,
        st.sampled_from([None, 600.0]),
        st.sampled_from([None, ("a", "b c")]),
    )


FACTS = st.one_of(
    fact(COMMANDS, "spawn_intended", phase=TEXTS, token=TEXTS, entry=entries()),
    fact(COMMANDS, "retry_intended", token=TEXTS, command=st.sampled_from([None, ["z"]])),
    fact(OBSERVATIONS, "spawned", **{k: st.just(v) for k, v in PROCESS.items()}, started_at=TEXTS),
    fact(OBSERVATIONS, "spawned"),
    fact(
        OBSERVATIONS, "deferred", reason=TEXTS, signals=st.just([{"signal": "s", "value": 1.5, "limit": 2}])
    ),
    fact(
        OBSERVATIONS,
        "ended",
        status=st.sampled_from(["done", "failed"]),
        verdict=VERDICTS,
        reason=TEXTS,
        exit_code=st.sampled_from([None, 0, 3]),
        ended_at=st.sampled_from([None, "2026-01-31T23:59:59.123Z"]),
        retry=st.sampled_from([None, "now"]),
        leftovers=st.sampled_from([[], [1, 2]]),
    ),
    fact(OBSERVATIONS, "stalled"),
    fact(COMMANDS, "stop_intended", grace_s=st.sampled_from([0.0, 5.0])),
    fact(ALERTS, "leftovers_ended", still_alive=st.sampled_from([[], [2]])),
    fact(ALERTS, "lock_taken_over", reason=TEXTS),
    st.sampled_from(["n1", "n2"]).map(lambda who: (CONTROL, "seat_taken", {"narrator": who})),
    st.sampled_from(TOPICS).map(lambda topic: (topic, "of a later version", {"any": [1, None]})),
)


def events_of(facts: list[tuple[str, str, Any]]) -> list[Event]:
    made = {"base": "/b", "plan_sha256": "s", "plan": PLAN}
    drafts = [(COMMANDS, "run_created", made), *facts]
    return [
        Event(2 * op, f"2026-01-31T23:59:{op:02}.000Z", topic, kind, 1 + op // 7, dict(data))
        for op, (topic, kind, data) in enumerate(drafts, 1)
    ]


def all_of(history: History) -> dict[str, Any]:
    """Everything that a history can be asked."""
    workers = history.workers
    facts = {key: value for key, value in vars(history).items() if key[0] != "_" and key != "workers"}
    del facts["plan_json"]
    return facts | {
        "plan": history.plan,
        "planned": history.planned(),
        "workers": list(workers.items()),
        "count": len(workers),
        "there": [name in workers for name in NAMES],
        "traits": {t: sorted(r.name for r in workers.having(t)) for t in TRAITS},
        "states": {n: s for n, s in workers.states().items() if workers[n].state in ENDED},
    }


def kept(history: History, views: dict[str, WorkerView] | None = None) -> History:
    """Through the file's text and back."""
    data = render("r", history, views or {}, PLACE, settled_op=history.op)
    assert set(json.loads(data)["workers"]) == {*history.workers, "planned"}, "it is one JSON object"
    checkpoint = parse(data)
    assert checkpoint is not None and checkpoint.place == PLACE
    return checkpoint.history


@settings(max_examples=150, deadline=None)
@given(st.lists(FACTS, max_size=25))
def test_a_checkpoint_at_any_place_and_the_rest_of_the_log_say_what_the_whole_log_says(
    facts: list[tuple[str, str, Any]],
) -> None:
    events = events_of(facts)
    whole = all_of(History().apply(events))
    for cut in range(1, len(events) + 1):
        assert all_of(kept(History().apply(events[:cut])).apply(events[cut:])) == whole, cut


@settings(max_examples=100, deadline=None)
@given(st.lists(FACTS, max_size=25), st.integers(1, 4))
def test_checkpoints_made_from_checkpoints_lose_nothing(facts: list[Any], step: int) -> None:
    events = events_of(facts)
    history = History().apply(events[:1])
    for at in range(1, len(events), step):
        history = kept(history).apply(events[at : at + step])
    assert all_of(history) == all_of(History().apply(events))


@settings(max_examples=100, deadline=None)
@given(st.lists(FACTS, max_size=25))
def test_what_was_seen_beyond_the_log_does_not_become_what_the_log_says(facts: list[Any]) -> None:
    history = History().apply(events_of(facts))
    seen = {
        record.name: WorkerView(record, State.FAILED, verdict="lost", reason="gone", exit_code=9)
        for record in history.workers.having("going")
    }
    data = json.loads(render("r", history, seen, PLACE, history.op))
    assert all(data["workers"][name]["verdict"] == "lost" for name in seen)
    assert all_of(kept(history, seen)) == all_of(history)


def sample() -> bytes:
    entry = entry_to_json(WorkerEntry("A", "b"))
    intent = {"worker": "A", "attempt": 1, "token": "t", "entry": entry}
    history = History().apply(events_of([(COMMANDS, "spawn_intended", intent)]))
    return render("r", history, {}, PLACE, 0)


def test_a_checkpoint_with_any_byte_altered_is_none() -> None:
    data = sample()
    assert parse(data) is not None
    for at in range(len(data)):
        assert parse(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) is None, at


def test_a_checkpoint_cut_short_anywhere_is_none() -> None:
    data = sample()
    for cut in range(len(data)):
        assert parse(data[:cut]) is None, cut


@pytest.mark.parametrize(
    "text", [b"", b"{}\n", b"[" * 5000, b'{"version":1,"crc":"00000000",\n', bytes(range(256))]
)
def test_what_is_no_checkpoint_is_none(text: bytes) -> None:
    assert parse(text) is None


def test_only_who_may_not_have_been_put_away_is_told_as_loose() -> None:
    entry = entry_to_json(WorkerEntry("A", "b"))
    facts: list[tuple[str, str, Any]] = []
    for name in ("A", "B", "C-1"):
        facts.append(
            (COMMANDS, "spawn_intended", {"worker": name, "attempt": 1, "token": "t", "entry": entry})
        )
    for name in ("A", "B"):
        facts.append((OBSERVATIONS, "ended", {"worker": name, "attempt": 1, "status": "done"}))
    events = events_of(facts)
    history = History().apply(events)
    checkpoint = parse(render("r", history, {}, PLACE, settled_op=events[-2].op))
    assert checkpoint is not None
    assert checkpoint.history.workers.loose() == ["B", "C-1"]
    unsettled = parse(render("r", history, {}, PLACE, settled_op=0))
    assert unsettled is not None
    assert unsettled.history.workers.loose() == ["A", "B", "C-1"]
