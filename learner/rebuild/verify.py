"""Does the log still give the state that a checkpoint holds?

A replay from an earlier checkpoint along the journals, by the rules that stand in them, must give every file of the
later one with the same SHA-256. Only reads, and takes no lock, so it works beside a running learner:

    1. read the earlier checkpoint, the later one and the journals between them
    2. leave out what was lost by then, as the recovery that accepted that did (disk/positions.py)
    3. see that the log has all the rest; what it dropped since, no replay can give
    4. replay; where a model built anew took over between them, up to there, then that one, built once more, with what
       the one before knows of predictions that were served (machine/served.py)
    5. compare, file by file, and name the arrays that differ; what an older version did not hold or count yet is told
       apart: the replay has it, the checkpoint cannot

What keeps a state from being proved is told apart from a state that is proved to be another one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import journal as journals
from driftline.learner.disk.checkpoint import Checkpoint
from driftline.learner.disk.journal import Applied
from driftline.learner.disk.losses import Loss
from driftline.learner.disk.positions import Shortfall
from driftline.learner.disk.rebuilt import Rebuilt
from driftline.learner.machine.machine import Machine
from driftline.learner.machine.restore import clock_of, clocks_of, copied, describe, marks, restore
from driftline.learner.models.classifier import State
from driftline.learner.rebuild import rebuild
from driftline.stream.errors import DriftlineError, LogUnavailable, OffsetsLost, StateError
from driftline.stream.log.base import Log, TopicPartition
from driftline.stream.log.bounded import SILENT_S
from driftline.stream.log.clock import Clock
from driftline.stream.log.merge import Merger, Span
from driftline.stream.words import counted

# Of a manifest, what a replay gives; the rest says when and by whom it was written.
REPLAYED: Final = ("labels", "config", "counts", "join_counts", "alarms", "quotas", "budget")
COUNTED: Final = ("counts", "join_counts")
_ANEW: Final = "the model was built anew between them, and so it was here"
Progress = Callable[[int, int], None]  # batches replayed, of how many


class Verdict(NamedTuple):
    """What came of one comparison.

    same : proved. differs : the later one is not what the earlier one and the log give. damaged : one of the two is not
    what its SHA256SUMS say. unknown : cannot be told, for want of what the details name. gone : a running learner
    dropped one of the two meanwhile.
    """

    earlier: int
    later: int
    outcome: Literal["same", "differs", "damaged", "unknown", "gone"]
    details: list[str]
    batches: int = 0
    records: int = 0


class Unverifiable(DriftlineError):
    """Something that the replay needs is not there."""


class _Loaded(NamedTuple):
    checkpoint: Checkpoint
    sums: dict[str, str]


def pairs(root: Path, first: int | None = None, last: int | None = None) -> list[tuple[int, int]]:
    """Return which checkpoints to compare: neighbours; where both ends are given, these two.

    Raises
    ------
    StateError : there is no such checkpoint, or only one.
    """
    kept = sorted(int(path.name) for path in checkpoints.list_checkpoints(root))
    for batch in (first, last):
        if batch is not None and batch not in kept:
            raise StateError(f"{root} has no checkpoint {batch}; it has {', '.join(map(str, kept)) or 'none'}")
    if first is not None and last is not None:
        if first >= last:
            raise StateError(f"checkpoint {first} is not before checkpoint {last}")
        return [(first, last)]
    found = [
        pair for pair in pairwise(kept) if (first is None or pair[0] >= first) and (last is None or pair[1] == last)
    ]
    if not found:
        raise StateError(
            f"{root} has {counted(len(kept), 'checkpoint')}, and none to compare with one before; two are needed"
        )
    return found


def verify(
    data: Path, log: Log, earlier: int, later: int, *, allow_pickle: bool = False, on_batch: Progress = lambda *_: None
) -> Verdict:
    """Replay from one checkpoint to another, and compare.

    Raises
    ------
    LogError : the log cannot be reached.
    ConfigError : the model is of another library, and that was not allowed.
    """
    root = data / "checkpoints"
    try:
        first, last = _load(root, earlier), _load(root, later)  # 1
    except FileNotFoundError as error:
        return Verdict(earlier, later, "gone", [f"checkpoint {error} was dropped meanwhile: there are newer ones"])
    except StateError as error:
        return Verdict(earlier, later, "damaged", [str(error)])
    try:
        _check_formats(first.checkpoint, last.checkpoint)
        todo = _between(data / "journal", first.checkpoint, last.checkpoint)  # 2
        _check_log(log, todo, last.checkpoint)  # 3
        machine, clocks, records = _replay_all(  # 4
            data, log, first.checkpoint, last.checkpoint, todo, allow_pickle=allow_pickle, on_batch=on_batch
        )
    except Unverifiable as error:
        return Verdict(earlier, later, "unknown", [str(error)])
    except OffsetsLost as error:
        return Verdict(earlier, later, "unknown", [f"while it was being read: {error}"])
    differences, unheld = _differences(machine, clocks, last)  # 5
    details = differences + [_ANEW] * (_stroke(first.checkpoint, last.checkpoint) is not None and not differences)
    if unheld:
        details.append(f"checkpoint {later} is of an older version, which did not have {', '.join(unheld)}")
    return Verdict(earlier, later, "differs" if differences else "same", details, len(todo), records)


def _load(root: Path, batch: int) -> _Loaded:
    """Read a checkpoint. Raises FileNotFoundError with its number where it is gone, StateError where it is damaged."""
    path = checkpoints.path_of(root, batch)
    try:
        return _Loaded(checkpoints.load_checkpoint(path), checkpoints.read_sums(path))
    except (StateError, OSError):
        if not path.exists():
            raise FileNotFoundError(batch) from None
        raise


def _check_formats(*both: Checkpoint) -> None:
    """Raises Unverifiable where an older version wrote one: by its rules other labels were learned."""
    for each in both:
        if (found := each.manifest.format) != checkpoints.FORMAT:
            raise Unverifiable(
                f"checkpoint {each.manifest.batch} has format {found}, and labels are joined by other rules since "
                f"format {checkpoints.FORMAT}; the version that wrote it can tell"
            )


def _between(root: Path, first: Checkpoint, last: Checkpoint) -> list[Applied]:
    """Return the batches after one checkpoint up to another, without what was lost by then. Raises Unverifiable."""
    erased = last.manifest.erased
    if erased.batch > first.manifest.batch:
        raise Unverifiable(f"records that the replay needs were erased on purpose between them, at {erased.at}")
    rebuilt = _stroke(first, last)
    start, end = first.manifest.batch, last.manifest.batch
    if rebuilt is not None and rebuilt.before is None:
        start = rebuilt.batch  # by an older version: nothing of the model before is in it
    elif rebuilt is not None and rebuilt.before != (first.manifest.rebuilt.lineage if first.manifest.rebuilt else ""):
        raise Unverifiable("the model was built anew more than once between them")
    try:
        found = [applied for applied in journals.read_since(root, start) if applied.batch <= end]
    except (StateError, FileNotFoundError) as error:
        raise Unverifiable(f"the journal cannot be read: {error}") from None
    if len(found) < end - start:
        raise Unverifiable(f"{root}: the journal ends at batch {start + len(found)}; a journal is missing")
    kept, losses = last.manifest.losses, [loss for loss in last.manifest.losses.recent if loss.batch > start]
    if kept.losses - first.manifest.losses.losses > len(losses):
        raise Unverifiable("more losses were accepted between them than the checkpoint has ranges of")
    return [applied._replace(spans=list(_without(applied, losses))) for applied in found]


def _without(applied: Applied, losses: Sequence[Loss]) -> Iterator[Span]:
    """Give a batch's spans without what was lost before it was replayed. Raises Unverifiable."""
    for span in applied.spans:
        start, end = span.start, span.end
        for loss in losses:
            if TopicPartition(loss.topic, loss.partition) != span.partition or loss.batch <= applied.batch:
                continue
            if loss.why == "compacted":
                continue  # some of them: the replay counts
            held = loss.end - loss.lost  # from here on nothing was in the state; before it, what cannot be read again
            if max(start, loss.start) < min(end, held):
                raise Unverifiable(f"what batch {applied.batch} applied is gone: {loss}")
            if held <= start < loss.end:
                start = min(loss.end, end)
            elif start < held < end:
                end = held
        if start < end:
            yield span if (start, end) == span[1:3] else Span(span.partition, start, end)


