"""The fan-out: buckets, asking twice, what a worker is given, what is left on disk."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
from conftest import CALM, Answer, Root, contents, wait_until

FOREVER = ["sleep", "300"]
GATED = ["sh", "-c", 'until [ -e "$ORCHESTRA_RUN_DIR/../go" ]; do sleep 0.05; done']


def one(root: Root, command: list[str], *words: str, brief: str = "the task\n", **entry: Any) -> Answer:
    """Run a single worker W to its end; the answer of `wait`."""
    if not root.run_dir("r").exists():
        root.init("r")
    row = {"name": "W", "brief": brief, "command": command, **entry}
    spawned = root("spawn", "r", "--from", "-", "--no-throttle", *words, stdin=json.dumps([row]))
    assert spawned.names("spawned") == ["W"], spawned
    return root("wait", "r", "--timeout", "60")


def printed(root: Root) -> str:
    return (root.run_dir("r") / "log-W.out").read_text()


# --- asking twice ----------------------------------------------------------------------------


def test_a_spawned_worker_is_answered_with_name_attempt_and_pid(root: Root) -> None:
    root.init("r")
    answer = root.spawn("r", {"W": FOREVER})
    assert answer.code == 0
    assert answer.json["spawned"] == [{"name": "W", "attempt": 1, "pid": root.mark("r", "W")["pid"]}]


def test_the_same_call_again_leaves_everybody_alone(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    pid = root.mark("r", "W")["pid"]
    again = root.spawn("r", {"W": FOREVER})
    assert (again.code, again.json["spawned"]) == (0, [])
    assert [(row["name"], row["state"]) for row in again.json["already"]] == [("W", "running")]
    assert root.mark("r", "W")["pid"] == pid


def test_one_that_has_failed_among_them_makes_it_1_and_next_names_retry(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["false"]})
    assert root("wait", "r").code == 1
    again = root.spawn("r", {"W": ["false"]})
    assert again.code == 1
    assert [(row["name"], row["state"]) for row in again.json["already"]] == [("W", "failed")]
    assert "orchestra retry r W" in again.json["next"]


@pytest.mark.parametrize(
    "change", [{"command": ["sleep", "301"]}, {"brief": "another"}], ids=lambda c: next(iter(c))
)
def test_the_same_name_for_something_else_is_name_taken_and_nothing_is_written(
    root: Root, change: dict[str, Any]
) -> None:
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["true"]}
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]))
    root("wait", "r")
    root("spawn", "r")  # so that nothing is left to be recorded
    before = contents(root.run_dir("r"))
    rows = [{"name": "New", "brief": "b", "command": ["true"]}, {**row, **change}]
    answer = root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps(rows))
    assert (answer.code, answer.json["error"]["code"]) == (2, "name_taken")
    assert next(iter(change)) in answer.json["error"]["message"]
    assert contents(root.run_dir("r")) == before


def test_a_worker_named_twice_in_one_call_is_refused(root: Root) -> None:
    root.init("r")
    brief = root.brief("W")
    answer = root("spawn", "r", "--worker", f"W={brief}", "--worker", f"W={brief}", "--", "true")
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")


# --- deferral ----------------------------------------------------------------------------------


def test_status_tells_who_starts_next_and_when_by_how_fast_others_ended(root: Root) -> None:
    root.init("r")
    rows = [{"name": f"W{i}", "brief": "b", "command": GATED} for i in range(4)]
    done = [{"name": f"D{i}", "brief": "b", "command": ["true"]} for i in (1, 2)]
    root("spawn", "r", "--no-throttle", "--from", "-", stdin=json.dumps(done))
    assert root("wait", "r").code == 0
    limits = {"throttle": {**CALM, "max_workers": 1}}
    root("spawn", "r", "--from", "-", stdin=json.dumps([row | limits for row in rows]))
    told = {row["name"]: row.get("deferred") for row in root("status", "r").json["workers"]}
    assert (told.pop("W0"), told.pop("D1"), told.pop("D2")) == (None, None, None)
    assert [row["ahead"] for row in told.values()] == [0, 1, 2]
    guesses = [row["expected_s"] for row in told.values()]
    assert 0 < guesses[0] < guesses[1] < guesses[2]
    shown = root("status", "r", "--text").stdout
    assert ("(next to start)" in shown, "(2 before it)" in shown) == (True, True)
    root("stop", "r")


def test_what_one_call_defers_the_next_picks_up(root: Root) -> None:
    root.init("r")
    rows = [
        {"name": name, "brief": "b", "command": GATED, "throttle": {**CALM, "max_workers": 1}}
        for name in ("A", "B")
    ]
    first = root("spawn", "r", "--from", "-", stdin=json.dumps(rows))
    assert (first.code, first.names("spawned"), first.names("deferred")) == (4, ["A"], ["B"])
    assert first.json["deferred"][0]["signals"] == [{"signal": "max_workers", "value": 1, "limit": 1}]
    assert "orchestra spawn r" in first.json["next"]
    row = root.worker("r", "B")
    assert (row["state"], row["deferred"]["ahead"], row["deferred"]["expected_s"]) == ("deferred", 0, None)
    assert row["deferred"]["now"] == [{"signal": "max_workers", "value": 1, "limit": 1}]

    still = root("spawn", "r")
    assert (still.code, still.names("deferred")) == (4, ["B"])
    deferred = root("explain", "r", "B").json["worker"]["deferred"]
    assert deferred["times"] == 1  # for the same reason, told once
    assert (deferred["ahead"], [s["signal"] for s in deferred["now"]]) == (0, ["max_workers"])

    (root.path / "go").touch()
    root("wait", "r", "--for", "A")  # it writes nothing; and yet A is at work no more for anybody
    assert root("explain", "r", "B").json["worker"]["deferred"]["now"] == []
    second = root("spawn", "r")
    assert (second.code, second.names("spawned")) == (0, ["B"])
    assert root("wait", "r").code == 0
    assert root.result("r", "B")["status"] == "done"


def test_drain_needs_nobody_to_record_who_has_ended(root: Root) -> None:
    root.init("r")
    throttle = {**CALM, "max_workers": 1}
    rows = [
        {"name": name, "brief": "b", "command": command, "throttle": throttle}
        for name, command in (("A", GATED), ("B", ["true"]))
    ]
    assert root("spawn", "r", "--from", "-", stdin=json.dumps(rows)).names("deferred") == ["B"]
    (root.path / "go").touch()
    root("wait", "r", "--for", "A")  # writes nothing
    assert root("wait", "r", "--drain").code == 0
    assert root.result("r", "B")["status"] == "done"


def test_a_deferred_worker_has_a_throttled_result(root: Root) -> None:
    root.init("r")
    root_row = [{"name": "W", "brief": "b", "command": ["true"], "throttle": {"memory_available": "64TiB"}}]
    root("spawn", "r", "--from", "-", stdin=json.dumps(root_row))
    result = root.result("r", "W")
    assert (result["status"], result["verdict"], result["attempt"]) == ("throttled", None, 1)
    assert "memory" in result["reason"]


def test_a_worker_that_runs_is_not_deferred_in_its_result(root: Root) -> None:
    root.init("r")
    full = {"ORCHESTRA_THROTTLE": "{memory_available: 64TiB}"}
    root("spawn", "r", "--worker", f"W={root.brief('W')}", "--", "sleep", "300", env=full)
    assert root.result("r", "W")["status"] == "throttled"
    assert root("spawn", "r", "--no-throttle").names("spawned") == ["W"]
    assert not (root.run_dir("r") / "result-W.json").exists()


# --- where workers come from ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "A", "brief": "b"}, {"name": "B", "brief": "b", "command": ["sh", "-c", "exit 0"]}]',
        "- {name: A, brief: b}\n- {name: B, brief: b}\n",
        "workers:\n- {name: A, brief: b}\n- {name: B, brief: b}\n",
    ],
    ids=["JSON", "YAML", "mapping"],
)
@pytest.mark.parametrize("through", ["file", "-"])
def test_a_list_of_workers_comes_from_a_file_or_standard_input(root: Root, text: str, through: str) -> None:
    root.init("r")
    source = root.path.parent / "list.yaml"
    source.write_text(text)
    answer = root(
        "spawn",
        "r",
        "--from",
        "-" if through == "-" else str(source),
        "--no-throttle",
        "--",
        "true",
        stdin=text,
    )
    assert (answer.code, answer.names("spawned")) == (0, ["A", "B"])


def test_a_brief_is_a_file_where_there_is_one_beside_the_list(root: Root) -> None:
    root.init("r")
    (root.path.parent / "task.md").write_text("from the file")
    source = root.path.parent / "list.yaml"
    source.write_text("- {name: A, brief: task.md}\n- {name: B, brief: from the list}\n")
    root("spawn", "r", "--from", str(source), "--no-throttle", "--", "cat")
    assert (root.run_dir("r") / "brief-A.md").read_text() == "from the file"
    assert (root.run_dir("r") / "brief-B.md").read_text() == "from the list"


def test_a_phase_is_spawned_from_the_plan(root: Root) -> None:
    plan = "command: ['true']\nphases: [{name: p, workers: [{name: A, brief: b}, {name: B, brief: b}]}]\n"
    root.init("r", plan)
    answer = root("spawn", "r", "--phase", "p", "--no-throttle")
    assert answer.names("spawned") == ["A", "B"]
    assert root.worker("r", "A")["phase"] == "p"


EXPECTS = {
    "stdout": ["--expect", "stdout"],
    "file": ["--expect", "report.md"],
    "bytes": ["--expect", "report.md:5"],
    "bytes of stdout": ["--expect", "stdout:5"],
    "several": ["--expect", "stdout", "--expect", "report.md:5", "--expect", "deep/er.md"],
}


@pytest.mark.parametrize("words", EXPECTS.values(), ids=EXPECTS.keys())
@pytest.mark.parametrize("good", [True, False], ids=["there", "missing"])
def test_what_is_expected_on_the_command_line_is_checked(root: Root, words: list[str], good: bool) -> None:
    made = 'cd "$ORCHESTRA_OUT"; mkdir deep; printf 12345 | tee report.md deep/er.md'
    root.init("r")
    brief = root.brief("W")
    command = ["sh", "-c", made if good else ":"]
    root("spawn", "r", "--no-throttle", "--worker", f"W={brief}", *words, "--", *command)
    answer = root("wait", "r")
    assert answer.json["workers"][0]["verdict"] == (None if good else "empty")


def test_what_is_expected_counts_for_the_workers_of_a_phase_too(root: Root) -> None:
    root.init("r", "command: ['true']\nphases: [{name: p, workers: [{name: W, brief: b}]}]\n")
    root("spawn", "r", "--phase", "p", "--no-throttle", "--expect", "report.md")
    assert root("wait", "r").json["workers"][0]["verdict"] == "empty"


@pytest.mark.parametrize("what", ["/etc/passwd", "../x", "", "a/"])
def test_nothing_outside_of_out_can_be_expected(root: Root, what: str) -> None:
    root.init("r")
    answer = root("spawn", "r", "--worker", f"W={root.brief('W')}", "--expect", what, "--", "true")
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")


# --- what a worker gets --------------------------------------------------------------------------

SHOW_ARGV = ["python3", "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]


def test_the_placeholders_are_filled_in(root: Root) -> None:
    one(root, [*SHOW_ARGV, "{prompt}", "{prompt_file}", "--o={out}/x", "{run_dir}", "{name}.{name}", "{no}"])
    here = root.run_dir("r")
    assert json.loads(printed(root)) == [
        "the task\n",
        f"{here}/.prompt-W.txt",
        f"--o={here}/out-W/x",
        str(here),
        "W.W",
        "{no}",
    ]


def test_standard_input_is_the_prompt(root: Root) -> None:
    one(root, ["cat"])
    assert printed(root) == "the task\n"


@pytest.mark.parametrize("word", ["{prompt}", "{prompt_file}"])
def test_standard_input_is_empty_where_the_argv_names_the_prompt(root: Root, word: str) -> None:
    one(root, ["sh", "-c", "cat", word])
    assert printed(root) == ""


def test_the_prompt_says_where_to_put_what_is_expected(root: Root) -> None:
    one(root, ["sh", "-c", 'tee "$ORCHESTRA_OUT/report.md"'], expect=["report.md"])
    assert printed(root).startswith("the task\n")
    assert f"{root.run_dir('r')}/out-W/report.md" in printed(root)


def environment_of(root: Root) -> dict[str, str]:
    pairs = printed(root).split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_the_variables_of_the_contract_are_set(root: Root) -> None:
    one(root, ["env", "-0"], env={"FROM_PLAN": "a\n'b' $c"})
    here, env = root.run_dir("r"), environment_of(root)
    assert env["ORCHESTRA_RUN_DIR"] == str(here)
    assert (env["ORCHESTRA_WORKER"], env["ORCHESTRA_ATTEMPT"]) == ("W", "1")
    assert env["ORCHESTRA_OUT"] == f"{here}/out-W"
    assert env["ORCHESTRA_BRIEF"] == f"{here}/brief-W.md"
    assert env["ORCHESTRA_HEARTBEAT"].startswith(str(here))
    assert env["ORCHESTRA_TOKEN"] == root.mark("r", "W")["token"]
    assert env["FROM_PLAN"] == "a\n'b' $c"


# Names that the launcher may want for itself, or that bash treats in its own way.
CALLERS = {
    "NARRATORS": "x\ny é",
    "host": "example.org",
    "out": "/elsewhere",
    "token": "abc",
    "status": "fine",
    "argv": "words",
    "prompt": "> ",
    "cwd": "/",
    "POSIXLY_CORRECT": "1",
    "BASH_ENV": "/no/such/file",
    "CDPATH": "/",
    "with.dot": "1",
}


@pytest.mark.parametrize("name", CALLERS)
def test_the_environment_of_the_narrator_reaches_the_worker(root: Root, name: str) -> None:
    root.init("r")
    row = [{"name": "W", "brief": "b", "command": ["env", "-0"]}]
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps(row), env={name: CALLERS[name]})
    assert root("wait", "r").code == 0
    assert environment_of(root).get(name) == CALLERS[name]


def test_no_secret_of_the_environment_is_written_down(root: Root) -> None:
    root.init("r")
    secret = "s3cr3t-" + "f" * 20
    env = {"ANTHROPIC_API_KEY": secret, "token": secret}
    rows = [
        {"name": "W", "brief": "b", "command": ["true"]},
        {"name": "X", "brief": "b", "command": ["none"]},
    ]
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps(rows), env=env)
    root("wait", "r", "--keep-going", env=env)
    root("retry", "r", "X", env=env)
    assert [name for name, (_, data) in contents(root.path).items() if secret.encode() in data] == []


def test_the_temporary_directory_is_its_own_and_goes_with_the_attempt(root: Root) -> None:
    one(
        root,
        ["sh", "-c", 'ls -ld "$TMPDIR" && touch "$TMPDIR/x" && printf %s "$TMPDIR" >"$ORCHESTRA_OUT/tmp"'],
    )
    directory = Path((root.run_dir("r") / "out-W" / "tmp").read_text())
    assert printed(root).startswith("drwx------")
    wait_until(lambda: not directory.exists(), "the removal of TMPDIR")
    assert directory.parent.exists()


def test_the_working_directory_is_the_callers(root: Root, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    root("init", "r", cwd=tmp_path)
    row = [{"name": "W", "brief": "b", "command": ["pwd"]}]
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps(row), cwd=tmp_path / "here")
    root("wait", "r")
    assert printed(root) == f"{tmp_path}/here\n"


def test_the_working_directory_of_a_plan_is_relative_to_the_plan(root: Root, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    root.init("r", "command: [pwd]\ncwd: sub\nphases: [{name: p, workers: [{name: W, brief: b}]}]\n")
    root("spawn", "r", "--phase", "p", "--no-throttle", cwd=Path("/"))
    root("wait", "r")
    assert printed(root) == f"{tmp_path}/sub\n"


def test_the_umask_is_the_callers(root: Root) -> None:
    root.init("r")
    brief = root.brief("W")
    call = root.start(
        "spawn", "r", "--no-throttle", "--worker", f"W={brief}", "--", "sh", "-c", "umask", umask=0o027
    )
    call.communicate(timeout=60)
    root("wait", "r")
    assert printed(root) == "0027\n"


def test_a_worker_has_its_own_session_no_terminal_and_default_signals(root: Root) -> None:
    one(root, ["sh", "-c", "cut -d' ' -f5-7 /proc/self/stat; grep SigIgn /proc/self/status"])
    stat_line, ignored = printed(root).splitlines()
    _, session, terminal = stat_line.split()
    assert int(session) == root.mark("r", "W")["pid"]
    assert int(terminal) == 0
    assert int(ignored.split()[1], 16) & 0x7FFFFFFF == 0  # those above 31 are glibc's own


def test_a_worker_has_no_signal_blocked_that_its_caller_has(root: Root) -> None:
    root.init("r")
    blocked = {signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        root.spawn("r", {"W": ["grep", "SigBlk", "/proc/self/status"]})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    root("wait", "r")
    assert printed(root).split() == ["SigBlk:", "0" * 16]


def test_a_worker_inherits_no_open_files(root: Root) -> None:
    one(root, ["sh", "-c", "ls /proc/self/fd"])
    assert printed(root).split() == ["0", "1", "2", "3"]  # the last is the directory that ls reads


def test_the_output_goes_to_the_logs(root: Root) -> None:
    one(root, ["sh", "-c", "echo out; echo err >&2"])
    assert root("logs", "r", "W").json["text"] == "out\n"
    assert root("logs", "r", "W", "--stderr").json["text"] == "err\n"


@pytest.mark.parametrize(
    "start",
    ["sleep 300 & :", "setsid sleep 300 & :", "setsid -f sleep 300", "env -i setsid -f sleep 300"],
    ids=["child", "session", "orphan", "no environment"],
)
def test_what_a_worker_leaves_behind_ends_with_it(root: Root, start: str) -> None:
    script = f'{start}\nps -eo pid=,args= | grep "[s]leep 300$" >"$ORCHESTRA_OUT/all"; pwd'
    one(root, ["sh", "-c", script.replace("300", str(7_000_000 + os.getpid()))])
    needle = str(7_000_000 + os.getpid()).encode()

    def living() -> list[str]:
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == b"sleep" and needle in words:
                found.append(entry)
        return found

    wait_until(lambda: not living(), "the end of the worker's child")


# --- what is left on disk --------------------------------------------------------------------------


def test_directories_are_0700_files_0600_and_launchers_0700(root: Root) -> None:
    root.init("r")
    out = 'orchestra() { python3 -m orchestra "$@"; }; echo hi; sleep 0.1'
    row = [
        {"name": "W", "brief": "b", "command": ["sh", "-c", out]},
        {"name": "X", "brief": "b", "command": ["no"]},
    ]
    call = root.start("spawn", "r", "--from", "-", "--no-throttle", umask=0, stdin=-1)
    call.communicate(json.dumps(row), timeout=60)
    root("wait", "r", "--keep-going")
    again = root.start("retry", "r", "X", "--no-throttle", umask=0)
    again.communicate(timeout=60)
    wrong = {}
    for path in [root.run_dir("r"), *root.run_dir("r").rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        launcher = path.name.endswith(".sh")
        if mode != (0o700 if path.is_dir() or launcher else 0o600):
            wrong[str(path.relative_to(root.path))] = oct(mode)
    assert wrong == {}


def test_the_trail_is_written_in_its_order(root: Root) -> None:
    one(root, ["true"])
    here = root.run_dir("r")
    trail = [
        here / name for name in ("brief-W.md", ".prompt-W.txt", ".run-W.sh", ".pid-W.json", "result-W.json")
    ]
    times = [path.stat().st_mtime_ns for path in trail]
    assert times == sorted(times)
    told = [row["what"] for row in root("explain", "r", "W").json["worker"]["trail"] if row["at"]]
    assert told[:4] == ["brief", "prompt", "launcher", "mark"]


def test_a_result_has_every_field(root: Root) -> None:
    one(root, ["true"])
    fields = [
        "worker",
        "attempt",
        "status",
        "verdict",
        "reason",
        "exit_code",
        "signal",
        "started_at",
        "ended_at",
    ]
    assert set(root.result("r", "W")) >= set(fields)


# --- what is refused leaves nothing behind ---------------------------------------------------


def test_a_bad_limit_is_refused_before_anything_is_meant(root: Root) -> None:
    """By spawn, by retry, and by run: each would have to be carried out by whoever comes next."""
    bad = {"ORCHESTRA_THROTTLE": "{bogus: 1}"}
    root.init("r")
    root.spawn("r", {"F": ["false"]})
    root("wait", "r")
    before = (root.run_dir("r") / "events.jsonl").read_bytes()
    row = json.dumps([{"name": "X", "brief": "b", "command": ["true"]}])
    assert root("spawn", "r", "--from", "-", stdin=row, env=bad).json["error"]["code"] == "bad_config"
    assert root("retry", "r", "F", env=bad).json["error"]["code"] == "bad_config"
    assert (root.run_dir("r") / "events.jsonl").read_bytes() == before
    plan = root.path.parent / "fresh.yaml"
    plan.write_text("phases: [{name: p, workers: [{name: W, brief: b c, command: ['true']}]}]\n")
    assert root("run", str(plan), env=bad).json["error"]["code"] == "bad_config"
    assert not root.run_dir("fresh").exists()


# --- what a list says, without a plan --------------------------------------------------------


def test_without_a_plan_a_list_may_switch_off_what_is_on_by_default(root: Root) -> None:
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["true"], "stall": "off", "first_sign": "20m"}
    answer = root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]))
    assert (answer.code, answer.names("spawned")) == (0, ["W"])
    events = root("events", "r", "--json").stdout.splitlines()
    (entry,) = [e["entry"] for e in map(json.loads, events) if e["kind"] == "spawn_intended"]
    assert (entry.get("stall_s"), entry["first_sign_s"]) == (None, 1200)


def test_without_a_plan_a_directory_is_relative_to_whoever_spawns(root: Root, tmp_path: Path) -> None:
    (tmp_path / "here" / "sub").mkdir(parents=True)
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["pwd"], "cwd": "sub"}
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]), cwd=tmp_path / "here")
    root("wait", "r")
    assert (root.run_dir("r") / "log-W.out").read_text() == f"{tmp_path}/here/sub\n"


def test_the_same_call_with_other_settings_says_what_is_kept(root: Root) -> None:
    root.init("r")
    words = ["spawn", "r", "--no-throttle", "--worker", f"W={root.brief('W')}"]
    assert "note" not in root(*words, "--", "true").json
    again = root(*words, "--expect", "report.md", "--", "true")
    (row,) = again.json["already"]
    assert row["note"] == "it keeps what it had of expect"
    (row,) = root(*words, "--", "true").json["already"]
    assert "note" not in row


@pytest.mark.parametrize("chars", [256, 257, 20_000])
def test_the_same_phase_again_is_no_other_brief_however_long_that_is(root: Root, chars: int) -> None:
    brief = "x" * chars
    root.init("r", f"command: ['true']\nphases:\n- {{name: p, workers: [{{name: W, brief: {brief}}}]}}\n")
    root("spawn", "r", "--phase", "p", "--no-throttle")
    root("wait", "r")
    for _ in range(2):
        assert root("spawn", "r", "--phase", "p").json["already"] == [
            {"name": "W", "state": "done", "attempt": 1}
        ]
