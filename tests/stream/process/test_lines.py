"""Is what a process says one line an event, whatever it holds and wherever it comes from? With real processes."""

import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.api.access import keys
from driftline.api.access.keys import Role
from driftline.stream.process.log_lines import MAX_BYTES, JsonLines, TextLines
from tests.data import ROOT
from tests.faults.nursery import Nursery
from tests.ports import reserved
from tests.waiting import wait_until

ANY_TEXT = st.text(st.characters(exclude_categories=()))
MAIN = "from driftline.cli.main import main; main()"


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


def events(said: bytes) -> list[dict[str, Any]]:
    """Return what was said; all of it must be such lines."""
    assert said.endswith(b"\n")
    lines = said.splitlines(keepends=True)
    assert max(map(len, lines)) <= MAX_BYTES
    found = [json.loads(line) for line in lines]
    assert all({"at", "level", "from", "message"} <= event.keys() for event in found)
    return found


def run(program: str, *arguments: str, code: int = 0, **variables: str) -> list[dict[str, Any]]:
    """Run a program and return what it said, as events."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(
        command,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=180,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return events(done.stdout)


@contextmanager
def running(*arguments: str, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", MAIN, *arguments]
    with subprocess.Popen(
        command, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class TestJson:
    def line(self, message: str, *arguments: object, **fields: object) -> str:
        record = logging.LogRecord("a.b", logging.ERROR, "", 0, message, arguments, None)
        record.fields = fields
        return JsonLines().format(record)

    @given(text=ANY_TEXT)
    def test_one_line_an_event(self, text: str) -> None:
        line = self.line("said %s", text, path=text)
        assert line.isascii()
        assert line.isprintable()
        event = json.loads(line)
        assert event["level"] == "error"
        assert event["path"] == text or "dlk_" in text

    @given(text=ANY_TEXT, times=st.integers(1, 5000), other=ANY_TEXT)
    def test_what_is_long_is_cut(self, text: str, times: int, other: str) -> None:
        line = self.line("%s", text * times, path=other * times)
        assert len(line) < MAX_BYTES
        assert json.loads(line)["from"] == "a.b"

    def test_a_cut_text_keeps_its_ends_and_fills_the_line(self) -> None:
        line = self.line("%s", "begin" + "a\u00e9" * 100_000 + "end")
        assert len(line) > MAX_BYTES - 64
        said = json.loads(line)["message"]
        assert said.startswith("begin")
        assert said.endswith("end")

    def test_keys_never_stand_there(self) -> None:
        secret, _ = keys.new_key("bob", Role.ADMIN)
        line = self.line("header %s", f"Bearer {secret}", path=f"/a?key={secret}")
        assert secret[4:] not in line
        assert line.count("dlk_...") == 2

    def test_a_fault_has_its_traceback(self) -> None:
        try:
            raise ValueError("two\nlines")
        except ValueError:
            record = logging.LogRecord("a", logging.ERROR, "", 0, "failed", (), sys.exc_info())
        line = JsonLines().format(record)
        assert "\n" not in line
        assert json.loads(line)["traceback"].endswith("ValueError: two\nlines")

    def test_values_that_json_has_no_form_of(self) -> None:
        event = json.loads(self.line("%d", "no number", nan=float("nan"), path=Path("a"), none=None, n=1, raw=b"\xff"))
        assert event["message"] == "%d ('no number',)"
        assert (event["nan"], event["path"], event["none"], event["n"]) == ("nan", "a", None, 1)


@given(text=ANY_TEXT)
def test_no_text_reaches_a_terminal_as_anything_else(text: str) -> None:
    record = logging.LogRecord("a", logging.ERROR, "", 0, "said %s", (text,), None)
    record.fields = {"path": text}
    line = TextLines().format(record)
    assert line.startswith("driftline: said ")
    assert not {"\x1b", "\r", "\x07", "\x9b", "\u202e"} & set(line)
    line.encode()


def test_what_nobody_caught_is_a_line() -> None:
    """In the main thread, in others, where nothing can be raised, in processes of multiprocessing; and warnings."""
    program = """
        import multiprocessing, sys, threading, warnings
        from driftline.stream.process import log_lines

        class Loud:
            def __del__(self): raise KeyError("in\\ndel")

        def child(where):
            log_lines.begin("json")
            with log_lines.ending_said():
                raise ValueError("in\\na child")

        def fail(): raise OSError("in\\na thread")

        if __name__ == "__main__":
            log_lines.begin("json")
            warnings.warn("a\\nwarning")
            thread = threading.Thread(target=fail, name="its\\nname")
            thread.start(), thread.join()
            Loud()
            process = multiprocessing.get_context("fork").Process(target=child, args=(1,))
            process.start(), process.join()
            assert process.exitcode == 1
            raise RuntimeError("in\\nthe main thread")
    """
    warning, thread, unraisable, child, main = run(program, code=1)
    assert "a\nwarning" in warning["message"]
    assert "its\nname" in thread["message"]
    ends = [event["traceback"].splitlines()[-2:] for event in (thread, child, main)]
    assert ends == [["OSError: in", "a thread"], ["ValueError: in", "a child"], ["RuntimeError: in", "the main thread"]]
    assert "KeyError" in unraisable["traceback"]
    assert [event["level"] for event in (thread, child, main)] == ["critical"] * 3


def test_what_ends_a_command_is_a_line(tmp_path: Path) -> None:
    """Also past what the command line's own library does with it."""
    program = """
        import driftline.learner.loop.service
        from driftline.cli.main import main
        def fail(*_, **__): raise ZeroDivisionError("two\\nlines")
        driftline.learner.loop.service.learn = fail
        main()
    """
    (event,) = run(program, "learn", "--log-format", "json", "--data", str(tmp_path), code=1)
    assert event["traceback"].endswith("ZeroDivisionError: two\nlines")


