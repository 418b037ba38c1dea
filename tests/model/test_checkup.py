"""When a figure is worth a warning: plain values in, verdicts out."""

from __future__ import annotations

import re

import pytest

from orchestra.model import checkup, checkup_disk, checkup_run, checkup_tools
from orchestra.model.checkup import GIB, MIB, Cgroup, Check, Health
from orchestra.model.checkup_disk import Mount, Space, Trial
from orchestra.model.checkup_run import Family, Lock
from orchestra.model.checkup_tools import Said
from orchestra.model.event import Damage
from orchestra.model.launcher_body import BODY

OK, WARNING, BAD, UNKNOWN = Health.OK, Health.WARNING, Health.BAD, Health.UNKNOWN


@pytest.mark.parametrize(
    ("release", "verdict"),
    [("6.18.44-fc", OK), ("5.3.0", OK), ("5.2.99", WARNING), ("4.19-x", WARNING), ("odd", UNKNOWN)],
)
def test_a_kernel_without_pidfds_is_a_warning(release: str, verdict: Health) -> None:
    assert checkup.kernel(release).verdict == verdict


@pytest.mark.parametrize(
    ("used", "limit", "verdict"),
    [
        (10, 100, OK),
        (69, 100, OK),
        (70, 100, WARNING),
        (94, 100, WARNING),
        (95, 100, BAD),
        (5, 0, BAD),
        (10, None, OK),
        (None, None, OK),
        (None, 100, UNKNOWN),
    ],
)
def test_a_count_is_judged_by_its_share_of_the_limit(
    used: int | None, limit: int | None, verdict: Health
) -> None:
    found = checkup.room("x", used, limit, "do this")
    assert (found.verdict, found.advice) == (verdict, "do this" if verdict in (WARNING, BAD) else None)


@pytest.mark.parametrize(
    ("limit", "used", "verdict"),
    [(None, 5, OK), (8 * GIB, GIB, OK), (2 * GIB, 2 * GIB - MIB, WARNING), (GIB, None, UNKNOWN)],
)
def test_a_cgroup_short_of_memory_is_a_warning(limit: int | None, used: int | None, verdict: Health) -> None:
    assert checkup.cgroup_memory(limit, used).verdict == verdict


def test_each_limit_of_a_cgroup_has_a_line() -> None:
    rows = checkup.cgroup(Cgroup("2", 8 * GIB, GIB, 0.5, 100, 99))
    assert [(r.check, r.verdict) for r in rows] == [
        ("cgroup", OK),
        ("cgroup memory", OK),
        ("cgroup cpu", WARNING),
        ("cgroup pids", BAD),
    ]
    assert [r.verdict for r in checkup.cgroup(Cgroup("none"))] == [OK]


@pytest.mark.parametrize(
    ("soft", "hard", "verdict", "advice"),
    [
        (None, None, OK, None),
        (1024, 4096, OK, None),
        (128, 4096, WARNING, "ulimit -n 1024"),
        (32, 512, BAD, "ulimit -n 512"),
        (32, 32, BAD, "raise the hard limit (limits.conf, LimitNOFILE=)"),
        (32, None, BAD, "ulimit -n 1024"),
    ],
)
def test_few_open_files(soft: int | None, hard: int | None, verdict: Health, advice: str | None) -> None:
    found = checkup.open_files(soft, hard)
    assert (found.verdict, found.advice) == (verdict, advice)


def test_root_is_held_by_no_limit_of_processes() -> None:
    assert checkup.user_processes(99, 100, root=False).verdict == BAD
    assert checkup.user_processes(99, 100, root=True).verdict == OK


@pytest.mark.parametrize(
    ("option", "root", "verdict"),
    [(None, False, OK), ("0", False, OK), ("invisible", False, WARNING), ("2", True, OK)],
)
def test_hidepid_matters_to_all_but_root(option: str | None, root: bool, verdict: Health) -> None:
    assert checkup.hidepid(option, root=root).verdict == verdict


def test_inotify_is_judged_by_what_is_left_and_by_what_the_system_says() -> None:
    assert checkup.inotify("instances", 10, 128, None).verdict == OK
    assert checkup.inotify("instances", 121, 128, None).verdict == WARNING
    assert checkup.inotify("watches", 0, 8192, "No space left on device").verdict == WARNING
    assert checkup.inotify("watches", None, 8192, None).verdict == UNKNOWN


def test_pressure_that_cannot_be_read_says_why() -> None:
    found = checkup.pressure(None, "switched off (psi=0)")
    assert (found.verdict, "psi=0" in found.found, "psi=1" in str(found.advice)) == (WARNING, True, True)
    assert checkup.pressure({"cpu": 99.0, "memory": 0.0}, "").verdict == OK
    assert checkup.pressure({"cpu": 1.0, "memory": 40.0}, "").verdict == WARNING