def _check_log(log: Log, todo: Sequence[Applied], last: Checkpoint) -> None:
    """Raises Unverifiable where the log has not all that the batches name."""
    topics = last.manifest.rules.topics[:2]
    state = log.describe(topics)
    for topic in topics:
        known, now = last.manifest.identities.get(topic), state.get(topic)
        if now is None or (None not in (known, now.identity) and known != now.identity):
            raise Unverifiable(f"the log has no {topic} any more, or another one: it was deleted after the checkpoint")
    gone: dict[TopicPartition, tuple[int, int]] = {}
    bounds = marks(state)
    for span in (span for applied in todo for span in applied.spans):
        mark = bounds.get(span.partition)
        if mark is None or span.end > mark.high:
            raise Unverifiable(f"{span.partition}: the log ends before offset {span.end}; it was truncated or replaced")
        if span.start < mark.low:
            gone[span.partition] = min(gone.get(span.partition, span[1:3])[0], span.start), min(span.end, mark.low)
    if gone:
        which = "; ".join(
            f"{p}: {counted(end - start, 'record')}, offsets {start} to {end - 1}" for p, (start, end) in gone.items()
        )
        raise Unverifiable(f"the log dropped records that the replay needs: {which}")


def _stroke(first: Checkpoint, last: Checkpoint) -> Rebuilt | None:
    """Return how the model was built anew that took over between two checkpoints last, None where none did."""
    rebuilt = last.manifest.rebuilt
    return rebuilt if rebuilt is not None and rebuilt.batch > first.manifest.batch else None


