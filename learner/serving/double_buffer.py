"""How do processes read arrays that another one changes, without a lock and without a copy?

One mapped file holds the same arrays twice. At any time one half is active: whole, and left alone. The writer brings
the other half up to date, block by block where it differs, then makes that one active. A reader takes the active half,
computes, and looks whether it was left alone meanwhile; if not, what it computed is void and it tries again. A half
that was just made active is not touched before the publish after the next, so that a second try is rare. A writer that
dies in the middle leaves the active half whole. This is a seqlock (Lameter 2005) on each of two buffers.

    file    = magic, length uint32 and crc32 uint32 of the head, head (JSON: Head); words, from a page on; halves
    words   = int64, little endian, 8 a cache line: ACTIVE; CLOSED; for each half its sequence and its info's length
    half    = info (bytes, of the caller), arrays, each from a page on

A sequence is odd while its half is written, and never the same again. The order in which memory changes becomes
visible is what all depends on: each load and store of a word stands between two full fences. x86 would keep the order
by itself, ARM would not. Python's calls keep the compiler from moving anything across.

Not durable, so nothing of it may count after the machine went down: the head has the kernel's boot id, and a file of
another boot (or of another machine) is refused unless its writer closed it, which writes it to the disk first.
What is cut short under a reader or the writer ends neither (mapped.py): it is never whole again, a new file follows.
"""

import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from driftline.learner.disk import durable
from driftline.learner.kernels import kernel
from driftline.learner.models.classifier import State
from driftline.learner.serving.mapped import Mapped
from driftline.stream.errors import DiskFull, NotFinite, StateError

MAGIC: Final = b"DRIFTLINE-PAIR-1"
MAX_HEAD_BYTES: Final = 1 << 16
BLOCK: Final = 512  # bytes compared at once: less is slower to compare, more to write where little has changed
LEAST_ROOM: Final = 1 << 16  # for the info
ACTIVE, CLOSED, FIRST_HALF = 0, 8, 16  # places of words; one to a cache line
SEQUENCE, LENGTH, HALF_WORDS = 0, 1, 8
_FRAME: Final = struct.Struct("<II")
_PAGE: Final = 4096

# By the type of an array: the bits that all are set in what is not finite, in words in which it is compared. An array,
# because a number of an unsigned type would be taken for a signed one.
EXPONENTS: Final[dict[str, NDArray[Any]]] = {
    "": np.zeros(1, np.uint8),
    "<f2": np.array([0x7C00], np.uint16),
    "<f4": np.array([0x7F800000], np.uint32),
    "<f8": np.array([0x7FF0000000000000], np.uint64),
}

Bytes = NDArray[np.uint8]
Words = NDArray[np.int64]


