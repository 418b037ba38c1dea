"""A ^C is answered from the first moment on: also while the command line is still being imported."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Root

INTERRUPTS_AT = """\
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
"""


@pytest.mark.parametrize(
    "module",
    ["orchestra.cli", "click", "typer", "orchestra.engine.observe", "orchestra.cli.verbs.status_verb"],
)
def test_an_interrupt_amid_the_imports_is_answered(root: Root, tmp_path: Path, module: str) -> None:
    root.init("r")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(INTERRUPTS_AT.format(module=module))
    answer = root("status", "r", env={"PYTHONPATH": str(site)})
    assert (answer.code, answer.json["error"]["code"]) == (130, "interrupted")
    assert "Traceback" not in answer.stderr


def test_who_was_told_to_ignore_it_does(root: Root, tmp_path: Path) -> None:
    root.init("r")
    (tmp_path / "sitecustomize.py").write_text(
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + INTERRUPTS_AT.format(module="typer")
    )
    assert root("status", "r", env={"PYTHONPATH": str(tmp_path)}).code == 0
