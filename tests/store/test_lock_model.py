"""The lock's own code on a file system of the mind, in every order in which its steps can fall.

No OS lock helps here, as between hosts. Everybody takes everybody else for dead, at any time: so any
holder may be robbed while it only sleeps, and wake up at any later step. Anybody may be killed at any
step. A process is its code and the answers that it got so far, so it is run again from its beginning
for each step; states that were seen are not gone into twice.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from orchestra.model.owner import Holder, parse_holder
from orchestra.model.trail import Process
from orchestra.store import lock
from orchestra.store.layout import Layout

LONG = os.environ.get("ORCHESTRA_LONG") == "1"
LAYOUT = Layout("/r")
THERE = (LAYOUT.run_dir, LAYOUT.lock_notes)  # nobody takes them away
DIRECTORY = "a directory"
Code = Callable[[int], None]
Files = dict[str, str]  # path -> what it is: a directory, or the text of a file (each its writer's own)


class Asks(BaseException):
    """A process has come to a step to which it has no answer yet."""


class At(NamedTuple):
    """How far a process is: its code, and the answers that it has got since it began with that."""

    code: Code | None
    told: tuple[Any, ...] = ()


class World(NamedTuple):
    files: frozenset[tuple[str, str]]
    at: tuple[At, ...]
    killed: int = 0


def holder(who: int) -> Holder:
    return Holder(Process(who + 1, 1, "boot", "host"), "spawn", None, f"t{who}", 0, "", 60.0)


def a_taker(who: int) -> None:
    if isinstance(lock.take(LAYOUT, holder(who), lambda sight: bool(sight.holders), gone), lock.Taken):
        ask("go on as", a_holder)


def a_holder(who: int) -> None:
    ask("go on as", a_releaser)


def a_releaser(who: int) -> None:
    lock.release(LAYOUT, f"t{who}", gone)


def gone(process: Process) -> bool:
    return bool(ask("gone", process.pid - 1))


# --- a process, as far as its answers lead it ---------------------------------------------------------

answers: Iterator[Any] = iter(())
asked: list[tuple[Any, ...]] = []
looks: list[None] = []


def ask(*step: Any) -> Any:
    for answer in answers:
        if isinstance(answer, OSError):
            raise answer
        return answer
    asked.append(step)
    raise Asks


def first_look(layout: Layout) -> lock.LockSight:
    """Each try to take the lock is as the first one."""
    if looks:
        ask("go on as", a_taker)
    looks.append(None)
    return lock.look(layout)


def next_step(at: At, who: int) -> tuple[Any, ...] | None:
    """What it does next; None: it has ended."""
    global answers
    answers = iter(at.told)
    asked.clear()
    looks.clear()
    with contextlib.suppress(Asks):
        if at.code:
            at.code(who)
    return asked[0] if asked else None


# --- the file system ----------------------------------------------------------------------------------


def error(number: int) -> OSError:
    return KEPT.setdefault(number, OSError(number, os.strerror(number)))


KEPT: dict[int, OSError] = {}  # the same each time, so that answers can be compared


def carry_out(files: Files, step: tuple[Any, ...]) -> Any:
    """Changes `files`; returns the answer, which may be an OSError."""
    match step:
        case ("isdir", path):
            return files.get(path) == DIRECTORY
        case ("lexists", path):
            return path in files
        case ("read", path):
            return None if files.get(path) == DIRECTORY else files.get(path)
        case ("listdir", path):
            return tuple(sorted(name[len(path) + 1 :] for name in files if is_in(name, path)))
        case ("mkdir", path):
            if path in files:
                return error(errno.EEXIST)
            files[path] = DIRECTORY
        case ("claim", path, text):
            files[path] = text
        case ("link", source, target):
            if source not in files or (parent(target) not in THERE and parent(target) not in files):
                return error(errno.ENOENT)
            if target in files:
                return error(errno.EEXIST)
            files[target] = files[source]
        case ("rename", source, target):
            if source not in files:
                return error(errno.ENOENT)
            if target in files and (files[target] != DIRECTORY or any(is_in(n, target) for n in files)):
                return error(errno.ENOTDIR)
            for name in [n for n in files if n == source or is_in(n, source)]:
                files[target + name[len(source) :]] = files.pop(name)
        case ("discard", path):
            for name in [n for n in files if n == path or is_in(n, path)]:
                del files[name]
        case ("rmdir", path) if any(is_in(name, path) for name in files):
            return error(errno.ENOTEMPTY)
        case ("unlink" | "rmdir", path):
            return None if files.pop(path, None) is not None else error(errno.ENOENT)
    return None


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def is_in(name: str, path: str) -> bool:
    return parent(name) == path


@pytest.fixture(autouse=True)
def _on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock's code, with its system calls asking us; those on its own open file matter to nobody else."""
    path = SimpleNamespace(
        isdir=lambda path: path in THERE or ask("isdir", path),
        lexists=lambda path: ask("lexists", path),
        basename=os.path.basename,
        split=os.path.split,
        samestat=lambda one, other: True,
    )
    fake = SimpleNamespace(
        path=path,
        strerror=os.strerror,
        **{name: getattr(os, name) for name in dir(os) if name.startswith("O_")},
        **{name: lambda *args: SimpleNamespace(st_nlink=1) for name in ("stat", "fstat", "close")},
        **{
            name: lambda *args, name=name: ask(name, *args[:2])
            for name in ("link", "rename", "unlink", "rmdir")
        },
        mkdir=lambda path, mode: ask("mkdir", path),
        listdir=lambda path: ask("listdir", path),
        open=lambda path, flags: path,
    )
    monkeypatch.setattr(lock, "os", fake)
    for name in ("read_text", "read_if_there"):
        monkeypatch.setattr(lock, name, lambda path: ask("read", path))
    monkeypatch.setattr(lock, "_claim", lambda path, who: ask("claim", path, sys.intern(who.to_text())))
    monkeypatch.setattr(lock, "_guard", contextlib.nullcontext)
    monkeypatch.setattr(lock, "_signed", first_look)