def _replay_all(
    data: Path,
    log: Log,
    first: Checkpoint,
    last: Checkpoint,
    todo: Sequence[Applied],
    *,
    allow_pickle: bool,
    on_batch: Progress,
) -> tuple[Machine, dict[TopicPartition, Clock], int]:
    """Return the machine after the last batch, its partitions' clocks, and how many records it took."""
    lost = [loss for loss in last.manifest.losses.recent if loss.batch > first.manifest.batch]
    replay = _Replay(log, lost, len(todo), on_batch)
    rebuilt = _stroke(first, last)
    machine, clocks = restore(first, allow_pickle=allow_pickle), clocks_of(first.manifest)
    clock = clock_of(first.manifest)
    if rebuilt is not None:
        before = [applied for applied in todo if applied.batch < rebuilt.batch]
        todo = todo[len(before) :]
        if rebuilt.before is not None:
            replay.run(machine, clocks, clock, before)
        try:
            built = rebuild.repeat(data, log, rebuilt, last.manifest, allow_pickle)
        except StateError as error:
            raise Unverifiable(str(error)) from None
        if rebuilt.before is not None:
            built.take_over(machine, None, rebuilt.batch)
        machine, clocks, clock = built.machine, built.clocks, built.clock
    clocks = replay.run(machine, clocks, clock, todo)
    replay.check()
    machine.obey(last.manifest.rules)
    return machine, clocks, replay.records


class _Replay:
    """Replays stretches of batches, and counts what is missing in all of them.

    Parameters
    ----------
    lost : what was accepted as lost by the end
    n_batches : in all
    """

    def __init__(self, log: Log, lost: Sequence[Loss], n_batches: int, on_batch: Progress) -> None:
        self._log, self._lost, self._n_batches, self._on_batch = log, lost, n_batches, on_batch
        self._short, self._batches, self.records = Shortfall(), 0, 0

    def run(
        self, machine: Machine, clocks: Mapping[TopicPartition, Clock], clock: Clock, todo: Sequence[Applied]
    ) -> dict[TopicPartition, Clock]:
        """Apply batches to a machine; return its partitions' clocks."""
        positions, topics = _starts(todo), machine.rules.topics[:2]
        readers = [self._log.reader({p: at for p, at in positions.items() if p.topic == topic}) for topic in topics]
        merger = Merger(readers, positions, clocks, machine.rules.clock, clock)
        try:
            for applied in todo:
                if applied.rules != machine.rules:
                    machine.obey(applied.rules)
                    merger.obey(applied.rules.clock)
                batch = merger.take_spans(applied.spans, _check_silence)
                self._short.add(applied.spans, batch.spans)
                if len(batch):
                    machine.apply(batch)
                    self.records += len(batch)
                self._batches += 1
                self._on_batch(self._batches, self._n_batches)
        finally:
            for reader in readers:
                reader.close()
        return {**clocks, **merger.clocks}

    def check(self) -> None:
        """Raises Unverifiable where more is missing than what was accepted."""
        _check_shortfall(self._short.losses(), [loss for loss in self._lost if loss.why == "compacted"])


