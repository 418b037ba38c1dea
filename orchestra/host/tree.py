"""What the workers' process trees use, by the token that every process of an attempt carries.

One pass over /proc tells which processes are whose; only those that are asked about are read closely.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable

from orchestra.model.usage import Usage

_TOKEN = b"ORCHESTRA_TOKEN="
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def members() -> dict[str, list[int]]:
    """token -> PIDs, for every process that may be looked at from here."""
    found: dict[str, list[int]] = defaultdict(list)
    me = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit() and (text := _read(name, "environ")) and _TOKEN in text and int(name) != me:
            for word in text.split(b"\0"):
                if word.startswith(_TOKEN):
                    found[os.fsdecode(word[len(_TOKEN) :])].append(int(name))
                    break
    return found


def usage(pids: Iterable[int]) -> Usage:
    """What these processes use together, as far as they live.

    CPU time counts the children that they have waited for, so that it never falls while
    the tree's root lives; memory is what is theirs alone, shared pages counted once.
    """
    count, cpu_s, private, shared = 0, 0.0, 0, 0
    for pid in pids:
        stat, pages = _read(str(pid), "stat"), _read(str(pid), "statm").split()
        fields = stat[stat.rfind(b")") + 2 :].split()
        if len(fields) < 15 or len(pages) < 3 or fields[0] in (b"Z", b"X"):
            continue
        count += 1
        cpu_s += sum(map(int, fields[11:15])) * _TICK_S  # utime, stime, cutime, cstime
        private += (int(pages[1]) - int(pages[2])) * _PAGE
        shared = max(shared, int(pages[2]) * _PAGE)
    return Usage(private + shared, count, cpu_s)


def _read(pid: str, file: str) -> bytes:
    """Empty where the process is gone or is not ours to read."""
    try:
        fd = os.open(f"/proc/{pid}/{file}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        text = os.read(fd, 1 << 16)
        while len(text) % (1 << 16) == 0 and (more := os.read(fd, 1 << 20)):
            text += more
        return text
    except OSError:
        return b""
    finally:
        os.close(fd)
