"""`state.json`: the run at a glance, and the fold of its log so far, to go on from.

    {"version":5,"run":"night-1","op":7,"epoch":2,…,"offset":4711,"behind":"…","body":"89abcdef","crc":"01234567",
    "plan":{…},
    "states":{"W1":"done",…},
    "workers":{
    "W1":{"state":"done",…,"log":{…}},
    "W2":{"state":"running",…,"log":{…}}
    }}

* One JSON object; the first line is the head, and each worker has one line, so that a reader
  parses only whom it asks for, and a writer copies the lines of whom nothing happened to.
* `states` has everybody's, so that counting them takes no look at their lines.
* A worker's line tells it as `status` would; its `log` has what the log says besides, or otherwise.
* A long brief is there only until its worker has ended: then its hash, and the operation in whose
  line the log has it.
* `body` is the CRC-32 of all that follows the first line; `crc` that of the first line's bytes before it.
* `offset` is how far into events.jsonl it speaks, and `behind` what stands there just before.
* It is never the truth: where anything about it is wrong, the log is read from its beginning.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from orchestra.errors import CorruptLog
from orchestra.model.event import Place, json_bytes
from orchestra.model.history import History
from orchestra.model.plan import WorkerEntry, entry_from_json, entry_to_json
from orchestra.model.record import Deferral, Narration, State, StopMeant, WorkerRecord, check_attempt
from orchestra.model.snapshot import WorkerView, from_log
from orchestra.model.trail import process_from_json
from orchestra.model.workers import TRAITS, Saved, Workers

VERSION = 5

_HEAD_END = re.compile(rb',"crc":"([0-9a-f]{8})",\Z')
_BODY = re.compile(rb'"plan":(.*),\n"states":(.*),\n"workers":\{\n')
_END = b"\n}}\n"
_DEFAULTS: dict[str, Any] = {
    **WorkerRecord._field_defaults,
    "failures": [],
    "leftovers": [],
    "stopping": [],
}
_ENTRY_DEFAULTS = entry_to_json(WorkerEntry("", ""))


class Checkpoint(NamedTuple):
    place: Place
    history: History


def render(
    run: str, history: History, views: Mapping[str, WorkerView], place: Place, settled_op: int
) -> bytes:
    """The file's bytes. `views`: as they were just seen; whoever is not among them is as the log says.

    `settled_op`: the last operation before somebody looked whether all that had ended by then is put away.
    """
    workers = history.workers
    loose = [name for name in workers.loose() if (r := workers[name]).op > settled_op or TRAITS["going"](r)]
    head = {
        "version": VERSION,
        "run": run,
        "op": history.op,
        "epoch": history.epoch,
        "seat": history.seat,
        "seat_since": history.seat_since,
        "unseated": sorted(history.unseated),
        "narration": history.narration,
        "created": history.created,
        "base": history.base,
        "plan_sha256": history.plan_sha256,
        "traits": {trait: [record.name for record in workers.having(trait)] for trait in TRAITS},
        "loose": loose,
        "alerts": history.alerts,
        "ends": history.ends,
        **place._asdict(),
    }
    plan = history.plan_json
    rows = _rows(history, views)
    states = dict.fromkeys(rows, State.PLANNED) | workers.states()
    states |= {name: view.state for name, view in views.items()}
    body = b'"plan":%s,\n"states":%s,\n"workers":{\n%s%s' % (
        plan if isinstance(plan, bytes) else _dense(plan),
        _dense(states),
        b",\n".join(rows.values()),
        _END,
    )
    first = b'%s,"body":"%08x"' % (json_bytes(head)[:-1], zlib.crc32(body))
    return b'%s,"crc":"%08x",\n%s' % (first, zlib.crc32(first), body)


def _dense(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _rows(history: History, views: Mapping[str, WorkerView]) -> dict[str, bytes]:
    """Each worker's line without its end: the asked-for in their order, then the rest of the plan."""
    workers = history.workers
    kept = workers.saved.rows()
    rows = {name: kept.get(name, b"") for name in workers}
    for name in {*workers.changed, *views}:
        rows[name] = _line(workers[name], views.get(name) or from_log(workers[name]))
    for name, planned in history.planned().items():
        if name not in rows:
            rows[name] = kept.get(name) or _named(name, _glance(WorkerView(planned, State.PLANNED)))
    return rows


