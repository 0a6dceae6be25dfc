"""What the tests of the store share: an S3 server, checkpoints of made content, a store of each kind."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from driftline.learner.disk.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from driftline.learner.disk.losses import Erasures
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.process.settings import StreamSettings
from tests.faults.stage import SqliteStage
from tests.s3 import S3, variables

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """Give the S3 server that these tests share; nobody may stop it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Give the same, with the variables that lead to it."""
    variables(monkeypatch, s3_server)
    return s3_server


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty store of each kind."""
    if request.param == "file":
        (tmp_path / "store" / "other").mkdir(parents=True)
        return f"file://{tmp_path}/store"
    return f"s3://{request.getfixturevalue('s3').bucket()}/some/prefix"


@pytest.fixture
def store(url: str) -> CheckpointStore:
    return CheckpointStore(url)


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Give a checkpoint that a learner wrote."""
    root = tmp_path_factory.mktemp("learned")
    stream = StreamSettings(data=root / "data", log=f"sqlite:///{root / 'log.db'}")
    with contextlib.closing(SqliteStage(stream)) as stage:
        stage.append(range(40))
        stage.learn()
        return load_checkpoint(list_checkpoints(stream.data / "checkpoints")[0])


@pytest.fixture
def make(learned: Checkpoint, tmp_path: Path) -> Make:
    """Give what writes a checkpoint of some batch and epoch to the disk; its model is of `seed` and so many bytes."""

    def make(
        batch: int, epoch: int = 1, *, seed: int = 0, n_bytes: int = 1 << 10, erased: int = 0, root: str = "disk"
    ) -> Path:
        manifest = msgspec.structs.replace(learned.manifest, batch=batch, epoch=epoch, erased=Erasures(erased, batch))
        model = {"weights": np.random.default_rng([batch, seed]).integers(0, 256, n_bytes, np.uint8)}
        return save_checkpoint(tmp_path / root, msgspec.structs.replace(learned, manifest=manifest, model=model))

    return make


def content(path: Path) -> dict[str, bytes]:
    """Return the files of a checkpoint on the disk."""
    return {each.name: each.read_bytes() for each in path.iterdir()}
