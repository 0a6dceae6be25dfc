"""The command line: reads flags, calls the folders, prints.

Nothing is decided here. The options of each folder stand in its settings.py; stream/flags.py makes them flags. What is
heavy is imported inside the commands, so that help comes at once.

Exit codes: 0; 1 what Driftline refuses (DriftlineError); 2 options that cannot be meant; 3 another learner has taken
over; 130 Ctrl-C.
"""

import json
import logging
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import typer
from rich.markup import escape

from api.settings import ApiSettings
from learner import commands
from learner.settings import DEFAULT_MODEL, LearnerSettings
from stream.errors import ConfigError, DriftlineError
from stream.flags import BadOptions, with_settings
from stream.settings import StreamSettings

if TYPE_CHECKING:
    import threading

    from rich.console import Console

    from api.client import AsyncClient, Client
    from learner.evaluate import Result
    from learner.explain import Explanation
    from learner.snapshot import Snapshot
    from learner.status import Status
    from stream.files import BadRow, LabelledTexts, Row


__all__ = ["AsyncClient", "Client", "app", "main"]


def __getattr__(name: str) -> object:
    """Give the Python client: `from driftline import Client`. Loaded only where it is asked for."""
    if name in {"Client", "AsyncClient"}:
        import api.client

        return getattr(api.client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


app = typer.Typer(
    name="driftline",
    help="A text classifier that never stops learning.",
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(commands.app)


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="driftline")
    except BadOptions as error:
        _print_error(*error.lines)
        sys.exit(2)
    except DriftlineError as error:
        _print_error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


# What commands print.


def _console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def _print_error(*lines: str) -> None:
    console = _console(stderr=True)
    for line in lines:
        console.print(f"driftline: {line}", style="red", markup=False, soft_wrap=True)


def _log_to_console() -> None:
    """Show warnings and errors of the parts, one line each, on standard error."""
    logging.basicConfig(level=logging.WARNING, format="driftline: %(message)s")
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # a line at each attempt; what matters is said once


class _Reading:
    """A file being read: its progress on standard error, and the first of the rows that cannot be used."""

    SHOWN: Final = 5
    PERIOD_S: Final = 0.05

    def __init__(self, console: "Console", advance: Callable[[int, int], None]) -> None:
        self.file: LabelledTexts
        self.skipped = 0
        self._console, self._advance = console, advance
        self._next_s = 0.0

    def bad_row(self, bad: "BadRow") -> None:
        self.skipped += 1
        if self.skipped <= self.SHOWN:
            self._console.print(f"skipped: {bad}", style="yellow", markup=False, soft_wrap=True)
        elif self.skipped == self.SHOWN + 1:
            self._console.print("skipped: further rows are only counted", style="yellow")

    def show(self, messages: int, *, last: bool = False) -> None:
        """Move the bar; at most every PERIOD_S, since drawing costs more than a row."""
        now = time.monotonic()
        if now >= self._next_s or last:
            self._next_s = now + self.PERIOD_S
            self._advance(self.file.read_bytes, messages)


@contextmanager
def _reading(path: str, what: str, text_column: str | None, label_column: str | None) -> "Iterator[_Reading]":
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from stream.files import LabelledTexts

    console = _console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[messages]:,} messages"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, messages=0)
        reading = _Reading(bar.console, lambda n, messages: bar.update(task, completed=n, messages=messages))
        with LabelledTexts(path, text_column, label_column, reading.bad_row) as file:
            reading.file = file
            bar.update(task, total=file.size_bytes)
            yield reading


# Options that several commands have.

