"""How fast does the API answer, beside what else people serve a text classifier with?

`python -m bench.serving` starts each system on one core and asks it from another, one after the other, and again:

1. One text a request, over 32 connections: requests a second, p50 and p99, and the processor time of the server for a
   request, which other programs on the machine disturb least. Ours and the bare app also with heads as a proxy makes
   them, each with an id, a trace and an address of its own.
2. 1,000 texts a request, ours only: texts a second of processor time.
3. Memory that one more worker takes.
4. How soon a label shows, and what a prediction takes idle and while learning at full speed (freshness.py).

A peer that is not installed is left out, and the report says so: `.venv/bin/pip install '.[bench-serving]'`, or name
an interpreter that has it.
"""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import median
from typing import Annotated, Final, NamedTuple

import httpx
import typer

from bench.freshness import HEADING, measure_model, row
from bench.report import cpu_name
from bench.served.systems import (
    MODELS,
    N_ASKED,
    N_CHARS,
    PACKAGES,
    PEERS,
    ROOT,
    Served,
    Setting,
    ask_texts,
    labelled,
    pin,
    prepare,
    serve,
)
from driftline.learner.registry import make_classifier

OUT: Final = ROOT / "bench" / "report" / "serving" / "REPORT.md"
BATCH: Final = 1_000
CONNECTIONS: Final = 32
WORKERS: Final = (1, 3)
PROXIED: Final = ("blend", "linear", "bare ASGI app")  # asked with heads that change, too


class Run(NamedTuple):
    """What one round found."""

    rate: float  # requests a second
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the server, a request


def main(
    seconds: Annotated[float, typer.Option(min=1, help="of one round")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="the medians count")] = 3,
    python: Annotated[
        list[str] | None, typer.Option(help="PEER=PYTHON, the interpreter that has it; else this one")
    ] = None,
    labels: Annotated[int, typer.Option(min=0, help="posted in each phase of freshness; 0 leaves it out")] = 200,
    out: Annotated[Path, typer.Option(help="the report")] = OUT,
) -> None:
    """Measure the API beside its peers, and write a report."""
    cores = sorted(os.sched_getaffinity(0))
    pythons = dict(each.split("=", 1) for each in python or ())
    texts = ask_texts()
    with tempfile.TemporaryDirectory(prefix="driftline-serving-") as name:
        setting = Setting(Path(name), texts, (cores[0], cores[-1]), pythons, seconds)
        prepare(setting)
        singles, changing, missing = _measure_singles(setting, rounds)
        parts = [
            _head(setting, rounds),
            _singles(singles, missing),
            _changing(singles, changing),
            _batches(setting, rounds),
            _memory(setting),
        ]
    if labels:
        parts.append(_freshness(labels))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n\n".join(parts) + "\n", "utf-8")
    typer.echo(f"written: {out}")


# 1


def _measure_singles(
    setting: Setting, rounds: int
) -> tuple[dict[str, list[Run]], dict[str, list[Run]], dict[str, str]]:
    """Ask all systems in turn; return what was found, with heads that change too, and why others are missing."""
    found: dict[str, list[Run]] = {}
    changing: dict[str, list[Run]] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        running: dict[str, Served] = {}
        for name in (*MODELS[:2], *PEERS):
            try:
                running[name] = stack.enter_context(serve(name, setting))
            except (OSError, RuntimeError) as error:
                missing[name] = str(error)
                typer.echo(f"left out: {name}: {error}")
        for number, (name, served) in product(range(rounds), list(running.items())):
            if name in missing:
                continue
            try:
                run = _load(served, setting)
            except RuntimeError as error:
                missing[name] = str(error)
                found.pop(name, None)
                typer.echo(f"left out: {name}: {error}")
            else:
                found.setdefault(name, []).append(run)
                if name in PROXIED:
                    changing.setdefault(name, []).append(_load(served, setting, "changing"))
                typer.echo(
                    f"{number + 1}/{rounds} {name:<22} {run.rate:>9,.0f}/s  p50 {run.p50_ms:.2f} ms  "
                    f"p99 {run.p99_ms:.2f} ms  processor {run.cpu_us:.1f} us"
                )
    return found, changing, missing


def _changing(found: dict[str, list[Run]], changing: dict[str, list[Run]]) -> str:
    lines = []
    for name, runs in changing.items():
        of_cpu = [other.cpu_us / run.cpu_us for run, other in zip(runs, changing["bare ASGI app"], strict=True)]
        rates = [f"{median(run.rate for run in each):,.0f}" for each in (found[name], runs)]
        times = [f"{median(run.cpu_us for run in each):.1f}" for each in (found[name], runs)]
        lines.append(f"| {name} | {' | '.join([*rates, *times])} | {median(of_cpu):.2f} |")
    heads = ["system", "requests/s, the same head", "changing", "processor, microseconds a request, the same head"]
    heads += ["changing", "changing, of the bare app's requests a second of processor time"]
    table = "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines])
    return f"## The same behind a proxy: X-Request-Id, traceparent and X-Forwarded-For differ each time\n\n{table}"


def _singles(found: dict[str, list[Run]], missing: dict[str, str]) -> str:
    bare = found["bare ASGI app"]
    lines = []
    for name, runs in found.items():
        beside = median(run.rate / other.rate for run, other in zip(runs, bare, strict=True))
        of_cpu = median(other.cpu_us / run.cpu_us for run, other in zip(runs, bare, strict=True))
        what = PEERS.get(name, "ours, one worker, no keys")
        lines.append(
            f"| {name} | {what} | {median(run.rate for run in runs):,.0f} | {median(run.p50_ms for run in runs):.2f} "
            f"| {median(run.p99_ms for run in runs):.2f} | {median(run.cpu_us for run in runs):.1f} "
            f"| {beside:.2f} | {of_cpu:.2f} |"
        )
    lines += [f"| {name} | left out: {why} | | | | | | |" for name, why in missing.items()]
    heads = ["system", "what", "requests/s", "p50, ms", "p99, ms", "processor, microseconds a request"]
    heads += ["of the bare app's requests/s", "of its requests a second of processor time"]
    table = "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines])
    return f"## POST /predict, one text of {N_CHARS} characters, {CONNECTIONS} connections\n\n{table}"


