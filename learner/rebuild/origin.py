"""With what does a model that is built anew begin, and what is gone for it?

With nothing, at the log's first record; or with a checkpoint that the log still follows (bases.py). What the model at
work was learned from and the log no longer has is counted, and has to be accepted.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk.checkpoint import Manifest, by_partition, by_topic
from driftline.learner.disk.rebuilt import Base, LeftOut, Rebuilt
from driftline.learner.disk.settings import Rules
from driftline.learner.machine.machine import Machine
from driftline.learner.machine.restore import clocks_of, marks, restore
from driftline.learner.rebuild.bases import Bases
from driftline.learner.registry import built_anew, make_classifier, warm_up
from driftline.stream.errors import ConfigError, RecordsLost
from driftline.stream.log.base import Log, TopicPartition, TopicState
from driftline.stream.log.clock import Clock

Positions = Mapping[TopicPartition, int]


class Start(NamedTuple):
    """What is built on: an empty machine, or a base's."""

    machine: Machine
    clocks: Mapping[TopicPartition, Clock]
    clock: Clock


def begin(
    log: Log,
    manifest: Manifest,
    left_out: LeftOut,
    model: str | None,
    base: Path | None,
    state: Mapping[str, TopicState],
    allow_pickle: bool,
) -> tuple[Start, Rebuilt]:
    """Return a machine by a checkpoint's rules, and what is known before anything was read."""
    lineage, bounds = uuid.uuid4().hex[:8], marks(state)
    rules = msgspec.structs.replace(
        manifest.rules, predictions=False, partitions=log.partition_count(manifest.rules.topics.messages)
    )
    first = by_topic({partition: mark.low for partition, mark in bounds.items()})
    rebuilt = Rebuilt(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        lineage=lineage,
        left_out=left_out,
        rules=rules,
        starts=first,
        begun=first,
        looked=by_topic({partition: mark.high for partition, mark in bounds.items()}),
        missing={}
        if base
        else {
            topic: sum(end - start for _, start, end in gone(manifest, {topic: state[topic]}))
            for topic in rules.topics[:2]
        },
    )
    if base is None:
        classifier = (
            make_classifier(model, allow_pickle=allow_pickle)
            if model
            else built_anew(manifest.config, allow_pickle=allow_pickle)
        )
        warm_up(classifier.config()["classifier"])
        return Start(Machine(rules, classifier, lineage), {}, Clock()), rebuilt
    start, held = begin_with(base, rules, lineage, allow_pickle)
    at = by_partition(first) | by_partition(held.positions)
    described = Base(
        batch=held.batch,
        created_at=held.created_at,
        labels_learned=held.counts.labels_learned,
        sha256=sum_of(base),
    )
    return start, msgspec.structs.replace(rebuilt, starts=by_topic(at), begun=held.begun, base=described)


def begin_with(base: Path, rules: Rules, lineage: str, allow_pickle: bool) -> tuple[Start, Manifest]:
    held = checkpoints.load_checkpoint(base)
    manifest = held.manifest
    machine = restore(held, allow_pickle=allow_pickle)
    machine.renew(lineage)
    machine.obey(rules)
    return Start(machine, clocks_of(manifest), Clock(*manifest.clock)), manifest


def sum_of(path: Path) -> str:
    return checkpoints.sha256([(path / "SHA256SUMS").read_bytes()])


def gone(manifest: Manifest, state: Mapping[str, TopicState]) -> list[tuple[TopicPartition, int, int]]:
    """Return the ranges of records that a model was learned from and the log no longer has."""
    begun = by_partition(manifest.begun)
    found = [(partition, begun.get(partition, 0), mark.low) for partition, mark in marks(state).items()]
    return [(partition, start, low) for partition, start, low in found if low > start]


def check_loss(
    manifest: Manifest, state: Mapping[str, TopicState], reached: Positions, base: tuple[Path, Manifest] | None
) -> None:
    """Refuse to build a model from a log that has not all that the one at work has learned.

    Parameters
    ----------
    reached : up to where that one has read
    base : the checkpoint that could be begun with

    Raises
    ------
    RecordsLost : what is gone, how many labels that is, and what to do.
    """
    ranges = gone(manifest, state)
    if not ranges:
        return
    topic, learned = manifest.rules.topics.feedback, manifest.counts.labels_learned
    left = sum(
        max(0, at - state[topic].watermarks[partition.partition].low)
        for partition, at in reached.items()
        if partition.topic == topic and partition.partition in state[topic].watermarks
    )
    lost = "; ".join(f"{p}: {low - start:,} records, offsets {start} to {low - 1}" for p, start, low in ranges)
    raise RecordsLost(
        f"the log no longer has all that the model was learned from ({lost}). A model built from what is left has at "
        f"most {min(learned, left):,} of the {learned:,} labels of this one. "
        + (
            f"Begin with the checkpoint of {base[1].created_at} instead (--from-checkpoint): the "
            f"{base[1].counts.labels_learned:,} labels in it stay learned. "
            if base is not None
            else ""
        )
        + "--accept-loss builds it from what is left. Nothing was changed"
    )


def base_of(
    data: Path,
    manifest: Manifest,
    state: Mapping[str, TopicState],
    reached: Positions,
    *,
    wanted: bool,
    refuse: bool,
) -> Path | None:
    """Return the checkpoint to begin with, None where there is to be none. Raises RecordsLost, ConfigError."""
    bases = Bases(data, 0)
    found = bases.oldest({partition: mark.low for partition, mark in marks(state).items()})
    if not wanted:
        if refuse:
            check_loss(manifest, state, reached, found)
        return None
    if found is None:
        raise ConfigError(f"--from-checkpoint: the log has not all that came after any checkpoint in {data}")
    bases.hold(found[0])  # `verify` builds from it again
    return bases.get(found[1].batch)