_File = Annotated[
    str, typer.Argument(metavar="FILE", help="CSV, TSV or JSON lines, gzipped or not; - is standard input.")
]
_TextColumn = Annotated[
    str | None, typer.Option(help="The text's column.", show_default="the first of text, message, body, title")
]
_LabelColumn = Annotated[
    str | None, typer.Option(help="The label's column.", show_default="the first of label, category, class, target")
]


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("driftline")
        except PackageNotFoundError:  # run from a checkout
            number = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text("utf-8"))["project"]["version"]
        print(f"driftline {number}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A text classifier that never stops learning."""
    del version


@app.command()
@with_settings
def up(
    stream: StreamSettings,
    learner: LearnerSettings,
    api: ApiSettings,
    demo: Annotated[
        bool, typer.Option("--demo", help="Send a generated stream of messages with late labels; its wording drifts.")
    ] = False,
) -> None:
    """Start everything on this machine: the log, a learner, and the API. Ctrl-C stops it.

    Without --log the log is one file in the data directory, and nothing else is needed. With --demo that directory is
    driftline-demo, unless another is named.
    """
    import multiprocessing.connection
    import threading

    from api.logs import to_stderr as log_to_stderr
    from api.server import Started
    from api.server import serve as serve_api
    from learner.foreign import check_allowed

    if demo:
        stream, learner = _of_demo(stream, learner)
    check_allowed(learner.model or "", stream.allow_pickle)
    log_to_stderr()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_learn_process, args=(stream, learner), name="driftline-learner")
    process.start()

    def stop_with_learner(api: Started) -> None:
        multiprocessing.connection.wait([process.sentinel])
        api.stop()

    stopping = threading.Event()
    sender = threading.Thread(target=_send_demo, args=(stream, stopping), name="demo")

    def ready(api: Started) -> None:
        _print_banner(api.url, stream)
        if demo:
            sender.start()
        threading.Thread(target=stop_with_learner, args=(api,), daemon=True).start()

    try:
        serve_api(stream, api, on_ready=ready)
    finally:
        stopping.set()
        if sender.ident is not None:
            sender.join()
        while process.is_alive():  # again: it hears signals only once it has begun, and until it has ended
            process.terminate()
            process.join(1.0)
    if process.exitcode:
        raise DriftlineError(f"the learner ended with exit code {process.exitcode}; the lines above say why")
    _console().print(f"Stopped. Everything is in {stream.data}; `driftline up` goes on from there.", soft_wrap=True)


def _of_demo(stream: StreamSettings, learner: LearnerSettings) -> tuple[StreamSettings, LearnerSettings]:
    """Return the options with the demo's own defaults, where nothing was said."""
    if "data" not in stream.model_fields_set:
        stream = stream.model_copy(update={"data": Path("driftline-demo")})
    if "label_requests_per_hour" not in learner.model_fields_set:
        learner = learner.model_copy(update={"label_requests_per_hour": 600.0})
    return stream, learner


def _send_demo(stream: StreamSettings, stopping: "threading.Event") -> None:
    from contextlib import closing

    from learner.status import read_status
    from stream.demo import send_demo
    from stream.log import open_log

    try:
        while not stopping.wait(0.2) and not ((status := read_status(stream.data)) and status.alive):
            pass  # nothing is sent before the learner is there, so that what is shown begins without a heap
        with closing(open_log(stream)) as log:
            send_demo(log, stream.topics, stopping.wait, seed=time.time_ns())
    except DriftlineError as error:
        _print_error(f"the demo's stream has ended: {error}")


def _learn_process(stream: StreamSettings, settings: LearnerSettings) -> None:
    import signal

    from api.logs import to_stderr as log_to_stderr
    from learner.service import learn as run_learner

    for number in (signal.SIGINT, signal.SIGTERM):  # before and behind what `learn` makes of them
        signal.signal(number, signal.SIG_IGN)
    log_to_stderr()
    try:
        run_learner(stream, settings)
    except DriftlineError as error:
        _print_error(str(error))
        sys.exit(error.exit_code)


def _print_banner(url: str, stream: StreamSettings) -> None:
    url = url.replace("0.0.0.0", "localhost")
    post = f"curl {url}/{{}} -H 'content-type: application/json' -d"
    feedback = json.dumps({"message_id": "m1", "label": "spam", "text": "You won a prize, call now"})
    _console().print(
        f"""
[bold]Driftline is up[/bold] at [bold]{url}[/bold]  (open it in a browser; Ctrl-C stops it)

Teach it a label, then ask it:
  {post.format("feedback")} {_quoted(feedback)}
  {post.format("predict")} {_quoted(json.dumps({"text": "Call now for your prize"}))}

Or send a labelled file from a second shell:
  driftline send FILE --label-delay 100

API and its reference: {url}/docs    State of the model: {url}/model
Log: {escape(stream.log_url)}    Data: {escape(str(stream.data.resolve()))}
""",
        soft_wrap=True,
    )