def _check_silence(silent_s: float) -> None:
    """Raise LogUnavailable where the log no longer answers: nothing here waits for ever."""
    if silent_s > SILENT_S:
        raise LogUnavailable(f"the log gave no record for {silent_s:.0f} s, and there must be more; try again later")


def _starts(todo: Sequence[Applied]) -> dict[TopicPartition, int]:
    """Return where each partition's first span begins. Raises Unverifiable where one goes back."""
    starts: dict[TopicPartition, int] = {}
    ends: dict[TopicPartition, int] = {}
    for span in (span for applied in todo for span in applied.spans):
        if span.start < ends.get(span.partition, 0):
            raise Unverifiable(f"{span.partition}: offset {span.start} was applied twice; the topic was another one")
        starts.setdefault(span.partition, span.start)
        ends[span.partition] = span.end
    return starts


def _check_shortfall(found: Sequence[Loss], accepted: Sequence[Loss]) -> None:
    """Raises Unverifiable where more is missing inside the spans than what was accepted as a loss by then."""
    for loss in found:
        before = sum(each.lost for each in accepted if (each.topic, each.partition) == (loss.topic, loss.partition))
        if loss.lost != before:
            raise Unverifiable(f"the log no longer has all that the replay needs: {loss}")


def _differences(
    machine: Machine, clocks: Mapping[TopicPartition, Clock], last: _Loaded
) -> tuple[list[str], list[str]]:
    """Say what of the replayed state is not as in the checkpoint, and what the version that wrote it did not have."""
    manifest = last.checkpoint.manifest
    older = manifest.revision < checkpoints.REVISION
    found: list[str] = []
    unheld: list[str] = []
    replayed = copied(machine, describe(machine, manifest.batch, manifest.epoch, {}, clocks, Clock(), {}))
    for name, parts in checkpoints.state_files(replayed).items():
        if checkpoints.sha256(parts) != last.sums.get(name):
            differ, lacks = _arrays(name, replayed, last.checkpoint)
            only_lacks = older and lacks and not differ
            (unheld if only_lacks else found).append(f"{name}{': ' * bool(differ or lacks)}{', '.join(differ + lacks)}")
    for field in REPLAYED:
        ours, theirs = getattr(replayed.manifest, field), getattr(manifest, field)
        if ours != theirs:
            only_lacks = older and field in COUNTED and _only_lacks(theirs, ours)
            (unheld if only_lacks else found).append(f"manifest.json: {field}")
    if any(clocks.get(partition, Clock()) != clock for partition, clock in clocks_of(manifest).items()):
        found.append("manifest.json: clocks")
    return found, unheld


def _only_lacks(held: msgspec.Struct, replayed: msgspec.Struct) -> bool:
    """Tell whether all that differs between two counts is nothing in the one that is held."""
    names = held.__struct_fields__
    return not any(getattr(held, name) for name in names if getattr(held, name) != getattr(replayed, name))


def _arrays(name: str, replayed: Checkpoint, held: Checkpoint) -> tuple[list[str], list[str]]:
    """Name the arrays of a file that differ, and in how many elements; and those that are not held at all."""
    kind = name.removesuffix(".safetensors")
    if kind == name:
        return [], []
    ours: State = getattr(replayed, kind)
    theirs: State = getattr(held, kind)
    found, lacks = [], []
    for array in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(array), theirs.get(array)
        if other is None:
            lacks.append(f"{array} (missing)")
        elif one is None or one.shape != other.shape or one.dtype != other.dtype:
            found.append(f"{array} (another layout)")
        elif n := int(np.count_nonzero(_bytes(one) != _bytes(other))):
            found.append(f"{array} ({n:,} of {one.nbytes:,} bytes)")
    return found, lacks


def _bytes(array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
