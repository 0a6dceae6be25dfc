"""A file of word vectors gives its words the vectors that stand in it, or says which line is wrong."""

import gzip
import os
import threading
from pathlib import Path

import numpy as np
import oracles
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline.learner.text.features import TextSettings, features
from driftline.learner.vectors import opened, table, text_file
from driftline.learner.vectors.lookup import ALIKE, MOST, add_up, find_rows
from driftline.learner.vectors.opened import SUFFIX, open_table
from driftline.learner.vectors.source import opened_source
from driftline.learner.vectors.table import LANES, Table, hashes_of, width_of
from driftline.stream.errors import ConfigError
from tests.often import times

SMALL = b"the 0.5 -1 2\ncat 1 0 0\nDog 0 1e0 -.25\n"


def written(directory: Path, content: bytes = SMALL, name: str = "words.txt") -> Path:
    path = directory / name
    path.write_bytes(content)
    return path


def vector(found: Table, text: str) -> NDArray[np.float32] | None:
    """Return a text's vector; None where it has none."""
    words, _ = features([text], TextSettings(pairs=False, chars=False))
    rows, out = np.empty(MOST, np.int64), np.empty(width_of(found.dimension), np.float32)
    n = find_rows(words, len(words), found.words, len(out), rows)
    has = add_up(rows, n, found.words, found.dimension, out, np.empty(LANES, np.float32))
    assert has == (n > 0 and bool(np.any(out[: found.dimension])))
    assert not has or (out[found.dimension] == ALIKE and not out[found.dimension + 1 :].any())
    return out[: found.dimension] if has else None


def plain(vectors: dict[str, list[float]], text: str) -> NDArray[np.float64]:
    """Return the mean of the vectors of a text's distinct words, of length 1."""
    words = dict.fromkeys(word for _, word in oracles.tokens(oracles.normal(text)))
    total = np.sum([vectors[word] for word in words if word in vectors], axis=0)
    mean: NDArray[np.float64] = total / np.linalg.norm(total)
    return mean


def test_a_text_has_the_mean_of_its_words(tmp_path: Path) -> None:
    found = open_table(str(written(tmp_path)))
    assert (len(found), found.dimension) == (3, 3)
    vectors = {"the": [0.5, -1, 2], "cat": [1, 0, 0], "dog": [0, 1, -0.25]}
    for text in ("cat", "The DOG", "the cat, the cat; and the dog"):
        np.testing.assert_allclose(vector(found, text), plain(vectors, text), atol=1e-4)
    assert vector(found, "nobody knows me") is None
    assert vector(found, "") is None


@settings(max_examples=times(60, 15), deadline=None)
@given(
    words=st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Zs", "Cc", "Zl", "Zp"]), min_size=1, max_size=9),
        min_size=1,
    ),
    dimension=st.integers(2, 40),
    seed=st.integers(0, 2**32 - 1),
)
@example(words=["0\u00af0:", "0\u00af0", "a"], dimension=2, seed=0)  # the second sign is a space in the one form
def test_any_words_are_found_again(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], dimension: int, seed: int
) -> None:
    """Those that are one token; of two that are the same the first."""
    numbers = np.random.default_rng(seed).normal(size=(len(words), dimension)).astype(np.float32)
    lines = [" ".join([word, *map(str, row.tolist())]) for word, row in zip(words, numbers, strict=True)]
    own, first = hashes_of(words).tolist(), {}
    for word, row, hashed in zip(words, numbers, own, strict=True):
        tokens, _ = features([word], TextSettings(chars=False))
        assert hashed == (tokens[0] if len(tokens) == 1 else -1)
        if hashed >= 0:
            first.setdefault(hashed, row)
    path = written(tmp_path_factory.mktemp("words"), "\n".join(lines).encode())
    if not first:
        with pytest.raises(ConfigError, match="has no word"):
            open_table(str(path))
        return
    found = open_table(str(path))
    assert len(found) == len(first)
    for word, hashed in zip(words, own, strict=True):
        if hashed >= 0:
            expected = first[hashed] / np.linalg.norm(first[hashed])
            np.testing.assert_allclose(vector(found, word), expected, atol=1e-3)


@pytest.mark.parametrize(
    "content",
    [
        b"3 3\n" + SMALL,  # fastText
        b"3 3 \n" + SMALL.replace(b"\n", b" \n"),
        SMALL.replace(b"\n", b"\r\n") + b"\r\n\r\n",
        SMALL.replace(b" ", b"\t"),
        SMALL + b"dog 9 9 9\nTHE 9 9 9\n",  # the same words again
        SMALL + b"two words 1 2 3\n \xe2\x80\x8b 1 2 3\nzero 0 0 0\n\xff\xfe 1 2 3\n",  # what no text can have
        b"\xef\xbb\xbf3 3\n" + SMALL,
        b"\xef\xbb\xbf" + SMALL,
        gzip.compress(SMALL),
        SMALL.removesuffix(b"\n"),
    ],
)
def test_forms_of_the_same_file(tmp_path: Path, content: bytes) -> None:
    here, there = (open_table(str(written(tmp_path, each, f"{n}"))) for n, each in enumerate((SMALL, content)))
    for text in ("the", "cat", "dog", "the cat and the dog"):
        np.testing.assert_array_equal(vector(here, text), vector(there, text))
    for one in ("two", "words", "zero"):
        assert vector(there, one) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 0"),
        (b"\n\n", "line 2"),
        (b"the 1\n", "line 1: 1 numbers; a word must have 2 to 512"),
        (b"the " + b"1 " * 513, "line 1: 513 numbers"),
        (SMALL + b"bird 1 2\n", "line 4: no word with 3 numbers"),
        (SMALL + b"bird 1 2 x\n", "line 4: what stands behind the word are no 3 numbers"),
        (SMALL + b"bird 1 2 nan\n", "line 4"),
        (SMALL + b"bird 1 2 1e39\n", "line 4"),
        (SMALL + b"\nbird 1 2.3.4 5\nfish 1 2 3\n", "line 5"),
        (b"4 3\n" + SMALL, "says that it has 4 words, but has 3: it was cut short"),
        (b"3 4\n" + SMALL, "line 2"),
        (SMALL + b"a" * 40_000 + b" 1 2 3\n", "line 4: longer than"),
        (gzip.compress(SMALL)[:-12], "cut short"),
        (gzip.compress(SMALL)[:-8] + bytes(8), "cannot be unpacked"),
        (b"PK\x03\x04" + SMALL, "is a zip file: unpack it"),
        (b"3 3\nthe " + np.ones(3, np.float32).tobytes() + b"\n", "line 2"),  # word2vec's binary form
        (b"  1 2 3\n", "line 1"),
        (b"a-b 1 2 3\n", "has no word"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ConfigError, match=message) as error:
        open_table(str(path))
    assert str(path) in str(error.value)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]  # nothing half-made stays


