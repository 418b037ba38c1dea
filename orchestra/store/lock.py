"""The run's lock: an atomic mkdir with the holder's identity inside.

What must stay true:

* The directory is made with mkdir, and only while the guard (an OS lock on a file that is
  never deleted, gone with its holder) is held. So nobody judges a lock half-made.
* The holder's identity is written before the directory is made, and moved into it: a
  taker that dies in between leaves a claim by which it can be judged.
* A lock goes away by a rename, so there is no instant in which it is there but empty,
  and only while the guard is held.
* Only a holder that is proved dead loses its lock to somebody else. A lock that does not
  say whose it is stays: that takes `orchestra unlock`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from orchestra.model.owner import Holder, parse_holder
from orchestra.store.layout import Layout
from orchestra.store.publish import half_built, publish, read_text

GUARD_PATIENCE_S = 10.0


class LockSight(NamedTuple):
    """What a look at the lock shows. `holder` is None where the lock does not say."""

    held: bool
    holder: Holder | None


class Taken(NamedTuple):
    """The lock is ours; `freed` is the dead holder that had it before, if any."""

    freed: Holder | None


def look(layout: Layout) -> LockSight:
    if not os.path.isdir(layout.lock):
        return LockSight(False, None)
    text = read_text(f"{layout.lock}/holder.json")
    if text is None and not os.path.isdir(layout.lock):  # released between the two looks
        return LockSight(False, None)
    return LockSight(True, parse_holder(text) if text is not None else _unfinished(layout))


def take(layout: Layout, holder: Holder, is_dead: Callable[[Holder], bool]) -> Taken | LockSight:
    """Take the lock, or tell who has it. Raises OSError, and TimeoutError at a stuck guard."""
    with _guard(layout):
        freed = None
        sight = look(layout)
        if sight.held:
            owner = sight.holder
            if owner is None or not is_dead(owner):
                return sight
            freed = owner
            _remove(layout)
        _clear_leftovers(layout)
        publish(layout.lock_claim, json.dumps(holder.to_json()).encode() + b"\n", durable=False)
        try:
            os.mkdir(layout.lock, 0o700)
        except OSError:
            os.unlink(layout.lock_claim)
            raise
        _sign(layout)
        return Taken(freed)


def _sign(layout: Layout) -> None:
    """Move the claim into the lock.

    By link and unlink: whoever watches the run's directory would be told of a file that
    moved away half a second late, and of all that came after it.
    """
    try:
        os.link(layout.lock_claim, f"{layout.lock}/holder.json")
        os.unlink(layout.lock_claim)
    except OSError:  # a file system without hard links
        os.rename(layout.lock_claim, f"{layout.lock}/holder.json")


def sign(layout: Layout, holder: Holder) -> None:
    """Write anew who holds the lock: its holder knows more of itself now."""
    data = json.dumps(holder.to_json()).encode() + b"\n"
    with contextlib.suppress(OSError), _guard(layout):
        if is_mine(layout, holder.token):
            publish(f"{layout.lock}/holder.json", data, durable=False)


def release(layout: Layout, token: str) -> None:
    """Let go, if the lock is still ours.

    Under the guard: else a taker that has read our name may see us gone before it removes
    the lock, and we may remove the lock of whoever forced us out after we looked.
    """
    with contextlib.suppress(OSError), _guard(layout):
        if is_mine(layout, token):
            _remove(layout)


def is_mine(layout: Layout, token: str) -> bool:
    holder = look(layout).holder
    return holder is not None and holder.token == token


def break_lock(layout: Layout, may: Callable[[Holder | None], bool]) -> LockSight:
    """Remove the lock if `may` says so of its holder; returns what was there before."""
    with _guard(layout):
        sight = look(layout)
        if sight.held and may(sight.holder):
            _remove(layout)
        return sight


def _unfinished(layout: Layout) -> Holder | None:
    """Who made the lock and did not live to sign it."""
    if os.path.exists(f"{layout.lock}/holder.json"):
        return None
    text = read_text(layout.lock_claim)
    return parse_holder(text) if text is not None else None


def _remove(layout: Layout) -> None:
    gone = f"{layout.lock}.gone-{os.getpid()}-{os.urandom(4).hex()}"
    os.rename(layout.lock, gone)
    _discard(gone)


def _clear_leftovers(layout: Layout) -> None:
    """Released locks, and claims half-written, of those who did not live to clear them away."""
    gone, claim = f"{os.path.basename(layout.lock)}.gone-", half_built(layout.lock_claim)
    # A large run has ten thousands of names.
    for name in [name for name in os.listdir(layout.run_dir) if name.startswith((gone, claim))]:
        if name.startswith(gone):
            _discard(f"{layout.run_dir}/{name}")
        elif name.endswith(".new"):
            with contextlib.suppress(OSError):
                os.unlink(f"{layout.run_dir}/{name}")


def _discard(gone: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(gone):  # beside the holder, what somebody killed in `sign` was building
            os.unlink(f"{gone}/{name}")
        os.rmdir(gone)


@contextlib.contextmanager
def _guard(layout: Layout) -> Iterator[None]:
    from filelock import FileLock, Timeout

    guard = FileLock(layout.lock_guard, mode=0o600, timeout=GUARD_PATIENCE_S, poll_interval=0.005)
    try:
        guard.acquire()
    except Timeout:
        raise TimeoutError(
            f"another process has held {layout.lock_guard} for {GUARD_PATIENCE_S:g} s"
        ) from None
    try:
        yield
    finally:
        guard.release()
