"""Files that appear whole or not at all: build under a dotted name, sync, rename.

What must stay true: no file has its name before its bytes are on disk, and the files of one
owner get their names in the order in which they were added.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from orchestra.errors import PROVES_NOTHING


class Staged(NamedTuple):
    owner: str
    temporary: str
    path: str
    fd: int


class Staging:
    """Files built beside their places, published together: one wait for the disk serves them all.

    A file belongs to an owner. What goes wrong with one owner's files stops all of that
    owner's, and nobody else's.
    """

    def __init__(self) -> None:
        self._staged: list[Staged] = []
        self._named: set[str] = set()  # the temporary names of those that have their own

    def add(self, owner: str, path: str, data: bytes, mode: int = 0o600) -> None:
        """Build one file. Raises OSError, with all of this owner's files given up."""
        directory, name = os.path.split(path)
        temporary = f"{directory}/.{name}.{os.getpid()}.new"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            self._staged.append(Staged(owner, temporary, path, fd))
            write_all(fd, data)
        except BaseException:
            self.give_up(owner)
            with contextlib.suppress(OSError):  # an interrupt may have come before it was noted
                os.unlink(temporary)
            raise

    def publish(self, *, durable: bool = True) -> dict[str, OSError]:
        """Give every file its name; returns what went wrong, by owner."""
        errors: dict[str, OSError] = {}
        try:
            if durable:
                self._sync(errors)
            for staged in self._staged:
                if staged.owner not in errors:
                    with _noting(errors, staged.owner):
                        os.rename(staged.temporary, staged.path)
                        self._named.add(staged.temporary)
            if durable:
                for directory in {os.path.dirname(s.path) for s in self._staged}:
                    owners = {s.owner for s in self._staged if os.path.dirname(s.path) == directory}
                    with _noting(errors, *owners):
                        sync_directory(directory)
        finally:
            self.close()
        return errors

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """What was not published leaves no litter."""
        for owner in {s.owner for s in self._staged}:
            self.give_up(owner)
        self._named.clear()

    def _sync(self, errors: dict[str, OSError]) -> None:
        # Once all of them are being written, the first sync commits the journal for the others.
        for staged in self._staged:
            with contextlib.suppress(OSError):
                os.posix_fadvise(staged.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for staged in self._staged:
            if staged.owner not in errors:
                with _noting(errors, staged.owner):
                    os.fsync(staged.fd)

    def give_up(self, owner: str) -> None:
        """Close this owner's files, and remove those that have no name yet."""
        for staged in [s for s in self._staged if s.owner == owner]:
            self._staged.remove(staged)
            os.close(staged.fd)
            if staged.temporary not in self._named:
                with contextlib.suppress(OSError):
                    os.unlink(staged.temporary)


@contextlib.contextmanager
def _noting(errors: dict[str, OSError], *owners: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        errors.update(dict.fromkeys(owners, error))


def publish(path: str, data: bytes, *, durable: bool = True) -> None:
    """Put `data` at `path` whole, replacing what was there. Raises OSError, leaving no litter."""
    staging = Staging()
    staging.add("", path, data)
    for error in staging.publish(durable=durable).values():
        raise error


def builder_of(name: str) -> int | None:
    """The PID of whoever was building a file of this name; None where it is no half-built file."""
    pid = name.removesuffix(".new").rpartition(".")[2]
    half_built = name.startswith(".") and name.endswith(".new") and pid.isascii() and pid.isdigit()
    return int(pid) if half_built else None


def write_all(fd: int, data: bytes) -> None:
    """Write every byte; short writes happen on a file system that is filling up."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_text(path: str, limit: int = 1 << 20) -> str | None:
    """The file's text, at most `limit` bytes of it; None where there is none to read."""
    try:
        return read_if_there(path, limit)
    except OSError:
        return None


def read_if_there(path: str, limit: int = 1 << 20) -> str | None:
    """As `read_text`, but raises OSError where nothing is proved, for want of a descriptor, say."""
    try:
        with open_regular(path) as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError as error:
        if error.errno in PROVES_NOTHING:
            raise
        return None


def read_surely(path: str) -> str | None:
    """As `read_text`, but None only where there is proved to be none. Raises OSError: it may be there."""
    try:
        with open_regular(path) as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ELOOP, errno.ENXIO):  # something else in its place
            return None
        raise


def open_regular(path: str, at_most: int | None = None) -> BinaryIO:
    """Open a file that a worker may have replaced: a FIFO in its place would hold us for ever.

    Raises OSError, also where it is no regular file, or has more than `at_most` bytes.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    if at_most is not None and found.st_size > at_most:
        os.close(fd)
        raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, and may have {at_most}", path)
    return os.fdopen(fd, "rb")
