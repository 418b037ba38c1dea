"""The launcher: one bash script for each attempt, readable and runnable by hand.

What must stay true of every script that `render` makes:

* An attempt is claimed before anything else is touched: the mark is created, never
  overwritten, so two launchers of one attempt cannot both start the worker.
* Every path out of the script leaves a result, or (before the worker has started) a
  sentinel and a result; but for exit status 75, where the attempt is somebody else's.
  A launcher that fails while its worker is at work ends that, and its result says `lost`.
* The text is ASCII whatever the names, paths and arguments hold, so `$BASH_COMMAND` and
  all that is built from it is valid JSON.
* Up to the sign of life nothing but builtins of bash runs: a spawn costs two forks.

It is started as `bash -p SCRIPT supervised PLAIN COUNTER UMASK KILLS`, with descriptor 3 open for
the sign of life, an interval timer that sends SIGALRM from the timeout on, and itself made the
reaper of orphaned descendants. PLAIN: `plain` where no name in its environment is one of the
script's own, else empty. COUNTER: the file in which the kernel counts memory kills in its cgroup,
and KILLS, what that says; empty where there is none. UMASK: the worker's.
By hand (`bash .run-NAME.sh`) the timer is a background loop, memory kills are not counted, and an
orphan becomes another's child: it is found by the token, if it has kept that.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from orchestra.model.launcher_body import BODY, SHADOWED
from orchestra.model.trail import Process
from orchestra.model.verdict import AUTH_PATTERN, RATE_LIMIT_PATTERN

GRACE_S = 10.0  # from SIGTERM to SIGKILL, where nobody says otherwise

_PLAIN = re.compile(r"[\x20-\x7e]*")
_EXPANDS = re.compile(r"[$`]")  # shellcheck wonders (SC2016) whether these were meant to expand
_SHADOWED = re.compile(SHADOWED)
_PLACEHOLDER = re.compile(r"\{(prompt_file|prompt|out|run_dir|name)\}")


class LaunchOrder(NamedTuple):
    """All that a launcher must know. Paths are absolute; durations in seconds (0: none)."""

    worker: str
    attempt: int
    token: str
    run_dir: str
    cwd: str
    command: tuple[str, ...]
    env: dict[str, str]
    expect: tuple[tuple[str | None, int], ...]  # (file in out, or None for stdout; least bytes)
    timeout_s: float
    grace_s: float
    tmp_dir: str
    where: Process  # one of the machine, boot and container in which it is started


def started_with(environment: Iterable[str], kill_counter: str) -> tuple[str, ...]:
    """The words that all launchers of a batch get, given the names in their environment."""
    plain = "" if any(map(_SHADOWED.fullmatch, environment)) else "plain"
    return "supervised", plain, kill_counter


def names_prompt(command: tuple[str, ...]) -> bool:
    """Whether the argv takes the prompt itself, so that standard input stays empty."""
    return any("{prompt}" in word or "{prompt_file}" in word for word in command)


def takes_prompt_text(command: tuple[str, ...]) -> bool:
    return any("{prompt}" in word for word in command)


def no_directory(cwd: str) -> str:
    return f"cannot enter the worker's directory: {cwd}"


def no_command(command: tuple[str, ...]) -> str:
    return f"command not found or not executable: {command[0]}"


def program_of(command: tuple[str, ...]) -> str | None:
    """What is to be executed, where that is known before the launcher runs."""
    return None if _PLACEHOLDER.search(command[0]) else command[0]


@lru_cache(maxsize=1024)
def bash_quote(text: str) -> str:
    """A word of bash that expands to exactly `text`, in printable ASCII.

    Lone surrogates stand for the bytes that they were decoded from (`os.fsdecode`).
    """
    if _PLAIN.fullmatch(text) and not _EXPANDS.search(text):
        return shlex.quote(text)
    data = text.encode("utf-8", "surrogateescape")
    plain = "".join(chr(b) if 0x20 <= b < 0x7F and b not in b"'\\" else f"\\{b:03o}" for b in data)
    return f"$'{plain}'"


def argv_line(worker: str, command: tuple[str, ...]) -> str:
    """The line of a launcher that has the worker's command."""
    return "argv=(" + " ".join(bash_word(word, worker) for word in command) + ")"


