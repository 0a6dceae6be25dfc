"""Which model is served?

What the newest file in `snapshots/` holds now. The learner keeps one file while it runs (double_buffer.py) and brings
it up to date; readers map it, so that all processes on a machine share one copy in memory, see each version at once,
and can never change it. A snapshot is not needed to recover: it is made from the state that recovery gives.

A classifier says which of its arrays may be looked at while they change (`Classifier.tables`): numbers that no place
in memory depends on, so that a torn one gives a wrong score, which is then thrown away, and nothing worse. A reader
copies the others, which are small, once a version. What only learning looks at (`Classifier.steps`) is left out. A
model without tables, one of another library, gets a new file for each version, and so does one that no longer fits its
places. What stands beside the model has a checksum; a damaged number in a table gives a wrong score until the learner
starts again, which makes the file anew from the checkpoint.
"""

import logging
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from driftline.learner.disk import durable
from driftline.learner.explain.explain import Explanation
from driftline.learner.models.classifier import Classifier, Scores, State
from driftline.learner.models.one_text import OneTextScorer
from driftline.learner.registry import build_saved
from driftline.learner.serving.double_buffer import Reader, Writer
from driftline.stream.errors import StateError

FORMAT: Final = 2
KEPT: Final = 2
SUFFIX: Final = ".model"
TRIES: Final = 2  # from the shared arrays; then from a copy
COPIES: Final = 100
CHECKSUM_BYTES: Final = 4
_LOG: Final = logging.getLogger(__name__)
_T = TypeVar("_T")


class SnapshotInfo(msgspec.Struct, kw_only=True, frozen=True):
    """What stands beside a version of a model."""

    format: int = FORMAT
    version: str  # lineage and number of what was learned: equal versions are equal models
    epoch: int
    model: str
    config: dict[str, Any]
    labels: list[str]
    labels_learned: int
    feedback_offsets: dict[str, int]  # partition, the next offset to be learned
    published_at: float  # seconds since 1970, this machine's clock


_SNAPSHOT_INFO: Final = msgspec.json.Decoder(SnapshotInfo)


def epoch_of(name: str) -> int:
    """Return the epoch of a snapshot, by its name; 0 of what is none."""
    start = name.partition("-")[0]
    return int(start) if start.isdecimal() and start.isascii() else 0


