"""Whatever stands in a name, a brief, a command, a path or a file: no bug, no traceback, no silence."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Root, clean_environment, orchestra_argv, wait_until, watches

from orchestra.model.event import Event, encode

Words = Sequence[str | bytes]

FOREVER = ["sleep", "300"]
NASTY = "a 'b' \"c\" `id` $(id) ${HOME} ;|&<>(){}*?!#~\\ \t é 🎻"
SHOW_ARGV = ["python3", "-c", "import os, sys; sys.stdout.buffer.write(os.fsencode(sys.argv[1]))"]
READING = {
    "status": ["status", "r"],
    "wait": ["wait", "r", "--timeout", "0.05"],
    "explain": ["explain", "r", "W"],
    "logs": ["logs", "r", "W"],
    "follow": ["logs", "r", "W", "--follow"],
    "events": ["events", "r"],
    "telemetry": ["events", "r", "--topic", "telemetry"],
    "list": ["list"],
}
CHANGING = {
    "spawn": ["spawn", "r"],
    "stop": ["stop", "r", "--grace", "0"],
    "retry": ["retry", "r", "--no-throttle"],
    "unlock": ["unlock", "r"],
    "takeover": ["takeover", "r", "--narrator", "x"],
    "init": ["init", "r"],
}
ALL = {**READING, **CHANGING}


def assert_clean(answer: Answer) -> None:
    """No bug of ours: a status of the contract, one object per line, nothing like a traceback."""
    assert answer.code in (0, 1, 2, 3, 4, 5), answer
    assert "Traceback" not in answer.stderr, answer.stderr
    for line in answer.stdout.splitlines():
        json.loads(line)


def call(root: Root, *words: str | bytes, env: dict[str, str] | None = None, **more: Any) -> Answer:
    """The command line with words that may be bytes."""
    argv = [os.fsencode(word) for word in (*orchestra_argv(), *words)]
    done = subprocess.run(
        argv,
        env=clean_environment(ORCHESTRA_ROOT=str(root.path), **(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        **more,
    )
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    lines = out.splitlines()
    answer = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Answer(done.returncode, answer, out, err)


MANY = """
import json, os, sys
from orchestra.cli.main import run
for words in json.loads(sys.argv[1]):
    try:
        code = run(words)
    except BaseException:
        import traceback
        traceback.print_exc()
        code = 70
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        stream.buffer.write(b"\\0%d\\0" % code)
        stream.flush()