def test_numba_warns_and_fails_in_lines() -> None:
    program = """
        import numba, numpy as np
        from driftline.stream.process import log_lines
        log_lines.begin("json")

        @numba.njit
        def product(x): return np.dot(x, x)

        @numba.njit
        def no_types(x): return x + "a"

        product(np.zeros((4, 4))[::2, ::2])
        no_types(np.zeros(2))
    """
    warning, error = run(program, code=1)
    assert "NumbaPerformanceWarning" in warning["message"]
    assert "TypingError" in error["message"]
    assert "\n" in error["traceback"]


def test_kafka_s_own_client_speaks_in_lines() -> None:
    """Librdkafka's lines, of the writer and of the reader, which are many where a broker is away."""
    program = """
        import logging, sys
        from contextlib import suppress
        from driftline.stream.log.kafka import librdkafka
        from driftline.stream.process import log_lines
        from driftline.stream.errors import LogError
        from driftline.stream.log.base import TopicPartition
        from driftline.stream.log.open import open_log
        from driftline.stream.process.settings import StreamSettings
        log_lines.begin("json")
        logger = logging.getLogger("librdkafka")
        logger.setLevel(logging.DEBUG)
        with suppress(LogError):
            open_log(StreamSettings(log=f"kafka://{sys.argv[1]}?debug=broker"))
        config = {"bootstrap.servers": sys.argv[1], "group.id": "a", "debug": "broker"}
        reader = librdkafka.Consumer(config, {TopicPartition("messages", 0): 0}, id, logger)
        reader.take(100, 1.0)
        reader.close()
    """
    with reserved() as port:
        found = run(program, f"127.0.0.1:{port}")
    said = " ".join(event["message"] for event in found if event["from"] == "librdkafka")
    assert re.search(r"\[rdkafka#producer-\d\]", said)
    assert "GroupCoordinator" in said


