"""Every command answers with one JSON object for scripts, and with text for people."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Answer, Root, clean_environment, end_processes_of, orchestra_argv

from orchestra import __version__
from orchestra.cli.main import VERBS

README = Path(__file__).parents[2] / "README.md"
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
PLAN = """\
phases:
  - name: a
    workers:
      - {name: Good, brief: b, command: [sh, -c, "echo fine"]}
      - {name: Bad, brief: b, command: [sh, -c, "echo oh >&2; exit 3"]}
  - name: b
    workers:
      - {name: Later, brief: b, command: ["true"]}
"""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A run whose first phase is over: Good is done, Bad has failed, Later is planned."""
    top = tmp_path_factory.mktemp("answers")
    (top / "runs").mkdir()
    root = Root(top / "runs")
    root.init("night", PLAN)
    assert root("spawn", "night", "--phase", "a", "--no-throttle").code in (0, 1)
    assert root("wait", "night", "--keep-going").code == 1
    yield root
    end_processes_of(top)


INSIDE = {"ORCHESTRA_TOKEN": "0" * 16, "ORCHESTRA_WORKER": "Good"}
ANSWERING = {
    "init": ["init", "night", "--plan", "../night.yaml"],
    "spawn": ["spawn", "night"],
    "dry run": ["spawn", "night", "--phase", "b", "--dry-run"],
    "status": ["status", "night"],
    "wait": ["wait", "night"],
    "explain": ["explain", "night", "Bad"],
    "logs": ["logs", "night", "Good"],
    "stop": ["stop", "night"],
    "retry": ["retry", "night", "Good"],
    "unlock": ["unlock", "night"],
    "takeover": ["takeover", "night", "--narrator", "me"],
    "list": ["list"],
}


@pytest.mark.parametrize("words", ANSWERING.values(), ids=ANSWERING.keys())
def test_an_answer_is_one_object_with_the_fields_that_all_have(night: Root, words: list[str]) -> None:
    answer = night(*words, cwd=night.path)
    assert answer.stdout.count("\n") == 1
    assert answer.stdout.endswith("}\n")
    assert answer.json["ok"] is True
    assert answer.json["command"] == words[0]
    assert RFC3339.fullmatch(answer.json["as_of"])
    assert isinstance(answer.json["next"], list)
    if words[0] != "list":
        assert answer.json["run"] == "night"
    assert answer.code == (1 if words == ["wait", "night"] else 0)
    assert answer.stderr == ""


def test_events_are_one_object_per_line(night: Root) -> None:
    lines = night("events", "night").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert len(events) > 4
    assert all({"op", "at", "topic", "kind"} <= set(event) for event in events)


def test_events_since_a_cursor_are_those_after_it(night: Root) -> None:
    last = night("status", "night").json["op"]
    told = [json.loads(line)["op"] for line in night("events", "night", "--since", "2").stdout.splitlines()]
    assert told == list(range(3, last + 1))


def test_status_tells_each_worker_with_every_field(night: Root) -> None:
    answer = night("status", "night")
    assert set(answer.json) >= {"op", "counts", "workers", "lock", "alerts", "truncated"}
    fields = {"name", "phase", "attempt", "state", "verdict", "reason", "pid", "since", "exit_code", "retry"}
    assert [row["name"] for row in answer.json["workers"]] == ["Good", "Bad", "Later"]
    assert all(set(row) >= fields for row in answer.json["workers"])
    assert [row["state"] for row in answer.json["workers"]] == ["done", "failed", "planned"]


def test_status_of_one_phase_and_one_state_shows_only_those(night: Root) -> None:
    assert [r["name"] for r in night("status", "night", "--phase", "b").json["workers"]] == ["Later"]
    assert [r["name"] for r in night("status", "night", "--state", "failed").json["workers"]] == ["Bad"]


def test_status_says_what_a_limit_left_out(night: Root) -> None:
    answer = night("status", "night", "--limit", "1")
    assert [row["name"] for row in answer.json["workers"]] == ["Bad"]  # what wants attention comes first
    assert answer.json["truncated"]["workers"] == 2


def test_next_steps_are_ready_to_run(night: Root) -> None:
    steps = night("status", "night").json["next"]
    assert "orchestra explain night Bad" in steps
    assert "orchestra retry night Bad" in steps
    assert night(*steps[0].split()[1:]).code == 0