# --- every order ----------------------------------------------------------------------------------------


class Exploration:
    """All worlds that can come of these processes, of which so many may be killed."""

    def __init__(self, files: Files, codes: list[Code], kills: int) -> None:
        self.kills = kills
        self.steps: dict[tuple[At, int], tuple[Any, ...] | None] = {}
        self.ends: set[frozenset[tuple[str, str]]] = set()
        self.shared: dict[Any, Any] = {}  # what many worlds have alike, kept once
        first = World(frozenset(files.items()), tuple(map(At, codes)))
        self.seen = {first}
        waiting = [first]
        while waiting:
            for world in self.after(waiting.pop()):
                if world not in self.seen:
                    self.seen.add(world)
                    check(world)
                    waiting.append(world)

    def step(self, at: At, who: int) -> tuple[Any, ...] | None:
        if (at, who) not in self.steps:
            self.steps[at, who] = next_step(at, who)
        return self.steps[at, who]

    def share(self, value: Any) -> Any:
        return self.shared.setdefault(value, value)

    def after(self, world: World) -> Iterator[World]:
        steps = [self.step(at, who) for who, at in enumerate(world.at)]
        for who, step in enumerate(steps):
            if step is None:
                continue
            files = dict(world.files)
            if step[0] == "go on as":
                then = At(step[1])
            else:
                answer = steps[step[1]] is None if step[0] == "gone" else carry_out(files, step)
                then = world.at[who]._replace(told=(*world.at[who].told, answer))
            if self.step(then, who) is None:
                then = At(None)
            left, then = self.share(frozenset(files.items())), self.share(then)
            yield world._replace(files=left, at=self.share(put(world.at, who, then)))
            if world.killed < self.kills:
                dead = self.share(put(world.at, who, At(None)))
                yield world._replace(at=dead, killed=world.killed + 1)
        if not any(steps) and world.files not in self.ends:
            self.ends.add(world.files)
            check_that_the_next_gets_in(world)


def put(at: tuple[At, ...], who: int, then: At) -> tuple[At, ...]:
    return (*at[:who], then, *at[who + 1 :])


def check(world: World) -> None:
    """Of those who are inside and were not robbed there is one at most, and the lock says it is the one."""
    files = dict(world.files)
    inside = [who for who, at in enumerate(world.at) if at.code == a_holder]
    owners = [who for who in inside if LAYOUT.lock_after(f"t{who}") not in files]
    assert len(owners) < 2, (owners, files)
    if owners:
        assert end_of_chain(files) == f"t{owners[0]}", files


def end_of_chain(files: Files) -> str:
    path, token = f"{LAYOUT.lock}/holder.json", ""
    while said := parse_holder(files.get(path, "")):
        path, token = LAYOUT.lock_after(said.token), said.token
    return token


def check_that_the_next_gets_in(world: World) -> None:
    """Once all have ended or were killed, the next takes the lock, and leaves nothing of them behind."""
    files, at, codes = dict(world.files), At(a_taker), set()
    while step := next_step(at, 9):
        if step[0] == "go on as":
            at = At(step[1])
            codes.add(at.code)
        else:
            at = at._replace(told=(*at.told, True if step[0] == "gone" else carry_out(files, step)))
    assert a_holder in codes and not files, (world.files, files)


def held_by_first() -> Files:
    return {LAYOUT.lock: DIRECTORY, f"{LAYOUT.lock}/holder.json": holder(0).to_text()}


@pytest.mark.parametrize("kills", [0, 1, 2])
def test_two_takers_of_a_free_lock_killed_anywhere(kills: int) -> None:
    assert len(Exploration({}, [a_taker, a_taker], kills).seen) > 5000


@pytest.mark.parametrize("kills", [0, 1, 2])
def test_a_taker_and_a_holder_that_lets_go_killed_anywhere(kills: int) -> None:
    assert len(Exploration(held_by_first(), [a_holder, a_taker], kills).seen) > 400


def test_two_takers_and_a_holder_that_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clearing away left out, which makes the worlds few enough."""
    monkeypatch.setattr(lock, "_clear_leftovers", lambda *args: None)
    monkeypatch.setattr(lock, "_discard", lambda path: ask("discard", path))
    monkeypatch.setitem(globals(), "check_that_the_next_gets_in", lambda world: None)
    assert len(Exploration(held_by_first(), [a_holder, a_taker, a_taker], 0).seen) > 5000


@pytest.mark.skipif(not LONG, reason="some minutes: ORCHESTRA_LONG=1")
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kills", [0, 1])
def test_two_takers_and_a_holder_that_lets_go_killed_anywhere(kills: int) -> None:
    assert len(Exploration(held_by_first(), [a_holder, a_taker, a_taker], kills).seen) > 200_000