@pytest.mark.parametrize("name", ["missing.txt", "", "a\0b", "missing.safetensors", "pipe"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"cannot be read|is no file"):
        open_table(str(tmp_path / name))


def test_only_so_many_words_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOST_WORDS", 5)
    monkeypatch.setattr(text_file, "LINES", 3)
    path = written(tmp_path, b"7 2\n" + b"".join(b"w%d %d 1\nw%d 9 9\n" % (n, n, n) for n in range(9)))
    found = open_table(str(path))
    assert len(found) == 5
    assert [vector(found, f"w{n}") is not None for n in range(6)] == [True] * 5 + [False]


def test_a_file_is_read_once_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    found = open_table(str(path))
    assert open_table(str(path)) is found
    own = path.with_name(path.name + SUFFIX)
    assert own.is_file()
    monkeypatch.setattr(opened, "write", None)  # nothing is made from here on
    sha256, content = found.sha256, [array.copy() for array in found.words]
    del found
    for again in (path, own):
        read = open_table(str(again))
        assert read.sha256 == sha256
        for array, before in zip(read.words, content, strict=True):
            np.testing.assert_array_equal(array, before)
            assert not array.flags.writeable
    os.utime(path, (1, 1))  # a copy of it, say
    assert open_table(str(path)).sha256 == sha256


def test_another_file_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = open_table(str(path)).sha256
    written(tmp_path, SMALL.replace(b"cat 1", b"cat 2"))  # as long
    found = open_table(str(path))
    assert found.sha256 != before
    with pytest.raises(ConfigError, match="is not the file that the model has learned with"):
        open_table(str(path), before)
    assert open_table(str(path), found.sha256) is found


@pytest.mark.parametrize("at", [0, 20, 4100, -1, None])
def test_a_damaged_file_is_made_again_or_refused(tmp_path: Path, at: int | None) -> None:
    path = written(tmp_path)
    open_table(str(path))
    own = path.with_name(path.name + SUFFIX)
    whole = own.read_bytes()
    damaged = bytearray(whole)
    if at is None:
        del damaged[-64:]
    else:
        damaged[at] ^= 1
    own.write_bytes(damaged)
    copy = written(tmp_path, bytes(damaged), "copy")
    with pytest.raises(ConfigError):  # named itself: there is nothing to make it of
        open_table(str(copy))
    assert len(open_table(str(path))) == 3
    assert own.read_bytes() == whole


def test_several_that_begin_at_once_have_one_file(tmp_path: Path) -> None:
    path = written(tmp_path, b"".join(b"w%d %d 1 2\n" % (n, n) for n in range(3000)))
    sizes: list[int] = []

    def make() -> None:
        with opened_source(path) as source:
            sizes.append(len(opened._open(path, source)))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [3000] * 4
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, path.name + SUFFIX]


def test_where_one_place_cannot_be_written_another_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, home = written(tmp_path), tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    places = [path / "below a file", opened._places(path)[1]]
    monkeypatch.setattr(opened, "_places", lambda _: places)
    assert len(open_table(str(path))) == 3
    assert places[1].is_relative_to(home / ".cache" / "driftline")
    monkeypatch.setattr(opened, "write", None)  # it is found there again
    assert len(open_table(str(path))) == 3


def test_what_one_that_was_killed_left_is_written_over(tmp_path: Path) -> None:
    path = written(tmp_path)
    left = path.with_name(opened.PARTIAL + path.name + SUFFIX)
    left.write_bytes(b"half of it" * 10_000)
    assert len(open_table(str(path))) == 3
    assert not left.exists()


def test_where_nothing_can_be_written_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    monkeypatch.setattr(opened, "_places", lambda _: [path / "below a file", tmp_path / "words.txt" / "too"])
    with pytest.raises(ConfigError, match="cannot be written"):
        open_table(str(path))


def test_a_text_of_very_many_words_is_bounded(tmp_path: Path) -> None:
    found = open_table(str(written(tmp_path, b"".join(b"w%d %d 1\n" % (n, n) for n in range(2 * MOST)))))
    first = vector(found, " ".join(f"w{n}" for n in range(MOST)))
    np.testing.assert_array_equal(vector(found, " ".join(f"w{n}" for n in range(2 * MOST))), first)