def _load(served: Served, setting: Setting, heads: str = "constant") -> Run:
    before = _cpu_s(served.pid)
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{setting.seconds:g}s", "--latency"]
    command += ["-s", str(setting.directory / "post.lua"), served.url, "--", str(served.bodies), heads]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, preexec_fn=lambda: pin(setting.cores[1])
    ).stdout
    after = _cpu_s(served.pid)
    if bad := re.search(r"Non-2xx or 3xx responses: (\d+)", done):
        raise RuntimeError(f"{served.url}: {bad[1]} answers were errors")
    n = int(_found(r"(\d+) requests in", done))
    if not n:
        raise RuntimeError(f"{served.url}: no answer within {setting.seconds:g} s")
    times = [_milliseconds(_found(rf" {part}%\s+(\S+)", done)) for part in (50, 99)]
    return Run(float(_found(r"Requests/sec:\s+(\S+)", done)), times[0], times[1], (after - before) / n * 1e6)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"wrk said something else: {text}")
    return match[1]


def _milliseconds(said: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", said).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[unit]


# 2


def _batches(setting: Setting, rounds: int) -> str:
    lines = []
    body = json.dumps({"texts": [setting.texts[i % N_ASKED] for i in range(BATCH)]}).encode()
    for model in MODELS:
        classifier = make_classifier(model)
        classifier.learn_many(*labelled())
        kernel = median(_kernel_rate(classifier.predict_proba_many, setting.texts[:BATCH]) for _ in range(rounds))
        with serve(model, setting) as served, httpx.Client(base_url=served.url.removesuffix("/predict")) as http:
            rates = []
            for _ in range(rounds):
                before, n = _cpu_s(served.pid), 0
                until = time.monotonic() + setting.seconds
                while time.monotonic() < until:
                    http.post("/predict", content=body).raise_for_status()
                    n += BATCH
                rates.append(n / (_cpu_s(served.pid) - before))
        typer.echo(f"batches of {BATCH}: {model} {median(rates):,.0f}, in the kernel {kernel:,.0f} texts/s")
        lines.append(f"| `{model}` | {median(rates):,.0f} | {kernel:,.0f} |")
    head = "| model | texts a second of the server's processor time, HTTP and JSON included | predicted only |"
    return f"## POST /predict, {BATCH:,} texts of {N_CHARS} characters\n\n" + "\n".join([head, "|---|---|---|", *lines])


def _kernel_rate(predict: object, texts: list[str]) -> float:
    start = time.process_time()
    for _ in range(50):
        predict(texts)  # type: ignore[operator]
    return 50 * len(texts) / (time.process_time() - start)


# 3


def _memory(setting: Setting) -> str:
    lines = []
    for model in MODELS[:2]:
        with serve(model, setting, "--workers", str(WORKERS[1])) as served:
            _load(served, setting)
            parents = _children(served.pid)
            workers = [pid for parent in parents for pid in _children(parent)]
            own = [_memory_mb(pid) for pid in workers]
        for number, (uss, pss) in enumerate(own):
            lines.append(f"| `{model}` | {number + 1} of {len(own)} | {uss:.0f} | {pss:.0f} |")
        typer.echo(f"memory of {model}'s workers, MB: {', '.join(f'{uss:.0f}' for uss, _ in own)}")
    head = "| model | worker | its own (USS), MB | with its share of what is shared (PSS), MB |\n|---|---|---|---|"
    return f"## Memory of each of {WORKERS[1]} workers, after some thousand requests\n\n{head}\n" + "\n".join(lines)


def _memory_mb(pid: int) -> tuple[float, float]:
    kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE))
    own = int(kilobytes["Private_Clean"]) + int(kilobytes["Private_Dirty"])
    return own / 1024, int(kilobytes["Pss"]) / 1024


# 4


def _freshness(labels: int) -> str:
    rows = [row(model, *each) for model in MODELS[:2] for each in measure_model(model, labels)]
    note = "`python -m bench.freshness` says what the columns are; learner, API and client share the machine's cores."
    return f"## How soon labels show, and predictions meanwhile\n\n{note}\n\n{HEADING}\n" + "\n".join(rows)


# The machine.


def _head(setting: Setting, rounds: int) -> str:
    command = re.sub(
        r" --(?:python|out) (?:'[^']*'|\S+)", "", shlex.join(["python", "-m", "bench.serving", *sys.argv[1:]])
    )
    versions = sorted({each for name, packages in PACKAGES.items() for each in _versions(name, packages, setting)})
    return (
        f"# Serving\n\n    {command}\n\n{cpu_name()}, {os.cpu_count()} cores, CPython {platform.python_version()}. "
        f"Each server on one core, wrk on the other; medians of {rounds} rounds of {setting.seconds:g} s that took "
        f"turns. {', '.join(versions)}."
    )


def _versions(name: str, packages: Sequence[str], setting: Setting) -> list[str]:
    """Return what a peer's interpreter has of these."""
    code = "import sys, importlib.metadata as m\nfor name in sys.argv[1:]:\n print(name, m.version(name))"
    python = setting.pythons.get(name, sys.executable)
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process and of all below it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_cpu_s(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


if __name__ == "__main__":
    typer.run(main)
