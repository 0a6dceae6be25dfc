"""How is a model built anew from the log, beside the one that is at work?

What is replayed is the log itself, from its first record, in the order of time, without the labels that omit.py leaves
out. Where retention has taken records that the model has learned it is refused, unless that is accepted, or it begins
with a checkpoint that the log still follows (bases.py): then what is older stays learned. Nothing of it is sent
anywhere. The new state is put down as a checkpoint in a directory of its own, and the loop, which alone may change
anything else, takes it over:

    1. collect the retractions, up to the log's end as it is now; one that comes later counts the next time
    2. replay up to where the learner was when it was asked, then up to where it is now, and so on, until that is near
    3. put the state down in `rebuild/staged`, whole or not at all
    4. a learner that runs sees it within a second, one that starts does so first; where none runs, this process is one:
       a. at a batch's border it makes a checkpoint of the old state
       b. the new state catches up to that same place, on the log's records
       c. it takes the place of the old one, in a batch without records, and a checkpoint is written: its rename is the
          one stroke
       d. `rebuild/` goes

Before c is done recovery gives the old state, and `rebuild/staged` is taken over again; behind it, the new one. What
the old state had applied the new one has too, and both go on at the same positions: nothing is lost, nothing is
learned twice. What cannot be taken over is refused with its reason (`rebuild/refused`); the learner goes on as it was.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import durable
from driftline.learner.disk import journal as journals
from driftline.learner.disk.checkpoint import Manifest, by_partition, by_topic
from driftline.learner.disk.lock import alone
from driftline.learner.disk.positions import reached
from driftline.learner.disk.rebuilt import LeftOut, Rebuilt
from driftline.learner.machine.machine import Machine
from driftline.learner.machine.restore import copied, describe, marks
from driftline.learner.machine.served import carry
from driftline.learner.rebuild.bases import Bases
from driftline.learner.rebuild.erase import left_of
from driftline.learner.rebuild.omit import Omit, Retractions, select
from driftline.learner.rebuild.origin import Start, base_of, begin, begin_with, check_loss, sum_of
from driftline.learner.registry import build_saved, warm_up
from driftline.stream.errors import ConfigError, LogUnavailable, StateError
from driftline.stream.log.base import Log, TopicPartition
from driftline.stream.log.bounded import Bounded
from driftline.stream.log.clock import Clock
from driftline.stream.log.merge import Batch, Merger

DIRECTORY: Final = "rebuild"
STAGED: Final = "staged"
RETRACTIONS: Final = "retractions.db"
LOCK: Final = "rebuild.lock"
BATCH_RECORDS: Final = 4096
NEAR: Final = 2 * BATCH_RECORDS  # records that a learner may take over at once: a fraction of a second
MAX_STRETCHES: Final = 20
TRIES: Final = 5  # to read what a running learner is just replacing

Positions = Mapping[TopicPartition, int]
Progress = Callable[[int, int], None]  # records, of how many


class Builder:
    """A model that is being built. One thread.

    Parameters
    ----------
    machine : changed
    rebuilt : what was built so far
    positions, clocks : of the machine
    retractions : kept by the caller
    erased : offsets that the log may still have, and nothing is to be learned from
    """

    def __init__(
        self,
        log: Log,
        machine: Machine,
        rebuilt: Rebuilt,
        positions: Positions,
        clocks: Mapping[TopicPartition, Clock],
        clock: Clock,
        retractions: Retractions,
        erased: Mapping[TopicPartition, set[int]] | None = None,
    ) -> None:
        self.machine, self.positions, self.clocks, self.clock = machine, dict(positions), dict(clocks), clock
        self._log, self._rebuilt, self._borders = log, rebuilt, list(rebuilt.borders)
        rules = rebuilt.rules
        self._omit = Omit(rules.topics.feedback, rebuilt.left_out, retractions, rules.max_record_bytes, erased)
        self._until_ms = rebuilt.left_out.until_ms

    def advance(self, ends: Positions, on_records: Callable[[int], None] = lambda _: None) -> None:
        """Apply the records up to these positions, none of which may lie before the machine's own.

        Raises
        ------
        OffsetsLost : the log dropped some of them meanwhile.
        LogUnavailable : it gives none of them.
        """
        starts = {partition: self.positions.get(partition, 0) for partition in ends}
        if starts == ends:
            return
        n_partitions = sum(partition.topic == self._rebuilt.rules.topics.messages for partition in ends)
        if n_partitions > self.machine.rules.partitions:
            self.machine.obey(msgspec.structs.replace(self.machine.rules, partitions=n_partitions))
        readers = [
            Bounded(self._log.reader({p: at for p, at in starts.items() if p.topic == topic}), starts, ends)
            for topic in self._rebuilt.rules.topics[:2]
        ]
        # Whichever broker is slow, the order stays: a state that was built anew has to come out the same again.
        merger = Merger(readers, starts, self.clocks, self._rebuilt.rules.clock, self.clock, patience_s=math.inf)
        try:
            while not merger.at_end:
                batch = merger.take(BATCH_RECORDS, 0.1)
                if len(batch):
                    for part in self._parts(self._omit(batch)):
                        self.machine.apply(part)
                    on_records(len(batch))
        finally:
            for reader in readers:
                reader.close()
        self.positions, self.clocks, self.clock = dict(ends), self.clocks | merger.clocks, merger.clock
        self._borders.append(by_topic(ends))

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        """Give a batch in one part, or in two: from `until` on nothing is learned of messages that leave, either."""
        if self._until_ms is None or self.machine.rules.expire_as is None:
            if len(batch):
                yield batch
            return
        times = np.concatenate([np.empty(0, np.int64), *(chunk.timestamps_ms for chunk in batch.chunks)])[batch.order]
        late = np.maximum.accumulate(times > self._until_ms)
        for part in (~late, late):
            if part.any():
                if part is late:
                    self.machine.obey(msgspec.structs.replace(self.machine.rules, expire_as=None))
                yield select(batch, part)

    def take_over(self, old: Machine, before: Rebuilt | None, batch: int) -> Rebuilt:
        """Take the place of a machine that has applied the same records, in a batch; return what was built.

        Parameters
        ----------
        before : how that one was built, where it was
        """
        carry(old, self.machine)
        self.machine.taken_over_ms = self.clock.now_ms
        name = "" if before is None else before.lineage
        return msgspec.structs.replace(self.rebuilt(batch), before=name, taken_over_ms=self.clock.now_ms)

    def rebuilt(self, batch: int) -> Rebuilt:
        """Return what was built, which takes its place in a batch."""
        before = self._rebuilt
        return msgspec.structs.replace(
            before,
            batch=batch,
            borders=self._borders,
            retracted=before.retracted + self._omit.retracted,
            excluded=before.excluded + self._omit.excluded,
        )


def collect(log: Log, rebuilt: Rebuilt, retractions: Retractions, on_records: Callable[[int], None]) -> None:
    """Collect the retractions of a building."""
    topic, starts, ends = rebuilt.rules.topics.feedback, by_partition(rebuilt.starts), by_partition(rebuilt.looked)
    retractions.collect(
        log,
        {partition: at for partition, at in starts.items() if partition.topic == topic},
        {partition: at for partition, at in ends.items() if partition.topic == topic},
        rebuilt.left_out,
        rebuilt.rules.max_record_bytes,
        on_records,
    )


def stage(
    data: Path,
    log: Log,
    left_out: LeftOut,
    model: str | None = None,
    *,
    into: Path | None = None,
    from_checkpoint: bool = False,
    accept_loss: bool = False,
    allow_pickle: bool = False,
    on_look: Progress = lambda *_: None,
    on_records: Progress = lambda *_: None,
) -> Rebuilt:
    """Build a model, and put it down where a learner takes it over.

    Parameters
    ----------
    model : its specification; None: as that of the newest checkpoint
    into : a new data directory, to be learned on from where the model ends; None: take the place of `data`'s own
    from_checkpoint : begin with the oldest state that the log still follows
    accept_loss : build it from what is left of the log, whatever the model at work has learned

    Raises
    ------
    ConfigError : nothing was learned there yet; `into` holds something; the model cannot be meant.
    RecordsLost : it would take the place of a model that has learned what the log no longer has.
    StateError : another one is being built.
    LogError : the log cannot be read, or has changed meanwhile.
    """
    if into is not None and checkpoints.list_checkpoints(into / "checkpoints"):
        raise ConfigError(f"into: {into} holds a model already; name a directory that is new")
    if from_checkpoint and model is not None:
        raise ConfigError("--from-checkpoint goes on with the model in it; another --model begins with the log")
    applied(data)
    with alone(data / LOCK, f"another model is being built in {data}; wait for it, or stop it"):
        root = data / DIRECTORY
        manifest, reached = applied(data)
        known = manifest.erased
        topics = manifest.rules.topics[:2]
        state = log.describe(topics)
        if len(state) < len(topics):
            raise ConfigError(f"log: it has no {' or '.join(topic for topic in topics if topic not in state)}")
        base = base_of(data, manifest, state, reached, wanted=from_checkpoint, refuse=not accept_loss and into is None)
        durable.remove(root)
        durable.make_directory(root)
        (machine, clocks, clock), rebuilt = begin(log, manifest, left_out, model, base, state, allow_pickle)
        with closing(Retractions(root / RETRACTIONS)) as retractions:
            _collect(log, rebuilt, retractions, on_look)  # 1
            builder = Builder(
                log, machine, rebuilt, by_partition(rebuilt.starts), clocks, clock, retractions, left_of(data)
            )
            manifest = _approach(data, builder, on_records)  # 2
            retractions.keep()
            rebuilt = builder.rebuilt(0)
        now = log.describe(topics)
        if any(now[topic].identity != state[topic].identity for topic in topics):
            raise LogUnavailable("a topic was made again meanwhile; start again")
        made = describe(machine, manifest.batch, manifest.epoch, builder.positions, builder.clocks, builder.clock, now)
        made.losses, made.rebuilt, made.begun = manifest.losses, rebuilt, rebuilt.begun
        made.erased = known
        if into is None:
            checkpoints.save_checkpoint(root, copied(machine, made), STAGED)  # 3
        else:
            checkpoints.save_checkpoint(into / "checkpoints", copied(machine, made))
            durable.remove(root)
    return rebuilt


def check_start(data: Path, log: Log, *, from_checkpoint: bool, accept_loss: bool) -> None:
    """Raise what `stage` would refuse now to begin. Raises RecordsLost, ConfigError."""
    manifest, reached = applied(data)
    state = log.describe(manifest.rules.topics[:2])
    lows = {partition: mark.low for partition, mark in marks(state).items()}
    base = Bases(data, 0).oldest(lows)
    if not from_checkpoint and not accept_loss:
        check_loss(manifest, state, reached, base)
    elif from_checkpoint and base is None:
        raise ConfigError(f"--from-checkpoint: the log has not all that came after any checkpoint in {data}")


def _collect(log: Log, rebuilt: Rebuilt, retractions: Retractions, on_look: Progress) -> None:
    topic, done = rebuilt.rules.topics.feedback, 0
    total = sum(rebuilt.looked[topic].values()) - sum(rebuilt.starts[topic].values())

    def looked(n: int) -> None:
        nonlocal done
        done += n
        on_look(done, total)

    collect(log, rebuilt, retractions, looked)


def _approach(data: Path, builder: Builder, on_records: Progress) -> Manifest:
    """Build up to where the learner is, or near; return the newest manifest of that moment."""
    done = 0

    def built(n: int) -> None:
        nonlocal done
        done += n
        on_records(done, total)

    for _ in range(MAX_STRETCHES):
        manifest, goal = applied(data)
        # What a learner had before the log's first record now is not there to be read.
        ends = {partition: max(at, builder.positions.get(partition, 0)) for partition, at in goal.items()}
        left = sum(ends.values()) - sum(builder.positions.get(partition, 0) for partition in ends)
        total = done + left
        builder.advance(ends, built)
        if left <= NEAR:
            break
    return manifest


def applied(data: Path) -> tuple[Manifest, dict[TopicPartition, int]]:
    """Return the newest checkpoint's manifest, and the positions that the journals behind it reach.

    Raises
    ------
    ConfigError : nothing was learned there yet.
    StateError : it cannot be read.
    """
    for attempt in range(TRIES):
        paths = checkpoints.list_checkpoints(data / "checkpoints")
        if not paths:
            raise ConfigError(f"{data} holds no checkpoint: no learner has run there yet")
        try:
            manifest = checkpoints.load_manifest(paths[0])
            todo = journals.read_since(data / "journal", manifest.batch)
            return manifest, reached(by_partition(manifest.positions), todo)
        except (StateError, OSError):
            if attempt == TRIES - 1:
                raise
            time.sleep(0.1)  # a learner wrote a newer one just then
    raise AssertionError("unreachable")


def repeat(data: Path, log: Log, rebuilt: Rebuilt, last: Manifest, allow_pickle: bool) -> Builder:
    """Build the same model again, up to where it took over (rebuild/verify.py).

    Raises
    ------
    StateError : what it began with is not there any more.
    """
    if rebuilt.base is None:
        classifier = build_saved(last.config, allow_pickle=allow_pickle)
        warm_up(last.config["classifier"])
        start = Start(Machine(rebuilt.rules, classifier, rebuilt.lineage), {}, Clock())
    else:
        path = Bases(data, 0).get(rebuilt.base.batch)
        try:
            held = sum_of(path) == rebuilt.base.sha256
        except OSError:
            held = False
        if not held:
            raise StateError(f"{path}, with which the model was begun, is gone or was changed since")
        start, _ = begin_with(path, rebuilt.rules, rebuilt.lineage, allow_pickle)
    again = msgspec.structs.replace(rebuilt, borders=[], retracted=0, excluded=0)
    with closing(Retractions("")) as retractions:
        collect(log, rebuilt, retractions, lambda _: None)
        builder = Builder(
            log,
            start.machine,
            again,
            by_partition(rebuilt.starts),
            start.clocks,
            start.clock,
            retractions,
            left_of(data),
        )
        for border in rebuilt.borders:
            builder.advance(by_partition(border))
    return builder