def test_only_our_own_commands_are_proposed_as_next_steps() -> None:
    rows = [
        Check("a", "x", WARNING, "kill 1"),
        Check("b", "x", WARNING, "orchestra unlock r"),
        Check("c", "x", BAD, "orchestra unlock r"),
        Check("d", "x"),
    ]
    assert checkup.commands(rows) == ["orchestra unlock r"]


# --- disks and clocks --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        *((kind, OK) for kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs")),
        *((kind, WARNING) for kind in ("nfs", "nfs4", "cifs", "9p", "virtiofs", "fuse.sshfs", "lustre")),
        *((kind, UNKNOWN) for kind in ("fuse.mine", "nfs5", "")),
    ],
)
def test_a_file_system_is_local_or_shared_or_not_known(kind: str, verdict: Health) -> None:
    assert checkup_disk.mounted("root", Mount("/m", kind, frozenset())).verdict == verdict


def test_locks_that_hold_on_one_host_alone_are_told() -> None:
    found = checkup_disk.mounted("root", Mount("/m", "nfs", frozenset({"rw", "nolock"})))
    assert "its locks hold on this host only (nolock)" in found.found


@pytest.mark.parametrize(
    ("free", "verdict"), [(0, BAD), (31 * MIB, BAD), (32 * MIB, WARNING), (GIB - 1, WARNING), (GIB, OK)]
)
def test_free_space(free: int, verdict: Health) -> None:
    assert checkup_disk.space("root space", Space(free, 10 * GIB, None)).verdict == verdict


@pytest.mark.parametrize(("free", "verdict"), [(199, BAD), (9_999, WARNING), (10_000, OK), (None, OK)])
def test_free_inodes(free: int | None, verdict: Health) -> None:
    assert checkup_disk.inodes("root inodes", free).verdict == verdict


def test_a_trial_tells_what_refuses() -> None:
    good = Trial(None, None, None, 0.2, 9, 0.0)
    assert {row.verdict for row in checkup_disk.trial(good)} == {OK}
    rows = checkup_disk.trial(good._replace(link="Operation not permitted", flock="No locks available"))
    by_name = {row.check: row.verdict for row in rows}
    assert by_name["root hard links"] == WARNING
    assert by_name["root flock"] == BAD
    assert by_name["root rename"] == OK
    assert checkup_disk.durable_write(45.0, 3).verdict == WARNING


def test_room_for_a_socket() -> None:
    assert checkup_disk.socket_room("/tmp").verdict == OK
    assert checkup_disk.socket_room("/very/long" * 8).verdict == WARNING


@pytest.mark.parametrize(
    ("now", "newest", "booted", "verdict"),
    [
        (1e9, 1e9 - 5, 1e9 - 900, OK),
        (1e9, None, 1e9 - 900, OK),
        (1e9, 1e9 + 3600, 1e9 - 900, WARNING),
        (1e9, None, 1e9 + 900, BAD),
        (1e9, None, None, UNKNOWN),
        (0.0, None, 0.0, BAD),
    ],
)
def test_the_time_of_day(now: float, newest: float | None, booted: float | None, verdict: Health) -> None:
    assert checkup_disk.time_of_day(now, made=9e8, newest=newest, booted=booted).verdict == verdict


# --- programs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("5.2.15(1)-release", OK), ("5.0.0", OK), ("4.4.23", BAD), ("", BAD), ("sh", BAD)],
)
def test_bash_must_have_EPOCHREALTIME(version: str, verdict: Health) -> None:
    assert "$EPOCHREALTIME" in BODY
    assert checkup_tools.bash("/bin/bash", version).verdict == verdict


def test_the_programs_are_those_that_launchers_call() -> None:
    code = re.sub(r"(^|\s)#.*|\$'[^'\n]*'|'[^'\n]*'", " ", BODY)
    called = set(
        re.findall(r"(?:^|[;&|({!]|\bdo|\bthen)\s*(?:set -- |LC_ALL=C )?([a-z]+)(?= )", code, re.MULTILINE)
    )
    elsewhere = {"awk", "basename", "cat", "chmod", "cut", "date", "dirname", "find", "grep", "id", "mktemp"}
    elsewhere |= {"nohup", "ps", "pgrep", "pkill", "readlink", "sed", "seq", "setsid", "sort", "tee"}
    elsewhere |= {"timeout", "touch", "uname", "xargs"}
    assert set(checkup_tools.PROGRAMS) <= called
    assert not elsewhere & called


@pytest.mark.parametrize(
    ("version", "bounds", "fits"),
    [
        ("0.25.1", ">=0.20,<0.26", True),
        ("0.26.0", ">=0.20,<0.26", False),
        ("4.0", ">=4,<5", True),
        ("5.0.1", ">=4,<5", False),
        ("8.5.1", "", True),
        ("1.0rc1", "!=1.0", False),
    ],
)
def test_versions_are_held_against_their_bounds(version: str, bounds: str, fits: bool) -> None:
    assert checkup_tools.satisfies(version, bounds) is fits


