"""What launchers and the engine leave for one another to read."""

from __future__ import annotations

import json

from orchestra.model.trail import Result


def test_a_launcher_finds_attempt_and_status_side_by_side_in_a_result() -> None:
    text = json.dumps(Result("W", 2, "failed").to_json()).replace(" ", "")
    assert '"attempt":2,"status":"failed"' in text  # as the launcher looks for it
