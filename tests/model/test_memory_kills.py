"""Memory kills as the kernel's log tells them, from text alone."""

from __future__ import annotations

from orchestra.model.memory_kills import evidence, may_be_memory, parse_kernel_log, suspects
from orchestra.model.trail import Result

CHOSEN = (
    "4,1234,3340430734,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg=/x,task_memcg=/x,task=a,pid=1,task=python3,pid=32437,uid=0\n"
)
KILLED = (
    "3,1235,3340430754,-;Memory cgroup out of memory: Killed process 32437 (python3) total-vm:58712kB\n"
    " SUBSYSTEM=x\n"
)
OTHERS = ["6,1,5,-;EXT4-fs (vda): mounted", "", "garbage", ";", "3,1,x,-;Killed process 1 (a)"]
FORGED = "12,1,3340430754,-;Killed process 7 (x)"  # a program's own line, of another facility
AT = 3340.430754
KILLED_SELF = Result("w", 1, "failed", "signal", signal=9, worker_pid=32437)


def test_the_kernels_lines_are_read_and_no_others() -> None:
    kills = parse_kernel_log([CHOSEN, *OTHERS, FORGED, KILLED])
    assert [(kill.pid, kill.at) for kill in kills] == [(32437, 3340.430734), (32437, AT)]
    assert kills[1].text == "Memory cgroup out of memory: Killed process 32437 (python3) total-vm:58712kB"


def test_only_a_pid_of_the_attempt_within_its_time_is_evidence() -> None:
    kills = parse_kernel_log([CHOSEN, KILLED])
    assert "Killed process 32437" in (evidence(kills, {32437}, AT - 60, AT + 1) or "")
    assert evidence(kills, {32438}, AT - 60, AT + 1) is None
    assert evidence(kills, {32437}, AT + 60, AT + 120) is None  # who had the PID before
    assert evidence(kills, {32437}, AT - 120, AT - 60) is None
    assert evidence(kills, set(), AT - 60, AT + 1) is None


def test_whom_it_may_have_been_about() -> None:
    assert suspects(KILLED_SELF, "") == {32437}
    shell = Result("w", 1, "failed", "exit_code", exit_code=1, worker_pid=9)
    assert suspects(shell, "sh: line 1:  41 Killed                  hog\n42 Killed\nkilled 43") == {41, 42}
    assert suspects(shell, "") == set()
    assert suspects(shell._replace(exit_code=137), "") == {9}


def test_who_ended_in_another_way_is_not_asked_about() -> None:
    assert may_be_memory(KILLED_SELF)
    assert not may_be_memory(KILLED_SELF._replace(signal=15))
    assert not may_be_memory(Result("w", 1, "failed", "timeout"))
    assert not may_be_memory(Result("w", 1, "done"))
