"""Whatever happens to the bytes of a file: it is refused, or what is read is the same; never a crash or much memory.

`make test` flips one bit of each byte of what is small and of some bytes of the arrays; `make torture` every bit.
"""

import resource
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from driftline.learner.disk import journal as journals
from driftline.learner.disk.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, load_newest
from driftline.learner.disk.journal import Applied, read_journal, read_since
from driftline.learner.disk.lock import Lock
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.models.classifier import Scores
from driftline.learner.report.status import read_status
from driftline.learner.serving.snapshot import Follower, list_snapshots
from driftline.stream.errors import DriftlineError, StateError
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from tests.faults.scene import ALL, MODEL, learn_to_end, make_scene
from tests.faults.tally import tally
from tests.often import TORTURE

BITS = range(8) if TORTURE else (0,)
SMALL = 2000  # bytes of which every one is tried in any case
STRIDE = 1 if ALL else 61
LARGE = 100_000
MEMORY = 256 << 20
TRIED = Counter[str]()


@contextmanager
def little_memory() -> Iterator[None]:
    """Let the process take only so much more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def learned(module_memory: Path) -> Iterator[Path]:
    """Give a data directory with several checkpoints, journals and snapshots."""
    scene = make_scene(module_memory)
    stream, log = scene.stream, open_log(scene.stream)
    learner = Learner(stream, LearnerSettings(model=MODEL, batch_records=8, checkpoint_interval_s=3600), log)
    learner.start()
    try:
        for _ in range(3):
            for _ in range(5):
                learner.step()
            learner._land()
            learner._checkpoint_now()
        for _ in range(4):
            learner.step()
        learner._land()
        learner._outside.publish()
        learner._outside.report("running")
    finally:
        learner.close()
        log.close()
    yield stream.data
    for what, n in TRIED.items():
        tally(f"{what} a checkpoint, journal, status, lock or snapshot", "make torture ONLY=test_damage", n)


@pytest.fixture
def data(learned: Path, memory: Path) -> Path:
    """Give a test a copy of it."""
    return shutil.copytree(learned, memory / "data")


def content(checkpoint: Checkpoint | None) -> Any:
    """Return all of a checkpoint in a form that can be compared."""
    assert checkpoint is not None
    arrays = [
        {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in state.items()}
        for state in (checkpoint.model, checkpoint.progress, checkpoint.drift)
    ]
    return msgspec.to_builtins(checkpoint.manifest), arrays, checkpoint.windows


def places(whole: bytes) -> range:
    """Return the places in a file that are tried."""
    return range(0, len(whole), 1 if len(whole) <= SMALL else STRIDE)


def flips(whole: bytes) -> Iterator[tuple[int, bytes]]:
    """Give a file's bytes with a bit flipped, and where; of the zeros of a large file one bit of each byte."""
    for place in places(whole):
        for bit in BITS if len(whole) < LARGE or whole[place] else [place % 8]:
            yield place, whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]


def cuts(whole: bytes) -> Iterator[tuple[int, bytes]]:
    """Give a file's bytes cut at each length."""
    for length in [*places(whole), len(whole) - 1]:
        yield length, whole[:length]


def each_damage(file: Path, damages: Callable[[bytes], Iterator[tuple[int, bytes]]]) -> Iterator[int]:
    """Put each damage into a file's place and say where it is; then put the file itself back."""
    whole = file.read_bytes()
    for place, damaged in damages(whole):
        file.write_bytes(damaged)
        TRIED["a bit flipped in" if damages is flips else "a cut at a byte of"] += 1
        yield place
    file.write_bytes(whole)


def flipped_or_cut(file: Path) -> Iterator[int]:
    """Do both to a file."""
    yield from each_damage(file, flips)
    yield from each_damage(file, cuts)


def test_a_damaged_checkpoint_is_stepped_over(data: Path) -> None:
    """Not even a damaged format number keeps the learner from the one before."""
    root = data / "checkpoints"
    newest, before = (load_checkpoint(path) for path in list_checkpoints(root)[:2])
    good = [content(newest), content(before)]
    found = [0, 0]
    with little_memory():
        for file in sorted(list_checkpoints(root)[0].iterdir()):
            for _ in flipped_or_cut(file):
                found[good.index(content(load_newest(root)))] += 1
    assert found[0] < 20, "an end of line that became another"
    assert found[1] > 1000


def test_a_checkpoint_with_a_file_that_is_missing_or_another_is_refused(data: Path) -> None:
    newest, before = list_checkpoints(data / "checkpoints")[:2]
    files = sorted(newest.iterdir())
    for file in files:
        whole = file.read_bytes()
        file.unlink()
        with pytest.raises(StateError, match="is damaged"):
            load_checkpoint(newest)
        file.mkdir()
        with pytest.raises(StateError, match="is damaged"):
            load_checkpoint(newest)
        file.rmdir()
        file.write_bytes((before / file.name).read_bytes())
        with pytest.raises(StateError, match="is damaged"):
            load_checkpoint(newest)
        file.write_bytes(whole)
    for one, other in pairwise(files):
        contents = one.read_bytes(), other.read_bytes()
        for file, swapped in zip((one, other), reversed(contents), strict=True):
            file.write_bytes(swapped)
        with pytest.raises(StateError, match="is damaged"):
            load_checkpoint(newest)
        for file, whole in zip((one, other), contents, strict=True):
            file.write_bytes(whole)
    load_checkpoint(newest)


