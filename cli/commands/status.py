"""What is the learner doing? `driftline status`; `driftline learn` ends with the same."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape

from driftline.cli.terminal import print_json, print_table
from driftline.stream.errors import ConfigError
from driftline.stream.process.flags import with_shown
from driftline.stream.process.settings import StreamSettings
from driftline.stream.words import counted

FEW_PLACES: Final = 20  # whoever says so few says how many labels there are

if TYPE_CHECKING:
    from driftline.learner.report.status import Status


@with_shown("data")
def status(stream: StreamSettings, as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show what the learner of a data directory is doing. Exit code 0 while it is at work, 1 otherwise."""
    from driftline.learner.report.status import read_status
    from driftline.learner.serving.choices import Choices

    found = read_status(stream.data)
    if found is None:
        raise ConfigError(
            f"no learner has run on {stream.data} yet; start one with `driftline up`, or name another --data"
        )
    if as_json:
        print_json(found)
    else:
        print_status(found, Choices(stream.data).active().version)
    if not found.alive:
        raise typer.Exit(1)


def print_status(status: "Status", pinned_to: str | None = None) -> None:
    """Print a status, a line a subject."""
    from rich.table import Table

    progress, counts, join = status.progress, status.counts, status.join
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows: dict[str, str] = {
        "learner": f"{status.word}, {status.age_s:.0f} s ago" + (f": {status.detail}" if status.detail else ""),
        "model": f"{status.model}, version {status.version or '-'}, {_describe_labels(status)}",
        "messages": f"{counts.messages_seen:,} seen, {status.pending:,} waiting for a label, "
        f"{join.expired:,} left without one",
        "labels": f"{counts.labels_learned:,} learned, {counted(join.corrected, 'correction')}, "
        f"{join.repeated:,} repeated, "
        f"{status.waiting:,} waiting for a message, {join.orphaned:,} orphaned",
        "rejected": f"{counts.rejected:,}",
        "accuracy": f"{progress['accuracy']:.4f} as served, {progress['recent']['accuracy']:.4f} "
        f"over the last {counted(progress['recent']['labels'], 'label')}; log loss {progress['log_loss']:.4f}"
        f"{_describe_known(progress)}, calibration error {progress['calibration_error']:.3f}"
        if progress["labels"]
        else "no label has met a prediction yet",
        "not scored": _describe_unscored(progress),
        "drift": _describe_drift(status),
        "vectors": _describe_vectors(status) or _describe_unused(status),
        "store": f"{status.uploads.where}: {status.uploads}" if status.uploads is not None else "",
    }
    if status.places and status.places_left <= status.places // 10 and status.places > FEW_PLACES:
        rows["places"] = (
            f"{len(status.labels):,} of {status.places:,} taken, room for {counted(status.places_left, 'new label')}; "
            "--labels says which labels there are, `driftline rebuild --exclude label=NAME` takes one out"
        )
    if counts.refused:
        rows["refused"] = (
            f"{counted(counts.refused, 'label')} that the model could not learn: an error of its own (a foreign "
            "model's first one is in the learner's log), or a number that is none"
        )
    if counts.clock_jumps or counts.unwritten:
        rows["odd"] = (
            f"{counted(counts.clock_jumps, 'timestamp')} too far off to count, "
            f"{counted(counts.unwritten, 'prediction')} too large to send"
        )
    if join.other_texts or join.reused_ids:
        rows["ids"] = (
            f"{counted(join.other_texts, 'text')} under an id that had another, {counted(join.ambiguous, 'label')} "
            f"refused for it; {counted(join.reused_ids, 'feedback id')} with something else to say"
        )
    if status.over_quota:
        most = sorted(status.over_quota.items(), key=lambda item: -item[1])[:3]
        rows["over quota"] = f"{counts.over_quota:,}; most of " + ", ".join(f"{name} ({n:,})" for name, n in most)
    if status.gate.state == "shut":
        rows["held back"] = status.gate.why
    if status.losses.losses:
        rows["lost"] = (
            f"{counted(status.losses.records, 'record')} that the log no longer had; last {status.losses.recent[-1]}"
        )
    if pinned_to is not None:
        rows["served"] = f"pinned to {pinned_to}; `driftline snapshots latest` has the latest served again"
    if status.erased.times:
        rows["erased"] = (
            f"{counted(status.erased.times, 'time')}, last at {status.erased.at}; `driftline erase --list` has each"
        )
    if status.rebuilt is not None:
        rows["rebuilt"] = str(status.rebuilt)
    for name, value in rows.items():
        if value:
            table.add_row(name, escape(value))
    print_table(table)


def _describe_labels(status: "Status") -> str:
    n = len(status.labels)
    return f"{n:,} of {counted(status.places, 'label')}" if status.places else counted(n, "label")


def _describe_unused(status: "Status") -> str:
    """Say how many messages brought a vector in vain; nothing where none did."""
    n = status.counts.vectors_unused
    return f"{counted(n, 'message')} with one that {status.model} does not take" if n else ""


def _describe_vectors(status: "Status") -> str:
    """Say how many texts got a vector by a sentence model, and how many did not; nothing without one."""
    made, spared = status.counts.vectors_made, status.counts.vectors_spared
    beyond = f"; {spared:,} without one, beyond embed_rate" if spared else ""
    return f"of {counted(made, 'text')} by the sentence model{beyond}" if made or spared else ""


def _describe_known(progress: dict[str, Any]) -> str:
    """Say what the log loss is without labels that were new; nothing where none was."""
    if not progress.get("unknown"):
        return ""
    return f" ({progress['known_log_loss']:.4f} without labels that were new)"


def _describe_unscored(progress: dict[str, Any]) -> str:
    """Say how many labels were compared with no prediction, and why; nothing where all were."""
    whys = {
        "unpredicted": "whose message came before the first label was learned",
        "unasked": "that brought their text, so that nothing had been predicted",
        "corrections": "that correct one",
    }
    found = {why: int(progress.get(name, 0)) for name, why in whys.items()}
    if not any(found.values()):
        return ""
    return f"{counted(sum(found.values()), 'label')}: " + ", ".join(f"{n:,} {why}" for why, n in found.items() if n)


def _describe_drift(status: "Status") -> str:
    overall = status.drift.overall
    line = f"got worse {counted(overall.worse, 'time')}, better {counted(overall.better, 'time')}"
    worse = [alarm for alarm in status.drift.recent if alarm.change == "worse" and alarm.label is None]
    if worse:
        last = worse[-1]
        line += f"; worse last at label {last.at_label:,}: log loss {last.loss_before:.3f}, then {last.loss_after:.3f}"
    return line
