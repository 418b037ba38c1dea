"""Asking git, if the target is a checkout: every call is bounded, writes nothing, may fail without harm."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Settings of the checkout that would make a read-only question start a program or write the index
HARMLESS = ["-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "-c", "log.showSignature=false"]
ANSWER_LIMIT_S = 20.0


@dataclass(frozen=True)
class Answer:
    ok: bool
    text: str
    error: str = ""


def environment() -> dict[str, str]:
    """Ours, without what a git hook would have set to point elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",
    }


def ask(target: Path, *words: str) -> Answer:
    """One git command's whole answer; file names that are not UTF-8 come as lone surrogates."""
    argv = ["git", *HARMLESS, "-C", str(target), *words]
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=ANSWER_LIMIT_S, env=environment(), check=False
        )
    except FileNotFoundError:
        return Answer(False, "", "git is not installed")
    except subprocess.TimeoutExpired:
        return Answer(False, "", f"git {words[0]} took longer than {ANSWER_LIMIT_S:.0f} s")
    error = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return Answer(
        done.returncode == 0, done.stdout.decode("utf-8", "surrogateescape"), error[0] if error else ""
    )


def why_not(target: Path) -> str:
    """Why the target cannot be asked as a git checkout; empty if it can."""
    inside = ask(target, "rev-parse", "--is-inside-work-tree")
    if not inside.ok:
        return "not a git checkout" if "not a git repository" in inside.error else inside.error
    if inside.text.strip() != "true":
        return "inside a git directory, not a checkout"
    if ask(target, "check-ignore", "-q", ".").ok:
        return "ignored by the git checkout around it"
    return ""


def ignored(target: Path) -> frozenset[str]:
    """Paths under the target that the checkout's own rules ignore; a directory stands for all in it."""
    listed = ask(target, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
    return frozenset(path.rstrip("/") for path in listed.text.split("\0") if path)


def stream(target: Path, limit_s: float, *words: str) -> Iterator[bytes]:
    """A command's output in pieces, for answers too large to hold; ended after `limit_s` seconds."""
    argv = ["git", *HARMLESS, "-C", str(target), *words]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    ) as process:
        assert process.stdout is not None
        alarm = threading.Timer(limit_s, process.kill)
        alarm.start()
        try:
            while piece := process.stdout.read(1 << 20):
                yield piece
        finally:
            alarm.cancel()
            process.kill()
