"""Workers on this machine."""

from __future__ import annotations

import os
import signal

from orchestra.backend.base import Batch, Launch, News, Watch
from orchestra.host import process
from orchestra.model.trail import Process


class Local:
    """This machine as a place for workers."""

    def batch(self) -> Batch:
        return LocalBatch()

    def identify(self, pid: int) -> Process | None:
        return process.identify(pid)

    def lives(self, who: Process) -> bool | None:
        return process.lives(who)

    def is_stopped(self, who: Process) -> bool:
        return process.is_stopped(who)

    def runs(self, who: Process, script: str, token: str) -> bool:
        return process.runs(who.pid, script, token)

    def leftovers(self, token: str) -> list[Process]:
        return process.carriers(token)

    def all_leftovers(self) -> dict[str, list[Process]]:
        return process.all_carriers()

    def watch(self, directory: str) -> Watch:
        from orchestra.host import watch  # only who waits needs watchdog

        return watch.Watch(directory)

    def ask_to_stop(self, launcher: Process) -> None:
        process.send(launcher, signal.SIGUSR1)  # the launcher's own trap for it
        process.send(launcher, signal.SIGCONT)

    def kill_workers(self, attempts: list[tuple[str, Process]]) -> None:
        carriers, children = process.all_carriers(), process.children()
        for token, launcher in attempts:
            # The launcher's own group is what helps it to report: its worker has another.
            group = process.group_of(launcher.pid)
            # Parents before children: a shell would tell the end of its child as its own.
            members = [*process.descendants(launcher, children), *carriers.get(token, ())]
            for member in dict.fromkeys(members):
                if member != launcher and process.group_of(member.pid) != group:
                    process.send(member, signal.SIGKILL)
            process.send(launcher, signal.SIGCONT)  # a stopped one is woken, to report

    def end(self, token: str, launcher: Process | None, grace_s: float) -> list[Process]:
        return process.end_all(token, launcher, grace_s=grace_s)


class LocalBatch:
    """Launchers started together by one helper process."""

    def __init__(self) -> None:
        # only spawn and retry start anything
        from orchestra.host import cgroup
        from orchestra.host.launch import Starter
        from orchestra.model.launcher import started_with

        counter = cgroup.kill_counter()
        self._starter = Starter(started_with(os.environ, counter), counter)

    def launch(self, order: Launch) -> None:
        tag = f"{process.TOKEN}={order.token}"
        self._starter.start(order.worker, order.script, order.stderr, order.timeout_s, tag)

    def news(self, timeout_s: float) -> list[News]:
        return list(self._starter.news(timeout_s))

    def ended(self, pid: int | None) -> bool:
        # A launcher that has ended stays a zombie for as long as the helper lives, and with it its PID.
        return self._starter.dead() if pid is None else process.start_of(pid) is None

    def close(self) -> None:
        self._starter.close()
