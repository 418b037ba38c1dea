"""Starts launchers: a small program of its own, run by file and importing next to nothing.

A launcher wants two things that only its own process can ask for, between fork and exec: a
timer, and to be the reaper of its orphaned descendants. Forking for that from a command with
all its modules costs a millisecond of copied pages each time; from here, a tenth. And while
this process forks, the command writes the next worker's files.

    orders on standard input:  NAME \\0 SCRIPT \\0 STDERR \\0 SECONDS \\0   (SECONDS 0: no timer)
    replies on standard output:  NAME PID \\n, or NAME -ERRNO \\n where no process could be had
    descriptor 3 is handed on to the launchers, for their signs of life
    argv: the path of bash

It ends when its orders do. Each launcher gets a session of its own, so it outlives all this.
"""

import ctypes
import os
import signal
import sys

READY_FD = 3
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    bash = sys.argv[1]
    libc = ctypes.CDLL(None)
    # What the narrator's caller left open (a lock, a pipe) must not live on in a worker.
    os.closerange(READY_FD + 1, os.sysconf("SC_OPEN_MAX"))
    null = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(READY_FD, True)
    rest = b""
    while data := os.read(0, 1 << 16):
        *fields, rest = (rest + data).split(b"\0")
        whole = len(fields) - len(fields) % 4
        rest = b"\0".join([*fields[whole:], rest])
        for i in range(0, whole, 4):
            name, script, stderr, seconds = fields[i : i + 4]
            try:
                pid = os.fork()
            except OSError as error:
                pid = -(error.errno or 1)
            if pid == 0:
                become_launcher(libc, null, bash, script, stderr, float(seconds))
            try:
                os.write(1, b"%s %d\n" % (name, pid))
            except BrokenPipeError:
                continue  # the command was interrupted; what it ordered is started all the same


def become_launcher(
    libc: ctypes.CDLL, null: int, bash: str, script: bytes, stderr: bytes, seconds: float
) -> None:
    try:
        os.setsid()
        for name in ("PIPE", "XFSZ", "INT", "TERM", "HUP", "ALRM"):  # Python ignores the first two
            signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if seconds:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        log = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(log, 2)
        # -p: neither BASH_ENV nor functions of the narrator's environment get into the launcher.
        os.execv(bash, [os.fsencode(bash), b"-p", script, b"supervised"])
    finally:
        os._exit(71)


if __name__ == "__main__":
    main()