os._exit(0)
"""


def many(root: Root, calls: Iterable[Words], cwd: Path | None = None) -> list[Answer]:
    """Many calls of the command line in one process: starting the interpreter takes longer than they do."""
    words = json.dumps([[os.fsdecode(word) for word in call] for call in calls])
    done = subprocess.run(
        [sys.executable, "-c", MANY, words],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=cwd,
        timeout=100,
    )
    outs, errs = (stream.decode(errors="replace").split("\0")[:-1] for stream in (done.stdout, done.stderr))
    answers = []
    for out, code, err in zip(outs[::2], outs[1::2], errs[::2], strict=True):
        lines = out.splitlines()
        answer = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        answers.append(Answer(int(code), answer, out, err))
    return answers


def ran(root: Root, command: list[str] | None = None) -> None:
    """Run r with worker W, whose process has ended well."""
    root.init("r")
    root.spawn("r", {"W": command or ["echo", "hi"]})
    root("wait", "r")


# --- names -----------------------------------------------------------------------------------------

NAMES: list[str | bytes] = [
    "a b", "a'b", 'a"b', "a;b", "$(id)", "`id`", "a\nb", "a\n", "é", "🎻", "-a", "--", ".", "..", ".a", "_a",
    "a/../b", "a\tb", "a*", "{name}", "%s", b"\xff\xfe", "a" * 65, "a" * 5000, "0x\x1b[31m",
]  # fmt: skip


def test_a_hostile_run_name_is_bad_input_and_makes_nothing(root: Root) -> None:
    names = [name for name in NAMES if name not in (".", "..", "a/../b", "--")]  # these are paths
    for name, answer in zip(names, many(root, [["init", name] for name in names], root.path), strict=True):
        assert_clean(answer)
        assert (answer.code, answer.json["ok"]) == (2, False), name
    assert os.listdir(root.path) == []


def test_a_hostile_worker_name_is_bad_input_and_starts_nothing(root: Root) -> None:
    root.init("r")
    brief = os.fsencode(root.brief("W"))
    calls: list[Words] = [
        ["spawn", "r", b"--worker=" + os.fsencode(name) + b"=" + brief, "--", "true"] for name in NAMES
    ]
    for name, answer in zip(NAMES, many(root, calls), strict=True):
        if name != "--":
            assert_clean(answer)
            assert (answer.code, answer.json["error"]["code"]) == (2, "bad_name"), name
    assert root("status", "r").json["workers"] == []


def test_odd_but_valid_names_work(root: Root) -> None:
    names = ["a" * 64, "0", "A.b_c-d", "con", "a.json", "x.out", "x"]
    root.init("b" * 64)
    assert root.spawn("b" * 64, {name: ["true"] for name in names}).names("spawned") == names
    assert root("wait", "b" * 64).code == 0


# --- words, briefs, commands ---------------------------------------------------------------------------

WORDS: dict[str, bytes] = {
    "quotes and shell": os.fsencode(NASTY),
    "newlines": b"a\nb\r\n\n",
    "leading dashes": b"--help",
    "invalid UTF-8": b"\xff\xfe caf\xe9 \x80",
    "control characters": bytes(range(1, 32)) + b"\x7f",
    "only spaces": b"   ",
    "empty": b"",
    "a placeholder alike": b"{nothing} {prompt }",
    "backslashes": rb"\\ \n \x41 $'\x41'",
}


def test_a_word_of_the_command_arrives_as_it_was_given(root: Root) -> None:
    root.init("r")
    brief = root.brief("W")
    workers = {f"W{i}": word for i, word in enumerate(WORDS.values())}
    spawns: list[Words] = [
        ["spawn", "r", "--no-throttle", "--worker", f"{name}={brief}", "--", *SHOW_ARGV, word]
        for name, word in workers.items()
    ]
    looks = [["explain", "r", name, form] for name in workers for form in ("--json", "--text")]
    answers = many(root, [*spawns, ["wait", "r"], *looks])
    assert [answer.code for answer in answers] == [0] * len(answers)
    assert {n: (root.run_dir("r") / f"log-{n}.out").read_bytes() for n in workers} == workers


@pytest.mark.parametrize("through", ["stdin", "{prompt}", "{prompt_file}"])
def test_a_brief_arrives_byte_by_byte(root: Root, through: str) -> None:
    root.init("r")
    briefs = {f"W{i}": word for i, word in enumerate(WORDS.values()) if word}
    command = {
        "stdin": ["cat"],
        "{prompt}": [*SHOW_ARGV, "{prompt}"],
        "{prompt_file}": ["cat", "{prompt_file}"],
    }
    words = []
    for name, brief in briefs.items():
        (root.path.parent / name).write_bytes(brief)
        words += ["--worker", f"{name}={root.path.parent / name}"]
    assert root("spawn", "r", "--no-throttle", *words, "--", *command[through]).names("spawned") == [*briefs]
    assert root("wait", "r").code == 0
    assert {n: (root.run_dir("r") / f"log-{n}.out").read_bytes() for n in briefs} == briefs
    assert {n: (root.run_dir("r") / f"brief-{n}.md").read_bytes() for n in briefs} == briefs


def test_a_brief_of_a_megabyte_goes_through_standard_input(root: Root) -> None:
    root.init("r")
    brief = root.brief("W", "x" * 1024**2)
    root("spawn", "r", "--no-throttle", "--worker", f"W={brief}", "--", "wc", "-c")
    assert root("wait", "r").code == 0
    assert root("logs", "r", "W").json["text"].strip() == str(1024**2)


def test_a_brief_of_a_megabyte_fits_no_argument_and_that_is_said(root: Root) -> None:
    root.init("r")
    brief = root.brief("W", "x" * 1024**2)
    answer = root("spawn", "r", "--no-throttle", "--worker", f"W={brief}", "--", "echo", "{prompt}")
    assert (answer.code, answer.names("failed")) == (1, ["W"])
    (row,) = answer.json["failed"]
    assert row["verdict"] == "spawn_error"
    assert "{prompt_file}" in row["reason"]
    assert str(1024**2) in row["reason"]


def test_a_brief_with_a_NUL_byte_fits_no_argument_and_that_is_said(root: Root) -> None:
    root.init("r")
    (root.path / "brief").write_bytes(b"a\0b")
    answer = root("spawn", "r", "--no-throttle", "--worker", f"W={root.path}/brief", "--", "echo", "{prompt}")
    assert "NUL" in answer.json["failed"][0]["reason"]


def test_a_prompt_fits_whatever_the_length_of_the_other_words(root: Root) -> None:
    root.init("r")
    brief = root.brief("W", "x" * 20_000)
    answer = root(
        "spawn", "r", "--no-throttle", "--worker", f"W={brief}", "--", "true", "y" * 120_000, "{prompt}"
    )
    assert answer.names("spawned") == ["W"]


def test_a_value_of_the_environment_arrives_as_it_was_given(root: Root) -> None:
    root.init("r")
    row = {"name": "W", "brief": "b", "command": ["printenv", "X"], "env": {"X": NASTY + "\nb"}}
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps([row]))
    root("wait", "r")
    assert root("logs", "r", "W").json["text"] == NASTY + "\nb\n"


EXPECTED = ["a b.md", "'q' \"d\".md", "$(id).md", "-x", "é🎻", "a\nb", "sub/x.md", "\\"]
MAKE = """import os, sys
path = os.path.join(os.environ["ORCHESTRA_OUT"], sys.argv[1])
os.makedirs(os.path.dirname(path), exist_ok=True)
open(path, "w").write("x")
"""


@pytest.mark.parametrize("there", [True, False])
def test_an_expected_file_may_have_any_name(root: Root, there: bool) -> None:
    root.init("r")
    rows = [
        {
            "name": f"W{i}",
            "brief": "b",
            "command": ["python3", "-c", MAKE, file] if there else ["true"],
            "expect": [{"file": file}],
        }
        for i, file in enumerate(EXPECTED)
    ]
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=json.dumps(rows))
    told = root("wait", "r", "--keep-going").json["workers"]
    assert [row["verdict"] for row in told] == [None if there else "empty"] * len(EXPECTED)
    assert there or all(file in row["reason"] for file, row in zip(EXPECTED, told, strict=True))


def test_output_that_is_no_text_is_shown_all_the_same(root: Root) -> None:
    ran(root, ["python3", "-c", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 10)"])
    assert_clean(root("logs", "r", "W"))
    assert root("logs", "r", "W", "--text").code == 0


def test_a_line_of_a_log_ends_at_its_newline_and_nowhere_else(root: Root) -> None:
    line = '{"text": "a\u2028b\x0cc\x85d"}'
    ran(root, ["printf", "%s\\n", "first", line])
    answer = root("logs", "r", "W", "--tail", "1")
    assert json.loads(answer.stdout)["text"] == line + "\n"


def test_following_a_log_splits_no_character(root: Root) -> None:
    ran(root, ["python3", "-c", "print('a' * 65535 + 'é' * 10)"])
    pieces = [json.loads(line)["text"] for line in root("logs", "r", "W", "--follow").stdout.splitlines()]
    assert "".join(pieces) == "a" * 65535 + "é" * 10 + "\n"


def test_a_list_that_is_no_text_is_a_bad_plan(root: Root) -> None:
    root.init("r")
    (root.path / "list").write_bytes(b"- {name: A, brief: caf\xe9}\n")
    with (root.path / "list").open("rb") as file:
        process = root.start("spawn", "r", "--from", "-", stdin=file)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["error"]["code"]) == (2, "bad_plan")
    assert "Traceback" not in err


def test_no_standard_input_at_all_is_bad_input(root: Root) -> None:
    root.init("r")
    process = root.start("spawn", "r", "--from", "-", "--", "true", preexec_fn=lambda: os.close(0))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["error"]["code"]) == (2, "bad_plan")
    assert "Traceback" not in err


# --- paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [NASTY.replace("/", ""), "-r", "a\nb", b"\xff\xfe"], ids=repr)
def test_a_root_may_have_any_path(root: Root, name: str | bytes) -> None:
    hostile = Root(root.path / os.fsdecode(name))
    assert hostile("init", "r").code == 0
    command = ["sh", "-c", 'pwd; echo x >"$ORCHESTRA_OUT/f"; cat']
    assert hostile.spawn("r", {"W": command}, expect=["f"]).code == 0
    assert hostile("wait", "r").code == 0
    for answer in many(hostile, ALL.values()):
        assert_clean(answer)
    by_path = [["status", f"{hostile.path}/r", "--text"], ["init", f"{hostile.path}/s", "--text"]]
    assert [answer.code for answer in many(hostile, by_path)] == [0, 0]


def test_a_temporary_directory_may_have_any_path(root: Root) -> None:
    tmp = root.path.parent / "t 'q' $(id)"
    tmp.mkdir()
    root.init("r")
    brief = root.brief("W")
    script = 'touch "$TMPDIR/x" && case $TMPDIR in /*) echo "$TMPDIR";; esac'
    root(
        "spawn",
        "r",
        "--no-throttle",
        "--worker",
        f"W={brief}",
        "--",
        "sh",
        "-c",
        script,
        env={"TMPDIR": str(tmp)},
    )
    assert root("wait", "r").code == 0
    assert root("logs", "r", "W").json["text"].startswith(str(tmp))
    wait_until(lambda: os.listdir(tmp) == [], "the removal")


def test_a_relative_temporary_directory_is_made_absolute(root: Root) -> None:
    root.init("r")
    row = json.dumps([{"name": "W", "brief": "b", "cwd": "/", "command": ["sh", "-c", 'ls -d "$TMPDIR"']}])
    root("spawn", "r", "--from", "-", "--no-throttle", stdin=row, env={"TMPDIR": "."}, cwd=root.path)
    assert root("wait", "r").code == 0
    assert root("logs", "r", "W").json["text"].startswith("/")


def test_a_run_may_be_a_symlink(root: Root) -> None:
    ran(root)
    (root.path / "link").symlink_to("r")
    assert root("status", "link").json["counts"]["done"] == 1
    assert root.spawn("link", {"X": ["true"]}).code == 0
    assert root("wait", "r").code == 0


GONE = ("no_such_run", "storage", "corrupt_log")  # by how far its files are away already


def assert_gone(root: Root) -> None:
    """Every command says that there is no run to be had, or makes one."""
    for words, answer in zip(ALL.values(), many(root, ALL.values()), strict=True):
        assert_clean(answer)
        if words[0] not in ("list", "init"):
            assert answer.json["error"]["code"] in ("no_such_run", "storage"), words


@pytest.mark.parametrize("place", ["file", "loop", "dangling", "empty directory", "root is a file"])
def test_what_stands_where_a_run_should_be_is_told(root: Root, place: str) -> None:
    run = root.run_dir("r")
    if place == "file":
        run.write_text("x")
    elif place == "loop":
        run.symlink_to("r")
    elif place == "dangling":
        run.symlink_to("nowhere")
    elif place == "empty directory":
        run.mkdir()
    else:
        root = Root(root.path / "root")
        root.path.write_text("x")
    assert_gone(root)


def test_no_root_at_all_is_no_bug(tmp_path: Path) -> None:
    answers = many(Root(tmp_path / "none"), ALL.values())
    expected = [0 if words[0] in ("list", "init") else 2 for words in ALL.values()]
    assert [answer.code for answer in answers] == expected


def test_a_run_that_went_away_while_a_worker_ran_is_told(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    shutil.rmtree(root.run_dir("r"))
    assert len(root("status", "r").json["error"]["pids"]) >= 2
    assert [row["worker"] for row in root("stop", "r", "--grace", "1").json["strays"]] == ["W"]
    assert_gone(root)


def test_a_wait_whose_run_goes_away_comes_back_with_no_traceback(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", 'until [ -e "$0" ]; do sleep 0.05; done', str(root.path / "go")]})
    process = root.start("wait", "r", "--timeout", "3")
    wait_until(lambda: watches(process.pid), "the watch")
    shutil.rmtree(root.run_dir("r"))
    (root.path / "go").touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode in (0, 1, 2, 5)
    assert "Traceback" not in err
    assert "ok" in json.loads(out.splitlines()[-1])


@pytest.mark.parametrize(
    "words", [["events", "r", "--follow"], ["logs", "r", "W", "--follow"]], ids=lambda w: w[0]
)
def test_following_ends_cleanly_where_the_run_goes_away(root: Root, words: list[str]) -> None:
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", "echo here; sleep 300"]})
    process = root.start(*words)
    assert process.stdout is not None
    process.stdout.readline()
    shutil.rmtree(root.run_dir("r"))
    out, err = process.communicate(timeout=60)
    assert process.returncode in (0, 1, 2)
    assert "Traceback" not in err
    assert out == "" or json.loads(out.splitlines()[-1])["error"]["code"] in GONE


@pytest.mark.parametrize(
    "words", [["init", "s"], ["spawn", "r", "--from", "-"], ["status", "r"], ["list"]], ids=lambda w: w[0]
)
def test_a_working_directory_that_is_gone_is_no_bug(root: Root, words: list[str]) -> None:
    root.init("r")
    (root.path / "gone").mkdir()
    row = json.dumps([{"name": "W", "brief": "b", "command": ["true"]}])
    script = 'cd "$0" && rmdir "$0" && exec "$@"'
    argv = ["bash", "-c", script, str(root.path / "gone"), *orchestra_argv(*words)]
    env = clean_environment(ORCHESTRA_ROOT=str(root.path))
    done = subprocess.run(argv, env=env, input=row, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1, 2), done
    assert "Traceback" not in done.stderr


# --- storage that says no ----------------------------------------------------------------------------------


def powerless() -> None:
    """Even for root: permissions count (no CAP_DAC_OVERRIDE, no CAP_DAC_READ_SEARCH)."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.fixture
