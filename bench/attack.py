"""Do honest clients notice that others attack the API?

`python -m bench.attack --minutes 60` runs `driftline up` on the embedded log, with keys, and asks it as good clients do
(honest.py); for a fifth of the time alone, then with all attackers at work (attackers.py). It prints the times of both,
errors, whether every honest label was learned, and the memory of API and learner. It ends with 1 where a request of an
honest client failed, or a label of theirs was not learned.
"""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import httpx
import numpy as np
import typer

from bench.attackers import ATTACKS, Target, attack
from bench.freshness import ROOT, _own_bytes, _wait_until_it_answers
from bench.honest import Told, be_honest
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings

CALM_SHARE: Final = 0.2
LOOK_S: Final = 5.0
LEARN_S: Final = 120.0  # for what is left at the end
ROLES: Final = {"honest": "label", "stranger": "predict", "customer": "label"}
SHOWN: Final = ("predict", "predict 200", "message", "label", "own label", "page", "explain")
Memory = dict[str, list[float]]  # by process, MB of its own at each look


class Setting(NamedTuple):
    """What is attacked."""

    stream: StreamSettings
    port: int
    pids: dict[str, int]
    secrets: dict[str, str]  # keys by who has them


def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="of the whole")] = 2.0,
    model: Annotated[str, typer.Option(help="as `driftline up` takes it")] = "blend",
    workers: Annotated[int, typer.Option(min=1)] = 1,
    pace: Annotated[float, typer.Option(min=0.01, help="of honest clients: 1 for some 200 requests a second")] = 1.0,
    attacks: Annotated[list[str] | None, typer.Option("--attack", help="only these; else all")] = None,
) -> None:
    """Measure what honest clients see, without attackers and with them."""
    known = [each.__name__ for each in ATTACKS]
    if unknown := set(attacks or ()) - set(known):
        raise typer.BadParameter(f"there is no attack {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    with _running(model, workers) as setting:
        calm_s = 60 * minutes * CALM_SHARE
        memory: Memory = {name: [] for name in setting.pids}
        with _asking(setting, pace) as honest:
            honest.send(True)
            honest.recv()  # what came while it warmed up
            _watch(setting, calm_s / 2, memory)
            honest.send(True)
            honest.recv()
            _watch(setting, calm_s, memory)
            honest.send(True)
            calm: Told = honest.recv()
            with _attacked(setting, attacks or known) as got:
                _watch(setting, 60 * minutes - 1.5 * calm_s, memory)
                honest.send(True)
                attacked: Told = honest.recv()
            honest.send(None)
            rest: Told = honest.recv()
        labels = [*calm.labels, *attacked.labels, *rest.labels]
        lost = _lost(setting, labels)
    wrong = Counter(calm.errors) + Counter(attacked.errors) + Counter(rest.errors) + Counter(lost)
    sums = _sums(calm, attacked, len(labels), lost)
    typer.echo("\n\n".join([_times(calm, attacked), sums, _memory(memory), _got(got)]))
    for what, n in sorted(wrong.items()):
        typer.echo(f"\nwrong: {n} times {what}")
    raise typer.Exit(1 if wrong else 0)


# What runs.


@contextmanager
def _running(model: str, workers: int) -> Iterator[Setting]:
    """Run learner and API on an empty directory, with a key for each who asks, until the API answers."""
    with tempfile.TemporaryDirectory(prefix="driftline-attack-") as directory:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        stream = StreamSettings.model_validate({"data": Path(directory) / "data"})
        secrets = {name: _new_key(stream, name, role) for name, role in ROLES.items()}
        command = [sys.executable, "-m", "driftline", "up", "--data", str(stream.data), "--port", str(port)]
        command += ["--model", model, "--workers", str(workers)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", timeout=30, headers={"X-API-Key": secrets["honest"]}
            ) as http:
                _wait_until_it_answers(http, process)
                _teach(http)
                learner = http.get("/model").json()["learner"]["pid"]
            yield Setting(stream, port, {"API": process.pid, "learner": learner}, secrets)
        finally:
            with suppress(ProcessLookupError):  # it failed
                os.killpg(process.pid, signal.SIGINT)
            process.wait(60)


def _new_key(stream: StreamSettings, name: str, role: str) -> str:
    command = [sys.executable, "-m", "driftline", "keys", "add", name, "--role", role, "--data", str(stream.data)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return said.strip()


def _teach(http: httpx.Client) -> None:
    """Teach the labels that honest clients have, and wait until both are known: then the model answers."""
    deadline = time.monotonic() + LEARN_S
    while True:
        items = [{"message_id": f"first {n}", "label": f"label {n}", "text": f"word {n}"} for n in range(2)]
        http.post("/feedback", json=items)
        answer = http.post("/predict", json={"text": "word"})
        if answer.is_success and len(answer.json()["predictions"][0]["scores"]) == len(items):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing is learned: {answer.text}")
        time.sleep(0.5)


@contextmanager
def _asking(setting: Setting, pace: float) -> Iterator[Any]:
    """Have honest clients ask, in a process of their own; give the pipe to it."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=be_honest, args=(setting.port, setting.secrets["honest"], pace, its))
    process.start()
    its.close()
    try:
        yield mine
    finally:
        process.join(10)
        if process.is_alive():
            process.kill()


@contextmanager
def _attacked(setting: Setting, names: list[str]) -> Iterator[dict[str, dict[str, int]]]:
    """Have attackers at work in the block; what each got is there behind it."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    target = Target(setting.port, setting.secrets["stranger"], setting.secrets["customer"])
    process = context.Process(target=attack, args=(target, names, its))
    process.start()
    its.close()
    got: dict[str, dict[str, int]] = {}
    try:
        mine.recv()  # they have begun
        yield got
        mine.send(None)
        got |= mine.recv()
    finally:
        process.kill()
        process.join()


def _watch(setting: Setting, seconds: float, memory: Memory) -> None:
    """Let time pass, and note each process's own memory. Raises RuntimeError where one has ended."""
    until = time.monotonic() + seconds
    while True:
        for name, pid in setting.pids.items():
            n_bytes = sum(map(_own_bytes, [pid, *(_below(pid) if name == "API" else ())]))
            if not n_bytes:
                raise RuntimeError(f"the {name} has ended")
            memory[name].append(n_bytes / 2**20)
        if (left := until - time.monotonic()) <= 0:
            return
        time.sleep(min(LOOK_S, left))


def _below(pid: int) -> list[int]:
    """Return the workers of an API: what is below it and serves."""
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                command = Path(f"/proc/{child}/cmdline").read_bytes()
                found += [child, *_below(child)] if b"forkserver" in command else []
    return found


# What came of it.


def _lost(setting: Setting, labels: list[tuple[int, int]]) -> dict[str, int]:
    """Return which honest labels were not learned, by why: once the learner is past all, what was rejected is said."""
    ends: dict[int, int] = {}
    for partition, offset in labels:
        ends[partition] = max(offset + 1, ends.get(partition, 0))
    base, key = f"http://127.0.0.1:{setting.port}", {"X-API-Key": setting.secrets["honest"]}
    deadline = time.monotonic() + LEARN_S
    while True:
        learned = httpx.post(f"{base}/predict", json={"text": "a"}, headers=key, timeout=60).json()["feedback_offsets"]
        behind = {partition: end for partition, end in ends.items() if learned.get(str(partition), 0) < end}
        if not behind:
            break
        if time.monotonic() > deadline:
            return {f"label of partition {partition} not learned": end for partition, end in behind.items()}
        time.sleep(0.5)
    ours, lost = set(labels), dict[str, int]()
    topics = setting.stream.topics
    with closing(open_log(setting.stream)) as log:
        marks = log.watermarks([topics.dead_letter])
        with closing(log.reader({partition: mark.low for partition, mark in marks.items()})) as reader:
            while not all(map(reader.at_end, reader.partitions)):
                for record in reader.read(1000, 0.2):
                    said = json.loads(record.value or b"{}")
                    if said["topic"] == topics.feedback and (said["partition"], said["offset"]) in ours:
                        lost[f"label rejected: {said['error']}"] = lost.get(f"label rejected: {said['error']}", 0) + 1
    return lost


def _times(calm: Told, attacked: Told) -> str:
    lines = ["| what | without attackers: n, p50 / p99 / p99.9, ms | with: n, p50 / p99 / p99.9, ms |", "|---|---|---|"]
    for what in SHOWN:
        lines.append(f"| {what} | {_spread(calm.times_ms.get(what))} | {_spread(attacked.times_ms.get(what))} |")
    return "\n".join(lines)


def _spread(times_ms: list[float] | None) -> str:
    if not times_ms:
        return "-"
    return f"{len(times_ms):,}, " + " / ".join(f"{each:.1f}" for each in np.percentile(times_ms, [50, 99, 99.9]))


def _sums(calm: Told, attacked: Told, n_labels: int, lost: dict[str, int]) -> str:
    lines = ["| | requests | errors | had to come again |", "|---|---|---|---|"]
    for name, told in {"without attackers": calm, "with": attacked}.items():
        requests = sum(map(len, told.times_ms.values()))
        lines.append(f"| {name} | {requests:,} | {sum(told.errors.values())} | {told.again:,} |")
    return "\n".join(lines) + f"\n\nhonest labels: {n_labels:,} sent, {n_labels - sum(lost.values()):,} learned"


def _memory(memory: Memory) -> str:
    lines = ["| own memory, MB | start | middle | end | most |", "|---|---|---|---|---|"]
    for name, seen in memory.items():
        shown = [seen[0], seen[len(seen) // 2], seen[-1], max(seen)]
        lines.append(f"| {name} | " + " | ".join(f"{each:.0f}" for each in shown) + " |")
    return "\n".join(lines)


def _got(got: dict[str, dict[str, int]]) -> str:
    lines = ["| attack | what it got: answers by status |", "|---|---|"]
    for name, outcomes in got.items():
        said = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(outcomes.items(), key=lambda each: -each[1])[:6])
        lines.append(f"| {name.replace('_', ' ')} | {said or 'nothing'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
