"""Files that appear whole or not at all: build under a dotted name, sync, rename."""

from __future__ import annotations

import contextlib
import os


def publish(path: str, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Put `data` at `path` whole, replacing what was there. Raises OSError, leaving no litter."""
    publish_all([(path, data, mode)], durable=durable)


def publish_all(files: list[tuple[str, bytes, int]], *, durable: bool = True) -> None:
    """Publish several files of one directory: (path, data, mode), in this order.

    They are renamed into place one after the other once all of them are on disk; two
    commits of the file system's journal serve them all.
    """
    staged: list[tuple[str, str]] = []
    try:
        descriptors: list[int] = []
        try:
            for path, data, mode in files:
                directory, name = os.path.split(path)
                temporary = f"{directory}/.{name}.{os.getpid()}.new"
                staged.append((temporary, path))
                fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
                descriptors.append(fd)
                write_all(fd, data)
            if durable:
                for fd in descriptors:
                    os.fsync(fd)
        finally:
            for fd in descriptors:
                os.close(fd)
        for temporary, path in staged:
            os.rename(temporary, path)
        if durable:
            sync_directory(os.path.dirname(files[0][0]))
    except BaseException:
        for temporary, _ in staged:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; short writes happen on a file system that is filling up."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_text(path: str, limit: int = 1 << 20) -> str | None:
    """The file's text, at most `limit` bytes of it; None where there is none to read."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return None