def test_checkpoints_that_changed_places_are_refused(data: Path) -> None:
    newest, before, oldest = list_checkpoints(data / "checkpoints")[:3]
    swap(newest, before)
    for path in (newest, before):
        with pytest.raises(StateError, match="it is of batch"):
            load_checkpoint(path)
    assert content(load_newest(data / "checkpoints")) == content(load_checkpoint(oldest))


def swap(one: Path, other: Path) -> None:
    """Let two files or directories change their names."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def journal_files(data: Path) -> list[Path]:
    """Return the journals, oldest first."""
    return sorted((data / "journal").glob("*.journal"))


def test_a_journal_that_was_cut_has_the_entries_before(data: Path) -> None:
    for file in journal_files(data):
        expected = read_journal(file)
        lengths = set()
        for _ in each_damage(file, cuts):
            found = outcome(lambda file=file: read_journal(file))
            assert found is None or found == expected[: len(found)]
            lengths.add(None if found is None else len(found))
        assert lengths == {None, *range(len(expected))}


def test_a_damaged_journal_is_refused(data: Path) -> None:
    """But for the last entry: it may have been torn when the power went, so it is left out."""
    for file in journal_files(data):
        expected = read_journal(file)
        shorter = [p for p in each_damage(file, cuts) if outcome(lambda file=file: read_journal(file)) == expected[:-1]]
        with little_memory():
            for place in each_damage(file, flips):
                found = outcome(lambda file=file: read_journal(file))
                assert found is None or (place >= shorter[0] and found == expected[:-1]), place


def outcome(read: Callable[[], Any]) -> Any:
    """Return what was read, None where it was refused."""
    try:
        return read()
    except StateError:
        return None


def test_a_journal_that_is_missing_or_another_is_refused(data: Path) -> None:
    oldest = int(list_checkpoints(data / "checkpoints")[-1].name)
    whole = read_since(data / "journal", oldest)
    files = journal_files(data)
    assert len(files) >= 3
    for file in files[:-1]:
        aside = file.rename(file.with_name("aside"))
        if read_journal_of(aside, file.name):
            with pytest.raises(StateError, match="is missing"):
                read_since(data / "journal", oldest)
        aside.rename(file)
    for one, other in pairwise(files):
        swap(one, other)
        with pytest.raises(StateError, match="it is the one after checkpoint"):
            read_since(data / "journal", oldest)
        swap(one, other)
    assert read_since(data / "journal", oldest) == whole


def read_journal_of(path: Path, name: str) -> list[Applied]:
    """Read a journal that has another name for now."""
    copy = path.parent.parent / "copy" / name
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(path.read_bytes())
    return read_journal(copy)


def test_zeros_where_an_entry_was_written_are_a_torn_tail(data: Path) -> None:
    """So file systems show a file whose length reached the disk before its content."""
    for file in journal_files(data):
        whole, expected = file.read_bytes(), read_journal(file)
        for length in (1, 7, 8, 9, 64, 5000):
            file.write_bytes(whole + bytes(length))
            assert read_journal(file) == expected


def test_a_damaged_status_is_refused(data: Path) -> None:
    with little_memory():
        for _ in flipped_or_cut(data / "status.json"):
            outcome(lambda: read_status(data))


def test_a_damaged_lock_gives_an_epoch_and_never_one_that_was(data: Path) -> None:
    for _ in flipped_or_cut(data / "learner.lock"):
        lock = Lock(data)
        assert lock.last_epoch() >= 0
        assert journals.last_epoch(data / "journal") == 1
        lock.close()


def test_a_damaged_snapshot_is_refused_or_answers(data: Path) -> None:
    """It is made again from the checkpoint, so it has no checksum; but it must never end who reads it."""
    newest = list_snapshots(data / "snapshots")[0]
    with little_memory():
        for _ in flipped_or_cut(newest):
            answer(data)


def answer(data: Path) -> Scores | None:
    """Ask the model that is served from a data directory; None where there is none."""
    try:
        snapshot = Follower(data / "snapshots").look()
        return None if snapshot is None else snapshot.model.predict_proba_many(["word1 and word2"])[1]
    except DriftlineError:
        return None


def test_what_is_damaged_in_a_data_directory_is_made_again(data: Path, learned: Path) -> None:
    """A learner that starts on it gets to the state it had, from the checkpoint before and the journals."""
    expected = restarted(shutil.copytree(learned, data.with_name("whole")), learned)
    (list_checkpoints(data / "checkpoints")[0] / "model.safetensors").write_bytes(b"")
    (data / "status.json").write_bytes(b"{")
    (data / "learner.lock").write_bytes(b"\0" * 30)
    for snapshot in list_snapshots(data / "snapshots"):
        snapshot.write_bytes(b"")
    assert restarted(data, learned) == expected
    assert answer(data) is not None


def restarted(data: Path, learned: Path) -> bytes:
    """Start a learner on a copy of a data directory and return its newest model."""
    return learn_to_end(StreamSettings(data=data, log=f"sqlite:///{learned.parent.parent / 'log' / 'log.db'}"))
