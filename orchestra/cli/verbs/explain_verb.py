"""orchestra explain"""

from __future__ import annotations

from typing import Any

import typer

from orchestra.cli.options import Name, Run, session_of
from orchestra.engine.explain import explain
from orchestra.engine.observe import Observer
from orchestra.model.advice import next_steps, not_refused, worth_proposing
from orchestra.model.history import State
from orchestra.model.snapshot import WorkerView


def explain_(ctx: typer.Context, run: Run, name: Name) -> int:
    """A worker's whole story: its trail, attempts, verdict, evidence, and what a retry is worth.

    \b
    Example:
      orchestra explain night-1 Builder-2
    """
    session = session_of(ctx)
    observer = Observer(session.locate(run)).open()
    story = explain(observer, name)
    snapshot = observer.snapshot()
    view = next(view for view in snapshot.workers if view.record.name == name)
    own = not_refused(steps(session.words, story, view), conducted=snapshot.conducted)
    others = next_steps(session.words, snapshot, observer.history.plan)
    rest = [step for step in others if step not in own and not step.startswith("orchestra explain ")]
    session.answer({"op": observer.history.op, "worker": story}, own + rest, lambda: show(story))
    return 0


def steps(words: str, story: dict[str, Any], view: WorkerView) -> list[str]:
    name, state = story["name"], story["state"]
    found = []
    if state == State.FAILED and worth_proposing(view):
        found.append(f"orchestra retry {words} {name}")
    if state in (State.RUNNING, State.STALLED):
        found.append(f"orchestra wait {words} --for {name}")
        found.append(f"orchestra stop {words} {name}")
    if state == State.DEFERRED or story["gap"]:
        found.append(f"orchestra spawn {words}")
    printed = {row["what"]: row["size_bytes"] for row in story["trail"]}
    if printed["stdout"]:
        found.append(f"orchestra logs {words} {name}")
    if printed["stderr"]:
        found.append(f"orchestra logs {words} {name} --stderr")
    return found


def show(story: dict[str, Any]) -> None:
    from orchestra.cli.text import show_story

    show_story(story)
