"""The run's lock: a directory made with mkdir, and for each holder exactly one that comes after it.

What must stay true, also where flock is local to each host or does nothing:

* A holder's record is whole before it counts: a claim, which is linked to where it counts. A link
  replaces nothing, so of several takers one wins. The first record is `holder.json` in the lock.
* One name decides what comes after the holder TOKEN, `.narrator/after-TOKEN`. Its holder lets go
  by renaming the lock to it; a taker takes over by linking its claim to it. Neither can replace the
  other: whoever is first wins, even over one who slept between looking and acting.
* Whoever has the lock is the end of that chain. Who took over looks once more whether the chain from
  `holder.json` comes to it: if not, that holder had let go, its name was free again, and the link is
  void.
* The name stays taken until the robbed holder's process is proved gone: it might still wake up.
* A record is changed by its holder alone, through the open file and where it stands: a holder that
  wakes up writes into its own record, wherever that is by now.
* A lock that does not say whose it is stays: that takes `orchestra unlock`.

The guard, an OS lock, only keeps those of one host who would take it from the dead from getting into each
other's way; who finds it free needs none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from orchestra.model.owner import Holder, parse_holder
from orchestra.model.trail import Process
from orchestra.store.layout import Layout
from orchestra.store.publish import read_if_there, read_text

GUARD_PATIENCE_S = 2.0
SIGNING_PATIENCE_S = 0.1  # for a taker of another host, between making the lock and signing it
TRIES = 50  # each that fails means that somebody else has got further


class LockSight(NamedTuple):
    """What a look at the lock shows.

    `holders`: who has it. None: the lock does not say. Several: it was made and not signed, by one of
    those who claim it. `chain`: token and record of everyone from the first holder to the one who has
    the lock. `next`: the path that decides who comes next.
    """

    held: bool = False
    holders: tuple[Holder, ...] = ()
    chain: tuple[tuple[str, Holder | None], ...] = ()
    next: str = ""

    @property
    def holder(self) -> Holder | None:
        return self.holders[0] if self.holders else None


class Taken(NamedTuple):
    """The lock is ours; `before` is what it was taken from, `record` the open file that says `holder`."""

    before: LockSight
    holder: Holder
    record: int


FREE = LockSight()


def look(layout: Layout) -> LockSight:
    """Raises OSError where a record may be there and cannot be looked at just now."""
    if not os.path.isdir(layout.lock):
        return FREE
    path = f"{layout.lock}/holder.json"
    text = read_if_there(path)
    if text is None:
        if not os.path.isdir(layout.lock):  # released between the two looks
            return FREE
        if not os.path.lexists(path):
            return LockSight(True, _claims(layout), (), path)
        text = ""
    chain: dict[str, Holder | None] = {}
    while text is not None:
        holder = parse_holder(text)
        token = holder.token if holder else f"unreadable-{zlib.crc32(text.encode()):08x}"
        if token in chain:  # nobody of ours wrote that
            return LockSight(True, (), tuple(chain.items()), path)
        chain[token] = holder
        path = layout.lock_after(token)
        text = read_if_there(path)
    return LockSight(True, (holder,) if holder else (), tuple(chain.items()), path)


def take(
    layout: Layout,
    holder: Holder,
    may: Callable[[LockSight], bool],
    gone: Callable[[Process], bool],
) -> Taken | LockSight:
    """Take the lock if it is free, or if `may` says so of who has it; else tell who has it.

    `gone`: whether a process is proved gone, so that it will never wake up. Raises OSError.
    """
    queued = False
    with contextlib.ExitStack() as queue:
        for turn in range(TRIES):
            sight = _signed(layout)
            if sight.held:
                if not may(sight):
                    return sight
                if not queued:
                    queue.enter_context(_guard(layout))
                    queued = True
                if look(layout) != sight:  # it has moved: a beat, say
                    continue
            # A token of its own for each try: we may have had the lock in the last one, and lost it.
            token = f"{holder.token}n{turn}" if turn else holder.token
            ours = holder._replace(token=token, robbed=sight.holder.process if sight.holder else None)
            record = _try_to_take(layout, ours, sight, gone)
            if record is not None:
                with contextlib.suppress(OSError):
                    _clear_leftovers(layout, ours, gone)
                return Taken(sight, ours, record)
        there = os.path.lexists(layout.lock) and not os.path.isdir(layout.lock)
        why = "it is no directory: move it away" if there else "it cannot be taken, and nobody has it"
        raise FileExistsError(errno.EEXIST, why, layout.lock)


def write(record: int, holder: Holder) -> None:
    """Write what its holder says of itself; anew, all but a few digits stays as it is. Raises OSError."""
    data = holder.to_text().encode()
    if os.pwrite(record, data, 0) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.close(os.dup(record))  # at each close, a client of a network file system sends what was written


def release(layout: Layout, token: str, gone: Callable[[Process], bool]) -> None:
    """Let go, if the lock is still ours."""
    with contextlib.suppress(OSError):
        sight = look(layout)
        if not sight.chain or sight.chain[-1][0] != token:
            return
        os.rename(layout.lock, sight.next)  # not over the record of who took over since we looked
        _discard(sight.next)
        for before, holder in sight.chain[:-1]:
            if holder is None or gone(holder.process):
                _unlink(layout.lock_after(before))


def is_lost(layout: Layout, token: str) -> bool:
    """Whether it is another's by now, or nobody's; a record that cannot be read just now proves nothing."""
    try:
        sight = look(layout)
    except OSError:
        return False
    return not sight.held or (sight.holder is not None and sight.holder.token != token)


def _signed(layout: Layout) -> LockSight:
    """The lock, once it says whose it is; or as it is when patience is at its end."""
    deadline = time.monotonic() + SIGNING_PATIENCE_S
    while (sight := look(layout)).held and not sight.holders and time.monotonic() < deadline:
        time.sleep(0.005)
    return sight


def _try_to_take(
    layout: Layout, holder: Holder, sight: LockSight, gone: Callable[[Process], bool]
) -> int | None:
    """The open record by which we have the lock; None where somebody else was faster. Raises OSError."""
    claim = layout.lock_claim(holder.token)
    path = sight.next or f"{layout.lock}/holder.json"
    made = False
    try:
        if not os.path.isdir(layout.lock_notes):
            with contextlib.suppress(FileExistsError):
                os.mkdir(layout.lock_notes, 0o700)
        _claim(claim, holder)
        if not sight.held:
            os.mkdir(layout.lock, 0o700)
            made = True
        record = _link(claim, path, holder)
    except OSError as error:
        if not made or _unmake(layout):  # else our claim stays, and tells who made the lock
            _unlink(claim)
        if isinstance(error, (FileExistsError, FileNotFoundError)) and os.path.isdir(layout.run_dir):
            return None
        raise
    _unlink(claim)
    if sight.chain and holder.token not in dict(look(layout).chain):
        # Void; or we had it, were robbed, and all that is over: then the name must stay taken.
        os.close(record)
        if sight.holder is None or gone(sight.holder.process):
            _unlink(path)
        return None
    return record


def _claim(path: str, holder: Holder) -> None:
    """Whole from its first moment: an empty one could not be told from one of the dead."""
    os.close(_write_new(f"{path}.new", holder))
    os.rename(f"{path}.new", path)


def _write_new(path: str, holder: Holder) -> int:
    """Write a record where none was, and leave it open. Raises OSError, leaving nothing."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write(fd, holder)
    except OSError:
        os.close(fd)
        os.unlink(path)
        raise
    return fd


