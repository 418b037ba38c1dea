"""One call of the command line: what it was told for all verbs, and how it answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from orchestra.engine.narrator import Narrator
from orchestra.engine.place import locate
from orchestra.host import clock
from orchestra.model.advice import Standing, next_steps, option_words, run_words
from orchestra.model.event import json_bytes
from orchestra.store.layout import Layout

if TYPE_CHECKING:
    from orchestra.engine.observe import Observer
    from orchestra.model.snapshot import Snapshot


class Session:
    """Filled in by the options that every verb takes."""

    def __init__(self, after_dashes: list[str] | None = None) -> None:
        self.verb = ""
        self.given_root: str | None = None
        self.json: bool | None = None
        self.given_narrator: str | None = None
        self.after_dashes = after_dashes  # what stood behind `--`; None: there was no `--`
        self.run: str | None = None
        self.words = ""  # RUN, and root and narrator where given, as the next command needs them
        self.argv: list[str] = []  # the call as it was made, up to `--`

    @property
    def root(self) -> str:
        return self.given_root or os.environ.get("ORCHESTRA_ROOT") or "runs"

    @property
    def options(self) -> str:
        """Root and narrator where they were given, as the next command needs them."""
        return option_words(self.given_root, self.given_narrator)

    @property
    def as_json(self) -> bool:
        return self.json if self.json is not None else not sys.stdout.isatty()

    @property
    def narrator(self) -> Narrator:
        return Narrator(self.verb, self.given_narrator or os.environ.get("ORCHESTRA_NARRATOR") or None)

    def locate(self, run: str) -> Layout:
        layout = locate(run, self.root)
        self.run = layout.run_id
        self.words = layout.words = run_words(run, self.given_root, self.given_narrator)
        layout.options = self.options
        return layout

    def next_steps(self, observer: Observer, snapshot: Snapshot, about: Collection[str] = ()) -> list[str]:
        """What makes sense now, for whoever calls; `about`: whom the answer is about."""
        return next_steps(self.standing(observer, snapshot, about))

    def standing(self, observer: Observer, snapshot: Snapshot, about: Collection[str] = ()) -> Standing:
        history = observer.history
        seat = history.seat_for(self.narrator.id)
        return Standing(self.words, snapshot, history.plan, about, seat, history.narration)

    def envelope(self, body: dict[str, Any], steps: list[str]) -> dict[str, Any]:
        head: dict[str, Any] = {"ok": "error" not in body, "command": self.verb}
        if self.run is not None:
            head["run"] = self.run
        return {**head, "as_of": clock.now(), **body, "next": steps}

    def answer(self, body: dict[str, Any], steps: list[str], text: Callable[[], None] | None = None) -> None:
        """One JSON object on stdout; or, for people, what `text` prints, what was put right, what is next."""
        if self.as_json or text is None:
            self.line(self.envelope(body, steps))
            return
        text()
        if body.get("recovered"):
            from orchestra.cli.sentences import recovered_sentences

            for sentence in recovered_sentences(body["recovered"]):
                print(f"put right: {sentence}")
        for step in steps:
            print(f"next: {step}")

    def line(self, value: dict[str, Any]) -> None:
        sys.stdout.buffer.write(json_bytes(value) + b"\n")
        sys.stdout.buffer.flush()
