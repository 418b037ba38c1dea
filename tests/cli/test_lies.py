"""Workers that lie, block or get in the way: the narrator is neither fooled nor held up."""

from __future__ import annotations

import subprocess
from pathlib import Path

from conftest import Root, clean_environment, orchestra_argv, wait_until


def shell(text: str) -> list[str]:
    return ["bash", "-c", text]


def forging(text: str) -> list[str]:
    """A worker that does something to its own attempt's files, says so, and stays."""
    return shell(f'cd "$ORCHESTRA_RUN_DIR"; {text}; touch "$ORCHESTRA_OUT/forged"; sleep 300')


def spawn_forger(root: Root, text: str) -> None:
    root.init("r")
    assert root.spawn("r", {"W": forging(text)}).names("spawned") == ["W"]
    wait_until((root.run_dir("r") / "out-W" / "forged").exists, "the forgery")


def test_a_FIFO_in_place_of_a_result_holds_nobody_up(root: Root) -> None:
    spawn_forger(root, "mkfifo attempts/W/1/result.json")
    assert root.worker("r", "W")["state"] == "running"
    assert root("stop", "r", "--grace", "1").code == 0


def test_a_FIFO_in_place_of_a_mark_holds_nobody_up(root: Root) -> None:
    spawn_forger(root, "rm .pid-W.json; mkfifo .pid-W.json")
    assert root.worker("r", "W")["state"] == "running"
    assert root("stop", "r", "--grace", "1").code == 0


def test_a_forged_result_is_not_believed_while_the_launcher_lives(root: Root) -> None:
    spawn_forger(root, """echo '{"status":"done","attempt":1}' >attempts/W/1/result.json""")
    assert root.worker("r", "W")["state"] == "running"
    assert root("stop", "r", "--grace", "1").json["stopped"][0]["name"] == "W"


def test_a_forged_sentinel_is_not_believed_while_the_launcher_lives(root: Root) -> None:
    spawn_forger(root, """echo '{"attempt":1,"line":1,"command":"x"}' >.spawn-W.error""")
    assert root.worker("r", "W")["state"] == "running"


def test_a_mark_that_names_another_process_is_not_believed(root: Root) -> None:
    bystander = subprocess.Popen(["sleep", "300"])
    try:
        spawn_forger(root, f"""sed -i 's/"pid":[0-9]*/"pid":{bystander.pid}/' .pid-W.json""")
        assert root("stop", "r", "--grace", "1").code == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_an_emptied_mark_from_the_future_keeps_nobody_alive(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": shell('read -r; cd "$ORCHESTRA_RUN_DIR"; sleep 300')})
    pid = root.mark("r", "W")["pid"]
    mark = root.run_dir("r") / ".pid-W.json"
    mark.write_text("")
    subprocess.run(["touch", "-d", "+1 day", str(mark)], check=True)
    subprocess.run(["kill", "-9", str(pid)], check=True)
    assert root("wait", "r", "--timeout", "20").json["workers"][0]["verdict"] == "lost"


def test_who_sits_on_the_lock_of_the_log_is_named(root: Root) -> None:
    root.init("r")
    root.spawn("r", {"W": forging("exec 9<events.jsonl; flock 9")})
    wait_until((root.run_dir("r") / "out-W" / "forged").exists, "the lock")
    answer = root("spawn", "r", "--worker", f"B={root.brief('B')}", "--", "true")
    assert (answer.code, answer.json["error"]["code"]) == (1, "storage")
    assert "held its lock" in answer.json["error"]["message"]


def test_closed_standard_streams_are_no_bug(root: Root, tmp_path: Path) -> None:
    root.init("r")
    words = " ".join(orchestra_argv("status", "r"))
    done = subprocess.run(
        ["bash", "-c", f"{words} <&- >&-"],
        env=clean_environment(ORCHESTRA_ROOT=str(root.path)),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
