"""How is a message erased, wherever its text lies? `driftline erase`."""

import json
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.markup import escape

from driftline.cli.commands.rebuild import build, log_to_read
from driftline.cli.terminal import bars, print_lines, terminal
from driftline.cli.waiting import Waiting
from driftline.stream.errors import ConfigError, DriftlineError, StateError
from driftline.stream.process import log_lines
from driftline.stream.process.flags import with_settings
from driftline.stream.process.harmless import harmless
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

if TYPE_CHECKING:
    from driftline.learner.rebuild.erase import Erased
    from driftline.stream.log.base import Log

LOOK_S: Final = 0.2


@with_settings
def erase(
    stream: StreamSettings,
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="A message and all labels of it, or one label; may be given often."),
    ] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option("--source", metavar="NAME", help="All that a source sent; may be given several times."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many records that is, and erase nothing.")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Then build the model anew without them: it has learned them.")
    ] = False,
    from_checkpoint: Annotated[
        bool, typer.Option("--from-checkpoint", help="With --rebuild: as in `driftline rebuild`.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="With --rebuild: as in `driftline rebuild`.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="Say what was erased when.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Erase messages and labels for good: from the log, the windows, checkpoints and everything that shows texts.

    By --id a message goes with all its labels, its prediction and its dead letters; by --source all labels that it
    sent, with the texts that they brought, and messages whose metadata name it as their source. The learner does it
    between two batches; where none runs, this command does (not where several machines share a journal: there it waits
    for the one that leads). Killed at any moment, it is done at the next start. Older checkpoints go, since a replay
    from them would need what was erased.

    What the model has learned stays in it until it is built anew (--rebuild). In Kafka a topic has to be compacted for
    a record to go; else retention takes it, and this says when.
    """
    from driftline.learner.disk.checkpoint import list_checkpoints
    from driftline.learner.disk.rebuilt import LeftOut
    from driftline.learner.loop.background import in_background
    from driftline.learner.loop.service import carry_out
    from driftline.learner.rebuild import erase as requests
    from driftline.learner.rebuild.rebuild import check_start
    from driftline.learner.shared import applied

    if show:
        if ids or sources:
            raise ConfigError("erase --list: takes no --id and no --source")
        _list(requests.read_done(stream.data), as_json)
        return
    ids, sources = ids or [], sources or []
    if not 0 < len(ids) + len(sources) <= requests.MAX_NAMES or not all(ids + sources):
        raise ConfigError(f"erase: name messages or sources, {requests.MAX_NAMES:,} at most: --id ID, --source NAME")
    shared = applied.read(stream.data) is not None
    if not shared and not list_checkpoints(stream.data / "checkpoints"):
        raise ConfigError(f"{stream.data} holds no checkpoint: no learner has run there yet")
    log_lines.begin(stream.log_format or "text", logging.ERROR)
    with in_background(), log_to_read(stream) as log:
        if dry_run:
            looked_for = requests.Request(at="", ids=ids, sources=sources)
            search = requests.Search(log, stream.topics, looked_for, stream.max_record_bytes)
            found = search.run().go_on(log).run().records
            _say({"records": found, "erased": False}, f"{_counted(found)} would be erased.", as_json)
            return
        if shared:
            if rebuild:
                raise ConfigError("erase --rebuild: not where several machines share a journal; erase, then rebuild")
            _report(_erase_together(stream, log, ids, sources), as_json)
            return
        if rebuild:
            check_start(stream.data, log, from_checkpoint=from_checkpoint, accept_loss=accept_loss)
        request = requests.ask(stream.data, ids, sources)
        asked = requests.read(request)
        try:
            with bars("erasing"):
                carry_out(stream, log, request, Waiting(stream.data))
        except DriftlineError as error:
            raise StateError(f"{error}. What was asked for stays in {request}, for the next learner to do") from None
        done = [each for each in requests.read_done(stream.data) if asked and requests.answers(each, asked)]
        _report(done[-1], as_json)
        if rebuild:
            build(stream, log, LeftOut(), from_checkpoint=from_checkpoint, accept_loss=accept_loss)


def _erase_together(stream: StreamSettings, log: "Log", ids: list[str], sources: list[str]) -> "Erased":
    """Have the learner that leads erase it; return what it says of that once it is here."""
    from driftline.learner.rebuild import erase as requests
    from driftline.learner.shared import asking

    request = asking.erasure(ids, sources)
    asking.append(log, stream.data, asking.erase(request))
    waiting = Waiting(stream.data)
    with bars("erasing"):
        while True:
            done = [each for each in requests.read_done(stream.data) if requests.answers(each, request)]
            if done:
                return done[-1]
            waiting()
            time.sleep(LOOK_S)


def _report(erased: "Erased", as_json: bool) -> None:
    said = f"Erased: {_counted(erased.records)}."
    for each in erased.remains:
        after = f" (not before {_day(each.after_ms)})" if each.after_ms is not None else ""
        said += "\n" + harmless(f"{each.topic}: of {counted(each.records, 'record')}: {each.why}{after}.")
    if erased.foreign:
        said += "\nModels of another library are kept, as pickles: what these hold of texts was not looked at."
    _say(msgspec.to_builtins(erased), said, as_json)


def _list(done: "list[Erased]", as_json: bool) -> None:
    if as_json:
        print(json.dumps(msgspec.to_builtins(done)))
        return
    for each in done:
        names = [f"id {name[:12]}..." for name in each.ids] + [f"source {name[:12]}..." for name in each.sources]
        what = f"{each.done_at}  {_counted(each.records)}; SHA-256 of {', '.join(names)}"
        terminal().print(escape(what), soft_wrap=True)
    if not done:
        terminal().print("Nothing was erased.")


def _counted(records: dict[str, int]) -> str:
    parts = [f"{n:,} of {topic}" for topic, n in records.items() if n]
    return "records: " + (", ".join(parts) or "none was in the log")


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="minutes")


def _say(answer: "dict[str, object]", said: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer))
    else:
        print_lines(escape(said))