def test_next_steps_name_the_root_where_it_was_given_and_quote_it(tmp_path: Path) -> None:
    root = Root(tmp_path / "the root; of 'all'")
    made = root("init", "r", "--root", str(root.path))
    env = clean_environment(PATH=f"{Path(orchestra_argv()[0]).parent}:{os.environ['PATH']}")
    listed = root("list", "--root", str(root.path))
    (step,) = listed.json["next"]
    done = subprocess.run(["bash", "-c", step], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert made.code == 0
    assert (done.returncode, json.loads(done.stdout)["run"]) == (0, "r"), step


def test_a_root_named_like_a_command_is_no_command(tmp_path: Path) -> None:
    root = Root(tmp_path / "runs")
    answer = root("--root", "stop", "list", cwd=tmp_path)
    assert (answer.code, answer.json["command"]) == (0, "list")


# --- errors ----------------------------------------------------------------------------------

ERRORS: dict[str, tuple[list[str], dict[str, str], str, int]] = {
    "no command at all": ([], {}, "usage", 2),
    "unknown command": (["spwan", "night"], {}, "usage", 2),
    "unknown option": (["status", "night", "--colour"], {}, "usage", 2),
    "missing argument": (["status"], {}, "usage", 2),
    "too many arguments": (["status", "night", "night"], {}, "usage", 2),
    "no number": (["wait", "night", "--timeout", "soon"], {}, "usage", 2),
    "negative timeout": (["wait", "night", "--timeout", "-1"], {}, "usage", 2),
    "a timeout that is no number": (["wait", "night", "--timeout", "nan"], {}, "usage", 2),
    "a grace that is no number": (["stop", "night", "--grace", "nan"], {}, "usage", 2),
    "unknown state": (["status", "night", "--state", "asleep"], {}, "usage", 2),
    "a command where none belongs": (["status", "night", "--", "true"], {}, "usage", 2),
    "a command and no worker": (["spawn", "night", "--", "true"], {}, "usage", 2),
    "no brief": (["spawn", "night", "--worker", "X=none.md", "--", "true"], {}, "usage", 2),
    "no equals sign": (["spawn", "night", "--worker", "X", "--", "true"], {}, "usage", 2),
    "no such plan": (["init", "new", "--plan", "none.yaml"], {}, "usage", 2),
    "takeover by nobody": (["takeover", "night"], {}, "usage", 2),
    "a beat outside a worker": (["beat"], {}, "usage", 2),
    "bad run name": (["status", "a b"], {}, "bad_name", 2),
    "empty run name": (["status", ""], {}, "bad_name", 2),
    "name too long": (["status", "a" * 65], {}, "bad_name", 2),
    "bad worker name": (["spawn", "night", "--worker", "-=x", "--", "true"], {}, "bad_name", 2),
    "no such run": (["status", "day"], {}, "no_such_run", 2),
    "no such run to change": (["spawn", "day"], {}, "no_such_run", 2),
    "no such run by path": (["status", "./runs/day"], {}, "no_such_run", 2),
    "no such phase": (["status", "night", "--phase", "c"], {}, "no_such_phase", 2),
    "no such phase to spawn": (["spawn", "night", "--phase", "c"], {}, "no_such_phase", 2),
    "an empty phase to spawn": (["spawn", "night", "--phase", ""], {}, "no_such_phase", 2),
    "no such phase to wait for": (["wait", "night", "--phase", "c"], {}, "no_such_phase", 2),
    "no such worker": (["explain", "night", "Nobody"], {}, "no_such_worker", 2),
    "no such worker to read": (["logs", "night", "Nobody"], {}, "no_such_worker", 2),
    "no such worker to wait for": (["wait", "night", "--for", "Nobody"], {}, "no_such_worker", 2),
    "no such worker to stop": (["stop", "night", "Nobody"], {}, "no_such_worker", 2),
    "no such worker to retry": (["retry", "night", "Nobody"], {}, "no_such_worker", 2),
    "init inside a worker": (["init", "new"], INSIDE, "nested_spawn", 2),
    "spawn inside a worker": (["spawn", "night"], INSIDE, "nested_spawn", 2),
    "stop inside a worker": (["stop", "night"], INSIDE, "nested_spawn", 2),
    "retry inside a worker": (["retry", "night"], INSIDE, "nested_spawn", 2),
    "unlock inside a worker": (["unlock", "night"], INSIDE, "nested_spawn", 2),
    "takeover inside a worker": (["takeover", "night", "--narrator", "x"], INSIDE, "nested_spawn", 2),
    "run inside a worker": (["run", "../night.yaml"], INSIDE, "nested_spawn", 2),
}


@pytest.mark.parametrize(("words", "env", "code", "exit_status"), ERRORS.values(), ids=ERRORS.keys())
def test_an_error_is_one_object_with_code_message_and_hint(
    night: Root, words: list[str], env: dict[str, str], code: str, exit_status: int
) -> None:
    answer = night(*words, env=env, cwd=night.path)
    assert answer.json.get("ok") is False, answer
    error = answer.json["error"]
    assert (error["code"], answer.code) == (code, exit_status)
    assert error["message"]
    assert error["hint"]
    assert answer.stdout.count("\n") == 1
    assert "Traceback" not in answer.stderr


def test_an_unknown_command_is_answered_with_the_nearest(night: Root) -> None:
    assert "spawn" in night("spwan", "night").json["error"]["message"]


def test_a_worker_may_look(night: Root) -> None:
    assert night("status", "night", env=INSIDE).code == 0


def test_a_worker_that_may_not_unlock_leaves_the_lock_as_it_is(root: Root) -> None:
    root.init("r")
    lock = root.run_dir("r") / ".narrator.lock"
    lock.mkdir()
    answer = root("unlock", "r", "--force", env=INSIDE)
    assert answer.json["error"]["code"] == "nested_spawn"
    assert lock.is_dir()


BAD_PLANS = {
    "syntax": ("phases:\n  - [", 2, None),
    "unknown key": ("phasen: []\n", 1, 1),
    "wrong type": ("timeout: [1]\nphases: []\n", 1, 10),
    "a name twice": (
        "command: [x]\nphases:\n- name: p\n  workers:\n  - {name: A, brief: b}\n  - {name: A, brief: b}\n",
        6,
        12,
    ),
    "missing brief": (
        "command: [x]\nphases:\n- name: p\n  workers:\n  - {name: A, brief: no/such.md}\n",
        5,
        22,
    ),
    "bad name": ("command: [x]\nphases:\n- name: p q\n  workers: []\n", 3, 9),
    "not UTF-8": ("command: [x]\n# caf\udce9\nphases: []\n", 2, 6),
    "no command": ("phases:\n- name: p\n  workers:\n  - {name: A, brief: b}\n", 4, 5),
}


@pytest.mark.parametrize(("text", "line", "column"), BAD_PLANS.values(), ids=BAD_PLANS.keys())
def test_a_bad_plan_is_told_by_file_line_and_column_and_nothing_is_written(
    root: Root, text: str, line: int, column: int | None
) -> None:
    plan = root.path.parent / "bad plan.yaml"
    plan.write_text(text, encoding="utf-8", errors="surrogateescape")
    answer = root("init", "r", "--plan", str(plan))
    error = answer.json["error"]
    assert (answer.code, error["code"], error["file"]) == (2, "bad_plan", str(plan))
    assert error["line"] == line
    assert column is None or error["column"] == column
    assert error["column"] >= 1
    assert not root.run_dir("r").exists()


def test_a_bad_list_of_workers_is_told_by_line_and_column_and_nothing_is_written(root: Root) -> None:
    root.init("r")
    before = sorted(path.name for path in root.run_dir("r").iterdir())
    listed = "- name: A\n  brief: words\n- name: B\n  brief: no/such.md\n"
    answer = root("spawn", "r", "--from", "-", "--", "true", stdin=listed)
    error = answer.json["error"]
    assert (answer.code, error["code"], error["line"], error["column"]) == (2, "bad_plan", 4, 10)
    assert sorted(path.name for path in root.run_dir("r").iterdir()) == before


def test_another_plan_for_the_same_run_is_name_taken(night: Root, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(PLAN.replace("Later", "Never"))
    answer = night("init", "night", "--plan", str(other))
    assert (answer.code, answer.json["error"]["code"]) == (2, "name_taken")


# --- people ----------------------------------------------------------------------------------


def on_a_terminal(root: Root, *words: str, columns: int = 120) -> tuple[int, str]:
    """Exit status and what a terminal shows."""
    ours, theirs = pty.openpty()
    env = clean_environment(ORCHESTRA_ROOT=str(root.path), TERM="xterm", COLUMNS=str(columns))
    process = subprocess.Popen(
        orchestra_argv(*words), env=env, cwd=root.path, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return process.wait(timeout=60), shown.decode()


SHOWN = {
    "status": (["status", "night"], ("✓", "✗", "Good", "Bad", "next: ")),
    "wait": (["wait", "night"], ("✓", "✗", "Bad", "failed")),
    "explain": (["explain", "night", "Bad"], ("✗", "exit_code", "next: ")),
    "logs": (["logs", "night", "Good"], ("fine",)),
    "spawn": (["spawn", "night", "--phase", "b", "--dry-run", "--no-throttle"], ("▶", "Later")),
    "stop": (["stop", "night"], ("nothing was running",)),
    "list": (["list"], ("night",)),
    "unlock": (["unlock", "night"], ("not locked",)),
    "an error": (["status", "day"], ("orchestra: ", "there is no run at")),
}


@pytest.mark.parametrize(("words", "signs"), SHOWN.values(), ids=SHOWN.keys())
def test_a_terminal_gets_text_with_signs_and_no_json(
    night: Root, words: list[str], signs: tuple[str, ...]
) -> None:
    _, shown = on_a_terminal(night, *words)
    assert all(sign in shown for sign in signs), shown
    assert '{"' not in shown


def test_a_line_on_the_terminal_lives_while_workers_are_waited_for(root: Root) -> None:
    plan = root.path / "slow.yaml"
    plan.write_text("""
command: [sh, -c, "sleep 3"]
phases: [{name: one, workers: [{name: A, brief: b}, {name: B, brief: b}]}]
""")
    code, shown = on_a_terminal(root, "run", str(plan), "--no-throttle")
    assert code == 0, shown
    assert "one: 2 running" in shown
    assert "0:00:01" in shown  # it tells the time
    plain = root("run", str(plan), "--text")
    assert "0:00:0" not in plain.stdout


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["explain", "night", "God"], "Good"),
        (["wait", "night", "--for", "Bda"], "Bad"),
        (["wait", "night", "--phase", "bb"], "b"),
        (["status", "nigth"], "night"),
        (["unlock", "nigth"], "night"),
        (["statsu", "night"], "status"),
    ],
)
def test_a_slip_of_the_pen_is_met_with_what_was_meant(night: Root, words: list[str], meant: str) -> None:
    error = night(*words).json["error"]
    assert f"did you mean '{meant}'?" in error["message"] + error["hint"]


