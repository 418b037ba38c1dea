"""On a terminal: a line that lives while a command is at work, with the time that it has taken."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from orchestra.cli.session import Session
from orchestra.model.snapshot import WorkerView


@contextlib.contextmanager
def working(session: Session, text: str) -> Iterator[Callable[[str], None]]:
    """Yields what changes the line's text; elsewhere than on a terminal there is none."""
    if session.as_json or not sys.stdout.isatty():
        yield lambda _: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from orchestra.cli.text import console, plain

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as line:
        task = line.add_task(plain(text))
        yield lambda news: line.update(task, description=plain(news))


class Tally:
    """How many workers are in which state, as changes come."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def add(self, view: WorkerView) -> str:
        """The tally with this change: "2 running, 1 done"."""
        before = self._states.get(view.record.name)
        if before is not None:
            self._counts[before] -= 1
        self._states[view.record.name] = view.state
        self._counts[view.state] += 1
        return in_words(self._counts)


def in_words(counts: Mapping[str, int]) -> str:
    """ "2 running, 1 done"; nothing where there is none."""
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)
