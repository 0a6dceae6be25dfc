"""How does a checkpoint become a machine, and a machine a checkpoint's manifest?

What both the loop and everything that replays beside it must do in the same way.
"""

import copy
from collections.abc import Mapping
from datetime import UTC, datetime

from driftline.learner.disk.checkpoint import REVISION, Checkpoint, Manifest, by_partition, by_topic
from driftline.learner.machine.machine import Machine
from driftline.learner.models.classifier import State
from driftline.learner.registry import build_saved, warm_up
from driftline.stream.log.base import TopicPartition, TopicState, Watermarks
from driftline.stream.log.clock import Clock


def restore(checkpoint: Checkpoint, *, allow_pickle: bool = False) -> Machine:
    """Return a machine in the state of a checkpoint, which it may keep parts of.

    Raises
    ------
    ConfigError : the model is of another library, and that was not allowed.
    StateError : the state does not fit together.
    """
    manifest = checkpoint.manifest
    warm_up(manifest.config["classifier"])
    classifier = build_saved(manifest.config, allow_pickle=allow_pickle)
    machine = Machine(manifest.rules, classifier, manifest.lineage)
    machine.classifier.load_state(checkpoint.model, manifest.labels)
    machine.progress.load_state(checkpoint.progress)
    machine.drift.load_state(checkpoint.drift)
    machine.gate.load_state(checkpoint.drift)
    machine.places.load_state(checkpoint.drift, len(manifest.labels))
    if manifest.rebuilt is not None:
        machine.taken_over_ms = manifest.rebuilt.taken_over_ms
    machine.counts, machine.alarms, machine.quotas = manifest.counts, manifest.alarms, manifest.quotas
    machine.budget = manifest.budget
    machine.join.load_state(manifest.join_counts, [b"".join(parts) for parts in checkpoint.windows])
    return machine


def describe(
    machine: Machine,
    batch: int,
    epoch: int,
    positions: Mapping[TopicPartition, int],
    clocks: Mapping[TopicPartition, Clock],
    clock: Clock,
    log: Mapping[str, TopicState],
) -> Manifest:
    """Return the manifest of a machine after a batch; what of it may change is copied."""
    return Manifest(
        batch=batch,
        epoch=epoch,
        lineage=machine.version.rpartition("-")[0],
        model=machine.classifier.spec,
        config=machine.classifier.config(),
        rules=machine.rules,
        labels=list(machine.classifier.labels),
        positions=by_topic(positions),
        clocks=by_topic({partition: clock.now_ms for partition, clock in clocks.items()}),
        counts=copy.deepcopy(machine.counts),
        join_counts=copy.deepcopy(machine.join.counts),
        alarms=copy.deepcopy(machine.alarms),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        identities={topic: state.identity for topic, state in log.items()},
        ends=by_topic({partition: mark.high for partition, mark in marks(log).items()}),
        ahead=by_topic({partition: clock[1:3] for partition, clock in clocks.items() if clock.votes}),
        clock=clock[:3],
        rhythms=by_topic({partition: clock[3:] for partition, clock in clocks.items() if any(clock[3:])}),
        rhythm=clock[3:],
        quotas=machine.quotas.copy(),
        budget=copy.copy(machine.budget),
        revision=REVISION,
    )


def clocks_of(manifest: Manifest) -> dict[TopicPartition, Clock]:
    """Return the partitions' clocks."""
    ahead, rhythms = by_partition(manifest.ahead), by_partition(manifest.rhythms)
    return {
        partition: Clock(now_ms, *ahead.get(partition, (0, 0)), *rhythms.get(partition, ()))
        for partition, now_ms in by_partition(manifest.clocks).items()
    }


def clock_of(manifest: Manifest) -> Clock:
    """Return the clock of all partitions."""
    return Clock(*manifest.clock, *manifest.rhythm)


def copied(machine: Machine, manifest: Manifest) -> Checkpoint:
    """Return a machine's state as a checkpoint; the model's arrays are its own."""
    windows = [list(window.encode()) for window in machine.join.freeze()]
    return Checkpoint(manifest, machine.classifier.state(), machine.progress.state(), watched(machine), windows)


def watched(machine: Machine) -> State:
    """Return what is known of predictions and labels beside the metrics: drift windows, the publish gate, places."""
    return machine.drift.state() | machine.gate.state() | machine.places.state()


def marks(log: Mapping[str, TopicState]) -> dict[TopicPartition, Watermarks]:
    """Return the watermarks of all partitions."""
    return {TopicPartition(topic, p): mark for topic, state in log.items() for p, mark in state.watermarks.items()}
