"""What this user and this call set for every run: the config file, and over it the environment."""

from __future__ import annotations

import os
from typing import NamedTuple

from orchestra.errors import BadConfig, BadPlan
from orchestra.model.plan import Throttle
from orchestra.model.throttle import VARIABLE


class Settings(NamedTuple):
    """Limits of the throttle; a plan's stand between the two."""

    config: Throttle
    environment: Throttle


def config_path() -> str:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{base}/orchestra/config.yaml"


def told_here() -> str:
    """The limits of this call, as its variable has them."""
    return os.environ.get(VARIABLE, "").strip()


def read_settings(told: str | None = None) -> Settings:
    """`told`: the limits of a call; None: of this one. Raises BadConfig."""
    path = config_path()
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(
            f"the config file {path} cannot be read: {error}", hint="mend it, or move it away", file=path
        ) from None
    try:
        return Settings(_config(text, path), _limits(told_here() if told is None else told))
    except BadPlan as error:
        raise BadConfig(error.message, hint=error.hint, **error.details) from None


def _config(text: str, path: str) -> Throttle:
    if not text.strip():
        return {}
    from orchestra.model.plan_text import parse_config

    return parse_config(text, file=path)


def _limits(text: str) -> Throttle:
    if not text.strip():
        return {}
    from orchestra.model.plan_text import parse_limits

    return parse_limits(text, file=f"${VARIABLE}")
