"""Figures that are read in more than one way: each is what the kernel would say."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.host import cgroup, load
from orchestra.host.load import Counters, rates

NOBODY = 65534
PIDS_FREE = f"""
import os, resource, sys
from orchestra.host import limits, load
resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv[1]), int(sys.argv[1])))
os.setuid({NOBODY})
print(load.pids_free())
"""


def pids_free_of_nobody(limit: int) -> float:
    if os.geteuid():
        pytest.skip("NOT RUN: only root can become a user without processes")
    return float(subprocess.check_output([sys.executable, "-c", PIDS_FREE, str(limit)]))


def test_who_is_near_the_limit_of_its_user_counts_exactly() -> None:
    assert pids_free_of_nobody(500) == 499


def test_who_has_plenty_is_told_that_at_least_so_much_is_left() -> None:
    most = min(int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in ("pid_max", "threads-max"))
    if most < 25_000:
        pytest.skip("NOT RUN: this machine has no plenty of processes")
    free = pids_free_of_nobody(20_000)
    assert load.PLENTY < free < 20_000


def test_two_looks_make_rates() -> None:
    page = resource.getpagesize()
    before = {"swapped_pages all": 10.0, "disk_at_work_ms a": 100.0, "disk_at_work_ms b": 100.0}
    now = {"swapped_pages all": 30.0, "disk_at_work_ms a": 600.0, "disk_at_work_ms b": 1100.0}
    now["disk_at_work_ms new"] = 1e6
    assert rates(Counters(5.0, before), Counters(7.0, now)) == {"swap_rate": 10 * page, "disk_busy": 50}
    assert rates(None, Counters(7.0, now)) == {}
    assert rates(Counters(6.99, before), Counters(7.0, now)) == {}


def test_a_spent_quota_is_pressure_and_one_that_was_not_wanted_is_none() -> None:
    def at(seconds: float, periods: float, throttled: float) -> Counters:
        return Counters(seconds, {"periods /g": periods, "periods_throttled /g": throttled})

    assert rates(at(1, 100, 50), at(2, 110, 58)) == {"cpu_pressure": 80}
    assert rates(at(1, 100, 50), at(2, 100, 50)) == {"cpu_pressure": 0}
    other = Counters(2, {"periods /other": 900, "periods_throttled /other": 900})
    assert rates(at(1, 100, 50), other) == {}


def test_under_a_quota_of_version_2_its_group_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "cpu.pressure").write_text("some avg10=12.50 avg60=0.00 avg300=0.00 total=1\n")
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(cgroup, "lineage", lambda controller: [cgroup.Group(str(tmp_path), "cgroup2")])
    assert load.cpus() == 0.5
    assert load.stalled("cpu", "some") == 12.5
    assert load.load_per_cpu() == 0  # this process is at work, and no burden
