"""Starts launchers: a small program of its own, run by file and importing next to nothing.

A launcher wants two things that only its own process can ask for, between fork and exec: a
timer, and to be the reaper of its orphaned descendants. Forking for that from a command with
all its modules costs a millisecond of copied pages each time; from here, a third of that. And
while this process forks, the command writes the next worker's files.

    orders on standard input:  NAME \\0 SCRIPT \\0 STDERR \\0 SECONDS \\0 TAG \\0
                               (SECONDS 0: no timer; TAG: a NAME=VALUE for its environment)
    replies on standard output:  NAME PID \\n, or NAME -ERRNO \\n where no launcher could be had
    descriptor 3 is handed on to the launchers, for their signs of life
    argv: the path of bash, a file in which the kernel counts memory kills (or an empty word), then the
    words that each launcher gets; behind them it gets its umask, and what is counted (or an empty word)

It ends when its orders do. Each launcher gets a session of its own, so it outlives all this.
"""

import ctypes
import gc
import os
import signal
import sys

READY_FD = 3
FIELDS = 5
PR_SET_CHILD_SUBREAPER = 36
PR_GET_DUMPABLE = 3


def main() -> None:
    bash, kill_counter, *words = (os.fsencode(word) for word in sys.argv[1:])
    gc.disable()
    # What the narrator's caller left open (a lock, a pipe) must not live on in a worker.
    os.closerange(READY_FD + 1, 2**31 - 1)  # a lowered limit does not close what was open
    orders, replies = os.dup(0), os.dup(1)  # closed at exec
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.set_inheritable(READY_FD, True)
    settle_signals()
    words.append(b"%04o" % os.umask(0o077))
    libc = ctypes.CDLL(None)
    libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)  # or each child would look for prctl, at a fifth of a millisecond
    rest = b""
    while data := os.read(orders, 1 << 16):
        *fields, rest = (rest + data).split(b"\0")
        whole = len(fields) - len(fields) % FIELDS
        rest = b"\0".join([*fields[whole:], rest])
        for i in range(0, whole, FIELDS):
            name, script, stderr, seconds, tag = fields[i : i + FIELDS]
            os.putenv(*tag.split(b"=", 1))
            argv = [bash, b"-p", script, *words, kills(kill_counter)]
            try:
                pid = os.fork()
            except OSError as error:
                pid = -(error.errno or 1)
            if pid == 0:
                try:
                    become_launcher(libc, stderr, float(seconds), argv)
                except OSError as error:
                    tell(replies, name, -(error.errno or 1))
                finally:
                    os._exit(71)
            tell(replies, name, pid)


def kills(counter: bytes) -> bytes:
    """How many are counted by now; nothing where that is not known."""
    try:
        with open(counter, "rb") as file:
            found = [line.split()[1] for line in file if line.startswith(b"oom_kill ")]
    except OSError:
        return b""
    return b"".join(found[:1])


def settle_signals() -> None:
    """As a launcher wants them, once for all: exec takes a handler back to the default.

    What the narrator's caller ignores, the narrator ignores, and bash could not trap it.
    """
    for number in set(range(1, 32)) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def become_launcher(libc: ctypes.CDLL, stderr: bytes, seconds: float, argv: list[bytes]) -> None:
    """Raises OSError, in the process that was to become one."""
    os.setsid()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again and again, as bash may miss one
    never_held = os.O_NONBLOCK | os.O_NOFOLLOW  # by a FIFO, say, that a worker has put there
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND | never_held, 0o600), 2)
    # -p: neither BASH_ENV nor functions of the narrator's environment get into the launcher.
    os.execv(argv[0], argv)


def tell(replies: int, name: bytes, number: int) -> None:
    try:
        os.write(replies, b"%s %d\n" % (name, number))
    except BrokenPipeError:
        return  # the command was interrupted; what it ordered is started all the same


if __name__ == "__main__":
    main()
