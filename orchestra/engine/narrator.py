"""Who calls: a command, and an ID where the caller goes by one."""

from __future__ import annotations

from typing import NamedTuple


class Narrator(NamedTuple):
    command: str
    id: str | None = None
