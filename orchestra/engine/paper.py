"""A worker's paper trail: what is written, in order, before its process starts."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from orchestra.engine.burial import read_mark
from orchestra.engine.conduct import Conductor
from orchestra.engine.observe import Observer
from orchestra.engine.place import tmp_dir
from orchestra.model.brief import is_brief_of
from orchestra.model.launcher import GRACE_S, LaunchOrder, render, takes_prompt_text
from orchestra.model.plan import MOST_INPUT, WorkerEntry
from orchestra.model.record import WorkerRecord
from orchestra.store.publish import Staging, open_regular, write_all

RESERVE = b" " * 4095 + b"\n"
MAX_ARGUMENT = 128 * 1024 - 1  # MAX_ARG_STRLEN of Linux, with its NUL


class Unfit(Exception):
    """A worker cannot be started as it stands; says why."""


def stage_trail(conductor: Conductor, record: WorkerRecord, staging: Staging) -> None:
    """Brief, prompt, launcher, ready to be published. Raises OSError, Unfit."""
    name, attempt, layout = record.name, record.attempt, conductor.layout
    record = with_brief(conductor, record)
    if attempt > 1:
        archive(conductor, record)
    order = launch_order(conductor, record)
    prompt = prompt_text(record.entry, layout.out(name))
    check_fits(order.command, prompt)
    make_directories(
        layout.attempts,
        os.path.dirname(layout.attempt(name, attempt)),
        layout.attempt(name, attempt),
        layout.out(name),
        order.tmp_dir,
    )
    for path in (layout.result(name), layout.sentinel(name)):  # a deferral's, or an earlier attempt's
        if os.path.lexists(path):
            os.unlink(path)
    for path in (layout.mark(name), layout.log_out(name), layout.log_err(name)):
        if is_pipe(path):  # it would hold the launcher for ever
            os.unlink(path)
    reserve(layout.attempt_reserve(name, attempt), RESERVE)
    staging.add(name, layout.brief(name), encoded(record.entry.brief))
    staging.add(name, layout.prompt(name), encoded(prompt))
    staging.add(name, layout.launcher(name), render(order).encode("ascii"), 0o700)


def with_brief(observer: Observer, record: WorkerRecord) -> WorkerRecord:
    """With the brief's text, where it is no longer at hand. Raises OSError, Unfit."""
    if not record.brief_is_out:
        return record
    text = ""
    with contextlib.suppress(OSError), open_regular(observer.layout.brief(record.name), MOST_INPUT) as file:
        text = file.read().decode("utf-8", "surrogateescape")
    if not is_brief_of(record, text):
        asked = observer.log.find(record.asked_op)
        text = asked.data.get("entry", {}).get("brief", "") if asked else ""
    if not is_brief_of(record, text):
        raise Unfit(
            f"its brief is gone: it is neither in {observer.layout.brief(record.name)} "
            f"nor in the event log at operation {record.asked_op}; put it back there"
        )
    return record._replace(entry=record.entry._replace(brief=text))


def launch_order(conductor: Conductor, record: WorkerRecord) -> LaunchOrder:
    entry = record.entry
    return LaunchOrder(
        worker=record.name,
        attempt=record.attempt,
        token=record.token,
        run_dir=conductor.layout.run_dir,
        cwd=entry.cwd or conductor.history.base,
        command=entry.command or (),
        env=entry.env,
        expect=tuple((e.file, e.min_bytes) for e in entry.expect),
        timeout_s=entry.timeout_s or 0,
        grace_s=GRACE_S,
        tmp_dir=tmp_dir(record.token),
        where=conductor.holder.process,
    )


def prompt_text(entry: WorkerEntry, out: str) -> str:
    """What the worker is really given: its brief, and where to put what is expected of it."""
    files = [e.file for e in entry.expect if e.file is not None]
    if not files:
        return entry.brief
    names = "".join(f"- {out}/{file}\n" for file in files)
    return f"{entry.brief.rstrip()}\n\nWhen you are done, these files must be there:\n{names}"


def check_fits(command: tuple[str, ...], prompt: str) -> None:
    """What an argument may hold is bounded by the kernel, whose own error names no cause. Raises Unfit."""
    size = len(encoded(prompt))
    for word in command:
        bare = len(encoded(word))
        if bare > MAX_ARGUMENT:
            raise Unfit(
                f"a word of its command has {bare} bytes, more than one argument may have "
                f"({MAX_ARGUMENT}): put it into a file, or into the brief"
            )
        if bare + word.count("{prompt}") * (size - len("{prompt}")) > MAX_ARGUMENT:
            raise Unfit(
                f"its prompt has {size} bytes, more than one argument may have "
                f"({MAX_ARGUMENT}): use {{prompt_file}}, or leave {{prompt}} out and read standard input"
            )
    if takes_prompt_text(command) and "\0" in prompt:
        raise Unfit("its prompt holds a NUL byte, which no argument can: use {prompt_file}")


def archive(conductor: Conductor, record: WorkerRecord) -> None:
    """Move the files of the attempt before aside. Done twice, it does nothing more.

    A file whose place in the archive is taken was moved by an earlier try, so what has its
    flat name now belongs to the current attempt. An attempt without a directory of its own
    never wrote anything: what is there belongs to the one before it.
    """
    layout = conductor.layout
    if read_mark(layout, record) is not None:
        return
    before = max((k for k in layout.attempts_of(record.name) if k < record.attempt), default=None)
    if before is None:
        return
    make_directories(layout.attempt(record.name, before))
    for flat, aside in layout.archived(record.name, before):
        with contextlib.suppress(FileNotFoundError):
            if not os.path.lexists(aside):
                os.rename(flat, aside)
            elif os.path.samefile(flat, aside):  # the result, told under two names
                os.unlink(flat)


def make_directories(*paths: str) -> None:
    for path in paths:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", path) from None


def is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def reserve(path: str, space: bytes) -> None:
    """Space for the launcher's own words: written over in place when the disk has none left."""
    never_held = os.O_NONBLOCK | os.O_NOFOLLOW  # by a FIFO, say, that a worker has put there
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | never_held, 0o600)
    try:
        write_all(fd, space)
    finally:
        os.close(fd)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
