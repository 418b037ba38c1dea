"""What the workers' process trees use, by the token that every process of an attempt carries.

One pass over /proc tells which processes are whose; only those that are asked about are read closely.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable

from orchestra.host.process import environment, read
from orchestra.model.usage import Usage

_VARIABLE = b"\0ORCHESTRA_TOKEN="  # as it stands in an environment, behind another
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def members() -> dict[str, list[int]]:
    """token -> PIDs, for every process that may be looked at from here.

    Who has cleared its environment, or hides it, belongs to where its parent does.
    """
    owner, others = _owners()
    parents = {pid: int(fields[1]) for pid in others if (fields := _stat(pid))}
    for pid in others:
        line = [pid]
        while (parent := parents.get(line[-1], 0)) and parent not in owner and parent not in line:
            line.append(parent)  # (never round in a circle: PIDs are given out anew while we read)
        if parent in owner:
            owner.update(dict.fromkeys(line, owner[parent]))
    return _by_token(owner)


def carrying() -> dict[str, list[int]]:
    """As `members`, but at half the cost without those that do not carry their token themselves."""
    return _by_token(_owners()[0])


def _owners() -> tuple[dict[int, str], list[int]]:
    """(PID -> its token, the PIDs without one)."""
    owner: dict[int, str] = {}
    others: list[int] = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        text = b"\0%s\0" % environment(int(name))
        at = text.find(_VARIABLE)
        if at >= 0:
            word = text[at + len(_VARIABLE) : text.find(b"\0", at + 1)]
            owner[int(name)] = os.fsdecode(word)
        else:
            others.append(int(name))
    return owner, others


def _by_token(owner: dict[int, str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for pid, token in owner.items():
        found[token].append(pid)
    return found


def named(names: set[str]) -> dict[str, set[int]]:
    """Which processes of this user have each of these names, of which the kernel keeps 15 bytes.

    Not by psutil, which takes ten times as long.
    """
    found: dict[bytes, set[int]] = {os.fsencode(name)[:15]: set() for name in names}
    uid = os.getuid()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        kept = read(int(pid), "comm").rstrip(b"\n")
        if kept in found:
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{pid}").st_uid == uid:
                    found[kept].add(int(pid))
    return {name: found[os.fsencode(name)[:15]] for name in names}


def usage(pids: Iterable[int]) -> Usage:
    """What these processes use together, as far as they live.

    CPU time counts the children that they have waited for, so that it never falls while
    the tree's root lives; memory is what is theirs alone, shared pages counted once.
    """
    count, cpu_s, private, shared = 0, 0.0, 0, 0
    for pid in pids:
        fields, pages = _stat(pid), read(pid, "statm").split()
        if len(fields) < 15 or len(pages) < 3 or fields[0] in (b"Z", b"X"):
            continue
        count += 1
        cpu_s += sum(map(int, fields[11:15])) * _TICK_S  # utime, stime, cutime, cstime
        private += (int(pages[1]) - int(pages[2])) * _PAGE
        shared = max(shared, int(pages[2]) * _PAGE)
    return Usage(private + shared, count, cpu_s)


def cpu_and_states(pids: Iterable[int]) -> tuple[float, dict[int, str]]:
    """(seconds of CPU time that these have used together, PID -> state's letter of the living ones)."""
    cpu_s, states = 0.0, {}
    for pid in pids:
        fields = _stat(pid)
        if len(fields) < 15:
            continue
        cpu_s += sum(map(int, fields[11:15])) * _TICK_S
        if fields[0] not in (b"Z", b"X"):  # a zombie's time is in no parent's yet
            states[pid] = fields[0].decode()
    return cpu_s, states


def waits(pids: Iterable[int]) -> dict[int, str]:
    """PID -> the kernel's name for where it waits, of those that may be asked."""
    words = {pid: read(pid, "wchan").decode("ascii", "replace") for pid in pids}
    return {pid: word for pid, word in words.items() if word not in ("", "0")}


def _stat(pid: int) -> list[bytes]:
    """The fields behind the name, the state first; empty where the process is gone."""
    text = read(pid, "stat")
    return text[text.rfind(b")") + 2 :].split()
