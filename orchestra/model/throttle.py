"""The throttle: whether the host has room for one more worker.

Being short of room is an answer with figures, never an error. The rules:

1. A limit that is off (None) never speaks.
2. Memory is hard: below its limit nothing starts.
3. CPU load, disk queue and the number of workers are soft or counted: load and queue never
   keep the first worker from running when none runs.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class HostLoad(NamedTuple):
    """One look at the host."""

    memory_available: int  # bytes
    load_per_cpu: float  # load average over one minute, divided by the number of CPUs
    disk_queue: float  # requests in flight, on the busiest disk


class Limits(NamedTuple):
    """None: off."""

    memory_available: float | None = 512 * 1024**2  # at least
    load_per_cpu: float | None = 8.0  # at most
    disk_queue: float | None = 128  # at most
    max_workers: float | None = 64  # of this run, at work at the same time


class Signal(NamedTuple):
    """One limit that was passed."""

    signal: str
    value: float
    limit: float

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


def limits_from(overrides: dict[str, float | None]) -> Limits:
    """The defaults with a plan's or a worker's own limits laid over them."""
    return Limits()._replace(**overrides)


def pressure(load: HostLoad, workers: int, limits: Limits) -> list[Signal]:
    """Every limit that speaks against one more worker, given how many run; empty: go ahead."""
    spoke: list[Signal] = []
    if limits.memory_available is not None and load.memory_available < limits.memory_available:
        spoke.append(Signal("memory_available", load.memory_available, limits.memory_available))
    if limits.max_workers is not None and workers >= limits.max_workers:
        spoke.append(Signal("max_workers", workers, limits.max_workers))
    if workers > 0:
        if limits.load_per_cpu is not None and load.load_per_cpu > limits.load_per_cpu:
            spoke.append(Signal("load_per_cpu", round(load.load_per_cpu, 2), limits.load_per_cpu))
        if limits.disk_queue is not None and load.disk_queue > limits.disk_queue:
            spoke.append(Signal("disk_queue", load.disk_queue, limits.disk_queue))
    return spoke


def describe(spoke: list[Signal]) -> str:
    """One sentence with every figure."""
    from orchestra.model.units import format_bytes

    def one(s: Signal) -> str:
        if s.signal == "memory_available":
            return f"memory available {format_bytes(s.value)}, at least {format_bytes(s.limit)} wanted"
        what = {"max_workers": "workers at work", "load_per_cpu": "load per CPU", "disk_queue": "disk queue"}
        return f"{what.get(s.signal, s.signal)} {s.value:g}, at most {s.limit:g} allowed"

    return "no room now: " + "; ".join(one(s) for s in spoke)
