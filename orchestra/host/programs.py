"""Programs on the PATH: where they are, and what they say of themselves, in bounded time."""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable

from orchestra.host.process import TOKEN, end_all, inherited
from orchestra.model.checkup_tools import Said

MOST_BYTES = 4096  # of what a program says to --version
NOWHERE = "http://127.0.0.1:9"  # the port of `discard`: a proxy that is not there


def missing(names: Iterable[str]) -> list[str]:
    return [name for name in names if shutil.which(name) is None]


def bash_version(bash: str) -> str | None:
    """None where it does not say one."""
    done = _bash(bash, 'printf %s "$BASH_VERSION"')
    return done or None


def unfit(bash: str, habits: str) -> list[str]:
    """The lines that a script of bash prints: what does not work here."""
    return _bash(bash, habits).splitlines()


def _bash(bash: str, script: str) -> str:
    """Raises OSError, also where it takes too long."""
    try:
        done = subprocess.run(
            [bash, "-p", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=3.0,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{bash} took longer than 3 s") from None
    return done.stdout.decode("utf-8", "replace")


def ask_versions(
    names: Iterable[str], token: str, tmp: str, patience_s: float, stop: threading.Event
) -> dict[str, Said]:
    """What those that are there say to --version, side by side; whoever is not done by then is ended.

    Each has the token, no standard input, a proxy that is not there, and `tmp` for its TMPDIR,
    made here and removed: it shall neither leave anything behind nor ask the network.
    """
    paths = {name: os.path.abspath(path) for name in names if (path := shutil.which(name))}
    if not paths:
        return {}
    os.mkdir(tmp, 0o700)
    try:
        said = _side_by_side(paths, token, tmp, time.monotonic() + patience_s, stop)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return {name: said[name] for name in paths}


def _side_by_side(
    paths: dict[str, str], token: str, tmp: str, deadline: float, stop: threading.Event
) -> dict[str, Said]:
    proxies = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    quiet = ("NO_UPDATE_NOTIFIER", "DISABLE_AUTOUPDATER", "OPENCODE_DISABLE_AUTOUPDATE")
    environment = {
        **{k: v for k, v in inherited().items() if k.lower() != "no_proxy"},
        **dict.fromkeys(proxies, NOWHERE),
        **dict.fromkeys(quiet, "1"),
        TOKEN: token,
        "TMPDIR": tmp,
    }
    asked: dict[str, subprocess.Popen[bytes]] = {}
    said: dict[str, Said] = {}
    try:
        for name, path in paths.items():
            try:
                asked[name] = _ask(path, environment, tmp)
            except OSError as error:
                said[name] = Said(path, error.strerror or str(error), 126)
        texts = _listen(asked, deadline, stop)
        for name, process in asked.items():
            ended = process.poll() is not None and len(texts[name]) < MOST_BYTES
            text = texts[name].decode("utf-8", "replace")
            said[name] = Said(paths[name], text, process.returncode if ended else None)
    finally:
        end_all(token, None, grace_s=0, patience_s=1.0)
        for process in asked.values():
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    return said


def _ask(path: str, environment: dict[str, str], cwd: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [path, "--version"],
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _listen(
    asked: dict[str, subprocess.Popen[bytes]], deadline: float, stop: threading.Event
) -> dict[str, bytes]:
    """What each has printed until its end, until it has said too much, or until the deadline."""
    texts = dict.fromkeys(asked, b"")
    with selectors.DefaultSelector() as selector:
        for name, process in asked.items():
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ, name)
        waiting = set(asked)
        while waiting and time.monotonic() < deadline and not stop.is_set():
            ended = {name for name in waiting if asked[name].poll() is not None}
            spoke = set()
            for key, _ in selector.select(0.05):
                data = os.read(key.fd, MOST_BYTES)
                texts[key.data] += data
                if data and len(texts[key.data]) < MOST_BYTES:
                    spoke.add(key.data)
                else:
                    selector.unregister(key.fileobj)
            full = {name for name in waiting if len(texts[name]) >= MOST_BYTES}
            waiting -= full | (ended - spoke)  # a child of its may hold the pipe open for ever
    return texts