def test_a_library_that_is_missing_or_of_another_version_is_named() -> None:
    rows = [("a", ">=1", "1.2"), ("b", ">=2", "1.0"), ("c", "", None)]
    found = checkup_tools.libraries(rows)
    assert (found.verdict, "b 1.0" in found.found, "c is missing" in found.found) == (BAD, True, True)
    assert "a 1.2" not in found.found


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("typer<0.26,>=0.20", ("typer", "<0.26,>=0.20")),
        ("pyyaml", ("pyyaml", "")),
        ('pytest<10,>=8; extra == "dev"', ("", "")),
    ],
)
def test_the_lines_of_the_metadata_are_read(text: str, row: tuple[str, str]) -> None:
    assert checkup_tools.requirement(text) == row


@pytest.mark.parametrize(
    ("said", "verdict", "word"),
    [
        (Said("/b/llm", "llm, version 0.36\n", 0), OK, "0.36"),
        (Said("/b/llm", "", None), UNKNOWN, "did not answer"),
        (Said("/b/llm", "hello\x1b[31m\n", 0), UNKNOWN, "hello"),
        (Said("/b/llm", "1.0\n" * 2000, None), UNKNOWN, "version unknown"),
        (Said("/b/llm", "\n\nno module\n", 1), WARNING, "ends with 1: 'no module'"),
    ],
)
def test_what_an_agent_says_of_its_version(said: Said, verdict: Health, word: str) -> None:
    found = checkup_tools.agent("llm", said)
    assert (found.verdict, word in found.found) == (verdict, True)
    assert "\x1b" not in found.found


# --- runs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "holder", "lives", "verdict"),
    [
        (False, None, None, OK),
        (True, "pid 1", True, OK),
        (True, "pid 1", False, WARNING),
        (True, None, None, WARNING),
        (True, "pid 1 on elsewhere", None, UNKNOWN),
    ],
)
def test_a_lock(held: bool, holder: str | None, lives: bool | None, verdict: Health) -> None:
    sight = Lock("r", "r --root x", held, holder, lives, stopped=None)
    found = checkup_run.lock("lock", sight)
    assert found.verdict == verdict
    if verdict == OK and held:
        stopped = checkup_run.lock("lock", sight._replace(stopped=1))
        assert (stopped.verdict, stopped.advice) == (WARNING, "kill -CONT 1")
    assert found.advice == ("orchestra unlock r --root x" if verdict == WARNING else None)


def test_leftovers_get_a_line_each_and_a_bound() -> None:
    family = Family("t", [1, 2], "/r", "r", "W", "ended")
    rows = checkup_run.leftovers([family, family._replace(standing="at work")])
    assert [row.advice for row in rows] == ["kill 1 2 (and kill -KILL what stays)"]
    assert [r.verdict for r in checkup_run.leftovers([family._replace(standing="at work")])] == [OK]
    assert checkup_run.leftovers([family._replace(standing="lost")])[0].advice == "orchestra unlock r"
    assert checkup_run.leftovers([family._replace(standing="unknown")])[0].verdict == UNKNOWN
    rows = checkup_run.leftovers([family] * 30)
    assert (len(rows), "20 more" in rows[-1].found) == (11, True)


@pytest.mark.parametrize(
    ("damage", "begun", "held", "verdict"),
    [
        ([], True, False, OK),
        ([Damage(90, 10, True)], True, False, WARNING),
        ([Damage(90, 10, True)], True, True, OK),
        ([Damage(20, 10, False)], True, True, BAD),
        ([Damage(0, 10, False)], False, False, BAD),
    ],
)
def test_a_log(damage: list[Damage], begun: bool, held: bool, verdict: Health) -> None:
    def told(*, copied: bool) -> Check:
        facts = {"begun": begun, "held": held, "copied": copied}
        return checkup_run.log(5, 100, damage, **facts, in_order=True, aside=0, words="r")

    found = told(copied=False)
    assert found.verdict == verdict
    if not begun:
        assert (found.advice or "").startswith("restore")
        assert told(copied=True).advice == "orchestra unlock r"
    if damage and verdict != OK:
        assert f"10 bytes at {damage[0].offset}" in found.found


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        ({"op": 5, "workers": {"W": {"attempt": 1, "state": "done"}}}, OK),
        ({"op": 4, "workers": {}}, OK),
        ({"op": 6, "workers": {}}, BAD),
        ({"op": 5, "workers": {"W": {"attempt": 1, "state": "failed"}}}, WARNING),
        ({"op": 5, "workers": {"W": 7}}, WARNING),
        ({"op": 5, "workers": {}}, WARNING),
        ({"op": "5"}, WARNING),
        (None, WARNING),
    ],
)
def test_a_state(told: dict[str, object] | None, verdict: Health) -> None:
    assert checkup_run.state(told, 5, {"W": (1, "done")}, words="r").verdict == verdict


def test_workers_that_printed_more_than_there_is_room_left() -> None:
    assert checkup_run.sizes(1, 10 * GIB, 0, GIB).verdict == WARNING
    assert checkup_run.sizes(1, MIB, 0, 0).verdict == OK