def _line(record: WorkerRecord, view: WorkerView) -> bytes:
    glance = _glance(view)
    log = {
        key: value
        for key, value in _record_to_json(record).items()
        if value != (glance[key] if key in glance else _DEFAULTS.get(key))
    }
    return _named(record.name, {**glance, "log": log})


def _named(name: str, row: dict[str, Any]) -> bytes:
    return b'"%s":%s' % (name.encode(), json_bytes(row))


def _glance(view: WorkerView) -> dict[str, Any]:
    row = view.to_json()
    return {"state": row.pop("state"), **row}


def _record_to_json(record: WorkerRecord) -> dict[str, Any]:
    entry = entry_to_json(record.entry)
    return {
        **record._asdict(),
        "entry": {key: value for key, value in entry.items() if value != _ENTRY_DEFAULTS[key]},
        "process": record.process and record.process.to_json(),
        "deferral": record.deferral and record.deferral._asdict(),
        "failures": list(record.failures),
        "leftovers": list(record.leftovers),
        "stopping": [list(meant) for meant in record.stopping],
    }


def _record_from_json(row: dict[str, Any]) -> WorkerRecord:
    log = row["log"]
    told: dict[str, Any] = {
        key: log[key] if key in log else row.get(key, _DEFAULTS.get(key)) for key in WorkerRecord._fields
    }
    told["entry"] = entry_from_json(told["entry"])
    told["state"] = State(told["state"])
    check_attempt(told["attempt"], told["token"])
    told["process"] = process_from_json(told["process"]) if told["process"] else None
    told["deferral"] = Deferral(**told["deferral"]) if told["deferral"] else None
    told["failures"], told["leftovers"] = tuple(told["failures"]), tuple(told["leftovers"])
    told["stopping"] = tuple(StopMeant(*meant) for meant in told["stopping"])
    return WorkerRecord(**told)


def parse(data: bytes) -> Checkpoint | None:
    """The checkpoint; None where the text is damaged, of another version, or not as `render` makes it."""
    try:
        return _parse(data)
    except (ValueError, LookupError, TypeError, AttributeError):  # a checksum is no signature
        return None


def _parse(data: bytes) -> Checkpoint | None:
    cut = data.find(b"\n")
    end = _HEAD_END.search(data, max(0, cut - 32), max(0, cut))
    if end is None or int(end[1], 16) != zlib.crc32(data[: end.start()]):
        return None
    head = json.loads(data[: end.start()] + b"}")
    if head["version"] != VERSION:
        return None
    body = memoryview(data)[cut + 1 :]
    if int(head["body"], 16) != zlib.crc32(body):
        return None
    parts = _BODY.match(data, cut + 1)
    if parts is None:
        return None
    plan, states = parts[1], json.loads(parts[2])
    text = data[parts.end() : -len(_END)]
    history = History()
    history.op, history.epoch = head["op"], head["epoch"]
    history.created, history.base = head["created"], head["base"]
    history.plan_sha256 = head["plan_sha256"]
    history.plan_json = None if plan == b"null" else plan
    history.seat, history.seat_since = head["seat"], head["seat_since"]
    history.unseated = set(head["unseated"])
    if (narration := head["narration"]) is not None:
        over, stopped_for, op, flags, throttle = narration
        history.narration = Narration(over, tuple(stopped_for), op, tuple(flags), throttle)
    history.alerts = head["alerts"]
    history.ends = {name: end for name, end in head["ends"].items() if isinstance(end, str)}
    history.workers = Workers(_saved(states, text, head))
    return Checkpoint(Place(head["offset"], head["behind"]), history)


def _saved(states: dict[str, str], text: bytes, head: dict[str, Any]) -> Saved:
    """`text`: the workers' lines."""

    @cache
    def rows() -> dict[str, bytes]:
        return dict(zip(states, text.split(b",\n") if text else (), strict=True))

    def read(name: str) -> WorkerRecord:
        try:
            row = rows()[name]
            return _record_from_json(json.loads(row[row.index(b"{") :]))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise CorruptLog(
                f"what state.json has of worker {name} is not as orchestra writes it",
                hint="remove state.json: it is derived from the event log, and comes back",
            ) from None

    asked_for = {name: state for name, state in states.items() if state != State.PLANNED}
    return Saved(asked_for, read, rows, head["traits"], head["loose"])
