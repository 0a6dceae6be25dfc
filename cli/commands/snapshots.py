"""Which models of the past can be served again, and which one is? `driftline snapshots`."""

from contextlib import closing
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from rich.markup import escape

from driftline.cli.terminal import print_json, print_remark, print_table, terminal
from driftline.stream.errors import ConfigError
from driftline.stream.process.flags import with_shown
from driftline.stream.process.settings import StreamSettings

if TYPE_CHECKING:
    from rich.console import Console

    from driftline.learner.serving.versions import Kept, Versions
    from driftline.stream.log.base import NewRecord

WAIT_S: Final = 10.0


class Action(StrEnum):
    """What `snapshots` does."""

    LIST = "list"
    SHOW = "show"
    PIN = "pin"
    UNPIN = "unpin"
    ROLLBACK = "rollback"
    LATEST = "latest"


@with_shown("data", "allow_pickle", "log", "kafka_config", "checkpoints")
def snapshots(
    stream: StreamSettings,
    action: Annotated[Action, typer.Argument(metavar="[list|show|pin|unpin|rollback|latest]")] = Action.LIST,
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="As `list` shows it.")] = None,
    name: Annotated[str, typer.Option(metavar="<str>", help="With pin: what it is kept for.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the models of the past that can be served again, and choose which one is.

    One is kept with each checkpoint (--keep-snapshots of the learner), the further apart the further back. `pin` keeps
    one for good. `rollback` has every API of this data directory answer with it in the latest's place, within a second,
    until `latest`. The learner goes on learning all the while; to roll back what it has learned: `driftline rebuild
    --until`. Where several machines share a journal, what is chosen and pinned on one holds on all.
    """
    from driftline.learner.serving.versions import Versions

    versions, console = Versions(stream.data), terminal()
    if action in {Action.LIST, Action.LATEST} and version is not None:
        raise ConfigError(f"snapshots {action}: takes no version")
    if action is Action.LIST:
        _list(versions, as_json)
    elif action is Action.LATEST:
        _latest(stream, versions)
        _say(console, {"pinned_to": None}, "The latest is served.", as_json)
    elif version is None:
        raise ConfigError(f"snapshots {action}: name a version; `driftline snapshots` lists them")
    elif action is Action.SHOW:
        _show(versions, version, as_json)
    elif action is Action.ROLLBACK:
        kept = _roll_back(stream, versions, version)
        said = f"Version {version} of {kept.created_at} is served until `driftline snapshots latest`; learning goes on."
        _say(console, {"pinned_to": version}, said, as_json)
    elif action is Action.PIN:
        _pin(stream, versions, version, name)
        _say(
            console,
            {"pinned": version},
            f"Version {version} stays until `driftline snapshots unpin {version}`.",
            as_json,
        )
    else:
        _unpin(stream, versions, version)
        _say(console, {"unpinned": version}, f"Version {version} may be dropped.", as_json)


def _latest(stream: StreamSettings, versions: "Versions") -> None:
    from driftline.learner.shared import applied, asking

    if applied.read(stream.data) is None:
        versions.deactivate()
    else:
        _ask(stream, asking.choose(None))


def _roll_back(stream: StreamSettings, versions: "Versions", version: str) -> "Kept":
    from driftline.learner.shared import applied, asking
    from driftline.learner.shared.models import try_model

    if applied.read(stream.data) is None:
        return versions.activate(version, allow_pickle=stream.allow_pickle)
    try_model(stream, version)
    _ask(stream, asking.choose(version))
    return versions.get(version)


def _pin(stream: StreamSettings, versions: "Versions", version: str, name: str) -> None:
    from driftline.learner.shared import applied, asking

    if applied.read(stream.data) is None:
        versions.pin(version, name)
        return
    versions.check_pin(version)
    _ask(stream, asking.pin(version, name))
    versions.get(version)  # it may have been dropped in the same moment


def _unpin(stream: StreamSettings, versions: "Versions", version: str) -> None:
    from driftline.learner.shared import applied, asking

    if applied.read(stream.data) is None:
        versions.unpin(version)
        return
    versions.check_pinned(version)
    _ask(stream, asking.unpin(version))


def _ask(stream: StreamSettings, record: "NewRecord") -> None:
    """Ask for something that is to hold on all machines, and wait a while until it does on this one."""
    from driftline.learner.shared.asking import ask
    from driftline.stream.log.open import open_to_keep

    with closing(open_to_keep(stream)) as log:
        if not ask(log, stream.data, record, WAIT_S):
            print_remark(
                f"it is written down, and holds for all; nobody has read it into {stream.data} within {WAIT_S:g} s: "
                "see whether the learner, or what follows it, is at work here"
            )


def _say(console: "Console", answer: dict[str, Any], said: str, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        console.print(escape(said))


def _described(versions: "Versions", kept: "Kept") -> dict[str, Any]:
    pin = versions.pins().get(kept.version)
    active = versions.active().version == kept.version
    found: dict[str, Any] = msgspec.to_builtins(kept)
    return found | {"pinned": pin is not None, "name": pin.name if pin else "", "active": active}


def _list(versions: "Versions", as_json: bool) -> None:
    from rich.table import Table

    found = [_described(versions, kept) for kept in versions.kept()]
    active = versions.active().version
    if as_json:
        print_json({"pinned_to": active, "snapshots": found})
        return
    console = terminal()
    if not found:
        console.print("No snapshot is kept yet: one is with each checkpoint, once something was learned.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("version", "created", "model", "labels learned", "accuracy", "log loss", ""):
        numeric = heading in {"labels learned", "accuracy", "log loss"}
        whole = heading in {"version", "created"}
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for each in found:
        recent = each["recent"]
        marks = ["[bold]served[/bold]"] * each["active"] + [f"pinned {escape(each['name'])}".strip()] * each["pinned"]
        scores = (f"{recent['accuracy']:.4f}", f"{recent['log_loss']:.4f}") if recent["labels"] else ("", "")
        model, learned = escape(each["model"]), f"{each['labels_learned']:,}"
        table.add_row(escape(each["version"]), escape(each["created_at"]), model, learned, *scores, ", ".join(marks))
    print_table(table)
    console.print("Accuracy and log loss: of predictions as served, over the last 1,000 labels then.", style="dim")
    console.print(f"Served: {'pinned to ' + escape(active) if active else 'the latest'}.")


def _show(versions: "Versions", version: str, as_json: bool) -> None:
    from rich.table import Table

    found = _described(versions, versions.get(version))
    if as_json:
        print_json(found)
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for field, value in found.items():
        table.add_row(field, escape(str(value)))
    print_table(table)
