"""What the tests of process trees share."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Root
from grown import Trees


@pytest.fixture
def trees(root: Root, tmp_path: Path) -> Trees:
    return Trees(root, tmp_path)
