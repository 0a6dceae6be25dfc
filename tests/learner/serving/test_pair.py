"""A reader sees one version or another, never a mixture that it takes for whole, whatever happens to the writer."""

import os
import resource
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.learner.models.classifier import State
from driftline.learner.serving import double_buffer
from driftline.learner.serving.double_buffer import Reader, Writer
from driftline.stream.errors import DiskFull, NotFinite, StateError


def begin(path: Path, arrays: State, info: bytes) -> Writer:
    writer = Writer(path, arrays, info)
    assert not path.exists()
    writer.appear()
    return writer


def state(version: int, length: int = 5000) -> State:
    return {
        "table": np.full((length, 2), version, np.float32),
        "few": np.full(3, version, np.int64),
        "bytes": np.full(7, version % 256, np.uint8),
    }


def shown(reader: Reader) -> tuple[State, bytes]:
    """Return what is active, which must be whole."""
    half, sequence = reader.active()
    found = {name: array.copy() for name, array in reader.arrays(half).items()}, reader.info(half)
    assert reader.unchanged(half, sequence)
    return found


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        a.dtype == other[name].dtype and a.shape == other[name].shape and a.tobytes() == other[name].tobytes()
        for name, a in one.items()
    )


def test_each_version_is_seen_by_who_mapped_it_before(tmp_path: Path) -> None:
    writer = begin(tmp_path / "pair", state(0), b"version 0")
    reader = Reader(tmp_path / "pair")
    for version in range(1, 6):
        writer.write(state(version), f"version {version}".encode())
        found, info = shown(reader)
        assert same(found, state(version))
        assert info == f"version {version}".encode()


@given(
    st.lists(
        st.tuples(st.sampled_from(["<f8", "<f4", "<i8", "<i4", "<u2", "|u1"]), st.integers(0, 1500)),
        min_size=1,
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_any_arrays_come_back_after_any_changes(tmp_path_factory: Any, layout: Any, random: Any) -> None:
    path = tmp_path_factory.mktemp("pairs") / "pair"
    arrays = {str(n): np.zeros(length, dtype) for n, (dtype, length) in enumerate(layout)}
    writer = begin(path, arrays, b"")
    reader = Reader(path)
    for info in (b"a", b"", b"ccc"):
        for array in arrays.values():
            content = array.view(np.uint8)
            for _ in range(3):
                if len(content):
                    content[random.randrange(len(content))] = random.randrange(256)
            if array.dtype.kind == "f":
                array[~np.isfinite(array)] = -0.0
        writer.write(arrays, info)
        assert same(shown(reader)[0], arrays)
        assert shown(reader)[1] == info


def test_only_blocks_that_differ_are_written(tmp_path: Path) -> None:
    arrays = state(0)
    writer = begin(tmp_path / "pair", arrays, b"")
    assert writer.write(arrays, b"") == 0
    arrays["table"][17, 1] = -0.0
    assert [writer.write(arrays, b"") for _ in range(3)] == [1, 1, 0]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_active(tmp_path: Path, dtype: str, number: float) -> None:
    arrays = {"table": np.zeros(3000, dtype), "rest": np.full(10, -1, np.int64)}  # all bits set, and no float
    writer = begin(tmp_path / "pair", arrays, b"good")
    reader = Reader(tmp_path / "pair")
    arrays["table"][2999], arrays["table"][7] = number, 5
    for _ in range(4):  # each attempt, not only the first
        with pytest.raises(NotFinite, match="'table'"):
            writer.write(arrays, b"bad")
        assert shown(reader)[1] == b"good"
        assert not shown(reader)[0]["table"].any()
    arrays["table"][2999] = 6
    writer.write(arrays, b"mended")
    assert same(shown(reader)[0], arrays)
    with pytest.raises(NotFinite):
        Writer(tmp_path / "other", {"table": np.full(3, number, dtype)}, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["pair"]


def test_a_half_stays_as_it_is_until_the_publish_after_the_next(tmp_path: Path) -> None:
    writer = begin(tmp_path / "pair", state(0), b"")
    reader = Reader(tmp_path / "pair")
    taken = reader.active()
    writer.write(state(1), b"")
    assert reader.unchanged(*taken)
    assert reader.active() != taken
    writer.write(state(2), b"")
    assert not reader.unchanged(*taken)


def test_what_does_not_fit_is_known_before(tmp_path: Path) -> None:
    head = begin(tmp_path / "pair", state(0), b"").head
    assert head.holds(state(1), b"x" * double_buffer.LEAST_ROOM)
    assert not head.holds(state(1), b"x" * (double_buffer.LEAST_ROOM + 1))
    assert not head.holds(state(1, 5001), b"")
    assert not head.holds(state(1) | {"more": np.zeros(1)}, b"")
    assert not head.holds(state(1) | {"few": np.zeros(3)}, b"")


def die_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the process before its n-th store to the file."""
    left = [step]

    def counting(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return function(*arguments)

        return call

    monkeypatch.setattr(double_buffer, "store", counting(double_buffer.store))
    monkeypatch.setattr(double_buffer, "copy_changed", counting(double_buffer.copy_changed))


STEPS = 6  # sequence odd, three arrays, sequence even, active


@pytest.mark.parametrize("step", range(STEPS + 1))
@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_writer_that_dies_at_any_step_leaves_a_whole_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, before: int
) -> None:
    writer = begin(tmp_path / "pair", state(0), b"0")
    for version in range(1, before + 1):
        writer.write(state(version), b"%d" % version)
    reader = Reader(tmp_path / "pair")
    writer.write(state(before), b"%d" % before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it forks where threads may be: the child only stores
        child = os.fork()
    if child == 0:
        die_at(step, monkeypatch)
        writer.write(state(before + 1), b"%d" % (before + 1))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (0 if step == STEPS else 9)
    expected = before + (step == STEPS)
    for each in (reader, Reader(tmp_path / "pair")):
        found, info = shown(each)
        assert same(found, state(expected))
        assert info == b"%d" % expected


def test_every_truncation_and_a_damaged_head_are_refused(tmp_path: Path) -> None:
    begin(tmp_path / "pair", state(0), b"")
    content = (tmp_path / "pair").read_bytes()
    damaged = tmp_path / "damaged"
    head = len(content) - 2 * Reader(tmp_path / "pair").head.stride - 4096
    for length in [*range(0, 600, 7), head, head + 4096, len(content) - 1]:
        damaged.write_bytes(content[:length])
        with pytest.raises(StateError, match="cannot be read"):
            Reader(damaged)
    for place in range(content.index(b"\0" * 64)):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        with pytest.raises(StateError, match="cannot be read"):
            Reader(damaged)
    damaged.write_bytes(content[:head] + b"\x07" * 8 + content[head + 8 :])
    with pytest.raises(StateError, match="half 506381209866536711 is active"):
        Reader(damaged)


def test_after_the_machine_went_down_only_what_was_closed_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = begin(tmp_path / "pair", state(0), b"")
    monkeypatch.setattr(double_buffer, "_boot_id", lambda: "another")
    with pytest.raises(StateError, match="when the machine went down"):
        Reader(tmp_path / "pair")
    writer.close()
    assert same(shown(Reader(tmp_path / "pair"))[0], state(0))


def test_a_disk_without_room_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(DiskFull, match=r"too large|No space"):
            Writer(tmp_path / "pair", state(0), b"")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "pair").exists()
