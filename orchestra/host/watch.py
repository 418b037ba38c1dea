"""Wait for a change: what the kernel tells at once, and a slow beat besides.

Everything told here is a hint. inotify's queue overflows, and says nothing of other hosts;
so whoever waits looks for itself, on each hint and when nothing came for a beat.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import selectors
from typing import Any

from orchestra.host.process import open_pidfd
from orchestra.model.trail import Process

SPARE = 16  # descriptors that are left for looking: the lowest that is free is given out first


class Watch:
    """Watches one directory for new files, and processes for their end."""

    def __init__(self, directory: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._names: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._pidfds: dict[Any, int] = {}
        # One for each process: a shell's usual 1024 would not do. What is started later gets the old limit.
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._files[1], self._files[1]))
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._observer = self._start_observer(directory)

    def _start_observer(self, directory: str) -> Any:
        try:
            import logging

            from watchdog.events import (
                DirCreatedEvent,
                FileCreatedEvent,
                FileMovedEvent,
                FileSystemEvent,
                FileSystemEventHandler,
            )
            from watchdog.observers import Observer
        except ImportError:
            return None
        watch = self
        forget_the_wait_for_moves()
        # It warns on standard error of a race with its own end that costs nothing.
        logging.getLogger("watchdog").addHandler(logging.NullHandler())

        class Handler(FileSystemEventHandler):
            """Hands every name on to the one who waits."""

            def on_any_event(self, event: FileSystemEvent) -> None:
                watch._tell(os.fsdecode(event.dest_path or event.src_path))

        try:
            observer = Observer()
            observer.schedule(
                Handler(), directory, event_filter=[FileCreatedEvent, FileMovedEvent, DirCreatedEvent]
            )
            observer.start()
        except (OSError, RuntimeError):  # no inotify instance or no thread left: the slow beat has to do
            return None
        return observer

    def _tell(self, path: str) -> None:
        self._names.put(os.path.basename(path))
        with contextlib.suppress(OSError):  # full: it is awake already; closed: nobody waits any more
            os.write(self._wake_write, b"!")

    def follow(self, key: Any, process: Process) -> bool:
        """Watch a process under a key of the caller's; False where it cannot be watched, or has ended."""
        if key in self._pidfds:
            return True
        fd = open_pidfd(process)
        if fd is None:
            return False
        if self._files[1] != resource.RLIM_INFINITY and fd >= self._files[1] - SPARE:
            os.close(fd)
            return False
        self._pidfds[key] = fd
        self._selector.register(fd, selectors.EVENT_READ, key)
        return True

    def unfollow(self, key: Any) -> None:
        fd = self._pidfds.pop(key, None)
        if fd is not None:
            self._selector.unregister(fd)
            os.close(fd)

    def wait(self, timeout_s: float) -> tuple[set[Any], set[str]]:
        """(keys of processes that ended, names of files that came); both empty at the timeout."""
        ended: set[Any] = set()
        names: set[str] = set()
        for selected, _ in self._selector.select(max(0.0, timeout_s)):
            if selected.data is not None:
                ended.add(selected.data)
                continue
            try:
                while os.read(self._wake_read, 4096):
                    pass
            except BlockingIOError:
                pass
        while not self._names.empty():
            names.add(self._names.get())
        for key in ended:
            self.unfollow(key)
        return ended, names

    def close(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
        for key in list(self._pidfds):
            self.unfollow(key)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        resource.setrlimit(resource.RLIMIT_NOFILE, self._files)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def forget_the_wait_for_moves() -> None:
    """watchdog holds everything back for half a second while it looks for a move's other half."""
    with contextlib.suppress(ImportError):
        from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

        InotifyMoveEventGrouper.delay = 0.005
