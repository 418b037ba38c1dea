"""orchestra explain"""

from __future__ import annotations

from typing import Any

import typer

from orchestra.cli.options import Name, Run, session_of
from orchestra.engine.explain import explain
from orchestra.engine.observe import Observer
from orchestra.model.advice import mend_steps, next_steps, worth_proposing
from orchestra.model.record import State
from orchestra.model.snapshot import WorkerView, ended_alike
from orchestra.model.verdict import Retry, Verdict


def explain_(ctx: typer.Context, run: Run, name: Name) -> int:
    """A worker's whole story: its trail, attempts, verdict, evidence, and what a retry is worth.

    \b
    Example:
      orchestra explain night-1 Builder-2
    """
    session = session_of(ctx)
    observer = Observer(session.locate(run)).open()
    story = explain(observer, name)
    standing = session.standing(observer, observer.snapshot())
    of_the_run = [step for step in next_steps(standing) if not step.startswith(_OF_OTHERS)]
    view = standing.snapshot.workers.named(name)
    own = steps_about(session.words, view, story, free=standing.free)
    rest = [step for step in of_the_run if step not in own]
    all_steps = own + rest or [f"orchestra status {session.words}"]
    session.answer({"op": observer.history.op, "worker": story}, all_steps, lambda: show(story))
    return 0


_OF_OTHERS = ("orchestra explain ", "orchestra retry ", "orchestra stop ")


def steps_about(words: str, view: WorkerView, story: dict[str, Any], *, free: bool) -> list[str]:
    """What makes sense now for this one worker; `free`: what changes the run is not refused."""
    name = view.record.name
    found = []
    if view.leftovers and free:
        found.append(f"orchestra stop {words} {name}")
    mended = mend_steps(words, [view]) if free and view.state == State.FAILED else []
    if worth_proposing(view):
        found += mended
    if view.state in (State.RUNNING, State.STALLED):
        found.append(f"orchestra wait {words} --for {name}")
        found += [f"orchestra stop {words} {name}"] if free else []
    if (view.state == State.DEFERRED or view.gap) and free:
        found.append(f"orchestra spawn {words}")
    printed = {row["what"]: row["size_bytes"] for row in story["trail"]}
    if printed["stdout"]:
        found.append(f"orchestra logs {words} {name}")
    if printed["stderr"]:
        found.append(f"orchestra logs {words} {name} --stderr")
    if view.retry == Retry.NEVER and view.verdict != Verdict.STOPPED:  # somebody wanted that
        found += mended
    if free and ended_alike(view) and not worth_proposing(view) and view.retry != Retry.NEVER:
        found.append(f"orchestra retry {words} {name} -- CMD")
    return found


def show(story: dict[str, Any]) -> None:
    from orchestra.cli.text import show_story

    show_story(story)
