from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from orchestra import errors
from orchestra.model.plan_text import parse_plan, parse_workers_and_positions

WORKER = "phases: [{name: p, workers: [{name: w, brief: b, command: [c]}]}]\n"


HEAD = "command: [c]\n"
ONE = HEAD + "phases:\n- name: p\n  workers:\n"
W = ONE + "  - name: w\n    brief: b\n"
MISTAKES: list[tuple[str, int, int, str]] = [
    ("", 1, 1, "empty"),
    ("# only a comment\n", 1, 1, "empty"),
    ("---\n...\n", 1, 1, "empty"),
    ("~", 1, 1, "empty"),
    ("[]", 1, 1, "the plan must be a mapping, not a list"),
    ("just text", 1, 1, "must be a mapping, not the text 'just text'"),
    ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
    ("a: b: c\n", 1, 5, "not valid YAML"),
    ("a: [1,\n", 1, 7, "not valid YAML"),
    ("a: 'x\nb: y\n", 1, 4, "not valid YAML"),
    ("a:\n\tb: 1\n", 2, 1, "not valid YAML"),
    ("a: @b\n", 1, 4, "not valid YAML"),
    ("a: *b\n", 1, 4, "undefined alias"),
    ("a: x\0y\n", 1, 5, "U+0000"),
    ("é: \x1b\n", 1, 4, "U+001B"),
    ("a: 1\nb: \ud800\n", 2, 4, "U+D800"),
    ("a: !!python/object:os.system x\n", 1, 4, "tag"),
    ("a: !!binary aGk=\n", 1, 4, "tag"),
    ("? [a]\n: b\n", 1, 3, "a key must be text"),
    ("[" * 100_000, 1, 51, "levels deep"),
    ("- " * 100_000, 1, 101, "levels deep"),
    ("&a [*a]", 1, 1, "never ends"),
    ("a: &a {b: *a}", 1, 4, "never ends"),
    ("<<: 5\n", 1, 5, "'<<' takes a mapping"),
    (HEAD, 1, 1, "the plan has no 'phases'"),
    (HEAD + "phases:\n", 2, 8, "phases must be a list, not nothing"),
    (HEAD + "phases: []\n", 2, 9, "empty list"),
    (HEAD + "phases: {p: []}\n", 2, 9, "phases must be a list, not a mapping"),
    (HEAD + "phases: [p]\n", 2, 10, "a phase must be a mapping, not the text 'p'"),
    (HEAD + "phases: [{workers: []}]\n", 2, 10, "a phase has no 'name'"),
    (HEAD + "phases: [{name: p}]\n", 2, 10, "phase 'p' has no 'workers'"),
    (HEAD + "phases: [{name: p, worker: []}]\n", 2, 20, "did you mean 'workers'?"),
    (HEAD + "phases: [{name: p, workers: []}, {name: p, workers: []}]\n", 2, 41, "used a second time"),
    (HEAD + "phases: [{name: a b, workers: []}]\n", 2, 17, "'a b' cannot be the name of a phase"),
    (HEAD + WORKER + "timeout_s: 5\n", 3, 1, "did you mean 'timeout'?"),
    (HEAD + WORKER + "zzz: 5\n", 3, 1, "the plan has no key 'zzz'"),
    (HEAD + WORKER + "command: [d]\n", 3, 1, "the key 'command' is used a second time (first on line 1)"),
    (HEAD + WORKER + '"command": [d]\n', 3, 1, "second time"),
    ("command: claude -p\n" + WORKER, 1, 10, "command must be a list, not the text"),
    ("command: []\n" + WORKER, 1, 10, "empty list"),
    ("command:\n" + WORKER, 1, 9, "command must be a list, not nothing"),
    ("command: ['', x]\n" + WORKER, 1, 11, "the program is empty"),
    ("command: [x, ~]\n" + WORKER, 1, 14, "has no value"),
    ("command: [x, [y]]\n" + WORKER, 1, 14, "must be text, not a list"),
    ("command: [x, {prompt}]\n" + WORKER, 1, 14, "must be text, not a mapping"),
    ('command: ["x\\0"]\n' + WORKER, 1, 11, "NUL"),
    ("cwd: ''\n" + WORKER, 1, 6, "cwd is empty"),
    ("cwd: [a]\n" + WORKER, 1, 6, "cwd must be text"),
    ('cwd: "a\\0"\n' + WORKER, 1, 6, "NUL"),
    ("env: [A]\n" + WORKER, 1, 6, "env must be a mapping"),
    ("env: {A: 1}\n" + WORKER, 1, 10, "env: A must be text, not the number '1'"),
    ("env: {A: 1.5}\n" + WORKER, 1, 10, "must be text"),
    ("env: {A: yes}\n" + WORKER, 1, 10, "must be text, not the boolean 'yes'"),
    ("env: {A: ~}\n" + WORKER, 1, 10, "env: A has no value"),
    ("env: {A: [x]}\n" + WORKER, 1, 10, "must be text, not a list"),
    ('env: {A: "\\0"}\n' + WORKER, 1, 10, "NUL"),
    ("env: {1A: x}\n" + WORKER, 1, 7, "cannot be a variable's name"),
    ("env: {é: x}\n" + WORKER, 1, 7, "cannot be a variable's name"),
    ("env: {B: x, 'A=': x}\n" + WORKER, 1, 13, "cannot be a variable's name"),
    *((f"env: {{{name}: x}}\n" + WORKER, 1, 7, "bash's own") for name in
      ("UID", "EUID", "PPID", "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO", "BASH_SOURCE", "EXECIGNORE", "_")),
    ("env: {TMPDIR: /var/tmp}\n" + WORKER, 1, 7, "set by orchestra"),
    ("throttle: {starts_per_s: 0.5}\n" + WORKER, 1, 26, "starts_per_s"),
    ("env: {ORCHESTRA_X: x}\n" + WORKER, 1, 7, "ORCHESTRA_"),
    ("env: {A: x, A: y}\n" + WORKER, 1, 13, "second time"),
    ("timeout: 5x\n" + WORKER, 1, 10, "timeout: '5x' is not a duration"),
    ("timeout: -5\n" + WORKER, 1, 10, "duration"),
    ("timeout: 300ms\n" + WORKER, 1, 10, "a timeout is at least 1s"),
    (W + "    timeout: 300ms\n", 7, 14, "a timeout is at least 1s"),
    ("timeout: 0\n" + WORKER, 1, 10, "more than 0"),
    ("timeout: .inf\n" + WORKER, 1, 10, "duration"),
    ("stall: [5]\n" + WORKER, 1, 8, "stall must be text"),
    ("stall:\n" + WORKER, 1, 7, "stall has no value"),
    ("stall_action: kill\n" + WORKER, 1, 15, "stall_action cannot be 'kill'"),
    ("first_sign: 10m\n" + WORKER, 2, 30, "first_sign (600 s) must be less than stall (600 s)"),
    ("retries: -1\n" + WORKER, 1, 10, "retries cannot be '-1'"),
    ("retries: 1.5\n" + WORKER, 1, 10, "whole number"),
    ("retries: '1'\n" + WORKER, 1, 10, "whole number"),
    ("retries: yes\n" + WORKER, 1, 10, "whole number, not the boolean 'yes'"),
    ("retries: 010\n" + WORKER, 1, 10, "whole number"),
    (f"retries: {'9' * 5000}\n" + WORKER, 1, 10, "retries cannot be"),
    ("on_failure: stopp\n" + WORKER, 1, 13, "on_failure cannot be 'stopp'"),
    ("on_failure: [stop]\n" + WORKER, 1, 13, "must be text"),
    ("throttle: 5\n" + WORKER, 1, 11, "throttle must be a mapping"),
    ("throttle: {max_worker: 5}\n" + WORKER, 1, 12, "did you mean 'max_workers'?"),
    ("throttle: {max_workers: 0}\n" + WORKER, 1, 25, "max_workers cannot be '0'"),
    ("throttle: {max_workers: 1.5}\n" + WORKER, 1, 25, "whole number"),
    ("throttle: {memory_available: 2 gigs}\n" + WORKER, 1, 30, "not a size"),
    ("throttle: {memory_available: 0}\n" + WORKER, 1, 30, "above 0"),
    ("throttle: {load_per_cpu: 0}\n" + WORKER, 1, 26, "above 0"),
    ("throttle: {load_per_cpu: .nan}\n" + WORKER, 1, 26, "must be a number"),
    ("throttle: {load_per_cpu: 1e999}\n" + WORKER, 1, 26, "must be a number"),
    ("throttle: {disk_queue: -1}\n" + WORKER, 1, 24, "above 0"),
    ("throttle: {disk_queue: ~}\n" + WORKER, 1, 24, "not nothing"),
    ("throttle: {disk_queue: no}\n" + WORKER, 1, 24, "must be a number"),
    ("phases: [{name: p, workers: [{name: w, brief: b}]}]\n", 1, 30, "worker 'w' has no command"),
    (ONE + "  - w\n", 5, 5, "a worker must be a mapping"),
    (ONE + "  - brief: b\n", 5, 5, "a worker has no 'name'"),
    (ONE + "  - name: w\n", 5, 5, "worker 'w' has no 'brief'"),
    (ONE + "  - name: ~\n    brief: b\n", 5, 11, "the name of a worker has no value"),
    (ONE + "  - name: null\n    brief: b\n", 5, 11, "has no value"),
    (ONE + "  - name: [w]\n    brief: b\n", 5, 11, "must be text"),
    (ONE + "  - name: ../w\n    brief: b\n", 5, 11, "'../w' cannot be the name of a worker"),
    (ONE + '  - name: "a\\e"\n    brief: b\n', 5, 11, r"'a\x1b' cannot be the name"),
    (ONE + "  - name: w\n    brief:\n", 6, 11, "brief has no value"),
    (ONE + "  - name: w\n    brief: ' '\n", 6, 12, "brief is empty"),
    (W + "    timeout: 5 parsecs\n", 7, 14, "not a duration"),
    (W + "    breif: b\n", 7, 5, "a worker has no key 'breif'; did you mean 'brief'?"),
    (W + "    retries: two\n", 7, 14, "whole number, not the text 'two'"),
    (W + "  - {name: w, brief: b}\n", 7, 12, "worker name 'w' is used a second time (first on line 5)"),
    (W + "- name: q\n  workers: [{name: w, brief: b}]\n", 8, 20, "used a second time"),
    (W + "    expect: report.md\n", 7, 13, "expect must be a list"),
    (W + "    expect: ['']\n", 7, 14, "must not be empty"),
    (W + "    expect: [/etc/passwd]\n", 7, 14, "absolute"),
    (W + "    expect: [a/../b]\n", 7, 14, "leads out"),
    (W + "    expect: [a/]\n", 7, 14, "names a directory"),
    (W + "    expect: [.]\n", 7, 14, "names a directory"),
    (W + '    expect: ["a\\0"]\n', 7, 14, "NUL"),
    (W + "    expect: [{file: ../b}]\n", 7, 21, "leads out"),
    (W + "    expect: [{min_bytes: 5}]\n", 7, 14, "has no 'file'"),
    (W + "    expect: [{file: a, min_bytes: -1}]\n", 7, 35, "not a size"),
    (W + "    expect: [{file: a, min: 1}]\n", 7, 24, "has no key 'min'"),
    (W + "    expect: [{file: a, stdout: true}]\n", 7, 14, "not both"),
    (W + "    expect: [{stdout: false}]\n", 7, 23, "only true"),
    (W + "    expect: [[a]]\n", 7, 14, "must be text"),
]  # fmt: skip


