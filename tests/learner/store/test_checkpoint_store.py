"""A checkpoint is in the store whole or not at all; what is fetched is what was put, or is refused."""

import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import obstore
import pytest

from driftline.learner.disk.checkpoint import Checkpoint, JournalMark, load_checkpoint, load_newest, save_checkpoint
from driftline.learner.store import checkpoint_store
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.learner.store.stored import Name, Stored
from driftline.stream.errors import Overtaken, StateError, StoreDamaged, StoreError, StoreTaken
from tests.learner.store.conftest import Make, content
from tests.often import times

LARGE = (5 << 20) + (1 << 18)  # S3 takes no smaller piece than 5 MiB but the last


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files go in small pieces."""
    monkeypatch.setattr(checkpoint_store, "PIECE_BYTES", 5 << 20)


def keys(store: CheckpointStore) -> set[str]:
    """Return all that lies in the store."""
    return {each["path"] for page in store._store.list() for each in page}


def attempts(store: CheckpointStore) -> set[str]:
    """Return whose files do."""
    return {key.split("/")[1] for key in keys(store) if key.startswith("files/")}


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("n_bytes", [1 << 10, 2 * LARGE])
def test_what_is_fetched_is_what_was_put(store: CheckpointStore, make: Make, tmp_path: Path, n_bytes: int) -> None:
    path, came = make(42, n_bytes=n_bytes), []
    put = store.put(path)
    assert store.newest() == put
    assert (put.batch, put.epoch, put.labels_learned) == (42, 1, 40)
    assert put.bytes == sum(map(len, content(path).values()))
    root = tmp_path / "other"
    fetched = store.fetch(put, root, came.append)
    assert content(fetched) == content(path)
    assert sum(came) == put.bytes
    newest = load_newest(root)
    assert newest is not None
    assert newest.manifest == store.manifest(put)
    assert store.fetch(put, root) == fetched, "it is there already"
    manifest, model = store.fetch_model(put, tmp_path / "model")
    assert manifest == newest.manifest
    assert model.read_bytes() == (path / "model.safetensors").read_bytes()
    assert sorted(each.name for each in model.parent.iterdir()) == ["SHA256SUMS", "manifest.json", "model.safetensors"]


def test_an_empty_store_has_nothing(store: CheckpointStore, tmp_path: Path) -> None:
    assert (store.names(), store.checkpoints(), store.newest(), store.newest_manifest()) == ([], [], None, None)
    assert store.fetch_newest(tmp_path) is None
    assert store.prune(3) is None


def test_what_others_have_put_there_is_left_alone(store: CheckpointStore, make: Make) -> None:
    store.put(make(1))
    theirs = {f"checkpoints/{Name(1, 2)}.json.bak", f"files/{Name(1, 0)}-notes/a", "files/readme", "a"}
    for key in theirs:
        store._store.put(key, b"theirs")
    assert store.names() == [Name(1, 1)]
    store.put(make(3))
    store.prune(1)
    assert theirs <= keys(store)
    assert store.names() == [Name(1, 3)]


def test_the_newest_is_that_of_the_later_learner_and_then_of_the_later_batch(
    store: CheckpointStore, make: Make
) -> None:
    for batch, epoch in ((9, 1), (11, 1), (10, 2)):
        store.put(make(batch, epoch, root=f"{epoch}"))
    assert store.names() == [Name(2, 10), Name(1, 11), Name(1, 9)]
    assert [(each.epoch, each.batch) for each in store.checkpoints()] == store.names()
    found = store.newest_manifest()
    assert found is not None
    assert (found[0].name, found[1].batch) == (Name(2, 10), 10)


def test_an_overtaken_learner_puts_nothing(store: CheckpointStore, make: Make) -> None:
    store.put(make(10, 2))
    before = keys(store)
    with pytest.raises(StoreTaken, match=r"later learner \(epoch 2, batch 10\)"):
        store.put(make(11, 1, root="other"))
    for late in range(3):
        calls = iter(range(100))

        def check(calls: "Iterator[int]" = calls, late: int = late) -> None:
            if next(calls) >= 4 * late:
                raise Overtaken("by another")

        with pytest.raises(Overtaken):
            store.put(make(20 + late, 2), check)
    assert {key for key in keys(store) if key.startswith("checkpoints/")} == {Name(2, 10).key}
    assert before <= keys(store)


def test_the_same_may_be_put_again_and_another_one_of_that_name_not(store: CheckpointStore, make: Make) -> None:
    put = store.put(make(10))
    before = keys(store)
    assert store.put(make(10, root="again")) == put
    with pytest.raises(StoreTaken, match="is of another learner"):
        store.put(make(10, seed=1, root="other"))
    assert keys(store) == before


@pytest.mark.parametrize("same", [True, False])
def test_of_two_who_put_at_once_one_counts_and_it_is_whole(
    url: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """Both have put their files before either puts what makes it count."""
    store, put_new = CheckpointStore(url), CheckpointStore._put_new
    for race in range(1, 1 + times(100, 8)):
        paths = [make(race, seed=0 if same else seed, root=f"{seed}") for seed in (1, 2)]
        both, outcomes = threading.Barrier(2, timeout=120), {}

        def together(self: CheckpointStore, key: str, made: bytes, both: threading.Barrier = both) -> bool:
            both.wait()
            return put_new(self, key, made)

        def put(path: Path, outcomes: dict[Path, object] = outcomes) -> None:
            try:
                outcomes[path] = CheckpointStore(url).put(path)
            except StoreTaken as error:
                outcomes[path] = error

        with monkeypatch.context() as patched:
            patched.setattr(CheckpointStore, "_put_new", together)
            threads = [threading.Thread(target=put, args=(path,)) for path in paths]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(120)
        put_ones = [outcome for outcome in outcomes.values() if isinstance(outcome, Stored)]
        assert len(put_ones) == (2 if same else 1), outcomes
        newest = store.newest()
        assert put_ones == [newest] * len(put_ones)
        assert newest is not None
        fetched = store.fetch(newest, tmp_path / "fetched")
        winner = next(path for path, outcome in outcomes.items() if outcome == newest)
        assert content(fetched) == content(winner)
    store.prune(2)
    assert len(attempts(store)) == 2, "nothing of those that lost stays"


def broken_off(after: int) -> Callable[[], None]:
    """Return a check that breaks off what calls it, after so many calls."""
    calls = itertools.count()

    def check() -> None:
        if next(calls) >= after:
            raise ConnectionError("the cable")

    return check


def test_what_was_broken_off_counts_for_nobody_is_done_anew_and_leaves_nothing(
    store: CheckpointStore, make: Make, tmp_path: Path
) -> None:
    url = f"{store.where}"
    store.put(make(1))
    path = make(2)
    for after in range(1, 12):  # checks: before each file and piece, and at the end
        store = CheckpointStore(url)  # another process
        with pytest.raises(ConnectionError):
            store.put(path, broken_off(after))
        assert store.names() == [Name(1, 1)]
    assert len(attempts(store)) > 5
    put = store.put(path)
    assert content(store.fetch(put, tmp_path / "fetched")) == content(path)
    kept = store.prune(2)
    assert kept is not None
    assert kept[0].name == Name(1, 1)
    assert kept[1].batch == 1
    with pytest.raises(ConnectionError):
        store.put(make(3), broken_off(5))  # by the same one, which is not at it any more
    with pytest.raises(ConnectionError):
        CheckpointStore(url).put(make(4), broken_off(5))  # by another one, which may be
    store.prune(2)
    assert [name[:21] for name in sorted(attempts(store))] == [str(Name(1, batch)) for batch in (1, 2, 4)]
    store.put(make(5, 2))
    store.prune(3)  # it was overtaken
    assert attempts(store) == {each.directory.split("/")[1] for each in store.checkpoints()}


def test_a_checkpoint_that_is_damaged_on_the_disk_is_not_put(store: CheckpointStore, make: Make) -> None:
    path = make(1)
    for name in ("model.safetensors", "manifest.json"):
        whole = (path / name).read_bytes()
        (path / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(StateError, match="damaged"):
            store.put(path)
        (path / name).write_bytes(whole)
    with pytest.raises(StateError, match="damaged or gone"):
        store.put(path.with_name("000000000009"))
    assert store.names() == []
    store.put(path)


def altered(store: CheckpointStore, key: str) -> None:
    found = bytes(store._store.get(key).bytes())
    obstore.put(store._store, key, found[:20] + bytes([found[20] ^ 1]) + found[21:])


def cut(store: CheckpointStore, key: str) -> None:
    obstore.put(store._store, key, bytes(store._store.get(key).bytes())[:-7])


def grown(store: CheckpointStore, key: str) -> None:
    obstore.put(store._store, key, bytes(store._store.get(key).bytes()) + b" ")


def gone(store: CheckpointStore, key: str) -> None:
    store._store.delete(key)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("harm", [altered, cut, grown, gone])
@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "window-0.msgpack", "SHA256SUMS"])
def test_a_damaged_one_is_refused_and_the_one_before_is_taken(
    store: CheckpointStore,
    make: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[CheckpointStore, str], None],
    name: str,
) -> None:
    in_pieces = LARGE + 5 if name == "model.safetensors" else 1 << 10
    older, newer = store.put(make(1)), store.put(make(2, n_bytes=in_pieces))
    harm(store, newer.directory + name)
    root = tmp_path / "fetched"
    with pytest.raises(StoreDamaged, match=f"its {name} is not"):
        store.fetch(newer, root)
    assert not root.exists() or list(root.iterdir()) == []
    found = store.fetch_newest(root)
    assert found is not None
    assert found[0] == older
    assert content(found[1]) == content(tmp_path / "disk" / "000000000001")
    assert "taking the one before" in caplog.text
    assert load_checkpoint(found[1]).manifest.batch == 1
    harm(store, older.directory + name)
    with pytest.raises(StoreDamaged, match="none of 2 checkpoints"):
        store.fetch_newest(tmp_path / "again")


@pytest.mark.parametrize("said", [b"", b"{}", b"\xff" * 9, b'{"format": 2}', b"[" * 5000])
def test_what_is_said_of_one_may_be_damaged_and_others_are_found(
    store: CheckpointStore, make: Make, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    older, newer = store.put(make(1)), store.put(make(2))
    obstore.put(store._store, newer.name.key, said)
    assert store.newest() == older
    assert store.checkpoints() == [older]
    assert "it is passed over" in caplog.text
    found = store.newest_manifest()
    assert found is not None
    assert found[0] == older
    assert newer.name in store.names()


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", ".hidden", "a/b", ""])
def test_a_file_that_would_lie_elsewhere_is_refused(store: CheckpointStore, make: Make, name: str) -> None:
    put = store.put(make(1))
    head = bytes(store._store.get(put.name.key).bytes())
    obstore.put(store._store, put.name.key, head.replace(b'"drift.safetensors"', b'"%s"' % name.encode()))
    assert store.newest() is None


def test_pruning_keeps_the_newest_and_deletes_what_makes_it_count_first(
    store: CheckpointStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for batch in range(1, 6):
        store.put(make(batch))
    deleted: list[str] = []
    delete = CheckpointStore.delete
    monkeypatch.setattr(CheckpointStore, "delete", lambda self, key: (deleted.append(key), delete(self, key))[1])
    kept = store.prune(3)
    assert kept is not None
    assert (kept[0].name, kept[1].batch) == (Name(1, 3), 3)
    assert store.names() == [Name(1, 5), Name(1, 4), Name(1, 3)]
    assert len(attempts(store)) == 3
    for batch in (1, 2):
        own = [key for key in deleted if str(Name(1, batch)) in key]
        assert own[0] == Name(1, batch).key
        if store._root is None:
            assert "SHA256SUMS" in own[1]
    assert store.prune(3) == kept
    assert store.prune(1) is not None
    assert store.names() == [Name(1, 5)]


def test_what_was_pruned_while_it_came_in_does_not_count(
    store: CheckpointStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, look = make(1, root="slow"), CheckpointStore._check_there

    def others_come_first(self: CheckpointStore, directory: str) -> None:
        monkeypatch.setattr(CheckpointStore, "_check_there", look)
        for batch in (2, 3, 4):
            store.put(make(batch))
        store.prune(2)
        look(self, directory)

    monkeypatch.setattr(CheckpointStore, "_check_there", others_come_first)
    with pytest.raises(StoreTaken, match="newer checkpoints"):
        store.put(slow)
    assert store.names() == [Name(1, 4), Name(1, 3)]


def test_what_another_attempt_at_the_same_one_has_pruned_is_what_that_one_put(
    url: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A learner of several puts one by its own hand, and another thread of its does so too."""
    path, settle = make(1), CheckpointStore._settle

    def the_other_is_faster(self: CheckpointStore, directory: str) -> None:
        monkeypatch.setattr(CheckpointStore, "_settle", settle)
        other = CheckpointStore(url)
        other.put(path)
        other.prune(1)
        settle(self, directory)

    monkeypatch.setattr(CheckpointStore, "_settle", the_other_is_faster)
    put = CheckpointStore(url).put(path)
    assert CheckpointStore(url).checkpoints() == [put]
    assert len(attempts(CheckpointStore(url))) == 1


