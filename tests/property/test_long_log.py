"""What a long log is read with says what json says; and one operation is found without reading all."""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.model.event import OBSERVATIONS, Event, decode_all, encode
from orchestra.store import eventlog
from orchestra.store.eventlog import EventLog

AT = "2026-01-31T23:59:59.123Z"

# As text: what parsers differ about, beside what they should agree on.
ODD = st.sampled_from(
    [
        *(
            "NaN",
            "Infinity",
            "-Infinity",
            "1e400",
            "-1e-400",
            "-0",
            "-0.0",
            "5e-324",
            "1E5",
            "1.",
            ".5",
            "01",
            "+1",
        ),
        *(
            "18446744073709551616",
            "-9223372036854775809",
            "9" * 40,
            "9" * 400,
            "9" * 5000,
            "0.1" + "0" * 400 + "1",
        ),
        *(
            r'"\ud800"',
            r'"\udc00\ud800"',
            r'"\ud83d\ude00"',
            '"\ud800"',
            r'"\u0000"',
            '"\x00"',
            '"\x1f"',
            '"\x7f"',
        ),
        *(
            '{"a":1,"a":2}',
            '{"\\u0061":1,"a":2}',
            '{"":{}}',
            "{1:2}",
            "[1,]",
            "[ 1\t,\r2 ]",
            "\x0c1",
            "\xa01",
        ),
        *(
            '"\\/"',
            '"\\x"',
            '"\\u12"',
            '"',
            "'a'",
            "nul",
            "True",
            "",
            "\ufeff1",
            "[" * 500 + "]" * 500,
            "[" * 3000,
        ),
        *("1},{", '1,"op":2', '"},{"', "1,"),
    ]
)
SOUND = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
).map(json.dumps)
HEADS = st.sampled_from(
    [
        '"op":7,"at":"a","topic":"t","kind":"k","epoch":1',
        '"op":7.0,"at":"a","topic":"t","kind":"k","epoch":1',
        '"op":true,"at":"a","topic":"t","kind":"k","epoch":1',
        '"op":99999999999999999999,"at":"a","topic":"t","kind":"k","epoch":1',
        '"op":7,"at":"a","topic":"t","epoch":1',
    ]
)


def line(head: str, value: str) -> bytes:
    body = f'{{{head},"data":{value}'.encode("utf-8", "surrogatepass")
    return b'%s,"crc":"%08x"}' % (body, zlib.crc32(body))


LINES = st.builds(line, HEADS, ODD | SOUND) | st.binary(max_size=40).map(lambda b: b.replace(b"\n", b""))


@settings(max_examples=400, deadline=None)
@given(st.lists(LINES, max_size=6))
def test_what_reads_a_long_log_says_what_json_says(lines: list[bytes]) -> None:
    # As text: NaN is not equal to itself, and 1 is to 1.0 and True.
    assert repr(decode_all(lines, msgspec.json.decode)) == repr(decode_all(lines))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0, 10, 3000]), st.booleans()), max_size=40),
    st.sampled_from([1, 100, 5000]),
)
def test_an_operation_is_found_wherever_it_stands(facts: list[tuple[int, int, bool]], window: int) -> None:
    whole, there, op = b"", {}, 0
    for step, size, damaged in facts:
        op += step
        event = Event(op, AT, OBSERVATIONS, "noted", 1, {"pad": "x" * size})
        text = encode(event)
        whole += b" " * (len(text) - 1) + b"\n" if damaged else text
        there[op] = None if damaged else event
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(eventlog, "CHUNK", window)
        path = Path(place, "events.jsonl")
        path.write_bytes(whole + b'{"op":1')
        log = EventLog(str(path), f"{place}/damaged")
        for wanted in range(op + 3):
            assert log.find(wanted) == there.get(wanted), wanted


def test_a_log_longer_than_the_bound_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(str(tmp_path / "events.jsonl"), str(tmp_path / "damaged"))
    odd = [1e400, 2**70, "\udce9", {"crc": 1}, "plain", None]
    events = [Event(op, AT, OBSERVATIONS, "noted", 1, {"v": v}) for op, v in enumerate(odd * 300, 1)]
    Path(log.path).write_bytes(b"".join(map(encode, events)))
    monkeypatch.setattr(eventlog, "LONG", 0)
    assert log.read_new() == events
