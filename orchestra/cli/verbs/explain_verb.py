"""orchestra explain"""

from __future__ import annotations

from typing import Any

import typer

from orchestra.cli.options import Name, Run, session_of
from orchestra.engine.explain import explain
from orchestra.engine.observe import Observer
from orchestra.model.advice import hopeless, next_steps, retry_step, verb_of, worth_proposing
from orchestra.model.record import State
from orchestra.model.snapshot import WorkerView


def explain_(ctx: typer.Context, run: Run, name: Name) -> int:
    """A worker's whole story: its trail, attempts, verdict, evidence, and what a retry is worth.

    \b
    Example:
      orchestra explain night-1 Builder-2
    """
    session = session_of(ctx)
    observer = Observer(session.locate(run)).open()
    snapshot = observer.snapshot()
    story = explain(observer, snapshot, name)
    standing = session.standing(observer, snapshot)
    view = snapshot.workers.named(name)
    own = steps_about(session.words, view, free=standing.free)
    answered = {*_OF_OTHERS, *({"retry"} & set(map(verb_of, own)))}
    rest = [step for step in next_steps(standing) if step not in own and verb_of(step) not in answered]
    steps = own + rest + reading(session.words, view, story)
    session.answer({"op": observer.history.op, "worker": story}, steps, lambda: show(story))
    return 0


_OF_OTHERS = ("explain", "stop")


def steps_about(words: str, view: WorkerView, *, free: bool) -> list[str]:
    """What makes sense now for this one worker; `free`: what changes the run is not refused."""
    name = view.record.name
    found = [f"kill -CONT {view.process.pid}"] if view.stopped and view.process else []
    if view.leftovers and free:
        found.append(f"orchestra stop {words} {name}")
    if free and view.state == State.FAILED and worth_proposing(view):
        found += retry_step(words, [view])
    if view.state in (State.RUNNING, State.STALLED):
        found.append(f"orchestra wait {words} --for {name}")
        found += [f"orchestra stop {words} {name}"] if free else []
    if view.state == State.DEFERRED and hopeless(view) and free:
        found.append(f"orchestra stop {words} {name}")
    if ((view.state == State.DEFERRED and not hopeless(view)) or view.gap) and free:
        found.append(f"orchestra spawn {words}")
    return found


def reading(words: str, view: WorkerView, story: dict[str, Any]) -> list[str]:
    """What it printed: last, as nothing comes of it by itself."""
    printed = {row["what"]: row["size_bytes"] for row in story["trail"]}
    return [
        f"orchestra logs {words} {view.record.name}{option}"
        for stream, option in (("stdout", ""), ("stderr", " --stderr"))
        if printed[stream]
    ]


def show(story: dict[str, Any]) -> None:
    from orchestra.cli.text import show_story

    show_story(story)
