"""What proves that a process is gone, and what proves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.model.owner import lives
from orchestra.model.trail import Process

HERE = Process(1, 0, "boot", "host", pid_ns=7, machine_id="abc")
THERE = Process(50, 900, "boot", "host", pid_ns=7, machine_id="abc")


@pytest.mark.parametrize(
    ("of", "start_now", "expected"),
    [
        ({}, 900, True),
        ({}, None, False),
        ({}, 901, False),
        ({"host": "renamed"}, None, False),
        ({"pid_ns": 8}, None, None),
        ({"pid_ns": 0}, None, None),
        ({"pid": 0}, None, None),
        ({"boot_id": "earlier"}, 900, False),
        ({"boot_id": "other", "host": "elsewhere"}, None, None),
        ({"boot_id": "other", "machine_id": "def"}, None, None),
        ({"boot_id": "other", "machine_id": ""}, None, None),
    ],
)
def test_a_process_is_gone_only_where_that_is_proved(
    of: dict[str, Any], start_now: int | None, expected: bool | None
) -> None:
    assert lives(THERE._replace(**of), HERE, start_now) is expected


def test_where_no_machine_has_an_id_the_name_tells_of_a_reboot() -> None:
    without = HERE._replace(machine_id="")
    assert lives(THERE._replace(boot_id="earlier", machine_id=""), without, None) is False