def read_only(root: Root) -> Root:
    """Run r, whose worker W has ended with 3 and nobody has seen it yet; its directory takes no writing."""
    root.init("r")
    root.spawn("r", {"W": ["sh", "-c", "exit 3"]})
    wait_until((root.run_dir("r") / "result-W.json").exists, "the result")
    (root.run_dir("r") / "events.jsonl").chmod(0o400)
    root.run_dir("r").chmod(0o500)
    return root


@pytest.mark.parametrize("words", ALL.values(), ids=ALL.keys())
def test_a_run_that_cannot_be_written_to_is_answered_for(read_only: Root, words: list[str]) -> None:
    process = read_only.start(*words, preexec_fn=powerless)
    out, err = process.communicate(timeout=60)
    read_only.run_dir("r").chmod(0o700)
    assert "Traceback" not in err
    lines = [json.loads(line) for line in out.splitlines()]
    if words[0] in CHANGING:
        assert (process.returncode, lines[-1]["error"]["code"]) == (1, "storage")
        assert lines[-1]["error"]["path"].startswith(str(read_only.run_dir("r")))
    else:
        assert process.returncode == (1 if words[0] == "wait" else 0)


def test_wait_tells_what_it_cannot_record(read_only: Root) -> None:
    process = read_only.start("wait", "r", preexec_fn=powerless)
    out, _ = process.communicate(timeout=60)
    read_only.run_dir("r").chmod(0o700)
    assert [row["verdict"] for row in json.loads(out)["workers"]] == ["exit_code"]


