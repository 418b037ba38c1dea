"""A real agent as the worker: the command line `llm` against a server on this machine, in every mood."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, Root, clean_environment, processes_of, wait_until

REPO = Path(__file__).resolve().parents[2]
ANSWER = "An answer worth waiting for."
# In an answer, or in a brief, these words are no error.
QUOTED_ERROR = "The log says: Error code: 429, rate limit reached; Error code: 401, invalid API key."
SLOW_S = 2.0
MODES = ("answer", "quoted", "slow", "hang", "cut", "empty", "429", "429-after", "429-long", "500", "401")


class Moody(ThreadingHTTPServer):
    """Speaks the chat-completions protocol; the first part of the path is its mood.

    `calls` counts the requests by mood and by the model's name.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: Counter[str] = Counter()
        self.over = threading.Event()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was ended while it waited is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Moody

    def do_POST(self) -> None:
        mood = self.path.split("/")[1]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls[mood] += 1
        if mood == "hang":
            self.server.over.wait(60)
            self.close_connection = True
        elif mood[:3].isdigit():
            self.refuse(int(mood[:3]), {"after": "1", "long": "90"}.get(mood[4:]))
        elif asked.get("stream"):
            self.stream(mood)
        else:
            self.whole(mood)

    def text(self, mood: str) -> str:
        return {"empty": "", "quoted": QUOTED_ERROR}.get(mood, ANSWER)

    def refuse(self, status: int, retry_after: str | None) -> None:
        error = {"message": f"refused with {status}", "type": "refused", "code": None, "param": None}
        headers = {"Retry-After": retry_after} if retry_after else {}
        self.reply(status, "application/json", json.dumps({"error": error}).encode(), headers)

    def whole(self, mood: str) -> None:
        if mood == "slow":
            time.sleep(SLOW_S)
        message = {"role": "assistant", "content": self.text(mood)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        body = {**_ENVELOPE, "object": "chat.completion", "choices": [choice], "usage": usage}
        self.reply(200, "application/json", json.dumps(body).encode(), {})

    def stream(self, mood: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.chunk({"role": "assistant", "content": ""})
        for word in self.text(mood).split(" ") if self.text(mood) else []:
            if mood == "slow":
                time.sleep(SLOW_S / len(ANSWER.split()))
            self.chunk({"content": f"{word} "})
            if mood == "cut":
                self.close_connection = True
                return
        self.chunk({}, "stop")
        self.write(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, delta: dict[str, str], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        body = {**_ENVELOPE, "object": "chat.completion.chunk", "choices": [choice]}
        self.write(b"data: " + json.dumps(body).encode() + b"\n\n")

    def write(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def reply(self, status: int, kind: str, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


_ENVELOPE = {"id": "x", "created": 1, "model": "moody"}


@pytest.fixture(scope="session")
def llm() -> str:
    """The path of the real `llm`."""
    done = subprocess.run([REPO / "scripts" / "llm-venv"], capture_output=True, text=True, timeout=110)
    if done.returncode:
        pytest.skip(
            "NOT RUN: no real agent was tried, as `llm` could not be installed (scripts/llm-venv): "
            + done.stderr.strip()
        )
    return f"{done.stdout.strip()}/llm"


@pytest.fixture(scope="session")
def server() -> Iterator[Moody]:
    with Moody() as moody:
        thread = threading.Thread(target=moody.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield moody
        moody.over.set()
        moody.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def template(llm: str, server: Moody, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which `llm` has been called once.

    Several first calls at once make its database at once, `-n` or not, and all but one fail.
    """
    home = tmp_path_factory.mktemp("llm")
    models = [
        {"model_id": f"{mood}{how}", "model_name": "moody", "api_base": f"{server.base}/{mood}/v1"}
        | ({"can_stream": False} if how else {})
        for mood in MODES
        for how in ("", "-whole")
    ]
    (home / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML
    env = clean_environment(LLM_USER_PATH=str(home), NO_PROXY="127.0.0.1")
    hello = [llm, "-n", "-m", "answer", "hello"]
    subprocess.run(hello, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
    return home


class Agents:
    """Workers that are `llm`, in a run called `a`."""

    def __init__(self, root: Root, llm: str, server: Moody, home: Path) -> None:
        self.root = root
        self.llm = llm
        self.server = server
        self.home = home
        root.init("a")

    def command(self, model: str) -> list[str]:
        return [self.llm, "-n", "-m", model]

    def spawn(self, models: dict[str, str], **entry: Any) -> Answer:
        env = {"LLM_USER_PATH": str(self.home), "NO_PROXY": "127.0.0.1", "OPENAI_API_KEY": ""}
        settings = {"env": env, "timeout": "45s", **entry}
        answer = self.root.spawn("a", {n: self.command(m) for n, m in models.items()}, **settings)
        assert (answer.code, answer.names("spawned")) == (0, list(models)), answer
        return answer

    def ending(self, model: str, **entry: Any) -> dict[str, Any]:
        """How a worker with this model ends, as `wait` tells it."""
        self.spawn({"W": model}, **entry)
        answer = self.root("wait", "a", "--timeout", "60")
        assert answer.json["outcome"] in ("ended", "failed"), answer
        row: dict[str, Any] = answer.json["workers"][0]
        return row

    def printed(self, name: str = "W") -> str:
        return (self.root.run_dir("a") / f"log-{name}.out").read_text()

    def complained(self, name: str = "W") -> str:
        return (self.root.run_dir("a") / f"log-{name}.err").read_text()


@pytest.fixture
def agents(root: Root, llm: str, server: Moody, template: Path, tmp_path: Path) -> Agents:
    return Agents(root, llm, server, shutil.copytree(template, tmp_path / "llm"))


HOW = pytest.mark.parametrize("how", ["", "-whole"], ids=["streaming", "whole"])


@HOW
def test_an_agent_that_answers_is_done(agents: Agents, how: str) -> None:
    row = agents.ending(f"answer{how}", expect=["stdout"])
    assert (row["state"], row["exit_code"]) == ("done", 0), agents.complained()
    assert agents.printed().split() == ANSWER.split()


@HOW
def test_an_agent_that_is_slow_is_done_all_the_same(agents: Agents, how: str) -> None:
    assert agents.ending(f"slow{how}", expect=["stdout"])["state"] == "done", agents.complained()
    assert agents.printed().split() == ANSWER.split()


def test_an_answer_that_quotes_errors_is_no_error(agents: Agents) -> None:
    assert agents.ending("quoted", expect=["stdout"])["state"] == "done"
    assert "429" in agents.printed()


@HOW
def test_an_agent_whose_server_hangs_ends_at_the_timeout(agents: Agents, how: str) -> None:
    row = agents.ending(f"hang{how}", timeout="4s")
    assert (row["state"], row["verdict"], row["retry"]) == ("failed", "timeout", "now")
    wait_until(lambda: processes_of(agents.root.path) == [], "the end of all")


def test_an_agent_that_waits_out_a_long_limit_ends_at_the_timeout(agents: Agents) -> None:
    before = agents.server.calls["429-long"]
    agents.spawn({"W": "429-long"}, timeout="600s")
    wait_until(lambda: agents.server.calls["429-long"] > before, "the call", 60)
    os.kill(agents.root.mark("a", "W")["pid"], signal.SIGALRM)  # as the launcher's own timer does
    assert agents.root("wait", "a", "--timeout", "60").json["workers"][0]["verdict"] == "timeout"
    assert agents.server.calls["429-long"] == before + 1


@pytest.mark.parametrize("mood", ["429", "429-after"])
def test_an_agent_that_hits_a_limit_is_rate_limited_and_to_be_tried_later(agents: Agents, mood: str) -> None:
    before = agents.server.calls[mood]
    row = agents.ending(mood)
    assert (row["verdict"], row["retry"]) == ("rate_limited", "later"), agents.complained()
    assert agents.server.calls[mood] == before + 3  # two tries of its own after the first


@HOW
def test_an_agent_whose_server_fails_ends_with_its_exit_status(agents: Agents, how: str) -> None:
    row = agents.ending(f"500{how}")
    assert (row["verdict"], row["exit_code"]) == ("exit_code", 1), agents.complained()


@HOW
def test_an_agent_that_is_refused_is_not_authorised_and_never_retried(agents: Agents, how: str) -> None:
    row = agents.ending(f"401{how}")
    assert (row["verdict"], row["retry"]) == ("auth", "never"), agents.complained()


def test_an_agent_without_a_key_is_not_authorised(agents: Agents) -> None:
    row = agents.ending("gpt-4o")
    assert (row["verdict"], row["retry"]) == ("auth", "never"), agents.complained()


def test_an_agent_of_which_the_connection_breaks_is_not_done(agents: Agents) -> None:
    row = agents.ending("cut", expect=["stdout"])
    assert (row["state"], row["verdict"]) == ("failed", "exit_code"), agents.complained()


@HOW
def test_an_agent_that_exits_0_with_no_answer_is_empty_and_not_done(agents: Agents, how: str) -> None:
    row = agents.ending(f"empty{how}", expect=["stdout"])
    assert agents.printed().strip() == ""
    assert (row["state"], row["verdict"], row["exit_code"]) == ("failed", "empty", 0)


def test_a_hanging_agent_can_be_stopped(agents: Agents) -> None:
    before = agents.server.calls["hang"]
    agents.spawn({"W": "hang"})
    wait_until(lambda: agents.server.calls["hang"] > before, "the agent's call")
    answer = agents.root("stop", "a", "--grace", "2")
    assert [row["verdict"] for row in answer.json["stopped"]] == ["stopped"]
    assert processes_of(agents.root.path) == []


def test_the_brief_reaches_the_agent_and_each_keeps_its_own_verdict(agents: Agents) -> None:
    moods = {"A": "answer", "B": "500", "C": "empty", "D": "401", "E": "answer-whole"}
    agents.spawn(moods, expect=["stdout"])
    agents.root("wait", "a", "--keep-going", "--timeout", "60")
    rows = agents.root("status", "a").json["workers"]
    verdicts = {row["name"]: row["verdict"] for row in rows}
    assert verdicts == {"A": None, "B": "exit_code", "C": "empty", "D": "auth", "E": None}


def test_a_retry_after_the_limit_has_passed_is_done(agents: Agents) -> None:
    assert agents.ending("429")["retry"] == "later"
    models = agents.home / "extra-openai-models.yaml"
    models.write_text(models.read_text().replace("/429/v1", "/answer/v1"))
    assert agents.root("retry", "a", "--no-throttle").code == 0
    answer = agents.root("wait", "a", "--timeout", "60")
    assert (answer.code, answer.json["workers"][0]["attempt"]) == (0, 2)


def test_the_script_for_the_agent_says_the_same_again(llm: str) -> None:
    again = subprocess.run(
        [REPO / "scripts" / "llm-venv"], env=clean_environment(), capture_output=True, text=True, timeout=60
    )
    assert (again.returncode, again.stdout, again.stderr) == (0, f"{Path(llm).parent}\n", "")
