"""What is written is there whole or not at all, and nothing half-written stays; each step that makes it last is taken.

What a power cut leaves is tried in tests/faults, from the system calls.
"""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from driftline.learner.disk import durable
from driftline.learner.disk.durable import TEMPORARY, AppendFile
from driftline.stream.errors import DiskFull, StateError, SyncFailed


@contextmanager
def full_beyond(n_bytes: int) -> Iterator[None]:
    """Have no file grow beyond so many bytes: a limit as a quota is one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give what becomes durable from now on, and what gets another name, in its order."""
    found: list[str] = []
    sync, rename = durable._sync, Path.rename

    def noted_sync(descriptor: int, path: Path, *how: Any) -> None:
        found.append(f"sync {path.name}")
        sync(descriptor, path, *how)

    def noted_rename(self: Path, target: Path) -> Path:
        found.append(f"rename {self.name}")
        return rename(self, target)

    monkeypatch.setattr(durable, "_sync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    return found


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_directories_that_are_missing_are_made_and_their_names_are_durable(tmp_path: Path, steps: list[str]) -> None:
    durable.make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert steps == [f"sync {tmp_path.name}", "sync a", "sync b"]
    durable.make_directory(tmp_path / "a" / "b")
    assert len(steps) == 3


class TestDirectory:
    def test_it_appears_whole(self, tmp_path: Path, steps: list[str]) -> None:
        (tmp_path / "old").write_bytes(b"there")
        files = {"one": [b"ab", memoryview(b"cd")], "two": []}
        looked: list[bool] = []
        target = tmp_path / "root" / "new"
        durable.write_directory(
            target, files, {"linked": tmp_path / "old"}, "-7", lambda: looked.append(target.exists())
        )
        assert {path.name: path.read_bytes() for path in target.iterdir()} == {
            "one": b"abcd", "two": b"", "linked": b"there"
        }  # fmt: skip
        assert (target / "linked").samefile(tmp_path / "old")
        assert looked == [False], "it was looked at once, before it appeared"
        partial = f"{TEMPORARY}new-7"
        made, *written, last = steps
        assert (made, last) == (f"sync {tmp_path.name}", "sync root")
        assert written == ["sync one", "sync two", f"sync {partial}", f"rename {partial}"]

    def test_one_that_is_there_is_not_touched(self, tmp_path: Path) -> None:
        durable.write_directory(tmp_path / "a", {"one": [b"1"]})
        with pytest.raises(FileExistsError, match="is there already"):
            durable.write_directory(tmp_path / "a", {"two": [b"2"]})
        assert names(tmp_path / "a") == ["one"]

    def test_what_one_that_was_killed_left_is_in_nobodys_way(self, tmp_path: Path) -> None:
        (tmp_path / f"{TEMPORARY}a").mkdir()
        (tmp_path / f"{TEMPORARY}a" / "half").write_bytes(b"")
        durable.write_directory(tmp_path / "a", {"one": [b"1"]})
        assert (names(tmp_path), names(tmp_path / "a")) == (["a"], ["one"])

    @pytest.mark.parametrize("error", [StateError("no"), OSError("broken")])
    def test_what_the_check_raises_prevents_it(self, tmp_path: Path, error: Exception) -> None:
        def refuse() -> None:
            raise error

        with pytest.raises(type(error), match=str(error)):
            durable.write_directory(tmp_path / "a", {"one": [b"1"]}, check=refuse)
        assert names(tmp_path) == []

    def test_without_room_there_is_none(self, tmp_path: Path) -> None:
        with full_beyond(1000), pytest.raises(DiskFull, match=r"a cannot be written: .*; make room"):
            durable.write_directory(tmp_path / "a", {"one": [b"1"], "two": [bytes(2000)]})
        assert names(tmp_path) == []
        durable.write_directory(tmp_path / "a", {"one": [b"1"], "two": [bytes(2000)]})

    @pytest.mark.parametrize("number", [*sorted(durable._NO_LINKS), 5])
    def test_a_file_that_cannot_have_two_names_is_copied(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        (tmp_path / "old").write_bytes(b"there")
        monkeypatch.setattr(Path, "hardlink_to", fail)

        def write() -> None:
            durable.write_directory(tmp_path / "a", {}, {"linked": tmp_path / "old"})

        if number in durable._NO_LINKS:
            write()
            assert (tmp_path / "a" / "linked").read_bytes() == b"there"
        else:
            with pytest.raises(OSError, match=os.strerror(number)):
                write()
            assert names(tmp_path) == ["old"]

    def test_a_large_file_is_synced_as_it_grows(
        self, tmp_path: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(durable, "SYNC_BYTES", 10)
        durable.write_directory(tmp_path / "a", {"one": [bytes(range(25)), b"xyz", b"abcdefg"]})
        assert (tmp_path / "a" / "one").read_bytes() == bytes(range(25)) + b"xyzabcdefg"
        assert steps.count("sync one") == 3 + 1


class TestAppendFile:
    def test_it_grows(self, tmp_path: Path, steps: list[str]) -> None:
        file = AppendFile(tmp_path / "a", b"head")
        assert steps == [f"sync {TEMPORARY}a", f"rename {TEMPORARY}a", f"sync {tmp_path.name}"]
        file.append(b"one")
        file.append(b"two")
        assert steps[3:] == ["sync a"] * 2
        file.close()
        assert (tmp_path / "a").read_bytes() == b"headonetwo"
        with pytest.raises(FileExistsError):
            AppendFile(tmp_path / "a", b"head")

    def test_what_there_is_no_room_for_is_taken_back(self, tmp_path: Path) -> None:
        file = AppendFile(tmp_path / "a", b"head")
        file.append(b"one")
        for _ in range(2):
            with full_beyond(100), pytest.raises(DiskFull):
                file.append(bytes(200))
            assert (tmp_path / "a").read_bytes() == b"headone"
        file.append(b"two")
        file.close()
        assert (tmp_path / "a").read_bytes() == b"headonetwo"

    def test_without_room_for_its_head_there_is_none(self, tmp_path: Path) -> None:
        with full_beyond(100), pytest.raises(DiskFull):
            AppendFile(tmp_path / "a", bytes(200))
        assert names(tmp_path) == []


def test_something_small_is_put_in_anothers_place(tmp_path: Path) -> None:
    for write in (durable.replace, _rewrite):
        for content in (b"long content", b"short", b""):
            write(tmp_path / "a", content)
            assert (tmp_path / "a").read_bytes() == content
            assert names(tmp_path) == ["a"]


def _rewrite(path: Path, content: bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        file.read()
        durable.rewrite(file, content, path)


def test_what_there_is_no_room_for_takes_no_ones_place(tmp_path: Path) -> None:
    durable.replace(tmp_path / "a", b"before", "-1")
    with full_beyond(100), pytest.raises(DiskFull):
        durable.replace(tmp_path / "a", bytes(200), "-1")
    assert (tmp_path / "a").read_bytes() == b"before"
    assert names(tmp_path) == ["a"]


def test_a_directory_loses_its_name_before_its_content(tmp_path: Path, steps: list[str]) -> None:
    durable.write_directory(tmp_path / "a", {"one": [b"1"]})
    (tmp_path / f"{TEMPORARY}a").mkdir()
    (tmp_path / f"{TEMPORARY}a" / "of one before").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    steps.clear()
    for name in ("a", "file", "nothing"):
        durable.remove(tmp_path / name)
    assert names(tmp_path) == []
    assert steps == ["rename a", f"sync {tmp_path.name}"]


def test_another_name_is_durable(tmp_path: Path, steps: list[str]) -> None:
    (tmp_path / "a").write_bytes(b"1")
    durable.rename(tmp_path / "a", "b")
    assert names(tmp_path) == ["b"]
    assert steps == ["rename a", f"sync {tmp_path.name}"]


def test_what_is_set_aside_twice_under_one_name_is_the_newer_one(tmp_path: Path) -> None:
    for content in (b"1", b"2"):
        durable.write_directory(tmp_path / "a", {"file": [content]})
        durable.set_aside(tmp_path / "a", "aside")
    assert names(tmp_path) == ["aside"]
    assert (tmp_path / "aside" / "file").read_bytes() == b"2"


def test_what_is_half_written_goes_unless_somebody_may_be_at_it(tmp_path: Path, steps: list[str]) -> None:
    for epoch in (1, 2, 3):
        (tmp_path / f"{TEMPORARY}{epoch}").mkdir()
    (tmp_path / "4").mkdir()
    durable.remove_partial(tmp_path, int, 2)
    assert steps[0] == f"sync {tmp_path.name}"
    assert names(tmp_path) == [f"{TEMPORARY}3", "4"]
    durable.remove_partial(tmp_path)
    assert names(tmp_path) == ["4"]


def test_a_sync_that_fails_is_told_and_is_no_full_disk() -> None:
    reading, writing = os.pipe()  # which cannot be synced
    try:
        with pytest.raises(SyncFailed, match=r"here: the disk did not confirm a write .*Check the disk"):
            durable._sync(writing, Path("here"))
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("settle", [durable.settle, durable.sync_directory])
def test_what_a_process_before_wrote_is_synced(
    tmp_path: Path, steps: list[str], settle: Callable[[Path], None]
) -> None:
    path = tmp_path
    if settle is durable.settle:
        path = tmp_path / "a"
        path.write_bytes(b"1")
    settle(path)
    assert steps == [f"sync {path.name}"]
