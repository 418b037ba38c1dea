"""A checkup of this machine: each probe in its own right, in bounded time. Nothing here decides."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import orchestra
from orchestra.engine.place import temporary, tmp_dir
from orchestra.engine.settings import read_settings
from orchestra.errors import BadConfig, OrchestraError
from orchestra.host import clock, disk, kernel, limits, programs
from orchestra.model import checkup, checkup_disk, checkup_tools
from orchestra.model.checkup import Check, Health

PATIENCE_S = 3.0  # for one probe; on a machine in order each takes milliseconds
AGENT_PATIENCE_S = 3.0
HURRIED_S = 0.5  # for those that ask the root, once one of them has hung
TIDY_S = 2.0  # for a probe that is told to stop, to remove what it made


class Probe(NamedTuple):
    """`ask` gets an event that tells it to stop. `if_hung`: what it means that no answer comes.

    `on_root`: it asks the root's file system.
    """

    name: str
    ask: Callable[[threading.Event], Sequence[Check]]
    if_hung: Health = Health.UNKNOWN
    patience_s: float = PATIENCE_S
    on_root: bool = False


def examine(probes: Sequence[Probe]) -> list[Check]:
    """One after the other, so that none disturbs another's figures."""
    checks: list[Check] = []
    root_hangs = False
    for probe in probes:
        if probe.on_root and root_hangs:
            probe = probe._replace(patience_s=HURRIED_S)
        answer = carry_out(probe)
        checks += answer or [checkup.hung(probe.name, probe.patience_s, probe.if_hung)]
        root_hangs = root_hangs or (probe.on_root and not answer)
    return checks


def carry_out(probe: Probe) -> Sequence[Check]:
    """What it found; nothing where no answer came.

    In a thread: a file system whose server is gone holds up whoever asks it, for ever.
    """
    answer: list[Sequence[Check]] = []
    stop, done = threading.Event(), threading.Event()

    def run() -> None:
        answer.append(answer_of(probe, stop))
        done.set()

    try:
        threading.Thread(target=run, daemon=True).start()
        done.wait(probe.patience_s)
    except KeyboardInterrupt:  # not by `join`: once interrupted, it takes the thread for ended
        stop.set()
        done.wait(TIDY_S)
        raise
    stop.set()
    return answer[0] if answer else []


def answer_of(probe: Probe, stop: threading.Event) -> Sequence[Check]:
    """What the probe found; where it fails, that."""
    try:
        return probe.ask(stop)
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, (str, bytes)) else ""
        return [checkup.unknown(probe.name, f"{error.strerror or error}{where}")]
    except OrchestraError as error:
        return [checkup.unknown(probe.name, error.message)]
    except Exception as error:
        return [checkup.unknown(probe.name, f"the check failed: {type(error).__name__}: {error}")]


def machine(root: str) -> list[Probe]:
    """Everything but the runs themselves, and the agents."""
    return [
        Probe("settings", lambda _: [of_settings()]),
        *of_kernel(),
        *of_limits(root),
        *of_root(root),
        *of_tmp(),
        *of_clock(root),
        *of_programs(),
    ]


def of_settings() -> Check:
    try:
        read_settings()
    except BadConfig as error:
        return checkup.settings(error.message, error.hint)
    return checkup.settings(None, "")


def of_kernel() -> list[Probe]:
    return [
        Probe("kernel", lambda _: [checkup.kernel(os.uname().release)]),
        Probe("pidfd", lambda _: [checkup.pidfd(kernel.pidfd_refusal())]),
        Probe("subreaper", lambda _: [checkup.subreaper(kernel.subreaper_refusal())]),
        Probe("proc", lambda _: [checkup.proc(kernel.unreadable())]),
        Probe("hidepid", lambda _: [checkup.hidepid(hidepid_option(), root=os.geteuid() == 0)]),
        Probe("proc children", lambda _: [checkup.children(kernel.has_children_files())]),
        Probe("pressure", lambda _: [checkup.pressure(*kernel.pressure())]),
        Probe("cgroup", lambda _: checkup.cgroup(kernel.cgroup())),
        Probe("pid namespace", lambda _: checkup.pid_namespace(*kernel.place_of_pids())),
    ]


def hidepid_option() -> str | None:
    options = disk.mount_of("/proc").options
    return next((o.removeprefix("hidepid=") for o in options if o.startswith("hidepid=")), None)


def of_limits(root: str) -> list[Probe]:
    def inotify(_: threading.Event) -> list[Check]:
        found = limits.inotify(disk.nearest(root))
        return [
            checkup.inotify("instances", found.instances, found.max_instances, found.instance_refusal),
            checkup.inotify("watches", found.watches, found.max_watches, found.watch_refusal),
        ]

    return [
        Probe("inotify", inotify, on_root=True),
        Probe("open files", lambda _: [checkup.open_files(*limits.open_files())]),
        Probe(
            "user processes",
            lambda _: [checkup.user_processes(*limits.user_processes(), root=os.geteuid() == 0)],
        ),
        Probe("processes", lambda _: [checkup.tasks(*limits.tasks())]),
    ]


