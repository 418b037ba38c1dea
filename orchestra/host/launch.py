"""Start launchers as processes of their own, and hear their signs of life."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import sys
from collections.abc import Iterable
from typing import NamedTuple

from orchestra.host import process, starter

ENDS_WITHIN_S = 2.0  # the helper, once it has no more orders
TAKES_ORDERS_WITHIN_S = 10.0


class News(NamedTuple):
    """What is new of one launcher: its PID once it is started, or why it could not be; a sign of life."""

    name: str
    pid: int | None = None
    errno: int | None = None
    sign_of_life: bool = False


class Starter:
    """A helper process that starts launchers for one batch, each with the same words behind its script,
    then the umask and what `kill_counter` says.

    Raises OSError where it cannot be had.
    """

    def __init__(self, words: tuple[str, ...], kill_counter: str) -> None:
        bash = shutil.which("bash")
        if bash is None:
            raise FileNotFoundError(2, "bash is not on the PATH", "bash")
        pipes: list[int] = []
        try:
            for _ in range(3):
                pipes += os.pipe()
            orders, self._orders, self._replies, replies, self._signs, signs = pipes
            os.set_blocking(self._orders, False)
            self._pid = os.posix_spawn(
                sys.executable,
                # -S, -E: it needs no packages and no settings, so it is up in a few milliseconds.
                [sys.executable, "-S", "-E", starter.__file__, bash, kill_counter, *words],
                process.inherited(),
                setsid=True,
                # None of these targets is a source that is still needed.
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, fd, target)
                    for fd, target in ((orders, 0), (replies, 1), (signs, starter.READY_FD))
                ],
            )
        except OSError:
            self._close(*pipes)
            raise
        self._close(orders, replies, signs)
        self._rest = {self._replies: b"", self._signs: b""}

    def start(self, name: str, script: str, stderr: str, timeout_s: float, tag: str) -> None:
        """Order one launcher; `tag` is a NAME=VALUE for its environment.

        Raises OSError where the helper has died, or takes no orders and is ended for it.
        """
        order = (name, script, stderr, f"{timeout_s:.3f}", tag)
        data = b"".join(os.fsencode(field) + b"\0" for field in order)
        while data:
            if not _ready([self._orders], select.POLLOUT, TAKES_ORDERS_WITHIN_S):
                os.kill(self._pid, signal.SIGKILL)  # it is stopped, and holds part of an order
                raise TimeoutError(errno.ETIMEDOUT, "the helper that starts launchers takes no orders")
            data = data[os.write(self._orders, data) :]

    def news(self, timeout_s: float) -> list[News]:
        """What came since the last call; waits at most `timeout_s` for the first."""
        found: list[News] = []
        for fd in _ready(self._rest, select.POLLIN, timeout_s):
            data = os.read(fd, 1 << 16)
            *lines, self._rest[fd] = (self._rest[fd] + data).split(b"\n")
            if not data:
                del self._rest[fd]
            for line in lines:
                name, _, number = line.decode().partition(" ")
                if fd == self._signs:
                    found.append(News(name, sign_of_life=True))
                elif number.startswith("-"):
                    found.append(News(name, errno=int(number[1:])))
                else:
                    found.append(News(name, pid=int(number)))
        return found

    def dead(self) -> bool:
        """Whether the helper itself is gone, so that no order given to it will be carried out."""
        return process.start_of(self._pid) is None

    def close(self) -> None:
        self._close(self._orders)
        with contextlib.suppress(ChildProcessError):  # whoever uses us ignores SIGCHLD
            if not self._comes_to_its_end():
                os.kill(self._pid, signal.SIGKILL)  # it is stopped: its orders are not carried out any more
            os.waitpid(self._pid, 0)
        self._close(self._replies, self._signs)

    def _comes_to_its_end(self) -> bool:
        """Whether it does within its time: then nobody has the other end of its replies any more."""
        while _ready([self._replies], select.POLLIN, ENDS_WITHIN_S):
            if not os.read(self._replies, 1 << 16):
                return True
        return False

    @staticmethod
    def _close(*fds: int) -> None:
        for fd in fds:
            os.close(fd)


def _ready(fds: Iterable[int], event: int, timeout_s: float) -> list[int]:
    """Those at which the event has come, or the end; waits at most `timeout_s` for the first."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, event)
    return [fd for fd, _ in poll.poll(timeout_s * 1e3)]
