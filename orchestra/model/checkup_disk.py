"""What a checkup finds of a file system and of the clock."""

from __future__ import annotations

import re
from typing import NamedTuple

from orchestra.model.checkup import GIB, MIB, Check, Health, unknown
from orchestra.model.units import format_bytes, format_duration

# As mountinfo names them. Overlays are local: only their own host writes to the upper layer.
LOCAL = re.compile(
    "ext[234]|xfs|btrfs|zfs|bcachefs|f2fs|jfs|reiserfs|tmpfs|ramfs|overlay|aufs|fuseblk|ntfs3|exfat|vfat"
)
SHARED = re.compile(
    "nfs4?|cifs|smb3|smbfs|9p|virtiofs|ceph|lustre|gpfs|beegfs|glusterfs|afs|ocfs2|gfs2|orangefs|vboxsf|prl_fs"
    r"|fuse\.(sshfs|glusterfs|rclone|s3fs|cephfs|ceph-fuse|vmhgfs-fuse|grpcfuse|osxfs|juicefs|davfs2|gcsfuse)"
)
SOCKET_PATH = 108  # bytes that the kernel has for the path of a socket
TMP_NAME = len("/orc-0123456789abcdef/")


class Mount(NamedTuple):
    """Where a path is mounted."""

    point: str
    kind: str  # ext4, nfs4, fuse.sshfs …
    options: frozenset[str]  # of the mount and of its file system


class Space(NamedTuple):
    """For this user. `inodes` None: the file system does not count them."""

    free: int
    size: int
    inodes: int | None


class Trial(NamedTuple):
    """What became of a probe file. Refusals are the system's words; None: it worked."""

    link: str | None
    rename: str | None
    flock: str | None
    write_ms: float  # median of durable appends
    writes: int
    clock_ahead_s: float  # of the file system against ours


def mounted(check: str, mount: Mount) -> Check:
    """What the type of a file system means for locks and for inotify."""
    found = f"{mount.kind} at {mount.point}"
    if LOCAL.fullmatch(mount.kind):
        return Check(check, f"{found}: local")
    shared = SHARED.fullmatch(mount.kind) is not None
    kind = "shared between hosts" if shared else "of a type not known here"
    loose = mount.options & {"nolock", "local_lock=all", "local_lock=flock"}
    locks = f"; its locks hold on this host only ({', '.join(sorted(loose))})" if loose else ""
    return Check(
        check,
        f"{found}: {kind}{locks}; inotify tells nothing of other hosts",
        Health.WARNING if shared else Health.UNKNOWN,
        "keep all commands and workers of a run on one host, or have the root on a local disk",
    )


def writable(check: str, path: str, *, read_only: bool, refused: bool, elsewhere: str) -> Check:
    """`refused`: the permissions keep this user from writing."""
    if read_only:
        advice = f"mount it writable, or {elsewhere}"
        return Check(check, f"{path} is on a read-only file system", Health.BAD, advice)
    if refused:
        return Check(
            check, f"{path} may not be written to", Health.BAD, f"see who owns it (ls -ld), or {elsewhere}"
        )
    return Check(check, f"{path} may be written to")


def noexec(options: frozenset[str], *, root: bool) -> list[Check]:
    """Launchers are read by bash, not executed; what an agent unpacks into its TMPDIR is executed."""
    if "noexec" not in options:
        return []
    if root:
        return [Check("root noexec", "mounted noexec: harmless, as launchers are read by bash")]
    advice = "export TMPDIR=… on a file system without noexec, should an agent fail to load what it unpacked"
    return [
        Check("tmp noexec", "mounted noexec: what a worker unpacks there cannot run", Health.WARNING, advice)
    ]


def space(check: str, space: Space) -> Check:
    found = f"{format_bytes(space.free)} of {format_bytes(space.size)} free"
    if space.free >= GIB:
        return Check(check, found)
    verdict = Health.BAD if space.free < 32 * MIB else Health.WARNING
    return Check(check, found, verdict, "free some space: agents print and unpack a lot")