@pytest.fixture(params=["libyaml", "python"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test with libyaml, and as where PyYAML was built without it."""
    if request.param == "python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    yield


def refused(text: str) -> errors.BadPlan:
    with pytest.raises(errors.BadPlan) as caught:
        parse_plan(text, file="p.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "column", "words"), MISTAKES, ids=[str(number) for number in range(len(MISTAKES))]
)
def test_a_mistake_is_told_with_its_place_and_a_hint(
    text: str, line: int, column: int, words: str, loader: None
) -> None:
    error = refused(text)
    assert error.details == {"file": "p.yaml", "line": line, "column": column}
    assert error.message.startswith(f"p.yaml:{line}:{column}: ")
    assert words in error.message
    assert error.hint
    assert error.message.isprintable() and error.hint.isprintable()
    assert len(error.message) < 400


@pytest.mark.parametrize(
    "text", ["a: 5", "5", "workers: 5", "{workers: [], x: 1}", "", "[[]]", "- {name: w}"]
)
def test_a_list_of_workers_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(errors.BadPlan, match=r"^w:1:"):
        parse_workers_and_positions(text, file="w")[0]


def test_braces_without_quotes_are_explained() -> None:
    assert '"{prompt}"' in refused("command: [x, {prompt}]\n" + WORKER).hint


def test_tabs_are_explained(loader: None) -> None:
    assert "spaces" in refused("a:\n\tb: 1\n").hint


def test_half_a_character_is_refused(loader: None) -> None:
    assert refused(HEAD + 'cwd: "\\ud800"\n' + WORKER).details["line"] == 2
