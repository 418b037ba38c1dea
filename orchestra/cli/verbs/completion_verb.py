"""orchestra completion"""

from __future__ import annotations

from typing import Annotated

import click
import typer
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


def completion_(
    ctx: typer.Context,
    shell: Annotated[
        str, typer.Argument(metavar="SHELL", click_type=click.Choice(SHELLS), help="Your shell.")
    ],
) -> int:
    """Print the completion script for your shell.

    \b
    Example:
      orchestra completion bash >> ~/.bashrc
    """
    from orchestra.cli.main import group

    script = get_completion_class(shell)
    assert script is not None
    print(script(group(), {}, "orchestra", "_ORCHESTRA_COMPLETE").source())
    return 0