def _quoted(text: str) -> str:
    return escape("'" + text + "'")


@app.command()
@with_settings
def learn(
    stream: StreamSettings,
    learner: LearnerSettings,
    stop_at_end: Annotated[
        bool, typer.Option("--stop-at-end", help="End, with a summary, when all that is in the log now is learned.")
    ] = False,
) -> None:
    """Run the learner alone: read the log, learn, write snapshots for `driftline serve`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from learner.service import Advance
    from learner.service import learn as run_learner

    _log_to_console()
    console = _console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        recovering = bar.add_task("recovering, batches", total=None, visible=False)
        learning = bar.add_task("learning, records", total=None, visible=False)

        def replay(done: int, total: int) -> None:
            bar.update(recovering, completed=done, total=total, visible=done < total)

        def advance(done: Advance) -> None:
            bar.update(learning, completed=done.done, total=done.total, visible=True)

        status = run_learner(
            stream,
            learner,
            stop_at_end=stop_at_end,
            on_replay=replay,
            on_start=_print_started,
            on_advance=advance if stop_at_end else None,
        )
    _print_status(status)


def _print_started(status: "Status") -> None:
    _console(stderr=True).print(
        f"Learning with {escape(status.model)} as process {status.pid}, epoch {status.epoch}; "
        f"{status.counts.labels_learned:,} labels learned before.",
        soft_wrap=True,
    )


@app.command()
@with_settings
def serve(stream: StreamSettings, api: ApiSettings) -> None:
    """Run the API alone: append messages and labels to the log, answer from the learner's snapshots."""
    from api.logs import to_stderr as log_to_stderr
    from api.server import serve as serve_api

    log_to_stderr()
    serve_api(stream, api, on_ready=lambda started: _print_banner(started.url, stream))


keys_app = typer.Typer(help="API keys: add, list, remove. A running API heeds them within a second.")
app.add_typer(keys_app, name="keys", no_args_is_help=True)


@keys_app.command("add")
@with_settings
def add_key(
    name: Annotated[str, typer.Argument(help="Whose key it is; shows in log lines.")],
    stream: StreamSettings,
    api: ApiSettings,
    role: Annotated[
        Literal["predict", "label", "admin"],
        typer.Option(help="predict asks; label also posts messages and labels; admin also changes what is served."),
    ],
) -> None:
    """Make a key and print it, once: only its SHA-256 is kept."""
    from api import keys

    path = keys.path_of(stream, api)
    known = keys.read(path)
    if any(key.name == name for key in known):
        raise ConfigError(f"{path} has a key {name!r} already; remove it first, or take another name")
    secret, key = keys.new_key(name, keys.Role[role.upper()])
    keys.save(path, [*known, key])
    print(secret)
    _console(stderr=True).print(f"Kept in {escape(str(path))}: {key}", soft_wrap=True)


@keys_app.command("list")
@with_settings
def list_keys(stream: StreamSettings, api: ApiSettings) -> None:
    """Print the keys as they are kept: SHA-256, role, name."""
    from api import keys

    for key in keys.read(keys.path_of(stream, api)):
        print(key)


@keys_app.command("remove")
@with_settings
def remove_key(
    name: Annotated[str, typer.Argument(help="As it was given to add.")], stream: StreamSettings, api: ApiSettings
) -> None:
    """Let a key no longer count."""
    from api import keys

    path = keys.path_of(stream, api)
    known = keys.read(path)
    left = [key for key in known if key.name != name]
    if len(left) == len(known):
        raise ConfigError(f"{path} has no key {name!r}; it has {', '.join(key.name for key in known) or 'none'}")
    keys.save(path, left)