class Place(msgspec.Struct, frozen=True):
    """Where an array lies in each half."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # bytes from the start of the half


class Head(msgspec.Struct, frozen=True):
    """What a file holds, and where."""

    halves: int  # one where nothing will be changed
    room: int  # bytes for the info, at the start of a half
    stride: int  # bytes of a half
    arrays: dict[str, Place]
    boot: str

    @property
    def words_at(self) -> int:
        """Where the words begin: behind the longest head there may be."""
        return _paged(len(MAGIC) + _FRAME.size + MAX_HEAD_BYTES)

    def half_at(self, half: int) -> int:
        """Where a half begins."""
        return self.words_at + _PAGE + half * self.stride

    def holds(self, state: State, info: bytes) -> bool:
        """Tell whether arrays and info have exactly the places that there are."""
        described = {name: (array.dtype.str, array.shape) for name, array in state.items()}
        return len(info) <= self.room and described == {name: (p.dtype, p.shape) for name, p in self.arrays.items()}


_HEAD: Final = msgspec.json.Decoder(Head)


def warm_up() -> None:
    """Compile the kernels, or load them compiled, so that no label waits for that."""
    words = np.zeros(1, np.int64)
    store(words, 0, load(words, 0))
    load_active(np.zeros(_PAGE // 8, np.int64))
    for exponent in EXPONENTS.values():
        copy_changed(np.zeros(1, exponent.dtype), np.zeros(1, exponent.dtype), exponent)


class Writer:
    """The one that changes a pair. One thread, one process. Readers find it once `appear` was called.

    Parameters
    ----------
    path : must not be there
    state, info : what both halves have from the start: a page's first touch costs much more than all later ones
    halves : 1 where `write` will not be called

    Raises
    ------
    DiskFull : all the room is taken at once, since a mapped page without any would end the process.
    NotFinite : a number is none.
    """

    def __init__(self, path: Path, state: State, info: bytes, halves: int = 2) -> None:
        self.head = _lay_out(state, info, halves)
        self.path, self._partial = path, path.with_name(durable.TEMPORARY + path.name)
        self._named = self._partial
        size = self.head.half_at(halves)
        with self._partial.open("w+b") as file:
            try:
                with durable.explained(path):
                    os.posix_fallocate(file.fileno(), 0, size)
            except DiskFull:  # a part of it may be taken
                durable.remove(self._partial)
                raise
            encoded = msgspec.json.encode(self.head)
            file.write(MAGIC + _FRAME.pack(len(encoded), zlib.crc32(encoded)) + encoded)
            file.flush()
            self._map = mmap.mmap(file.fileno(), size)
            self._made = os.fstat(file.fileno())
        self._mapped = Mapped(self._map)
        whole = np.asarray(self._mapped)
        self._words: Words = whole[self.head.words_at :][:_PAGE].view(np.int64)
        self._halves = [_Half(self.head, whole, half) for half in range(halves)]
        try:
            for half in reversed(range(halves)):
                self._write(half, state, info)
        except NotFinite:
            durable.remove(self._partial)
            raise

    def appear(self) -> None:
        """Get the name by which readers find it."""
        self._partial.rename(self.path)
        self._named = self.path

    def is_whole(self) -> bool:
        """Tell whether readers can still find all of it: nobody has deleted it, cut it short or replaced it."""
        try:
            found = self._named.stat()
        except OSError:
            return False
        return os.path.samestat(found, self._made) and self._mapped.is_whole()

    def write(self, state: State, info: bytes) -> int:
        """Make the other half equal to this, then active; `head.holds` must be true. Returns the blocks changed.

        Raises
        ------
        NotFinite : a number that changed is none; the active half stays what it was.
        """
        return self._write(1 - int(load(self._words, ACTIVE)), state, info)

    def _write(self, half: int, state: State, info: bytes) -> int:
        place, into = FIRST_HALF + half * HALF_WORDS, self._halves[half]
        sequence = load(self._words, place + SEQUENCE)
        store(self._words, place + SEQUENCE, sequence + 1)
        changed, broken = 0, ""
        for name, array in state.items():
            exponent = EXPONENTS.get(array.dtype.str, EXPONENTS[""])
            half_words = into.flat[name].view(exponent.dtype)
            n_changed, n_broken = copy_changed(_flat(array, exponent), half_words, exponent)
            changed += n_changed
            broken = name if n_broken else broken
        into.info[: len(info)] = np.frombuffer(info, np.uint8)
        self._words[place + LENGTH] = len(info)
        store(self._words, place + SEQUENCE, sequence + 2)
        if broken:
            raise NotFinite(f"the model's array {broken!r} holds a number that is not finite")
        store(self._words, ACTIVE, half)
        return int(changed)

    def close(self) -> None:
        """Write it to the disk and say so: it counts after the machine went down, too."""
        self._map.flush()
        store(self._words, CLOSED, 1)
        self._map.flush()


class Reader:
    """A pair as a reader sees it; it cannot change it. Any thread.

    Raises
    ------
    StateError : this is no pair, a damaged one, or one of another boot.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.head = _read_head(path, file.read(len(MAGIC) + _FRAME.size + MAX_HEAD_BYTES))
            size, found = self.head.half_at(self.head.halves), os.fstat(file.fileno()).st_size
            if found != size:
                raise StateError(f"snapshot {path} cannot be read: it must have {size} bytes, but has {found}")
            mapped = mmap.mmap(file.fileno(), size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        self._mapped = Mapped(mapped)
        whole = np.asarray(self._mapped)
        self._words: Words = whole[self.head.words_at :][:_PAGE].view(np.int64)
        self._halves = [_Half(self.head, whole, half) for half in range(self.head.halves)]
        if self.head.boot != _boot_id() and not load(self._words, CLOSED):
            raise StateError(
                f"snapshot {path} cannot be read: it was being written when the machine went down, or on another one"
            )
        if not 0 <= load(self._words, ACTIVE) < self.head.halves:
            raise StateError(f"snapshot {path} cannot be read: it says that half {self._words[ACTIVE]} is active")

    def active(self) -> tuple[int, int]:
        """Return the half that is whole, and its sequence. For `unchanged`."""
        return load_active(self._words)  # type: ignore[no-any-return]

    def unchanged(self, half: int, sequence: int) -> bool:
        """Tell whether all that was read of a half since `active` gave it belongs together."""
        now = load(self._words, FIRST_HALF + half * HALF_WORDS + SEQUENCE)
        return sequence % 2 == 0 and int(now) == sequence and not self._mapped.cut

    @property
    def cut(self) -> bool:
        """Whether a part of the file was missing when it was read: it will never be whole again."""
        return self._mapped.cut

    def is_whole(self) -> bool:
        """Tell whether all of the file is there."""
        return self._mapped.is_whole()

    def info(self, half: int) -> bytes:
        """Return a copy of the info; it may be torn, until `unchanged` says that it is not."""
        length = int(self._words[FIRST_HALF + half * HALF_WORDS + LENGTH])
        return self._halves[half].info[: max(0, length)].tobytes()

    def arrays(self, half: int) -> State:
        """Return the arrays, not copied. Any other process may change them; to write to one is a segmentation fault."""
        return self._halves[half].arrays


class _Half:
    """Views of one half: the room of its info, its arrays, and these as bytes."""

    def __init__(self, head: Head, whole: Bytes, half: int) -> None:
        own = whole[head.half_at(half) :][: head.stride]
        self.info: Bytes = own[: head.room]
        self.arrays: State = {}
        self.flat: dict[str, Bytes] = {}
        for name, place in head.arrays.items():
            dtype = np.dtype(place.dtype)
            n_bytes = dtype.itemsize * int(np.prod(place.shape))
            self.flat[name] = own[place.start : place.start + n_bytes]
            self.arrays[name] = self.flat[name].view(dtype).reshape(place.shape)


def _lay_out(state: State, info: bytes, halves: int) -> Head:
    room = _paged(max(LEAST_ROOM, 2 * len(info)))
    places, start = {}, room
    for name, array in state.items():
        places[name] = Place(array.dtype.str, array.shape, start)
        start += _paged(array.nbytes)
    return Head(halves, room, start, places, _boot_id())


def _read_head(path: Path, content: bytes) -> Head:
    try:
        if not content.startswith(MAGIC):
            raise ValueError(f"it begins with {content[: len(MAGIC)]!r}")
        length, checksum = _FRAME.unpack_from(content, len(MAGIC))
        encoded = content[len(MAGIC) + _FRAME.size :][:length]
        if len(encoded) < length or zlib.crc32(encoded) != checksum:
            raise ValueError("its head is damaged")
        return _HEAD.decode(encoded)
    except (ValueError, struct.error) as error:
        raise StateError(f"snapshot {path} cannot be read: {error}") from error


def _paged(n_bytes: int) -> int:
    return -(-n_bytes // _PAGE) * _PAGE


def _flat(array: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    return (
        np.require(array, requirements=["C", "W"]).reshape(-1).view(like.dtype)
    )  # writable: as the kernel is compiled


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return ""


def _fence(_context):  # type: ignore[no-untyped-def]
    """Let no load or store move from one side to the other, neither here nor in the processor."""

    def generate(context, builder, _signature, _arguments):  # type: ignore[no-untyped-def]
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


fence: Any = intrinsic(_fence)


@kernel
def load(words, place):  # type: ignore[no-untyped-def]
    """Return a word as it is now; what stands before in the program was done before."""
    fence()
    value = words[place]
    fence()
    return value


@kernel
def load_active(words):  # type: ignore[no-untyped-def]
    """Return which half is active, and then its sequence."""
    half = load(words, ACTIVE)
    return half, load(words, FIRST_HALF + half * HALF_WORDS + SEQUENCE)


@kernel
def store(words, place, value):  # type: ignore[no-untyped-def]
    """Set a word once all that stands before is visible, and before all that stands behind is."""
    fence()
    words[place] = value
    fence()


@kernel
def copy_changed(live, half, exponent):  # type: ignore[no-untyped-def]
    """Make words equal, writing only blocks that differ: pages that nobody writes to cost nothing.

    A block with a word that has all bits of the exponent is left as it was, so that it differs the next time, too.
    Returns how many were changed, and how many left.
    """
    changed = left = 0
    length = BLOCK // live.itemsize
    for start in range(0, live.shape[0], length):
        source, target = live[start : start + length], half[start : start + length]
        differs = source[0] ^ source[0]
        for i in range(source.shape[0]):
            differs |= source[i] ^ target[i]
        if not differs:
            continue
        finite = True
        if exponent[0]:
            for i in range(source.shape[0]):
                finite &= (source[i] & exponent[0]) != exponent[0]
        if not finite:
            left += 1
            continue
        for i in range(source.shape[0]):
            target[i] = source[i]
        changed += 1
    return changed, left
