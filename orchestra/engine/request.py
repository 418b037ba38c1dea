"""What a spawn was asked for: from the plan's phase, from words, from a list."""

from __future__ import annotations

import os
from typing import NamedTuple

from orchestra.engine.observe import Observer
from orchestra.engine.plans import read_brief, read_workers, resolve_brief
from orchestra.engine.spawn import Wanted
from orchestra.errors import BadPlan, NameTaken, Usage
from orchestra.model.names import check_name
from orchestra.model.plan import (
    EXPECT_RULE,
    FIRST_SIGN_RULE,
    Expect,
    Phase,
    Plan,
    WorkerEntry,
    effective,
    first_sign_problem,
    parse_expect,
)
from orchestra.model.units import BadValue, parse_size


class Request(NamedTuple):
    """The words of `orchestra spawn`, as they were given."""

    phase: str | None
    workers: list[str]  # NAME=BRIEF
    source: str | None  # --from
    expect: list[str]
    command: list[str] | None  # behind --


def resolve(observer: Observer, request: Request) -> list[Wanted]:
    """Every worker that was asked for, everything filled in; writes nothing.

    Raises Usage, BadName, BadPlan, NameTaken, NoSuchPhase.
    """
    command = check_command(request.command)
    expect = tuple(read_expect(word) for word in request.expect)
    wanted = phase_wanted(observer, request.phase, command, expect) if request.phase is not None else []
    entries = [worker_word(word) for word in request.workers]
    if request.source is not None:
        entries += read_workers(request.source)
    if not wanted and not entries and (command or expect):
        raise Usage(
            "a command or --expect was given, but no worker",
            hint="name one: --worker NAME=BRIEF.md, or --phase P, or --from FILE",
        )
    for entry in entries:
        check_not_planned(observer, entry.name)
        wanted.append(Wanted(filled_in(observer, entry, command, expect), request.phase))
    seen: set[str] = set()
    for want in wanted:
        if want.entry.name in seen:
            raise Usage(f"worker {want.entry.name} is named twice", hint="a name is unique in its run")
        seen.add(want.entry.name)
    return wanted


def check_not_planned(observer: Observer, name: str) -> None:
    """A planned worker is started as the plan has it. Raises NameTaken."""
    planned = observer.history.planned().get(name)
    if planned is not None and name not in observer.history.workers:
        raise NameTaken(
            f"the plan of run {observer.layout.run_id} has a worker {name!r} already, "
            f"in phase {planned.phase}",
            hint=f"give the new one another name; the plan's is started by --phase {planned.phase}",
            worker=name,
        )


def phase_wanted(
    observer: Observer, phase: str, command: tuple[str, ...] | None, expect: tuple[Expect, ...]
) -> list[Wanted]:
    observer.phase_names(phase)  # raises NoSuchPhase
    plan = observer.history.plan
    found = [p for p in (plan.phases if plan else ()) if p.name == phase]
    return [want for p in found for want in wanted_of(observer, p, command, expect)]


def wanted_of(
    observer: Observer,
    phase: Phase,
    command: tuple[str, ...] | None = None,
    expect: tuple[Expect, ...] = (),
) -> list[Wanted]:
    """A phase's workers, everything filled in, briefs read. Raises BadPlan.

    Whoever is in the run already has its brief in the log, whatever became of the file.
    """
    wanted = []
    for entry in phase.workers:
        known = observer.history.workers.get(entry.name)
        if known is not None and command is None:
            wanted.append(Wanted(known.entry, phase.name, as_it_is=True))
            continue
        brief = resolve_brief(entry.brief, observer.history.base, where=None, worker=entry.name)
        entry = entry._replace(command=entry.command or command, expect=entry.expect or expect, brief=brief)
        wanted.append(Wanted(completed(observer, entry), phase.name))
    return wanted


def filled_in(
    observer: Observer, entry: WorkerEntry, command: tuple[str, ...] | None, expect: tuple[Expect, ...]
) -> WorkerEntry:
    """An entry from the command line or a list: its own word first, then the call's, then the plan's."""
    entry = entry._replace(command=entry.command or command, expect=entry.expect or expect)
    entry = completed(observer, entry)
    if entry.command is None:
        raise Usage(
            f"worker {entry.name} has no command",
            hint="put it behind --, for instance: -- claude -p; or set `command` in the plan",
        )
    if problem := first_sign_problem(entry):
        raise Usage(f"worker {entry.name}: {problem}", hint=FIRST_SIGN_RULE)
    return entry


def completed(observer: Observer, entry: WorkerEntry) -> WorkerEntry:
    """What it leaves open as the plan says; its directory relative to the plan, else to the caller's."""
    plan = observer.history.plan
    entry = effective(plan or Plan(), entry)
    base = observer.history.base if plan else os.getcwd()
    return entry._replace(cwd=os.path.normpath(os.path.join(base, entry.cwd or ".")))


def worker_word(word: str) -> WorkerEntry:
    """NAME=BRIEF, where BRIEF is a file."""
    name, equals, path = word.partition("=")
    if not equals or not path:
        raise Usage(f"--worker {word!r} is no NAME=BRIEF", hint="for instance --worker Scout=scout.md")
    check_name("worker", name)
    if not os.path.exists(path) or os.path.isdir(path):
        what = "is a directory" if os.path.isdir(path) else "is not there"
        raise Usage(f"the brief of {name} {what}: {path}", hint="write what the worker shall do into a file")
    try:
        return WorkerEntry(name, read_brief(path, name))
    except BadPlan as error:
        raise Usage(error.message, hint=error.hint) from None


def read_expect(word: str) -> Expect:
    """FILE, FILE:BYTES, or stdout."""
    file, colon, least = word.rpartition(":")
    try:
        if colon and (least[:1].isdigit() or file == "stdout"):
            return parse_expect(file)._replace(min_bytes=parse_size(least))
        return parse_expect(word)
    except BadValue as error:
        raise Usage(f"--expect {word!r}: {error}", hint=EXPECT_RULE) from None


def check_command(words: list[str] | None) -> tuple[str, ...] | None:
    if words is None:
        return None
    if not words or not words[0]:
        raise Usage("there is no command behind --", hint="for instance: -- claude -p")
    return tuple(words)