def inodes(check: str, free: int | None) -> Check:
    """A worker takes some 15 files before it makes any of its own."""
    if free is None:
        return Check(check, "not counted by this file system")
    if free >= 10_000:
        return Check(check, f"{free} free")
    verdict = Health.BAD if free < 200 else Health.WARNING
    return Check(check, f"{free} free", verdict, "remove files: a worker takes some 15 before it makes any")


def trial(result: Trial) -> list[Check]:
    checks = []
    if result.link is None:
        checks.append(Check("root hard links", "work"))
    else:
        advice = "nothing must be done: results are copied instead, and told a little later"
        checks.append(Check("root hard links", result.link, Health.WARNING, advice))
    elsewhere = "use --root on another file system: no run can be held together without it"
    for what, refusal in (("rename", result.rename), ("flock", result.flock)):
        works = refusal is None
        checks.append(
            Check(
                f"root {what}",
                refusal or "works",
                Health.OK if works else Health.BAD,
                None if works else elsewhere,
            )
        )
    return [*checks, durable_write(result.write_ms, result.writes)]


def durable_write(ms: float, writes: int) -> Check:
    found = f"{ms:.2f} ms for a durable write (median of {writes})"
    if ms < 30:
        return Check("root write", found)
    return Check(
        "root write",
        found,
        Health.WARNING,
        "a faster disk for --root, if there is one: each command waits for several such writes",
    )


def socket_room(tmp: str) -> Check:
    """Sockets that workers make in their TMPDIR."""
    left = SOCKET_PATH - len(tmp.encode("utf-8", "surrogateescape")) - TMP_NAME
    if left >= 40:
        return Check("tmp path", f"{left} bytes left for the name of a socket")
    return Check(
        "tmp path",
        f"{left} bytes left for the name of a socket, of the {SOCKET_PATH} that the kernel has",
        Health.WARNING,
        "export TMPDIR=/tmp",
    )


def time_of_day(now: float, *, made: float, newest: float | None, booted: float | None) -> Check:
    """All in seconds after the epoch. `made`: our own files; `newest`: the newest of the root."""
    advice = "set the clock (timedatectl): times, stalls and the order of runs are judged by it"
    if now < made - 86_400:
        behind = format_duration(made - now)
        return Check("clock", f"{behind} before orchestra itself was installed: not set?", Health.BAD, advice)
    if newest is not None and newest > now + 60:
        found = f"the newest file of the root is from {format_duration(newest - now)} ahead: set back?"
        return Check("clock", found, Health.WARNING, advice)
    if booted is None:
        return unknown("clock", "when the machine came up is not told")
    if booted > now:
        return Check("clock", "the machine came up in the future", Health.BAD, advice)
    return Check("clock", f"plausible; the machine came up {format_duration(now - booted)} ago")


def clock_of_files(ahead_s: float) -> Check:
    """A file server has a clock of its own."""
    found = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
    if abs(ahead_s) < 5:
        return Check("clock of files", found)
    advice = "let both hosts follow one time server: quiet and stalled workers are told by files' times"
    return Check("clock of files", found, Health.WARNING, advice)


def monotonic(there: bool) -> Check:
    if there:
        return Check("monotonic clock", "there")
    return Check("monotonic clock", "none", Health.BAD, "another system: no timeout can be kept here")


def not_written(path: str, why: str) -> Check:
    advice = "free some space, or see what holds the disk up, or use --root elsewhere"
    return Check("root write", f"nothing can be written to {path}: {why}", Health.BAD, advice)


def no_directory(check: str, path: str) -> Check:
    advice = (
        "use --root elsewhere" if check == "root" else "make it, or export TMPDIR=…: workers get theirs there"
    )
    return Check(check, f"{path} is no directory", Health.BAD, advice)
