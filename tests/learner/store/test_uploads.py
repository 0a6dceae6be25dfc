"""Uploads keep nobody waiting, get there once the store is back, and end when they are told to."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from driftline.learner.disk import durable
from driftline.learner.disk.checkpoint import load_manifest
from driftline.learner.store import address, uploads
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.learner.store.stored import Name
from driftline.learner.store.uploads import Uploads
from driftline.stream.errors import Overtaken, StoreUnavailable
from tests.learner.store.conftest import Make, content
from tests.s3 import S3, variables
from tests.waiting import wait_until


class Gate:
    """Stands before each file that is put, shut or open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came, self.open = threading.Event(), threading.Event()
        put_file = CheckpointStore.put_file

        def slow(*arguments: Any) -> Any:
            self.came.set()
            assert self.open.wait(240)
            return put_file(*arguments)

        monkeypatch.setattr(CheckpointStore, "put_file", slow)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    (tmp_path / "store").mkdir()
    return CheckpointStore(f"file://{tmp_path}/store")


@pytest.fixture
def begin(store: CheckpointStore, tmp_path: Path) -> Iterator[Callable[..., Uploads]]:
    """Give what begins uploads, which are closed at the end."""
    begun: list[Uploads] = []

    def begin(**options: Any) -> Uploads:
        begun.append(Uploads(options.pop("store", store), tmp_path / "data", **options))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


def offer(to: Uploads, path: Path, **options: Any) -> None:
    to.offer(path, load_manifest(path), **options)


def test_of_those_that_wait_the_newest_goes_and_the_disk_may_let_all_go(
    begin: Callable[..., Uploads], store: CheckpointStore, make: Make, gate: Gate, tmp_path: Path
) -> None:
    up = begin()
    expected = {}
    for batch in (1, 2, 3):
        path = make(batch)
        expected[batch] = content(path)
        offer(up, path)  # returns while the first is being put
        if batch == 1:
            assert gate.came.wait(60)
        durable.remove(path)
    assert len(list((tmp_path / "data" / "uploads").iterdir())) == 2, "what is put, and what waits"
    assert up.report.waiting == 3
    gate.open.set()
    assert up.finish(120)
    assert store.names() == [Name(1, 3), Name(1, 1)]
    for each in store.checkpoints():
        assert content(store.fetch(each, tmp_path / "fetched")) == expected[each.batch]
    assert (up.report.batch, up.report.uploads, up.report.failures, up.report.waiting) == (3, 2, 0, None)
    assert list((tmp_path / "data" / "uploads").iterdir()) == []


def test_each_so_manieth_goes_and_one_with_an_erasure_and_one_that_is_asked_for(
    begin: Callable[..., Uploads], store: CheckpointStore, make: Make
) -> None:
    up = begin(every=3, keep=100)
    for batch in range(1, 9):
        offer(up, make(batch))
        assert up.finish(120)
    assert [name.batch for name in reversed(store.names())] == [1, 4, 7]
    offer(up, make(9), due=True)
    assert up.finish(120)
    assert store.names()[0].batch == 9
    offer(up, make(10, erased=1))
    assert up.finish(120)
    assert [name.batch for name in store.names()] == [10], "those from before have what was erased"


def test_old_ones_go_and_who_wants_to_know_is_told_of_the_oldest(
    begin: Callable[..., Uploads], store: CheckpointStore, make: Make
) -> None:
    told: list[tuple[int, int]] = []
    up = begin(keep=2, kept=lambda stored, manifest: told.append((stored.batch, manifest.batch)))
    for batch in (1, 2, 3):
        offer(up, make(batch))
        assert up.finish(120)
    assert told == [(1, 1), (1, 1), (2, 2)]
    assert [name.batch for name in store.names()] == [3, 2]


