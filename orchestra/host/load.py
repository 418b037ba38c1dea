"""The host as the throttle sees it: one look, no waiting for a sample."""

from __future__ import annotations

import os

import psutil

from orchestra.model.throttle import HostLoad


def look() -> HostLoad:
    cpus = psutil.cpu_count() or 1
    return HostLoad(
        memory_available=psutil.virtual_memory().available,
        load_per_cpu=psutil.getloadavg()[0] / cpus,
        disk_queue=_disk_queue(),
    )


def _disk_queue() -> float:
    """Requests in flight on the busiest disk; psutil does not tell, so from /proc/diskstats."""
    try:
        with open("/proc/diskstats") as file:
            rows = [line.split() for line in file]
    except OSError:
        return 0.0
    return max((float(row[11]) for row in rows if len(row) > 11 and _is_disk(row[2])), default=0.0)


def _is_disk(name: str) -> bool:
    return not name.startswith(("loop", "ram", "zram")) and os.path.isdir(f"/sys/block/{name}")
