"""Where things are: from the words on the command line to a run directory; the runs under a root; TMPDIRs."""

from __future__ import annotations

import os

from orchestra.errors import BadName, Storage, Usage
from orchestra.model.names import check_name, is_name
from orchestra.store.layout import Layout


def locate(run: str, root: str) -> Layout:
    """RUN is an id under the root, or a path to a run directory. Raises BadName, Usage."""
    if is_name(run):
        return Layout(os.path.join(os.path.realpath(root), run))
    if "\0" in run or not run:
        raise BadName(f"{run!r} is no run", hint="a run is named by its id, or by a path to its directory")
    if "/" not in run and run not in (".", ".."):
        check_name("run", run)
    path = os.path.realpath(run)
    if not is_name(os.path.basename(path)):
        raise Usage(
            f"{path} cannot be a run directory: its last part is no run id",
            hint="a run id is 1 to 64 letters, digits, dots, dashes and underscores, "
            "the first a letter or digit",
        )
    return Layout(path)


def temporary() -> str:
    """The directory for what is temporary."""
    return os.path.abspath(os.environ.get("TMPDIR") or "/tmp")


def tmp_dir(token: str) -> str:
    """The attempt's TMPDIR; a short path, as sockets may come to lie in it."""
    return os.path.join(temporary(), f"orc-{token}")


def told_by(run_dir: str) -> list[str]:
    """Either of these tells that a run is here: its log, or what holds its narrators' notes."""
    layout = Layout(run_dir)
    return [layout.events, layout.lock_notes]


def run_ids(root: str) -> list[str]:
    """The runs under a root, by name; empty where there is no such directory. Raises Storage."""
    try:
        with os.scandir(root) as entries:
            return sorted(
                e.name for e in entries if is_name(e.name) and any(map(os.path.exists, told_by(e.path)))
            )
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Storage.from_os("list the runs", root, error) from error


def closed(root: str) -> list[str]:
    """Directories that may be runs, and that this user may not look into."""
    if not os.path.isdir(root):
        return []
    with os.scandir(root) as entries:
        places = sorted(e.name for e in entries if is_name(e.name) and os.path.isdir(e.path))
    return [name for name in places if not os.access(f"{root}/{name}", os.R_OK | os.X_OK)]