def test_json_can_be_forced_on_a_terminal(night: Root) -> None:
    _, shown = on_a_terminal(night, "status", "night", "--json")
    assert json.loads(shown)["ok"] is True


@pytest.mark.parametrize("words", [["status", "night", "--text"], ["--text", "status", "night"]])
def test_text_can_be_forced_before_or_behind_the_command(night: Root, words: list[str]) -> None:
    answer = night(*words)
    assert answer.code == 0
    assert "✗" in answer.stdout
    assert not answer.stdout.startswith("{")


def test_a_forced_text_error_goes_to_standard_error(night: Root) -> None:
    answer = night("status", "day", "--text")
    assert (answer.code, answer.stdout) == (2, "")
    assert answer.stderr.startswith("orchestra: ")


def test_text_survives_an_output_that_knows_only_ascii(night: Root) -> None:
    answer = night("status", "night", "--text", env={"PYTHONIOENCODING": "ascii"})
    assert (answer.code, answer.stderr) == (0, "")
    assert "Bad" in answer.stdout


# --- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_help_with_an_example(tmp_path: Path, verb: str) -> None:
    answer = Root(tmp_path)(verb, "--help")
    assert answer.code == 0
    assert re.search(rf"Examples?\b.*\n(.*\n)*? +orchestra {verb}\b", answer.stdout), answer.stdout
    arguments = answer.stdout.partition("Arguments:\n")[2].partition("\n\n")[0]
    assert not re.search(r"^ +\S+ +\[", arguments, re.MULTILINE), "an argument without a word about it"


