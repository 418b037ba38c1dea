"""orchestra events"""

from __future__ import annotations

import gc
import json
from typing import Annotated, Any

import click
import typer

from orchestra.cli.options import Run, session_of
from orchestra.cli.session import Session
from orchestra.engine.listing import log_events
from orchestra.engine.observe import Observer
from orchestra.host import clock
from orchestra.model.event import TOPICS, Event

BEAT_S = 0.2
TELEMETRY = "telemetry"


def events_(
    ctx: typer.Context,
    run: Run,
    since: Annotated[int, typer.Option("--since", metavar="OP", min=0, help="Only what came after.")] = 0,
    topic: Annotated[
        str | None,
        typer.Option("--topic", click_type=click.Choice([*TOPICS, TELEMETRY]), help="Only this topic."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on as they come, until interrupted.")] = False,
    full: Annotated[bool, typer.Option("--full", help="With briefs and plans in full.")] = False,
) -> int:
    """The event log, a line each: in JSON, or for people in a few words. Briefs are left out unless --full.

    \b
    Example:
      orchestra events night-1 --topic alerts
    """
    session = session_of(ctx)
    observer = Observer(session.locate(run)).open()
    reader = log_events(observer.layout, telemetry=topic == TELEMETRY)

    def tell(events: list[Event]) -> None:
        for event in events:
            if (event.op > since or topic == TELEMETRY) and topic in (None, event.topic):
                show(session, event, full)

    gc.enable()  # unlike most calls, this one may last
    while True:
        reader.feed(tell)
        if not follow:
            return 0
        clock.pause(BEAT_S)


def show(session: Session, event: Event, full: bool) -> None:
    row: dict[str, Any] = event.to_json() if full else shortened(event.to_json())
    if session.as_json:
        session.line(row)
        return
    rest = {key: value for key, value in row.items() if key not in ("op", "at", "topic", "kind", "epoch")}
    told = json.dumps(rest, ensure_ascii=False) if full else in_words(rest)
    print(f"{event.op:>5} {event.at[5:19].replace('T', ' ')} {event.kind} {printable(told)}".rstrip())


def in_words(rest: dict[str, Any]) -> str:
    """The worker first, then what is short and says something to people."""
    worker = [rest["worker"]] if isinstance(rest.get("worker"), str) else []
    told = {k: v for k, v in rest.items() if k not in _FOR_PROGRAMS and isinstance(v, str | int | float)}
    return " ".join(map(str, [*worker, *(f"{key}={shown(value)}" for key, value in told.items())]))


def shown(value: str | int | float) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) and " " in value else str(value)


_FOR_PROGRAMS = {
    "worker",
    "token",
    "process_start",
    "boot_id",
    "host",
    "pid_ns",
    "machine_id",
    "brief_sha256",
    "plan_sha256",
    "started_at",
    "ended_at",
}


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def shortened(row: dict[str, Any]) -> dict[str, Any]:
    """Without the texts that can be of any length, and the environment that a plan sets."""
    row = dict(row)
    if isinstance(row.get("entry"), dict):
        entry = {k: v for k, v in row["entry"].items() if k not in ("brief", "env")}
        row["entry"] = {**entry, "brief_chars": len(row["entry"].get("brief", ""))}
    if isinstance(row.get("plan"), dict):
        row["plan"] = {"phases": [phase.get("name") for phase in row["plan"].get("phases", [])]}
    return row