def test_a_server_that_is_away_is_tried_again_until_it_is_back(
    s3: S3, make: Make, monkeypatch: pytest.MonkeyPatch, begin: Callable[..., Uploads], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(address, "RETRIES", 0)
    monkeypatch.setattr(uploads, "FIRST_PAUSE_S", 0.05)
    bucket, server = s3.bucket(), S3()
    variables(monkeypatch, server)
    store = CheckpointStore(f"s3://{bucket}/x")
    up = begin(store=store)
    offer(up, make(1))
    assert up.finish(120)
    server.stop()
    offer(up, make(2))
    wait_until(lambda: up.report.failures > 2, what="it is tried again")
    assert "refused" in up.report.why
    assert (up.report.batch, up.report.waiting) == (1, 2)
    assert not up.finish(0.01)
    offer(up, make(3))
    wait_until(lambda: up.report.waiting == 3, what="the newest takes the place of what waits")
    server.start()
    wait_until(lambda: up.report.batch == 3, what="it is there")
    assert up.finish(120)
    assert up.report.why == ""
    assert store.names() == [Name(1, 3), Name(1, 1)]
    assert caplog.text.count("is not in the store yet") == 1, "what is the same is said once"
    assert "takes checkpoints again" in caplog.text
    server.stop()


def test_one_that_is_damaged_on_the_disk_is_left_out_and_said(
    begin: Callable[..., Uploads], store: CheckpointStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "FIRST_PAUSE_S", 0.01)
    up, path = begin(), make(1)
    manifest = load_manifest(path)
    (path / "model.safetensors").write_bytes(b"no model")
    up.offer(path, manifest)
    wait_until(lambda: up.report.failures == 1, what="it is told")
    assert not up.finish(120)
    assert up.report.waiting is None, "it is not tried again"
    assert "model.safetensors" in up.report.why
    offer(up, make(2))
    assert up.finish(120)
    assert (store.names(), up.report.why, up.report.failures) == ([Name(1, 2)], "", 1)


def test_who_was_overtaken_puts_nothing_more(
    begin: Callable[..., Uploads], store: CheckpointStore, make: Make, gate: Gate
) -> None:
    overtaken = threading.Event()

    def check() -> None:
        if overtaken.is_set():
            raise Overtaken("by another")

    up = begin(check=check)
    offer(up, make(1))
    assert gate.came.wait(60)
    overtaken.set()
    gate.open.set()
    up.finish(120)
    offer(up, make(2))
    assert not up.finish(0.1)
    assert store.names() == []


def test_the_end_waits_a_while_and_no_longer(
    begin: Callable[..., Uploads], store: CheckpointStore, make: Make, gate: Gate, tmp_path: Path
) -> None:
    up = begin()
    offer(up, make(1))
    assert gate.came.wait(60)
    assert not up.finish(0.05)
    threading.Timer(0.2, gate.open.set).start()
    up.close()
    wait_until(lambda: not up._thread.is_alive(), what="what is on its way is broken off")
    assert store.names() == []
    begin()
    assert not (tmp_path / "data" / "uploads").exists(), "the next learner begins with nothing held"


def test_what_fails_behind_it_is_tried_again_and_it_is_not_put_twice(
    begin: Callable[..., Uploads], store: CheckpointStore, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that may not delete, say."""
    monkeypatch.setattr(uploads, "FIRST_PAUSE_S", 0.01)
    prune, denied = CheckpointStore.prune, iter(range(3))

    def refused(self: CheckpointStore, keep: int) -> Any:
        if next(denied, None) is not None:
            raise StoreUnavailable("deleting: refused")
        return prune(self, keep)

    monkeypatch.setattr(CheckpointStore, "prune", refused)
    up = begin()
    offer(up, make(1))
    wait_until(partial(up.finish, 0.1), what="all is done")
    assert (up.report.uploads, up.report.failures, up.report.why) == (1, 3, "")
    assert store.names() == [Name(1, 1)]


def test_one_that_fails_gives_way_to_the_newer_one_that_waits(
    begin: Callable[..., Uploads],
    store: CheckpointStore,
    make: Make,
    gate: Gate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uploads, "FIRST_PAUSE_S", 0.01)
    check_there = CheckpointStore._check_there

    def fail_once(*_: object) -> None:
        monkeypatch.setattr(CheckpointStore, "_check_there", check_there)
        raise StoreUnavailable("the cable")

    monkeypatch.setattr(CheckpointStore, "_check_there", fail_once)
    up = begin()
    offer(up, make(1))
    assert gate.came.wait(60)
    offer(up, make(2))
    gate.open.set()
    wait_until(lambda: up.report.batch == 2 and up.report.waiting is None, what="the newer one is there")
    assert (store.names(), up.report.failures) == ([Name(1, 2)], 1)
    assert list((tmp_path / "data" / "uploads").iterdir()) == [], "and nothing is held any more"
