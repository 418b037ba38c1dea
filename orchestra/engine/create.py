"""Make a run: the directory, the plan as given, the first line of the log."""

from __future__ import annotations

import hashlib
import os
import shlex
from typing import Any

from orchestra.engine.caller import check_caller
from orchestra.engine.conduct import Conductor, holding, lock_ttl_s
from orchestra.engine.narrator import Narrator
from orchestra.engine.observe import Observer
from orchestra.errors import NameTaken, NoSuchRun, OrchestraError, Storage, Usage
from orchestra.host import clock
from orchestra.model.event import COMMANDS, Draft
from orchestra.model.plan import Plan, plan_to_json
from orchestra.store.layout import Layout
from orchestra.store.publish import publish


def create(layout: Layout, who: Narrator, plan_path: str | None) -> bool:
    """Make the run, or see that it is there already with the same plan; True if it is new.

    Raises NameTaken for a run with another plan, BadPlan, Usage, Storage; a bad plan writes nothing.
    """
    from orchestra.engine.plans import read_plan

    check_caller(who.command)
    text, plan, base = read_plan(plan_path) if plan_path else (None, None, os.getcwd())
    digest = hashlib.sha256(text.encode()).hexdigest() if text is not None else None
    plan_word = shlex.quote(plan_path or "PLAN.yaml")
    again = f"run {plan_word} --run NEW" if who.command == "run" else f"init NEW --plan {plan_word}"
    lock_ttl_s()  # what is wrong with it is told before anything is written
    make_directory(layout)
    if who.id is None and is_there(layout, digest, base, again):  # also while somebody is at work on it
        return False
    with holding(layout, who) as (heart, freed):
        conductor = Conductor(layout, heart)
        try:
            conductor.begin(freed)
        except NoSuchRun:
            pass
        else:
            check_same_plan(conductor, digest, base, again)
            conductor.sit(who.id)
            return False
        conductor.epoch = 1
        write_run(conductor, text, plan, base, digest)
        conductor.sit(who.id)
        conductor.write_state()
    return True


def is_there(layout: Layout, digest: str | None, base: str, again: str) -> bool:
    """Whether the run is there, of the same plan, and somebody at work on it. Raises NameTaken."""
    try:
        observer = Observer(layout).open()
    except OrchestraError:
        return False
    check_same_plan(observer, digest, base, again)
    return not observer.log.damage and observer.conducted()


def make_directory(layout: Layout) -> None:
    try:
        os.makedirs(os.path.dirname(layout.run_dir), exist_ok=True)
        os.makedirs(layout.run_dir, 0o700, exist_ok=True)
        ours = {"run.yaml", "events.jsonl"}
        strangers = [n for n in os.listdir(layout.run_dir) if n not in ours and not n.startswith(".")]
    except OSError as error:
        raise Storage.from_os("make the run's directory", layout.run_dir, error) from error
    if strangers and not os.path.exists(layout.events):
        raise Usage(
            f"{layout.run_dir} exists and is no run (it has {sorted(strangers)[0]!r})",
            hint="choose another name, or another --root",
            path=layout.run_dir,
        )


def check_same_plan(observer: Observer, digest: str | None, base: str, again: str) -> None:
    """Briefs and directories are relative to the plan: the same text elsewhere is another plan.

    `again`: how to make a run of this plan under another name.
    """
    history, run = observer.history, observer.layout.run_id
    if digest is None or (digest, base) == (history.plan_sha256, history.base):
        return
    if history.plan_sha256 is None:
        why = "without a plan"
    elif digest == history.plan_sha256:
        why = f"with the same plan in another place, {history.base}: its briefs are read there"
    else:
        why = "and its plan was another text when it was made"
    raise NameTaken(
        f"run {run} exists already, {why}",
        hint=f"for a new run: orchestra {again}; to mend a failed worker's command in this one: "
        f"orchestra retry {observer.layout.words} NAME -- CMD",
        run=run,
    )


def write_run(
    conductor: Conductor, text: str | None, plan: Plan | None, base: str, digest: str | None
) -> None:
    from orchestra.engine.plans import run_yaml

    layout = conductor.layout
    settings: dict[str, Any] = {"run": layout.run_id, "base": base, "created_at": clock.now()}
    try:
        publish(layout.plan, run_yaml(settings, text).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise Storage.from_os("write the plan", layout.plan, error) from error
    conductor.record(
        [
            Draft(
                COMMANDS,
                "run_created",
                {
                    "base": base,
                    "plan_sha256": digest,
                    "plan": plan_to_json(plan) if plan is not None else None,
                },
            )
        ]
    )
