"""Small things that a first user stumbled over: durations, earlier logs, what explain shows."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from conftest import Root, wait_until

IGNORES_TERM = ["bash", "-c", "trap '' TERM; while :; do sleep 0.2; done"]


@pytest.mark.parametrize("text", ["0", "100ms"])
def test_a_timeout_is_read_as_in_a_plan(root: Root, text: str) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    assert root("wait", "r", "--timeout", text).code == 5
    root("stop", "r", "--grace", "1s")


@pytest.mark.parametrize("words", [["wait", "r", "--timeout", "soon"], ["stop", "r", "--grace", "2h"]])
def test_what_is_no_duration_is_refused_with_the_rule(root: Root, words: list[str]) -> None:
    root.init("r")
    error = root(*words).json["error"]
    assert error["code"] == "usage"
    assert words[-1] in error["message"]


def test_one_past_its_timeout_is_told_so_while_it_is_ended(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": IGNORES_TERM}, timeout="1s")
    reason = wait_until(lambda: root.worker("r", "W")["reason"], "a reason")
    assert reason == "past its timeout (1 s), being ended"


def test_the_log_of_an_earlier_attempt_is_shown(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", 'echo "attempt $ORCHESTRA_ATTEMPT"; exit 3']})
    root("wait", "r")
    root("retry", "r", "W")
    root("wait", "r")
    assert root("logs", "r", "W").json["text"] == "attempt 2\n"
    first = root("logs", "r", "W", "--attempt", "1")
    assert (first.json["text"], first.json["attempt"]) == ("attempt 1\n", 1)
    assert root("logs", "r", "W", "--attempt", "3").json["error"]["code"] == "usage"
    assert root("logs", "r", "W", "--attempt", "1", "--follow").json["error"]["code"] == "usage"


def test_an_empty_log_is_not_without_a_word(root: Root) -> None:
    root.init("r", "command: ['true']\nphases:\n- {name: p, workers: [{name: W, brief: b}]}\n")
    assert "was not started yet" in root("logs", "r", "W", "--text").stderr
    root("run", "--run", "r")
    shown = root("logs", "r", "W", "--text")
    assert (shown.stdout, "has printed nothing to stdout" in shown.stderr) == ("", True)


def test_explain_lists_what_was_made_and_a_command_to_copy(root: Root) -> None:
    root.init("r")
    makes = 'mkdir "$ORCHESTRA_OUT/sub"; echo four > "$ORCHESTRA_OUT/sub/a"; : "two words"'
    root.spawn("r", {"W": ["sh", "-c", makes]})
    root("wait", "r")
    made = root("explain", "r", "W").json["worker"]["made"]
    assert made == {"files": [{"file": "sub/a", "size_bytes": 5}], "truncated": False}
    shown = root("explain", "r", "W", "--text").stdout
    assert f"sh -c '{makes}'" in shown
    assert "made: sub/a (5 bytes)" in shown


def test_what_was_made_is_listed_within_bounds(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", 'for i in $(seq 60); do : > "$ORCHESTRA_OUT/$i"; done']})
    root("wait", "r")
    made = root("explain", "r", "W").json["worker"]["made"]
    assert (len(made["files"]), made["truncated"]) == (50, True)


def test_explain_says_when_a_lost_one_was_found_gone(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sleep", "300"]})
    launcher = root.mark("r", "W")["pid"]
    kids = Path(f"/proc/{launcher}/task/{launcher}/children")
    (worker,) = wait_until(lambda: kids.read_text().split(), "the worker's process")
    for pid in (launcher, int(worker)):
        os.kill(pid, signal.SIGKILL)
    root("wait", "r")
    (ended,) = [event for event in root.events("r") if event["kind"] == "ended"]
    assert root("explain", "r", "W").json["worker"]["found_gone_at"] == ended["at"]


def test_another_plan_is_told_from_the_same_one_elsewhere(root: Root, tmp_path: Path) -> None:
    text = "command: ['true']\nphases:\n- {name: p, workers: [{name: W, brief: b}]}\n"
    plan, elsewhere = tmp_path / "r.yaml", tmp_path / "elsewhere"
    elsewhere.mkdir()
    plan.write_text(text)
    (elsewhere / "r.yaml").write_text(text)
    root("init", "r", "--plan", str(plan))
    message = root("init", "r", "--plan", str(elsewhere / "r.yaml")).json["error"]["message"]
    assert f"the same plan in another place, {tmp_path}" in message
    plan.write_text(text.replace("p,", "q,"))
    error = root("run", str(plan)).json["error"]
    assert "another text" in error["message"] and "another place" not in error["message"]
    assert f"orchestra run {plan} --run NEW" in error["hint"]
    assert "orchestra retry r NAME -- CMD" in error["hint"]


def test_a_resumed_run_names_who_failed_in_its_last_words(root: Root) -> None:
    plan = "command: ['false']\non_failure: continue\nphases:\n- {name: p, workers: [{name: W, brief: b}]}\n"
    root.init("r", plan)
    root("run", "--run", "r")
    assert "failed: W\n" in root("run", "--run", "r", "--text").stdout


def test_help_shows_what_stands_behind_the_dashes(root: Root) -> None:
    for verb in ("spawn", "retry"):
        assert "[-- CMD ...]" in root(verb, "--help").stdout.splitlines()[0]


def test_the_log_of_one_that_never_ran_says_so(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["no-such-command"]})
    shown = root("logs", "r", "W", "--text")
    assert "W never ran: spawn_error: command not found" in shown.stderr
    assert shown.stderr.splitlines()[-1] == "next: orchestra explain r W"
    for words in (["logs", "r", "W"], ["logs", "r", "W", "--follow"]):
        told = root(*words).json
        assert (told["text"], told["next"]) == ("", ["orchestra explain r W"])
        assert told["why"].startswith("never ran: spawn_error: ")


def test_explain_has_the_plans_word_for_one_that_is_planned(root: Root, tmp_path: Path) -> None:
    root.init("r", "command: [cat]\ntimeout: 45m\nphases:\n- {name: p, workers: [{name: W, brief: b}]}\n")
    story = root("explain", "r", "W").json["worker"]
    assert (story["command"], story["timeout_s"], story["cwd"]) == (["cat"], 2700, str(tmp_path))


def test_explain_says_what_to_do_before_a_third_attempt_that_would_end_alike(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["false"]})
    root("wait", "r")
    assert "way_out" not in root("explain", "r", "W").json["worker"]
    root("retry", "r")
    root("wait", "r")
    assert "just like that before" in root("explain", "r", "W").json["worker"]["way_out"]


def test_explain_shows_where_in_the_launcher_a_start_failed(root: Root) -> None:
    root.init("r")
    [failed] = root.spawn("r", {"W": ["no-such-command"]}).json["failed"]
    evidence = root("explain", "r", "W").json["worker"]["evidence"]
    assert evidence["launcher_line"] == f"{failed['line']}: {failed['command']}"
    assert failed["reason"].endswith(f"(launcher line {failed['line']})")


def test_a_plan_in_the_place_of_a_run_is_no_run(root: Root, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("phases: []\n")
    error = root("init", "plan.yaml", cwd=tmp_path).json["error"]
    assert (error["code"], error["hint"]) == ("usage", "orchestra init RUN --plan plan.yaml")
    assert not root.path.exists() or not list(root.path.iterdir())


def test_list_says_where_it_looked_and_what_it_left_out(root: Root, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert f"{nowhere}: there is no such directory" in root("--root", str(nowhere), "list", "--text").stdout
    assert "nor is there a directory" in root("--root", str(nowhere), "status", "r").json["error"]["message"]
    for run in ("a", "b", "c"):
        root.init(run)
    assert "… and 2 more" in root("list", "--limit", "1", "--text").stdout


def test_a_run_whose_log_is_gone_is_listed_as_such(root: Root) -> None:
    root.init("kept")
    root.init("lost")
    root.spawn("lost", {"W": ["true"]})
    for name in ("events.jsonl", "state.json"):
        (root.run_dir("lost") / name).unlink()
    (root.path / "other").mkdir()
    rows = {row["run"]: row for row in root("list").json["runs"]}
    assert (sorted(rows), rows["lost"]["error"]["code"]) == (["kept", "lost"], "corrupt_log")
    checks = {check["check"]: check for check in root("doctor").json["checks"]}
    assert checks["runs"]["verdict"] == "warning"
    assert checks["runs"]["found"].endswith("no event log, or an empty one: lost")


def test_a_link_that_leads_round_hides_no_run(root: Root) -> None:
    root.init("r")
    (root.path / "round").symlink_to("round")
    assert [row["run"] for row in root("list").json["runs"]] == ["r"]


def test_a_run_yaml_is_a_plan_for_another_run(root: Root, tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("the brief")
    plan = tmp_path / "plan.yaml"
    plan.write_text("command: [cat]\nphases:\n- name: p\n  workers:\n  - {name: W, brief: b.md}\n")
    root("init", "old", "--plan", str(plan))
    again = str(root.run_dir("old") / "run.yaml")
    assert root("init", "new", "--plan", again).code == 0
    assert root("spawn", "new", "--phase", "p").names("spawned") == ["W"]
    root("wait", "new")
    assert (root.run_dir("new") / "log-W.out").read_text() == "the brief"
    assert (root.run_dir("new") / "run.yaml").read_text().endswith(plan.read_text() + "\n")
    spoilt = tmp_path / "run.yaml"
    spoilt.write_text(Path(again).read_text().replace("phases:", "faces:"))
    assert ":7:1: " in root("init", "third", "--plan", str(spoilt)).json["error"]["message"]


def test_people_are_told_in_wait_what_is_wrong(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    with (root.run_dir("r") / "events.jsonl").open("a") as log:
        log.write("garbage\n")
    told = root("wait", "r", "--text").stdout
    assert "alert: the event log was damaged: 8 bytes at offset" in told


def test_people_read_events_in_words_and_all_of_them_in_json(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["false"]})
    root("wait", "r")
    lines = root("events", "r", "--text").stdout.splitlines()
    assert not any("token" in line or "{" in line for line in lines)
    assert lines[-1].endswith(
        ' ended W attempt=1 status=failed verdict=exit_code reason="exit status 1" exit_code=1 retry=now'
    )
    for line in root("events", "r", "--text", "--full").stdout.splitlines():
        rest = line.partition("{")
        assert isinstance(json.loads(rest[1] + rest[2]), dict)


@pytest.mark.parametrize("words", [("wc", "-w"), ("wc",)])
def test_a_command_without_its_dashes_is_told_where_it_belongs(root: Root, words: tuple[str, ...]) -> None:
    root.init("r")
    hint = root("spawn", "r", *words).json["error"]["hint"]
    assert "a worker's command goes behind --" in hint
