"""Start a launcher as a process of its own, which outlives the command that started it."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
from functools import cache

_PR_SET_CHILD_SUBREAPER = 36


@cache
def bash() -> str:
    """Where bash is. Raises FileNotFoundError."""
    found = shutil.which("bash")
    if found is None:
        raise FileNotFoundError("bash is not on the PATH")
    return found


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def start_detached(argv: list[str], *, ready_fd: int, as_fd: int, stderr: str, timeout_s: float) -> int:
    """Start `argv` in a session of its own; returns its PID. Raises OSError where fork fails.

    Standard input and output are /dev/null, standard error is appended to the file
    `stderr`; `ready_fd` becomes descriptor `as_fd`, and nothing else is inherited. The process becomes
    the reaper of its orphaned descendants, so that none escapes it by a double fork, and
    gets SIGALRM after `timeout_s` seconds (0: never). Both survive exec, and neither can be
    asked for by bash itself, nor by posix_spawn: hence the fork.
    """
    program, environment, libc = bash(), os.environ, _libc()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        for signum in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if timeout_s:
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
        null = os.open(os.devnull, os.O_RDWR)
        log = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for source, target in ((null, 0), (null, 1), (log, 2)):
            os.dup2(source, target)
        if ready_fd == as_fd:
            os.set_inheritable(ready_fd, True)
        else:
            os.dup2(ready_fd, as_fd)
        os.execve(program, argv, environment)
    except BaseException:
        os._exit(71)
    os._exit(71)
