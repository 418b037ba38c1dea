"""The throttle: whether the host has room for one more worker.

Being short of room is an answer with figures, never an error. The rules:

1. A limit that is off (None) never speaks, nor does a figure that cannot be read here.
2. Hard limits (memory, disk space, head-room): below them nothing starts.
3. Counted limits (workers, processes, starts per second) hold for the one that is asked about, too.
4. Soft limits (pressure, load, queues) never keep the first worker of a run from running.
5. What those that have just started will still take, and what this one will, is counted against
   every limit that it touches; but like rule 4, not against the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

MIB = 1024.0**2

Figures = Mapping[str, float]
"""One look at the host, by the limit that each belongs to; what cannot be read is missing."""

VARIABLE = "ORCHESTRA_THROTTLE"
"""In the environment of a call: limits that stand above all others."""

NAMED = "processes."
"""Before a program's name: how many processes of that name this user may have."""


class Limit(NamedTuple):
    """One limit that a plan may set. `default` of None: off."""

    key: str
    kind: Literal["hard", "counted", "soft"]
    wants: Literal["at least", "at most"]
    unit: Literal["bytes", "bytes/s", "%", "count", "number"]
    default: float | None
    what: str


LIMITS: dict[str, Limit] = {
    limit.key: limit
    for limit in (
        Limit("memory_available", "hard", "at least", "bytes", 512 * MIB, "memory available"),
        Limit("disk_free", "hard", "at least", "bytes", 128 * MIB, "free on the run's disk"),
        Limit("tmp_free", "hard", "at least", "bytes", 32 * MIB, "free for temporary files"),
        Limit("pids_free", "hard", "at least", "count", 128, "processes that may still be started"),
        Limit("files_free", "hard", "at least", "count", 64, "files that may still be opened"),
        Limit("max_workers", "counted", "at most", "count", 64, "workers at work"),
        Limit("worker_processes", "counted", "at most", "count", 1024, "processes of workers"),
        Limit("starts_per_s", "counted", "at most", "count", 20, "starts in the last second"),
        Limit("load_per_cpu", "soft", "at most", "number", 8.0, "runnable tasks per CPU"),
        Limit("cpu_pressure", "soft", "at most", "%", 98.0, "time in which tasks waited for a CPU"),
        Limit("memory_pressure", "soft", "at most", "%", 20.0, "time in which tasks waited for memory"),
        Limit("swap_rate", "soft", "at most", "bytes/s", 16 * MIB, "swapped"),
        Limit("io_pressure", "soft", "at most", "%", 90.0, "time in which all tasks waited for a disk"),
        Limit("disk_queue", "soft", "at most", "number", 128, "requests in flight on the busiest disk"),
        Limit("disk_busy", "soft", "at most", "%", None, "time in which the busiest disk was at work"),
    )
}


class Signal(NamedTuple):
    """One limit that spoke. `value`: what is measured, with what is held and what this one needs."""

    signal: str
    value: float
    limit: float
    measured: float
    held: float = 0.0  # by those that have just started, or come before it
    needs: float = 0.0  # by this one
    total: float | None = None  # all that there is, where that is less than the limit: it is never met here

    def to_json(self) -> dict[str, Any]:
        told = {"signal": self.signal, "value": self.value, "limit": self.limit}
        if self.held or self.needs:
            told |= {"measured": self.measured, "held": self.held, "needs": self.needs}
        if self.total is not None:
            told["total"] = self.total
        return told


def limit_of(key: str) -> Limit:
    if key.startswith(NAMED):
        return Limit(key, "counted", "at most", "count", None, f"processes named {key.removeprefix(NAMED)}")
    return LIMITS[key]


def limits_from(*overrides: Mapping[str, float | None]) -> dict[str, float | None]:
    """The defaults, with each of these laid over what stands before it."""
    limits = {limit.key: limit.default for limit in LIMITS.values()}
    for override in overrides:
        limits.update(override)
    return limits


def pressure(
    figures: Figures,
    limits: Mapping[str, float | None],
    *,
    first: bool,
    held: Figures,
    needs: Figures,
) -> list[Signal]:
    """Every limit that speaks against one more worker; empty: go ahead.

    `first`: none of its run is at work. `held`, `needs`: amounts by the limit that they touch.
    """
    spoke: list[Signal] = []
    for key, wanted in limits.items():
        measured = figures.get(key)
        if wanted is None or measured is None:
            continue
        limit = limit_of(key)
        if first and limit.kind == "soft":
            continue
        holds, takes = (0.0, 0.0) if first else (held.get(key, 0.0), needs.get(key, 0.0))
        sign = 1.0 if limit.wants == "at most" else -1.0
        value = measured + sign * (holds + takes)
        full = limit.kind == "counted" and not takes and value >= wanted  # no room for the one asked about
        if full or sign * (value - wanted) > 0:
            spoke.append(Signal(key, *(round(n, 2) for n in (value, wanted, measured, holds, takes))))
    return spoke


def out_of_reach(spoke: list[Signal], totals: Figures) -> list[Signal]:
    """The signals, with the total where the limit is above it. `totals`: all that there is, by limit."""
    return [
        signal._replace(total=total)
        if (total := totals.get(signal.signal)) is not None and total < signal.limit
        else signal
        for signal in spoke
    ]


def never_met(signals: Iterable[Mapping[str, Any]]) -> str | None:
    """The first of these signals, as JSON has them, that can never be silent here."""
    told = (signal for signal in signals if isinstance(signal, Mapping) and "total" in signal)
    return next((str(signal.get("signal")) for signal in told), None)


def describe(spoke: list[Signal]) -> str:
    """One sentence with every figure."""
    return "no room: " + "; ".join(describe_one(signal) for signal in spoke)


def describe_one(spoke: Signal) -> str:
    limit = limit_of(spoke.signal)

    def shown(value: float) -> str:
        return format_figure(limit, value)

    text = f"{limit.what} {shown(spoke.measured)}"
    shares = []
    if spoke.held:
        shares.append(f"{shown(spoke.held)} for those before it")
    if spoke.needs:
        shares.append(f"{shown(spoke.needs)} for this one")
    wanted = "wanted" if limit.wants == "at least" else "allowed"
    told = ", ".join([text, *shares, f"{limit.wants} {shown(spoke.limit)} {wanted}"])
    return told if spoke.total is None else f"{told}, never met here ({shown(spoke.total)} in all)"


def format_figure(limit: Limit, value: float) -> str:
    if limit.unit.startswith("bytes"):
        from orchestra.model.units import format_bytes

        return format_bytes(value) + limit.unit.removeprefix("bytes")
    percent = "%" if limit.unit == "%" else ""
    return f"{value:.12g}{percent}" if value == int(value) else f"{value:.3g}{percent}"