def test_a_run_that_cannot_be_read_is_storage(root: Root) -> None:
    ran(root)
    (root.run_dir("r") / "events.jsonl").chmod(0o000)
    process = root.start("status", "r", preexec_fn=powerless)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["error"]["code"]) == (1, "storage")
    assert "Traceback" not in err


def test_a_root_that_cannot_be_written_to_is_storage(root: Root) -> None:
    root.path.chmod(0o500)
    process = root.start("init", "r", preexec_fn=powerless)
    out, err = process.communicate(timeout=60)
    root.path.chmod(0o700)
    assert (process.returncode, json.loads(out)["error"]["code"]) == (1, "storage")
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["status", "r"], ["events", "r"], ["status", "none"]])
@pytest.mark.parametrize("form", ["--json", "--text"])
def test_an_answer_that_cannot_be_written_is_no_success_and_no_traceback(
    root: Root, words: list[str], form: str
) -> None:
    ran(root)
    with open("/dev/full", "w") as full:
        process = root.start(*words, form, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (1, 2)
    assert "Traceback" not in err


def test_a_reader_that_goes_away_is_no_traceback(root: Root) -> None:
    ran(root)
    process = root.start("events", "r", "--follow")
    assert process.stdout is not None
    process.stdout.close()
    root.spawn("r", {"X": ["true"]})
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(timeout=60) in (1, 130)
    assert "Traceback" not in err


# --- files that are not what they should be ----------------------------------------------------

PAPERS = {
    "events": "events.jsonl",
    "telemetry": "telemetry.jsonl",
    "state": "state.json",
    "result": "result-W.json",
    "the attempt's result": "attempts/W/1/result.json",
    "sentinel": ".spawn-W.error",
    "mark": ".pid-W.json",
    "stdout": "log-W.out",
    "out": "out-W",
    "plan": "run.yaml",
    "lock": ".narrator.lock",
    "holder": ".narrator.lock/holder.json",
    "guard": ".narrator.guard",
    "attempts": "attempts",
}


def make_directory(path: Path) -> None:
    path.mkdir(parents=True)


def write(data: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return spoil


HUGE = b'{"worker": "W", "attempt": 1, "status": "done", "reason": "' + b"x" * 3_000_000 + b'"}\n'
SPOILT: dict[str, Callable[[Path], None]] = {
    "a directory": make_directory,
    "empty": write(b""),
    "garbage": write(bytes(range(256)) * 4),
    "another type": write(b"[1, 2, 3]\n"),
    "wrong types": write(
        b'{"worker": [], "attempt": 1, "status": {}, "verdict": 7, "reason": {}, "exit_code": "x", '
        b'"signal": [], "started_at": 5, "ended_at": null, "line": "x", "pid": "1", '
        b'"process_start": 1e400, "boot_id": 3, "token": {}, "command": 1, "ttl_s": "x", "epoch": []}\n'
    ),
    "huge numbers": write(
        b'{"worker": "W", "attempt": 1, "status": "failed", "exit_code": 1'
        + b"0" * 400
        + b', "signal": 99999999999, '
        b'"pid": 1' + b"0" * 40 + b', "process_start": 1, "line": 1' + b"0" * 40 + b', "token": "x"}\n'
    ),
    "deeply nested": write(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "huge": write(HUGE),
}


def spoil(root: Root, paper: str, how: str) -> None:
    path = root.run_dir("r") / PAPERS[paper]
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    SPOILT[how](path)


JSON_PAPERS = ("the attempt's result", "sentinel", "mark", "holder")
SPOILINGS = [
    *((paper, how) for paper in JSON_PAPERS for how in SPOILT),
    *((paper, how) for paper in PAPERS if paper not in JSON_PAPERS for how in ("a directory", "garbage")),
]


@pytest.mark.parametrize(("paper", "how"), SPOILINGS)
def test_a_spoilt_file_is_never_a_bug(root: Root, paper: str, how: str) -> None:
    root.init("r")
    root.spawn("r", {"W": FOREVER})
    spoil(root, paper, how)
    calls = [words for words in READING.values() if "--follow" not in words]  # the worker may live on
    for answer in many(root, [*calls, *(CHANGING[what] for what in ("spawn", "stop", "retry", "unlock"))]):
        assert_clean(answer)


@pytest.mark.parametrize("how", ["a directory", "garbage", "empty"])
def test_a_spoilt_log_is_told_as_such(root: Root, how: str) -> None:
    ran(root)
    spoil(root, "events", how)
    assert root("status", "r").json["error"]["code"] in ("storage", "corrupt_log", "no_such_run")


@pytest.mark.parametrize("how", ["a directory", "garbage", "empty", "huge"])
def test_a_worker_whose_result_cannot_be_read_is_lost_not_running(root: Root, how: str) -> None:
    root.init("r")
    root.spawn("r", {"W": ["true"]})
    wait_until((root.run_dir("r") / "result-W.json").exists, "the result")
    launcher = Path(f"/proc/{root.mark('r', 'W')['pid']}/exe")
    wait_until(lambda: not launcher.exists(), "the launcher's end")
    spoil(root, "the attempt's result", how)
    assert root.worker("r", "W")["verdict"] == "lost"
    assert root("wait", "r").code == 1


@pytest.mark.parametrize(
    "paper", ["result-W.json", ".spawn-W.error", "out-W", "attempts", "log-W.err", ".pid-W.json"]
)
def test_a_worker_whose_place_is_taken_fails_loudly_and_the_others_start(root: Root, paper: str) -> None:
    root.init("r")
    path = root.run_dir("r") / paper
    if paper in ("out-W", "attempts"):
        path.write_text("x")
    else:
        (path / "full").mkdir(parents=True)
    answer = root.spawn("r", {"W": ["true"], "X": ["true"]})
    assert_clean(answer)
    assert (answer.code, "W" in answer.names("failed")) == (1, True)
    if paper != "attempts":
        assert answer.names("spawned") == ["X"]


def test_no_memory_is_no_bug_of_ours(root: Root) -> None:
    root.init("r")
    hungry = """
import sys
from orchestra.cli import main
from orchestra.engine.observe import Observer
def open_(self, **_):
    raise MemoryError
Observer.open = open_
sys.exit(main.run(["status", "r", "--json"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", hungry],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"], "out of memory" in error["message"]) == (1, "storage", True)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("ended", {"status": "done", "started_at": "2026-01-31T23:59:59.123Z", "ended_at": 5}),
        ("ended", {"status": "done", "started_at": "x", "ended_at": "y"}),
        ("deferred", {"reason": "z", "signals": [5]}),
        ("deferred", {"reason": "z", "signals": [{}]}),
    ],
)
def test_a_forged_line_of_the_log_breaks_no_command(root: Root, kind: str, more: dict[str, Any]) -> None:
    root.init("r")
    limits = {"throttle": {"max_workers": 1}}
    rows = [{"name": f"W{i}", "brief": "b", "command": ["sleep", "60"], **limits} for i in range(14)]
    root("spawn", "r", "--from", "-", stdin=json.dumps(rows))
    log = root.run_dir("r") / "events.jsonl"
    op = root("status", "r").json["op"]
    with log.open("ab") as file:
        for i in range(1, 13):
            forged = {"worker": f"W{i}", "attempt": 1, **more}
            file.write(encode(Event(op + i, "2026-01-31T23:59:59.123Z", "observations", kind, 1, forged)))
    for words in (
        ("status", "r"),
        ("explain", "r", "W13"),
        ("list",),
        ("spawn", "r"),
        ("wait", "r", "--timeout", "0"),
    ):
        assert root(*words).code in (0, 1, 4, 5), words
    root("stop", "r", "--grace", "0")