def test_of_those_that_share_a_journal_the_first_label_of_an_epoch_may_begin_a_lineage(
    url: str, learned: Checkpoint, tmp_path: Path
) -> None:
    def made(root: str, batch: int, lineage: str, journal: JournalMark | None) -> Path:
        manifest = msgspec.structs.replace(learned.manifest, batch=batch, lineage=lineage, journal=journal)
        return save_checkpoint(tmp_path / root, msgspec.structs.replace(learned, manifest=manifest))

    mark = JournalMark("topic", 7, "b")
    CheckpointStore(url).put(made("shared", 1, "a", mark))
    CheckpointStore(url).put(made("shared", 2, "b", mark))
    with pytest.raises(StoreTaken, match="of another learner"):
        CheckpointStore(url).put(made("alone", 3, "c", None))


def test_after_an_erasure_those_from_before_it_go(store: CheckpointStore, make: Make) -> None:
    for batch in (1, 2):
        store.put(make(batch))
    store.put(make(3, erased=1))
    kept = store.prune(3)
    assert kept is not None
    assert store.names() == [Name(1, 3)]
    assert len(attempts(store)) == 1


def test_another_checkpoint_of_that_batch_on_the_disk_is_left_alone(store: CheckpointStore, make: Make) -> None:
    put = store.put(make(1))
    other = make(1, seed=1, root="other")
    before = content(other)
    with pytest.raises(StateError, match="is there already"):
        store.fetch(put, other.parent)
    assert content(other) == before
    assert issubclass(StoreTaken, StoreError)


def test_no_more_of_a_file_is_in_memory_than_some_pieces(
    url: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as Python hands bytes over: each read of the disk and each answer of the store is a piece."""
    sizes: list[int] = []
    store, path = CheckpointStore(url), make(1, n_bytes=3 * LARGE)
    monkeypatch.setattr(checkpoint_store, "PIECE_BYTES", 5 << 20)
    put = store.put(path, partial(sizes.append, 0))
    assert len(sizes) >= 3 * LARGE / checkpoint_store.READ_BYTES, "it is asked between pieces"
    store.fetch(put, tmp_path / "fetched", sizes.append)
    assert max(sizes) <= checkpoint_store.PIECE_BYTES