def _link(claim: str, path: str, holder: Holder) -> int:
    """Put the claim where it counts, and open it. Raises OSError: FileExistsError where another is there.

    Not by a rename: that replaces; and whoever watches the run's directory would be told of it, and of
    all that came after it, half a second late.
    """
    ours = os.stat(claim)
    try:
        os.link(claim, path)
    except FileNotFoundError:
        raise
    except FileExistsError:
        if os.stat(claim).st_nlink < 2:  # a server's answer may be lost, and the link be asked for again
            raise
    except OSError:  # a file system without hard links
        return _write_new(path, holder)
    record = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    if not os.path.samestat(ours, os.fstat(record)):  # forced out of it already
        os.close(record)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    return record


def _unmake(layout: Layout) -> bool:
    """Take away the lock that we made and could not sign; False where it still stands so."""
    try:
        os.rmdir(layout.lock)
    except OSError:
        return not os.path.isdir(layout.lock) or os.path.lexists(f"{layout.lock}/holder.json")
    return True


def _claims(layout: Layout) -> tuple[Holder, ...]:
    """Everyone with a claim. Who made the lock had a whole one before that."""
    place, prefix = os.path.split(layout.lock_claim(""))
    try:
        names = sorted(n for n in os.listdir(place) if n.startswith(prefix) and not n.endswith(".new"))
    except OSError:
        return ()
    holders = [parse_holder(read_text(f"{place}/{name}") or "") for name in names]
    return tuple(holder for holder in holders if holder)


def _clear_leftovers(layout: Layout, holder: Holder, gone: Callable[[Process], bool]) -> None:
    """What those left who did not live to clear it away; and our host's sights of whom we follow."""
    claims, after, sights = (
        os.path.basename(path)
        for path in (layout.lock_claim(""), layout.lock_after(""), layout.beat_sights(holder.process.host))
    )
    names = [n for n in os.listdir(layout.lock_notes) if n.startswith((claims, after, sights))]
    if not names:
        return
    chain = [token for token, _ in look(layout).chain]
    if not chain or chain[-1] != holder.token:
        return
    needed = {os.path.basename(layout.lock_after(token)) for token in chain}
    for name in names:
        path = f"{layout.lock_notes}/{name}"
        if name.startswith(after) and os.path.isdir(path):
            if name not in needed:
                _discard(path)
            continue
        process = None
        # A claim that is not whole: should its writer live, it finds that gone and begins anew.
        if not (name.startswith(sights) or name.endswith(".new")):
            text = read_text(path)
            if text is None:
                continue
            if said := parse_holder(text):
                process = said.robbed if name.startswith(after) else said.process
        # Names seen while the lock was ours are of chains that are over, or of ours.
        if name not in needed and (process is None or gone(process)):
            _unlink(path)


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _discard(gone: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(gone):
            os.unlink(f"{gone}/{name}")
        os.rmdir(gone)


@contextlib.contextmanager
def _guard(layout: Layout) -> Iterator[None]:
    from filelock import FileLock, Timeout

    guard = FileLock(layout.lock_guard, mode=0o600, timeout=GUARD_PATIENCE_S, poll_interval=0.005)
    with contextlib.suppress(Timeout, OSError, NotImplementedError):
        guard.acquire()
    try:
        yield
    finally:
        guard.release()