def test_the_overview_names_every_command_and_every_exit_status(tmp_path: Path) -> None:
    shown = Root(tmp_path)("--help").stdout
    assert all(re.search(rf"^ +{verb} ", shown, re.MULTILINE) for verb in VERBS)
    assert all(f" {status} " in shown.replace("\n", " ") for status in (0, 1, 2, 3, 4, 5, 70, 130))


@pytest.mark.parametrize(
    "verb",
    [
        "init",
        "spawn",
        "status",
        "wait",
        "explain",
        "logs",
        "stop",
        "retry",
        "unlock",
        "takeover",
        "run",
        "list",
        "doctor",
        "events",
        "beat",
    ],
)
def test_every_command_of_the_contract_is_there(verb: str) -> None:
    assert verb in VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_is_named_in_the_readme(verb: str) -> None:
    assert f"orchestra {verb}" in README.read_text()


def test_the_version_is_told(tmp_path: Path) -> None:
    answer: Answer = Root(tmp_path)("--version")
    assert (answer.code, answer.stdout) == (0, f"orchestra {__version__}\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(tmp_path: Path, shell: str) -> None:
    answer = Root(tmp_path)("completion", shell)
    assert answer.code == 0
    assert "_ORCHESTRA_COMPLETE" in answer.stdout


def test_a_reason_that_does_not_fit_stands_below_the_table(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["/no/such/place/for/a/command/of/some/length"]})
    _, wide = on_a_terminal(root, "status", "r", columns=200)
    _, narrow = on_a_terminal(root, "status", "r", columns=80)
    assert "reason" in wide and "reason" not in narrow
    for shown in (wide, narrow):
        assert "command not found or not executable" in shown


def test_a_long_name_is_folded_and_nothing_is_cut(root: Root) -> None:
    root.init("r")
    long = "N" * 64
    root.spawn("r", {long: ["no-such-command"]})
    _, shown = on_a_terminal(root, "status", "r", columns=80)
    head = shown.partition("command not found")[0]
    assert (head.count("N") >= 64, "spawn_error" in head, "✗ failed" in head) == (True, True, True)