class Publisher:
    """Shows models to readers. One thread.

    Parameters
    ----------
    root : the directory
    epoch : of the learner; its snapshots sort behind those of every learner before
    check : called before a file is made anew that somebody deleted or cut short; what it raises prevents that
    """

    def __init__(self, root: Path, epoch: int, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        durable.make_directory(root)
        durable.remove_partial(root, epoch_of, epoch)
        self._root, self._epoch, self._number = root, epoch, 0
        self._writer: Writer | None = None
        self._shown: Writer | None = None

    def prepare(self, classifier: Classifier) -> None:
        """Make room for a model that is not to be seen yet, so that its first label need not wait for that."""
        if classifier.tables:
            self._begin(classifier, b"")

    def publish(self, classifier: Classifier, info: SnapshotInfo) -> Path:
        """Let readers see a model. Costs two reads of its memory, and writing what changed.

        Raises
        ------
        DiskFull : there is no room for a new file; what was published before is served on.
        """
        state, encoded = _served(classifier), seal(msgspec.json.encode(info))
        if not self.is_there():
            self._check()
            _LOG.error("snapshot %s is gone or was cut short, not by this learner; another one is made", self._path)
            self._writer = None
        if self._writer is not None and classifier.tables and self._writer.head.holds(state, encoded):
            self._writer.write(state, encoded)
        else:
            self._begin(classifier, encoded)
        if self._shown is not self._writer:
            self._show()
        return self._path

    def is_there(self) -> bool:
        """Tell whether the file that was written last, if any was, is still as readers need it."""
        return self._writer is None or self._writer.is_whole()

    def _begin(self, classifier: Classifier, info: bytes) -> None:
        durable.make_directory(self._root)
        self._number += 1
        self._path = self._root / f"{self._epoch:08d}-{self._number:010d}{SUFFIX}"
        self._writer = Writer(self._path, _served(classifier), info, 2 if classifier.tables else 1)

    def _show(self) -> None:
        """Let readers find the file, and drop those that nobody should still need."""
        assert self._writer is not None
        self._writer.appear()
        self._shown = self._writer
        newest = list_snapshots(self._root)[:KEPT]
        for path in self._root.iterdir():
            # The others are those of versions.py, or of a learner that has taken over meanwhile.
            ours = path.name.removeprefix(durable.TEMPORARY)
            if ours[0].isdigit() and path not in newest and ours < self._path.name:
                durable.remove(path)

    def close(self) -> None:
        """Let what was published last count after the machine went down, too, and give the mapping back."""
        if self._shown is not None:
            self._shown.close()
        self._writer = self._shown = None


def list_snapshots(root: Path) -> list[Path]:
    """Return the snapshots, newest first."""
    try:
        names = os.listdir(root)  # noqa: PTH208  (20 times a second)
    except FileNotFoundError:
        return []
    found = sorted((name for name in names if name[0].isdigit() and name.endswith(SUFFIX)), reverse=True)
    return [root / name for name in found]


def _served(classifier: Classifier) -> State:
    return {name: array for name, array in classifier.state().items() if name not in classifier.steps}


class _Beside:
    """What stands beside the active version, decoded once. One thread."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self._path, self._reader = path, reader
        self._seen: tuple[tuple[int, int], SnapshotInfo] | None = None

    def look(self) -> SnapshotInfo:
        active = self._reader.active()
        if self._seen is None or self._seen[0] != active:
            self._seen = active, read_info(self._path, self._reader)
        return self._seen[1]


class Model:
    """A published model that can be asked: always what was published last. One thread."""

    def __init__(self, path: Path, reader: Reader, allow_pickle: bool) -> None:
        self._path, self._reader = path, reader
        info = read_info(path, reader)
        self._classifier = build_saved(info.config, allow_pickle=allow_pickle)
        own, steps = self._classifier.state(), self._classifier.steps
        # Not zeros_like, which writes the zeros: memory that nobody touches is none.
        self._steps: State = {name: np.zeros(array.shape, array.dtype) for name, array in own.items() if name in steps}
        self._loaded: tuple[int, int] | None = None
        self._single: OneTextScorer | None = None  # of what is loaded
        self._info = info
        self._beside = _Beside(path, reader)

    def info(self) -> SnapshotInfo:
        """Return what stands beside the version that is there now, the same object for the same one."""
        return self._beside.look()

    @property
    def makes_vectors(self) -> bool:
        """Whether it has a sentence model, so that a text takes a millisecond where others take microseconds."""
        return self._classifier.embedder is not None

    def complete(self, texts: Sequence[str], threads: int | None = None) -> Sequence[str]:
        """Return texts with all that the model goes by; see `Classifier.complete`. Any thread."""
        return self._classifier.complete(texts, threads)

    def predict_proba_one(self, text: str) -> tuple[SnapshotInfo, list[float]]:
        """Return the score of each label, by one version of the model, and which. See `_ask`."""
        half, sequence = self._reader.active()
        if self._single is not None and (half, sequence) == self._loaded:
            row = self._single(text)
            if self._reader.unchanged(half, sequence):
                return self._info, row
        return self._ask(lambda classifier: self._score_one(classifier, text))

    def _score_one(self, classifier: Classifier, text: str) -> list[float]:
        if self._single is None:
            self._single = OneTextScorer(classifier)
        return self._single(text)

    def predict_proba_many(self, texts: Sequence[str]) -> tuple[SnapshotInfo, Scores]:
        """Return the scores of texts, all by one version of the model, and which. See `_ask`."""
        return self._ask(lambda classifier: classifier.predict_proba_many(texts))

    def explain_one(
        self, text: str, labels: Sequence[str] | None = None, n_features: int = 20
    ) -> tuple[SnapshotInfo, Explanation]:
        """Explain one version's scores of a text, and say which; see `Classifier.explain_one` and `_ask`."""
        return self._ask(lambda classifier: classifier.explain_one(text, labels, n_features))

    def _ask(self, question: Callable[[Classifier], _T]) -> tuple[SnapshotInfo, _T]:
        """Return what one version of the model answers, and which.

        Notes
        -----
        What was computed while the half changed is void, and so is an error that came of it. After TRIES of that the
        tables are copied first: a long request then takes a copy's time undisturbed, not its own.

        Raises
        ------
        StateError : the published model is damaged, cut short, or not even a copy of it could be had.
        """
        for attempt in range(TRIES + COPIES):
            if self._reader.cut:
                raise _cut_short(self._path)
            half, sequence = self._reader.active()
            try:
                if attempt >= TRIES:
                    return self._ask_copy(half, sequence, question)
                if (half, sequence) != self._loaded:
                    self._load(half, sequence)
                answer = question(self._classifier)
            except Exception:
                if self._reader.unchanged(half, sequence):
                    raise
                continue
            if self._reader.unchanged(half, sequence):
                return self._info, answer
        raise StateError(f"snapshot {self._path}: it is published faster than it can be copied")

    def _load(self, half: int, sequence: int) -> None:
        """Take over a half: a copy of what is small, the shared tables themselves."""
        arrays, tables = self._reader.arrays(half), self._classifier.tables
        self._loaded = None
        self._take({name: array if name in tables else array.copy() for name, array in arrays.items()}, half, sequence)
        self._loaded = half, sequence

    def _ask_copy(self, half: int, sequence: int, question: Callable[[Classifier], _T]) -> tuple[SnapshotInfo, _T]:
        self._loaded = None
        arrays = self._reader.arrays(half)
        copies = {name: array.copy() for name, array in arrays.items()}
        self._take(copies, half, sequence)
        try:
            return self._info, question(self._classifier)
        finally:  # the copies go
            self._single = None
            shared = {name: array for name, array in arrays.items() if name in self._classifier.tables}
            self._classifier.load_state(copies | shared | self._steps, self._info.labels)

    def _take(self, state: State, half: int, sequence: int) -> None:
        encoded = self._reader.info(half)
        if not self._reader.unchanged(half, sequence):
            raise StateError(f"snapshot {self._path} changed while it was read")
        self._info, self._single = _decode(self._path, encoded), None
        self._classifier.load_state(state | self._steps, self._info.labels)


class Snapshot:
    """A mapped file, and a first model in it; nobody learns on it.

    Raises
    ------
    ConfigError : the model's state is a pickle, and that was not allowed; nothing of it was opened.
    StateError : the file is damaged or of another format.
    """

    def __init__(self, path: Path, *, allow_pickle: bool = False, reader: Reader | None = None) -> None:
        self.path, self._allow_pickle = path, allow_pickle
        self._file = path.stat() if reader is None else None  # one that is kept has its name for good
        self._reader = reader or Reader(path)
        self._beside = _Beside(path, self._reader)
        self.model = self.another_model()

    def another_model(self) -> Model:
        """Return the model for another thread; the tables are shared."""
        model = Model(self.path, self._reader, self._allow_pickle)
        model.predict_proba_many([""])  # all of it fits, and the kernels are compiled
        return model

    def info(self) -> SnapshotInfo:
        """Return what stands beside the version that is there now, the same object for the same one. One thread."""
        return self._beside.look()

    def is_at(self, path: Path) -> bool:
        """Tell whether this is the file of that name: in a directory that was made again another one may have it."""
        try:
            return path == self.path and (self._file is None or os.path.samestat(path.stat(), self._file))
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Raise StateError where the file was cut short: nothing of it answers any more."""
        if not self._reader.is_whole():
            raise _cut_short(self.path)


class Follower:
    """The newest snapshot of a directory that can be read, as they come. One thread.

    Attributes
    ----------
    problem : why there is none any more, or None
    """

    def __init__(self, root: Path, *, allow_pickle: bool = False) -> None:
        self._root, self._allow_pickle = root, allow_pickle
        self._current: Snapshot | None = None
        self.problem: str | None = None
        self._refused: set[Path] = set()

    def look(self) -> Snapshot | None:
        """Return the newest snapshot, the same object while there is no newer file; None while there is none.

        A damaged one is reported once and passed over. Where the directory was replaced by another, that one counts.
        Raises ConfigError for a pickle that may not be opened.
        """
        paths = list_snapshots(self._root)
        self._refused.intersection_update(paths)
        self._leave_what_was_cut()
        for path in paths:
            if self._current is not None and self._current.is_at(path):
                break
            if path in self._refused:
                continue
            try:
                self._current = Snapshot(path, allow_pickle=self._allow_pickle)
                self.problem = None
                break
            except FileNotFoundError:
                continue  # the learner dropped it just now: there are newer ones
            except StateError as error:
                _LOG.error("%s; it is passed over", error)
                self._refused.add(path)
        return self._current

    def _leave_what_was_cut(self) -> None:
        """Go by no file any more that somebody cut short."""
        if self._current is None:
            return
        try:
            self._current.check()
        except StateError as error:
            _LOG.error("%s", error)
            self._refused.add(self._current.path)
            self._current, self.problem = None, str(error)


def read_info(path: Path, reader: Reader) -> SnapshotInfo:
    """Return what stands beside the active version. Raises StateError."""
    for _ in range(TRIES + COPIES):
        if reader.cut:
            raise _cut_short(path)
        half, sequence = reader.active()
        encoded = reader.info(half)
        if reader.unchanged(half, sequence):
            return _decode(path, encoded)
    raise StateError(f"snapshot {path}: no half of it is whole")


def _cut_short(path: Path) -> StateError:
    return StateError(f"snapshot {path} was cut short while it was served; a learner at work makes another one")


def seal(encoded: bytes) -> bytes:
    """Put a checksum before the info: what is built by it runs. The arrays have none, twenty times a second."""
    return zlib.crc32(encoded).to_bytes(CHECKSUM_BYTES, "little") + encoded


def _decode(path: Path, sealed: bytes) -> SnapshotInfo:
    encoded = sealed[CHECKSUM_BYTES:]
    try:
        if seal(encoded) != sealed:
            raise ValueError("what stands beside the model is damaged")
        info = _SNAPSHOT_INFO.decode(encoded)
    except (ValueError, TypeError) as error:
        raise StateError(f"snapshot {path} cannot be read: {error!r}") from error
    if info.format != FORMAT:
        raise StateError(f"snapshot {path} has format {info.format}; this version of Driftline reads format {FORMAT}")
    return info