def bash_word(word: str, worker: str) -> str:
    """One argument of the worker's command, its placeholders filled in."""
    values = {
        "prompt": '"$prompt"',
        "prompt_file": '"$prompt_file"',
        "out": '"$out"',
        "run_dir": '"$run_dir"',
        "name": bash_quote(worker),
    }
    pieces = _PLACEHOLDER.split(word)
    quoted = [
        values[piece] if i % 2 else bash_quote(piece) for i, piece in enumerate(pieces) if i % 2 or piece
    ]
    return "".join(quoted) or "''"


def render(order: LaunchOrder) -> str:
    """The launcher's text. Raises nothing: names and argv were checked when they came in."""
    command, where = order.command, order.where
    timeout = f"{order.timeout_s:.3f}".rstrip("0").rstrip(".")
    grace = f"{order.grace_s:.3f}".rstrip("0").rstrip(".")
    head = [
        "#!/usr/bin/env bash",
        f"# Launcher of worker {order.worker}, attempt {order.attempt}. Written by orchestra.",
        "# It claims the attempt, starts the worker, waits for it and writes down how it ended.",
        f"# By hand: bash .run-{order.worker}.sh",
        "",
        "# The functions and options that its caller has for bash may not rule here.",
        '[[ $- == *p* ]] || exec bash -p -- "$0"',
        f"worker={order.worker}",
        f"attempt={order.attempt}",
        f"token={order.token}",
        f"run_dir={bash_quote(order.run_dir)}",
        f"tmp_dir={bash_quote(order.tmp_dir)}",
        f"tmp_dir_json={bash_quote(json.dumps(order.tmp_dir))}",
        "# Where orchestra started this; by hand, it looks again.",
        f"boot_id={bash_quote(where.boot_id)}",
        f"host_json={bash_quote(json.dumps(where.host))}",
        f"pid_ns={where.pid_ns}   # the namespace of PIDs",
        f"machine_id={bash_quote(where.machine_id)}",
        f"timeout_s={timeout}   # wall clock of the attempt; 0: none",
        f"grace_s={grace}   # from SIGTERM to SIGKILL",
        "prompt_file=$run_dir/.prompt-$worker.txt",
        "out=$run_dir/out-$worker",
        "stdin=" + ("/dev/null" if names_prompt(command) else "$prompt_file"),
        f"cwd={bash_quote(order.cwd)}",
        f"path={bash_quote(order.env['PATH']) if 'PATH' in order.env else '${PATH-}'}   # the worker's",
    ]
    if takes_prompt_text(command):
        head.append("IFS= read -r -d '' prompt <\"$prompt_file\" || :")
    head.append(argv_line(order.worker, command))
    expected = " ".join(
        f"{bash_quote(file or '')} {least} {bash_quote(json.dumps(file or 'standard output'))}"
        for file, least in order.expect
    )
    head.append(
        f"expect=({expected})   # triples: a file in out (empty: stdout), least bytes, its name in JSON"
    )
    head += [
        f"no_directory={bash_quote(json.dumps(no_directory(order.cwd)))}",
        f"no_command={bash_quote(json.dumps(no_command(command)))}",
        f"cannot_execute={bash_quote(json.dumps(f'the system could not execute: {command[0]}'))}",
        "environment() {",
        *(f"  unset -v {k}; export {k}={bash_quote(v)}" for k, v in order.env.items()),
        "  :",
        "}",
        f"rate_limit={bash_quote(RATE_LIMIT_PATTERN)}",
        f"auth={bash_quote(AUTH_PATTERN)}",
        "",
    ]
    return "\n".join(head) + BODY