def test_up_says_all_in_lines(tmp_path: Path) -> None:
    """The API, its workers, the learner and what is above them, told by the variable; one file takes all they say."""
    options = ["--data", str(tmp_path / "data"), "--workers", "2", "--access-log", "--model", "linear?bits=12"]
    with reserved() as port, running("up", *options, "--port", str(port), DRIFTLINE_LOG_FORMAT="json") as process:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_ready(url), 120, "it is ready")
        assert httpx.get(f"{url}/nothing%0Ahere%1B%5B2J", timeout=30).status_code == 404
        said, awaited = b"", {b"learning", b"/nothing", f"Driftline is up at {url}".encode()}
        assert process.stdout is not None
        while awaited:  # the learner may be at work before or after the rest is
            line = process.stdout.readline()
            assert line, said
            said += line
            awaited -= {each for each in awaited if each in line}
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=180)
    assert process.returncode == 0, rest
    found = events(said + rest)
    assert {"learning", "request", f"Driftline is up at {url}"} <= {event["message"] for event in found}
    assert found[-1]["message"].startswith("Stopped. Everything is in ")
    assert any(event.get("path") == "/nothing\nhere\x1b[2J" for event in found)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=30).is_success
    except httpx.TransportError:
        return False


def test_a_learner_says_all_in_lines(tmp_path: Path) -> None:
    """It waits for a Kafka that is not there, and is ended."""
    options = ["--data", str(tmp_path), "--log-format", "json"]
    with reserved() as port, running("learn", *options, "--log", f"kafka://127.0.0.1:{port}") as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=180)
    assert process.returncode == 0, rest
    found = events(first + rest)
    assert (found[0]["level"], found[0]["from"]) == ("warning", "driftline.learner.loop.service")
    assert found[0]["message"].endswith("waiting for it")
    assert found[-1]["message"] == "the learner has stopped"
    assert found[-1]["labels_learned"] == 0


@pytest.mark.parametrize("command", ["up", "learn", "serve"])
def test_what_is_refused_is_a_line(command: str, tmp_path: Path, nursery: Nursery) -> None:
    def run(*arguments: str, code: int, **variables: str) -> list[dict[str, Any]]:
        done = nursery.run(*arguments, cwd=tmp_path, environment=environment(**variables))
        assert (done.returncode, done.stdout) == (code, ""), done
        return events(done.stderr.encode())

    refused = ["--log", "carrier\n-pigeon://a", "--data", str(tmp_path), "--log-format", "json"]
    said = run(command, *refused, code=1, DRIFTLINE_PORT="0")
    assert all("carrier" in event["message"] for event in said)
    assert said[-1]["level"] == "error"
    two = run(command, code=2, DRIFTLINE_LOG_FORMAT="json", DRIFTLINE_PARTITIONS="x\ny", DRIFTLINE_REPLICATION="0")
    assert [event["message"].partition(":")[0] for event in two] == [
        "DRIFTLINE_PARTITIONS=x\ny",
        "DRIFTLINE_REPLICATION=0",
    ]


def test_a_terminal_gets_text_and_a_pipe_json(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAIN, "learn", "--data", str(tmp_path), "--log", "carrier-pigeon://a"]
    ours, its = pty.openpty()
    try:
        subprocess.run(command, env=environment(NO_COLOR="1"), stderr=its, timeout=180, check=False)
        assert b"\rdriftline: log: 'carrier-pigeon" in os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(its)
    piped = subprocess.run(command, env=environment(), stderr=subprocess.PIPE, timeout=180, check=False)
    assert "carrier-pigeon" in events(piped.stderr)[0]["message"]


def test_lines_of_processes_that_share_a_pipe_do_not_mix() -> None:
    """A pipe that is full takes a part of what is longer than it takes at once (pipe(7))."""
    program = """
        import logging, sys
        from driftline.stream.process import log_lines
        log_lines.begin("json")
        for n in range(300):
            logging.getLogger("a").warning("%s", sys.argv[1] * 20_000, extra={"fields": {"n": n}})
    """
    ours, its = os.pipe()
    command = [sys.executable, "-c", textwrap.dedent(program)]
    writers = [subprocess.Popen([*command, letter], env=environment(), stderr=its) for letter in "ab\u00e9"]
    os.close(its)
    with os.fdopen(ours, "rb") as pipe:
        found = events(pipe.read())
    assert all(writer.wait(60) == 0 for writer in writers)
    assert sorted((set(event["message"]) - set(". ")).pop() for event in found) == sorted("ab\u00e9" * 300)
