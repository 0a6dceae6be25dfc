"""Readers take any bytes, also those whose checksums hold: what they cannot read they refuse, with StateError."""

import hashlib
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from driftline.learner.disk import journal as journals
from driftline.learner.disk.checkpoint import Checkpoint, load_checkpoint, load_newest, save_checkpoint
from driftline.learner.disk.journal import MAGIC, Head, read_journal
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.report.status import read_status
from driftline.stream.errors import StateError
from driftline.stream.join.feedback_said import Word
from driftline.stream.join.join import Join
from driftline.stream.limits import MOST, JoinCounts
from driftline.stream.log.base import TopicPartition
from driftline.stream.process.settings import StreamSettings
from tests.faults.scene import FUZZED
from tests.learner.disk.test_checkpoint import make

fuzz = settings(
    max_examples=FUZZED,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
numbers = st.one_of(st.integers(-3, 3), st.integers(-(1 << 63), (1 << 64) - 1))
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
DEEP = 100_000


@st.composite
def altered(draw: st.DrawFn, whole: Any) -> Any:
    """Draw a structure like this one, but for some places in it."""
    if draw(st.integers(0, 9)) == 0:
        return draw(values)
    if isinstance(whole, dict):
        names = [name for name in whole if draw(st.integers(0, 19))]
        return {name: draw(altered(whole[name])) for name in names}
    if isinstance(whole, list):
        return [draw(altered(each)) for each in whole] + draw(st.lists(values, max_size=1))
    return whole


def write_checkpoint(path: Path, files: dict[str, bytes]) -> None:
    """Write a checkpoint's files and the sums that they have."""
    path.mkdir(exist_ok=True)
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    for name, content in (files | {"SHA256SUMS": sums.encode()}).items():
        (path / name).write_bytes(content)


def load(path: Path) -> Checkpoint | None:
    try:
        return load_checkpoint(path)
    except StateError:
        return None


@pytest.fixture
def checkpoint(memory: Path) -> tuple[Path, dict[str, bytes]]:
    """Give a checkpoint and its files' bytes."""
    path = save_checkpoint(memory, make(7))
    return path, {file.name: file.read_bytes() for file in path.iterdir() if file.name != "SHA256SUMS"}


@fuzz
@given(manifest=altered(msgspec.to_builtins(make(7).manifest)))
def test_any_manifest(checkpoint: tuple[Path, dict[str, bytes]], manifest: Any) -> None:
    path, files = checkpoint
    write_checkpoint(path, files | {"manifest.json": msgspec.json.encode(manifest)})
    found = load(path)
    assert found is None or found.manifest.batch == 7
    try:
        load_newest(path.parent)
    except StateError as error:
        assert "can be read" in str(error) or "has format" in str(error)


@fuzz
@given(content=st.binary(max_size=300))
@example(content=b"[" * DEEP)
@example(content=b'{"format":' * DEEP)
@example(content=b"\xff\xfe")
def test_any_bytes_for_a_manifest(checkpoint: tuple[Path, dict[str, bytes]], content: bytes) -> None:
    path, files = checkpoint
    write_checkpoint(path, files | {"manifest.json": content})
    assert load(path) is None
    with pytest.raises(StateError):
        load_newest(path.parent)


@fuzz
@given(lines=st.lists(st.text(max_size=80), max_size=6))
@example(lines=["0" * 64 + "  /dev/zero"])
@example(lines=["0" * 64 + "  ../../../../../../dev/zero"])
def test_any_sums(checkpoint: tuple[Path, dict[str, bytes]], lines: list[str]) -> None:
    path, files = checkpoint
    write_checkpoint(path, files)
    (path / "SHA256SUMS").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    assert load(path) is None


@fuzz
@given(header=altered({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}), length=st.none() | numbers)
@example(header={"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}, length=None)
@example(header={"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 0]}}, length=None)
@example(header={}, length=(1 << 63) - 1)
def test_any_arrays(checkpoint: tuple[Path, dict[str, bytes]], header: Any, length: int | None) -> None:
    path, files = checkpoint
    encoded = msgspec.json.encode(header)
    size = (len(encoded) if length is None else length) % (1 << 64)
    write_checkpoint(path, files | {"model.safetensors": struct.pack("<Q", size) + encoded + bytes(16)})
    found = load(path)
    assert found is None or sum(array.nbytes for array in found.model.values()) <= 16


def test_arrays_of_a_right_form_are_read(checkpoint: tuple[Path, dict[str, bytes]]) -> None:
    """The check above could be passed by refusing everything."""
    path, files = checkpoint
    write_checkpoint(path, files | {"model.safetensors": safetensors.numpy.save(make(7).model)})
    assert load(path) is not None


HEAD = Head(0, 1, LearnerSettings().rules(StreamSettings(), 1), [TopicPartition("messages", 0)])


@fuzz
@given(
    head=altered(msgspec.to_builtins(HEAD)),
    entries=st.lists(altered([1, 0, [[0, 0, 5]]]).map(msgspec.msgpack.encode) | st.binary(max_size=40), max_size=4),
    tail=st.binary(max_size=20),
)
@example(head=msgspec.to_builtins(HEAD), entries=[b"\x91" * DEEP], tail=b"")
@example(head=msgspec.to_builtins(HEAD), entries=[b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"], tail=b"")
@example(head=msgspec.to_builtins(HEAD), entries=[msgspec.msgpack.encode([1, 0, [[-1, 0, 5]]])], tail=b"")
@example(head=msgspec.to_builtins(HEAD), entries=[msgspec.msgpack.encode([1, 0, [[0, 0, 5, None]]])], tail=b"")
@example(head=msgspec.to_builtins(HEAD), entries=[], tail=b"\xff\xff\xff\xff" * 2)
def test_any_journal(memory: Path, head: Any, entries: list[bytes], tail: bytes) -> None:
    bodies = [msgspec.msgpack.encode(head), *entries]
    frames = [struct.pack("<II", len(body), zlib.crc32(body)) + body for body in bodies]
    path = journals.path_of(memory, 0, 1)
    path.write_bytes(MAGIC + b"".join(frames) + tail)
    try:
        found = read_journal(path)
    except StateError:
        return
    assert len(found) <= len(entries)
    spans = [span for applied in found for span in applied.spans]
    assert all(min(span.start, span.end, span.records or 0) >= 0 for span in spans)  # None: how many is not known
    assert all(span.partition == ("messages", 0) for span in spans) or head[3:] != HEAD


@fuzz
@given(content=st.binary(max_size=200) | values.map(msgspec.json.encode))
@example(content=b"\xff")
@example(content=b"[" * DEEP)
@example(content=b'{"state": "\xff"}')
def test_any_status(memory: Path, content: bytes) -> None:
    (memory / "status.json").write_bytes(content)
    with pytest.raises(StateError, match="is not a status"):
        read_status(memory)


@fuzz
@given(content=st.binary(max_size=200) | values.map(msgspec.msgpack.encode))
@example(content=b"\x91" * DEEP)
@example(content=b"\x93\x00\x91\x92\xa1\xff")
@example(content=b"\x94\x03\x00\x91\x92\xa1\xff\x90")
@example(content=b"\x94\x03\x00\xdd\xff\xff\xff\xff\x90")
@example(content=b"\x94\x03\x00\x91\x92\xdb\xff\xff\xff\xff\x90")
@example(content=b"\x94\x04\x00\x90\x90")
def test_any_join_window(content: bytes) -> None:
    join = Join()
    join.configure(1, HEAD.rules.limits)
    try:
        join.load_state(JoinCounts(), [content])
    except StateError as error:
        assert "join window" in str(error)


class Kept(msgspec.Struct, array_like=True):
    """A message in a saved window."""

    text: str
    timestamp_ms: int
    came: bool
    aside: bool
    label: str | None
    label_weight: int
    words: list[Word]
    scores: bytes | None


STATE = msgspec.msgpack.Decoder(tuple[int, int, list[tuple[str, Kept]], list[Any]])
sizes = st.integers(0, 300) | st.integers(0, MOST - 1)
bits = st.integers(0, (1 << 31) - 1)
names = st.text(max_size=40)
scores = st.integers(0, 5).map(lambda n: bytes(range(4 * n)))
words = st.lists(st.tuples(names, st.none() | names, bits).map(list), max_size=20)
labelled = st.tuples(names, bits) | st.just((None, 0))
kept = st.builds(
    lambda text, at, came, aside, label, said, served: (text, at, came, aside, *label, said, served),
    *(names, sizes, st.booleans(), st.booleans(), labelled, words, st.none() | scores),
)
stored = st.lists(st.tuples(st.sampled_from("abcdefgh") | names, kept.map(list)).map(list), max_size=4)
LARGE = ["\N{EURO SIGN}" * 30_000, 1 << 33, True, False, "x" * 300, 7, [["y" * 40, None, 0]] * 20, bytes(70_000)]


def is_whole(state: bytes) -> bool:
    """Tell whether a window's state is one that could have been written."""
    try:
        window = STATE.decode(state)
    except ValueError:
        return False
    entries = [entry for _, entry in window[2]]
    weights = [entry.label_weight for entry in entries] + [word.weight for entry in entries for word in entry.words]
    return (
        msgspec.msgpack.encode(window) == state
        and window[0] == 3
        and len({(key, entry.aside and entry.text) for key, entry in window[2]}) == len(entries)
        and all(0 <= number < MOST for number in [window[1], *(entry.timestamp_ms for entry in entries)])
        and all(0 <= weight < 1 << 31 for weight in weights)
        and all(entry.label is not None or entry.label_weight == 0 for entry in entries)
        and all(len(entry.scores or b"") % 4 == 0 for entry in entries)
    )


@fuzz
@given(
    messages=stored | stored.flatmap(altered),
    changes=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=1),
)
@example(messages=[["k" * 70, LARGE], ["", LARGE]], changes=[])
def test_any_messages_are_those_that_msgspec_reads(messages: Any, changes: list[tuple[int, int]]) -> None:
    changed = bytearray(msgspec.msgpack.encode([3, 5, messages, []]))
    for place, byte in changes:
        changed[place % len(changed)] = byte
    state = bytes(changed)
    join = Join()
    join.configure(1, HEAD.rules.limits)
    try:
        join.load_state(JoinCounts(), [state])
    except StateError as error:
        assert "join window" in str(error)
        assert not is_whole(state)
        return
    window = STATE.decode(state)
    assert STATE.decode(join.state()[0]) == window
    assert join.pending == sum(entry.label is None for _, entry in window[2])
    named = {key: entry.text for key, entry in window[2] if not entry.aside}
    assert {key: join.messages[key].text for key in named} == named
    asides = [(key, entry.text) for key, entry in window[2] if entry.aside]
    assert all(join.messages.aside(*each) is not None for each in asides)
    assert sum(of_key[0] for of_key in join.shared.values()) == len(asides)
