"""A checkpoint comes back byte for byte or is refused; nothing damaged is ever taken for whole."""

import shutil
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk.checkpoint import (
    Checkpoint,
    Manifest,
    load_checkpoint,
    load_manifest,
    load_newest,
    save_checkpoint,
)
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.quality.alarms import Alarms
from driftline.learner.quality.figures import Counts
from driftline.stream.errors import StateError
from driftline.stream.limits import JoinCounts
from driftline.stream.process.settings import StreamSettings
from tests.data import alarm


def make(batch: int) -> Checkpoint:
    rng = np.random.default_rng(batch)
    alarms = Alarms()
    for label in (None, "hâm"):
        alarms.add(alarm(batch, label=label))
    manifest = Manifest(
        batch=batch,
        epoch=1,
        lineage="abc",
        model="linear",
        config={"classifier": "linear", "bits": 20},
        rules=LearnerSettings().rules(StreamSettings(), 1),
        labels=["spam", "hâm"],
        positions={"messages": {"0": 5}},
        clocks={"messages": {"0": 1000}},
        counts=Counts(messages_seen=5),
        join_counts=JoinCounts(expired=1),
        alarms=alarms,
        created_at="2026-01-31T12:00:00+00:00",
    )
    model = {"weights": rng.random((16, 2)).astype(np.float32), "count": np.array([batch])}
    return Checkpoint(manifest, model, {"support": np.array([1, 2])}, {"widths": np.array([batch])}, [[b"window"]])


def same(one: Checkpoint, other: Checkpoint) -> bool:
    states = ((one.model, other.model), (one.progress, other.progress), (one.drift, other.drift))
    arrays = [(a[name], b[name]) for a, b in states for name in a]
    return (
        one.manifest == other.manifest
        and one.windows == other.windows
        and one.model.keys() == other.model.keys()
        and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays)
    )


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    assert same(load_checkpoint(save_checkpoint(tmp_path, make(7))), make(7))


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = (save_checkpoint(tmp_path / name, make(7)) for name in "ab")
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }


def test_sha256sum_accepts_it(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, make(7))
    assert shutil.which("sha256sum"), "coreutils"
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=path, capture_output=True, text=True, check=True)
    assert checked.stdout.count(": OK") == len(list(path.iterdir())) - 1


def test_it_is_never_overwritten(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(7))
    with pytest.raises(FileExistsError):
        save_checkpoint(tmp_path, make(7))


def test_any_flipped_byte_is_refused_and_the_one_before_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_checkpoint(tmp_path, make(1))
    path = save_checkpoint(tmp_path, make(2))
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        for place in range(0, len(content), 7):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            try:
                assert same(load_checkpoint(path), make(2)), (file.name, place)
            except StateError:
                continue
        file.write_bytes(content[:-3])
        if file.name == "manifest.json":
            with pytest.raises(StateError, match="is damaged"):
                load_manifest(path)
        newest = load_newest(tmp_path)
        assert newest is not None
        assert same(newest, make(1))
        assert str(path) in caplog.text
        file.unlink()
        newest = load_newest(tmp_path)
        assert newest is not None
        assert same(newest, make(1))
        file.write_bytes(content)


def test_half_written_ones_do_not_count(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make(1))
    (tmp_path / ".writing-000000000002").mkdir()
    newest = load_newest(tmp_path)
    assert newest is not None
    assert newest.manifest.batch == 1
    save_checkpoint(tmp_path, make(2))


def test_none_at_all_and_none_whole(tmp_path: Path) -> None:
    assert load_newest(tmp_path) is None
    (save_checkpoint(tmp_path, make(1)) / "model.safetensors").unlink()
    with pytest.raises(StateError, match="none of 1 checkpoint in"):
        load_newest(tmp_path)


@pytest.mark.parametrize("number", [1, 99])
def test_an_unknown_format_is_refused_and_nothing_deleted(tmp_path: Path, number: int) -> None:
    save_checkpoint(tmp_path, make(1))
    newer = make(2)
    path = save_checkpoint(
        tmp_path,
        msgspec.structs.replace(newer, manifest=msgspec.structs.replace(newer.manifest, format=number)),
    )
    with pytest.raises(
        StateError, match=f"has format {number}; this version of Driftline reads format {checkpoints.FORMAT}"
    ):
        load_newest(tmp_path)
    assert path.is_dir()


def test_three_are_kept(tmp_path: Path) -> None:
    for batch in range(5):
        save_checkpoint(tmp_path, make(batch))
    assert checkpoints.prune(tmp_path) == 2
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == [
        "000000000004",
        "000000000003",
        "000000000002",
    ]
