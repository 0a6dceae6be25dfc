"""Signals: where they may not raise, they raise soon after; who is started hears none before it can say what for."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import numba
import pytest
from llvmlite.binding.executionengine import ExecutionEngine

from driftline.stream.process import interrupts
from tests.data import ROOT


@pytest.fixture
def in_the_compiler_s_callback(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have Ctrl-C come while LLVM calls back; give what was compiled by then."""
    compiled: list[str] = []
    notify, look_up = ExecutionEngine._raw_object_cache_notify, ExecutionEngine._find_module_ptr

    def come(engine: ExecutionEngine, pointer: Any) -> Any:
        called_by = sys._getframe(1).f_code
        if called_by is notify.__code__:
            compiled.append(str(pointer))
            if len(compiled) == 1:
                os.kill(os.getpid(), signal.SIGINT)
        return look_up(engine, pointer)

    monkeypatch.setattr(ExecutionEngine, "_find_module_ptr", come)
    return compiled


def test_ctrl_c_comes_between_two_passes_of_the_compiler(in_the_compiler_s_callback: list[str]) -> None:
    inner = numba.njit(lambda number: number * 2)
    outer = numba.njit(lambda number: inner(number) + 1)
    with interrupts.ctrl_c_heard(), pytest.raises(KeyboardInterrupt):
        outer(1)
    assert len(in_the_compiler_s_callback) == 1, "what was to be compiled next no longer was"
    assert outer(1) == 3, "the compiler still works"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_comes_after_the_compiler_s_last_pass(in_the_compiler_s_callback: list[str]) -> None:
    alone = numba.njit(lambda number: number * 2)

    def compile_and_go_on() -> None:
        assert alone(1) == 2
        wait_for_it()

    with interrupts.ctrl_c_heard(), pytest.raises(KeyboardInterrupt):
        compile_and_go_on()
    assert len(in_the_compiler_s_callback) == 1


def test_ctrl_c_comes_at_once_elsewhere() -> None:
    with interrupts.ctrl_c_heard(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_what_ctrl_c_was_made_to_do_it_still_does() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        with interrupts.ctrl_c_heard():
            os.kill(os.getpid(), signal.SIGINT)
        assert came == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_does_not_wait() -> None:
    stop = threading.Event()
    with interrupts.setting(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(60)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_who_is_started_hears_none_before_it_ignores_them() -> None:
    program = """
        import os, signal, sys
        from driftline.stream.process import interrupts
        for number in interrupts.SIGNALS:
            os.kill(os.getpid(), number)
        interrupts.ignored()
        for number in interrupts.SIGNALS:
            os.kill(os.getpid(), number)
        print("still here", signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(interrupts.SIGNALS))
        """
    with interrupts.held_back():
        done = run(program)
    assert (done.returncode, done.stdout) == (0, "still here set()\n"), done.stderr
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(interrupts.SIGNALS)


@pytest.mark.parametrize(("pid", "exit_code"), [(1, 128 + signal.SIGTERM), (2, -signal.SIGTERM)])
def test_the_first_process_of_a_container_hears_sigterm_from_the_start(pid: int, exit_code: int) -> None:
    program = f"""
        import os, signal, sys, time
        own, os.getpid = os.getpid(), lambda: {pid}
        from driftline.stream.process import interrupts
        interrupts.end_as_first_process()
        os.kill(own, signal.SIGTERM)
        time.sleep(60)
        """
    assert run(program).returncode == exit_code


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    wait_for_it()


def wait_for_it() -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.01)