def of_root(root: str) -> list[Probe]:
    def place(_: threading.Event) -> list[Check]:
        there = disk.nearest(root)
        shown = (
            root if os.path.isdir(root) else f"{root} is not there yet: it would be made in {there}, which"
        )
        return [
            checkup_disk.writable(
                "root",
                shown,
                read_only=disk.is_read_only(there),
                refused=disk.refuses_us(there),
                elsewhere="use --root elsewhere",
            )
        ]

    def mount(_: threading.Event) -> list[Check]:
        found = disk.mount_of(disk.nearest(root))
        return [
            checkup_disk.mounted("root file system", found),
            *checkup_disk.noexec(found.options, root=True),
        ]

    def trial(stop: threading.Event) -> list[Check]:
        there = disk.nearest(root)
        if disk.is_read_only(there) or disk.refuses_us(there):
            return [checkup.unknown("root write", "not tried where nothing may be written")]
        try:
            result = disk.trial(there, stop)
        except OSError as error:
            return [checkup_disk.not_written(there, error.strerror or str(error))]
        return [*checkup_disk.trial(result), checkup_disk.clock_of_files(result.clock_ahead_s)]

    return [
        Probe("root", place, Health.BAD, on_root=True),
        Probe("root file system", mount, on_root=True),
        Probe("root space", lambda _: room("root", disk.nearest(root)), on_root=True),
        Probe("root write", trial, Health.BAD, on_root=True),
    ]


def room(what: str, path: str) -> list[Check]:
    found = disk.space(path)
    return [
        checkup_disk.space(f"{what} space", found),
        checkup_disk.inodes(f"{what} inodes", found.inodes),
    ]


def of_tmp() -> list[Probe]:
    """Where workers get their own temporary directories."""
    tmp = temporary()

    def place(_: threading.Event) -> list[Check]:
        if not os.path.isdir(tmp):
            return [checkup_disk.no_directory("tmp", tmp)]
        return [
            checkup_disk.writable(
                "tmp",
                tmp,
                read_only=disk.is_read_only(tmp),
                refused=disk.refuses_us(tmp),
                elsewhere="export TMPDIR=… elsewhere",
            ),
            checkup_disk.socket_room(tmp),
            *checkup_disk.noexec(disk.mount_of(os.path.realpath(tmp)).options, root=False),
            *room("tmp", tmp),
        ]

    return [Probe("tmp", place, Health.BAD)]


def of_clock(root: str) -> list[Probe]:
    def time_of_day(_: threading.Event) -> list[Check]:
        newest = disk.newest_below(root) if os.path.isdir(root) else None
        made = os.stat(orchestra.__file__).st_mtime
        return [checkup_disk.time_of_day(clock.wall(), made=made, newest=newest, booted=disk.booted_at())]

    return [
        Probe("clock", time_of_day, on_root=True),
        Probe("monotonic clock", lambda _: [checkup_disk.monotonic(clock.is_monotonic())]),
    ]


def of_programs() -> list[Probe]:
    def bash(_: threading.Event) -> list[Check]:
        path = shutil.which("bash")
        return [checkup_tools.bash(path, programs.bash_version(path) if path else None)]

    def coreutils(_: threading.Event) -> list[Check]:
        path, missing = shutil.which("bash"), programs.missing(checkup_tools.PROGRAMS)
        tried = path is not None and not missing
        return [
            checkup_tools.programs(
                missing, programs.unfit(path, checkup_tools.HABITS) if path and tried else None
            )
        ]

    return [
        Probe("bash", bash),
        Probe("coreutils", coreutils),
        Probe("python", lambda _: [Check("python", f"{sys.version.split()[0]} ({sys.executable})")]),
        Probe("libraries", lambda _: [checkup_tools.libraries(installed())]),
        Probe(
            "orchestra",
            lambda _: [
                checkup_tools.on_path(
                    orchestra.__version__, os.path.dirname(orchestra.__file__), shutil.which("orchestra")
                )
            ],
        ),
    ]


def installed() -> list[tuple[str, str, str | None]]:
    """(library, the versions that we want, the version that is there), as our own metadata has them."""
    from importlib import metadata

    rows: list[tuple[str, str, str | None]] = []
    try:
        wanted = [checkup_tools.requirement(line) for line in metadata.requires("orchestra") or ()]
    except metadata.PackageNotFoundError:
        return []
    for name, bounds in wanted:
        try:
            version = metadata.version(name) if name else None
        except metadata.PackageNotFoundError:
            version = None
        if name:
            rows.append((name, bounds, version))
    return rows


def agents() -> Probe:
    def ask(stop: threading.Event) -> list[Check]:
        token = os.urandom(8).hex()  # so that what a killed doctor leaves is found like a worker's
        said = programs.ask_versions(checkup_tools.TRAPS, token, tmp_dir(token), AGENT_PATIENCE_S, stop)
        return checkup_tools.agents(said)

    return Probe("agents", ask, patience_s=AGENT_PATIENCE_S + TIDY_S)