@app.command()
@with_settings
def status(stream: StreamSettings, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show what the learner of a data directory is doing. Exit code 0 while it is at work, 1 otherwise."""
    from learner.status import read_status
    from learner.versions import Versions

    found = read_status(stream.data)
    if found is None:
        raise ConfigError(
            f"no learner has run on {stream.data} yet; start one with `driftline up`, or name another --data"
        )
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        _print_status(found, Versions(stream.data).active().version)
    if not found.alive:
        raise typer.Exit(1)


def _print_status(status: "Status", pinned_to: str | None = None) -> None:
    from rich.table import Table

    progress, counts, join = status.progress, status.counts, status.join
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    shown = "gone" if status.state in {"running", "waiting"} and not status.alive else status.state
    rows: dict[str, str] = {
        "learner": f"{shown}, {status.age_s:.0f} s ago" + (f": {status.detail}" if status.detail else ""),
        "model": f"{status.model}, version {status.version}, {len(status.labels)} labels",
        "messages": f"{counts.messages_seen:,} seen, {status.pending:,} waiting for a label, "
        f"{join.expired:,} left without one",
        "labels": f"{counts.labels_learned:,} learned, {join.corrected:,} corrections, {join.repeated:,} repeated, "
        f"{status.waiting:,} waiting for a message, {join.orphaned:,} orphaned",
        "rejected": f"{counts.rejected:,}",
        "accuracy": f"{progress['accuracy']:.4f} as served, {progress['recent']['accuracy']:.4f} "
        f"over the last {progress['recent']['labels']:,} labels; log loss {progress['log_loss']:.4f}, "
        f"calibration error {progress['calibration_error']:.3f}"
        if progress["labels"]
        else "no label has met a prediction yet",
        "drift": _describe_drift(status),
    }
    if counts.clock_jumps or counts.unwritten:
        rows["odd"] = (
            f"{counts.clock_jumps:,} timestamps too far off to count, "
            f"{counts.unwritten:,} predictions too large to send"
        )
    if status.over_quota:
        most = sorted(status.over_quota.items(), key=lambda item: -item[1])[:3]
        rows["over quota"] = f"{counts.over_quota:,}; most of " + ", ".join(f"{name} ({n:,})" for name, n in most)
    if status.gate.state == "shut":
        rows["held back"] = status.gate.why
    if status.losses.losses:
        rows["lost"] = f"{status.losses.records:,} records that the log no longer had; last {status.losses.recent[-1]}"
    if pinned_to is not None:
        rows["served"] = f"pinned to {pinned_to}; `driftline snapshots latest` has the latest served again"
    if status.rebuilt is not None:
        rows["rebuilt"] = str(status.rebuilt)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    _console().print(table)


def _describe_drift(status: "Status") -> str:
    overall = status.drift.overall
    line = f"got worse {overall.worse:,} times, better {overall.better:,} times"
    worse = [alarm for alarm in status.drift.recent if alarm.change == "worse" and alarm.label is None]
    if worse:
        last = worse[-1]
        line += f"; worse last at label {last.at_label:,}: log loss {last.loss_before:.3f}, then {last.loss_after:.3f}"
    return line


@app.command()
@with_settings
def predict(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="The texts to classify.")],
    stream: StreamSettings,
    url: Annotated[
        str | None,
        typer.Option(help="Ask the API at this address.", show_default="offline, with the data directory's snapshot"),
    ] = None,
    key: Annotated[
        str | None, typer.Option(envvar="DRIFTLINE_KEY", help="API key for --url.", show_default="none")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Classify texts: with the newest snapshot of a data directory, or by asking a running API."""
    predictions = _ask(url, texts, key) if url else _predict_offline(stream, texts)
    if as_json:
        for prediction in predictions:
            print(json.dumps(prediction, ensure_ascii=False))
        return
    console = _console()
    for text, prediction in zip(texts, predictions, strict=True):
        console.print(
            f"[bold]{escape(prediction['label'])}[/bold]  {prediction['score']:.4f}  {escape(text)}", soft_wrap=True
        )


def _ask(url: str, texts: list[str], key: str | None) -> list[dict[str, Any]]:
    from api.client import Client

    with Client(url, key=key, timeout_s=10.0, tries=1) as client:
        return [msgspec.structs.asdict(each) for each in client.predict_many(texts)]


def _predict_offline(stream: StreamSettings, texts: list[str]) -> list[dict[str, Any]]:
    snapshot = _newest_snapshot(stream, "a running API with --url http://127.0.0.1:8000")
    info, scores = snapshot.model.predict_proba_many(texts)
    labels = info.labels
    return [
        {
            "text": text,
            "label": labels[int(row.argmax())],
            "score": float(row.max()),
            "scores": dict(zip(labels, row.tolist(), strict=True)),
        }
        for text, row in zip(texts, scores, strict=True)
    ]


def _newest_snapshot(stream: StreamSettings, instead: str) -> "Snapshot":
    from learner.chosen import Chosen

    snapshot = Chosen(stream.data, allow_pickle=stream.allow_pickle).look()
    if snapshot is None:
        raise ConfigError(
            f"{stream.data} holds no snapshot: nothing was learned there yet. Name another --data, or {instead}"
        )
    return snapshot


@app.command()
@with_settings
def explain(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text to explain.")],
    stream: StreamSettings,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>", help="A label to explain; may be given several times.", show_default="the three best"
        ),
    ] = None,
    features: Annotated[int, typer.Option(min=0, help="How many words and n-grams to list.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show which words and n-grams of a text speak for which label, by the newest snapshot of a data directory.

    A number says by how much: e to the power of the difference of two labels' numbers is what it does to their odds.
    """
    model = _newest_snapshot(stream, "teach it with `driftline up`").model
    _, explanation = model.explain_one(text, label or None, features)
    if as_json:
        print(msgspec.json.encode(explanation).decode())
    else:
        _print_explanation(explanation)


def _print_explanation(explanation: "Explanation") -> None:
    from rich.table import Table

    console = _console()
    if explanation.label is None:
        console.print("No label was learned yet: there is nothing to explain.")
        return
    score = explanation.scores[explanation.label]
    console.print(f"[bold]{escape(explanation.label)}[/bold]  {score:.4f}", soft_wrap=True)
    if explanation.path:
        steps = (f"has {step.word!r}" if step.present else "lacks a word" for step in explanation.path)
        console.print(f"leaf: {escape(', '.join(steps))}", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("", overflow="fold")
    labels = list(explanation.bias or (explanation.features[0].shares if explanation.features else {}))
    for label in labels:
        table.add_column(escape(label), justify="right")
    table.add_column("")

    def add(kind: str, what: str, shares: dict[str, float], remark: str = "") -> None:
        table.add_row(kind, escape(what), *(f"{shares[label]:+.2f}" for label in labels), remark)

    for feature in explanation.features:
        unknown, shared = feature.known is False, bool(feature.shared)
        remarks = ["never learned"] * unknown + ["slot is shared"] * shared
        what = feature.text.replace(" ", "␣") if feature.kind == "chars" else feature.text
        add(feature.kind, what, feature.shares, ", ".join(remarks))
    others = explanation.n_features - len(explanation.features)
    if explanation.rest and others:
        add("rest", f"{others:,} more", explanation.rest)
    if explanation.bias:
        add("bias", "whatever the text", explanation.bias)
    console.print(table)


@app.command()
@with_settings
def send(
    file: _File,
    stream: StreamSettings,
    text_column: _TextColumn = None,
    label_column: _LabelColumn = None,
    label_delay: Annotated[
        int, typer.Option(min=0, help="Send a label this many messages after its message; 0: right after it.")
    ] = 0,
    rate: Annotated[
        float | None, typer.Option(help="Messages per second.", show_default="as fast as the log takes them")
    ] = None,
) -> None:
    """Send labelled texts from a file to the log: each message, and some messages later its label.

    Rows with an id may be sent again: each label is learned once. A label that has changed is sent as a correction.
    """
    from stream.files import BadRow
    from stream.log import open_log
    from stream.send import send as send_rows

    with _reading(file, "sending", text_column, label_column) as reading:
        log = open_log(stream)
        try:
            sent = send_rows(
                log,
                stream.topics,
                reading.file,
                label_delay,
                rate=rate,
                max_record_bytes=stream.max_record_bytes,
                on_skipped=lambda row, why: reading.bad_row(BadRow(reading.file.name, row.line, why)),
                on_durable=lambda messages, _: reading.show(messages),
            )
        finally:
            log.close()
    skipped = f"; {reading.skipped:,} rows skipped" if reading.skipped else ""
    speed = f" ({sent.messages / sent.seconds:,.0f} messages/s)" if sent.seconds > 0 else ""
    console = _console()
    console.print(
        f"Sent {sent.messages:,} messages and {sent.labels:,} labels in {sent.seconds:.1f} s{speed}{skipped}.",
        soft_wrap=True,
    )
    console.print("Next: `driftline up` learns and serves them; `driftline status` shows how well.", soft_wrap=True)


@app.command()
def evaluate(
    file: _File,
    model: Annotated[
        list[str] | None, typer.Option(help="A classifier; may be given several times.", show_default=DEFAULT_MODEL)
    ] = None,
    delay: Annotated[
        int, typer.Option(min=0, help="A label is learned this many messages after its message; 0: at once.")
    ] = 0,
    text_column: _TextColumn = None,
    label_column: _LabelColumn = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first rows only.", show_default="all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the learning curves into this file, .png or .svg.", show_default="none")
    ] = None,
) -> None:
    """Measure classifiers on a file: each text is scored before its label is learned (progressive validation)."""
    from learner.evaluate import BATCH_ROWS, Evaluation, warm_up
    from learner.models import make_classifier

    models = list(dict.fromkeys(model or [DEFAULT_MODEL]))
    if plot is not None:
        from learner.plots import check_suffix, plot_curves

        check_suffix(plot)
    with _reading(file, "evaluating", text_column, label_column) as reading:
        for spec in models:
            warm_up(make_classifier(spec, allow_pickle=True))  # no state is read: there is no pickle to be opened
        evaluations = [Evaluation(make_classifier(spec, allow_pickle=True), delay, spec) for spec in models]
        rows: Iterator[Row] = islice(reading.file, limit)
        messages = 0
        while batch := list(islice(rows, BATCH_ROWS)):
            for evaluation in evaluations:
                evaluation.add(batch)
            messages += len(batch)
            reading.show(messages)
        results = [evaluation.finish() for evaluation in evaluations]
    if not results[0].labels:
        raise ConfigError(
            f"{reading.file.name}: no row has a label; the columns are "
            f"{', '.join(map(repr, reading.file.columns))}; name one with --label-column"
        )
    if as_json:
        _print_json(results)
    else:
        _print_table(results)
    if reading.skipped:
        _console(stderr=True).print(f"{reading.skipped:,} rows skipped", style="yellow")
    if plot is not None:
        plot_curves(results, plot, "standard input" if file == "-" else Path(file).name)


def _print_json(results: "list[Result]") -> None:
    for result in results:
        print(json.dumps(result.to_json(), allow_nan=False))


def _print_table(results: "list[Result]") -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))  # 80 columns have to do
    table.add_column("model", overflow="fold", min_width=10)
    for heading in ("messages", "labels", "accuracy", "macro F1", "log loss", "ECE", "time", "per s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            escape(result.model),
            f"{result.messages:,}",
            f"{result.labels:,}",
            f"{result.accuracy:.4f}",
            f"{result.macro_f1:.4f}",
            f"{result.log_loss:.4f}",
            f"{result.calibration_error:.3f}",
            f"{result.seconds:.1f} s",
            f"{result.messages_per_second:,.0f}",
        )
    _console().print(table)
    for result in results:
        if result.shifts:
            _console().print(escape(_describe_shifts(result)), style="dim", soft_wrap=True)


def _describe_shifts(result: "Result") -> str:
    alarms = result.to_json()["drift_alarms"]
    overall, of_labels = alarms["overall"], alarms["by_label"]
    worse = [f"{s.at_label:,}" for s in result.shifts if s.column is None and s.change == "worse"]
    at = f" (at label {'; '.join(worse[:5])}{'; ...' if len(worse) > 5 else ''})" if worse else ""
    return (
        f"{result.model}: drift alarms: {overall['worse']} worse{at}, {overall['better']} better; "
        f"of single labels {of_labels['worse']} worse, {of_labels['better']} better"
    )


if __name__ == "__main__":
    main()
