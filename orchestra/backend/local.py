"""Workers on this machine."""

from __future__ import annotations

from orchestra.backend.base import Launch
from orchestra.host import process
from orchestra.model.trail import Process


class Local:
    def launch(self, order: Launch, ready_fd: int) -> int:
        from orchestra.host.launch import bash, start_detached
        from orchestra.model.launcher import READY_FD

        # -p: neither BASH_ENV nor functions of the narrator's environment get into the launcher.
        return start_detached(
            [bash(), "-p", order.script, "supervised"],
            ready_fd=ready_fd,
            as_fd=READY_FD,
            stderr=order.stderr,
            timeout_s=order.timeout_s,
        )

    def alive(self, who: Process) -> bool:
        return process.is_alive(who)

    def leftovers(self, token: str) -> list[Process]:
        return process.carriers(token)

    def end(self, token: str, launcher: Process | None, grace_s: float) -> list[Process]:
        return process.end_all(token, launcher, grace_s=grace_s)
