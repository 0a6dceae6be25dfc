"""What do rows look like in a checkpoint? As msgpack, byte for byte what msgspec would write."""

from typing import Final

import numpy as np

from driftline.stream.join.message_rows import BIT, NOTE, NOTE_SHIFT, ROW
from driftline.stream.kernels import kernel

LONGEST: Final = 64  # bytes of an entry beside its strings and scores
_ARRAY, _TEXT, _BINARY, _NIL, _FALSE = 0x90, 0xA0, 0xC4, 0xC0, 0xC2


@kernel
def pack_big(out, at, number, n):  # type: ignore[no-untyped-def]
    """Write the last n bytes of a number, the highest first; return where they end."""
    for i in range(n):
        out[at + i] = (number >> (8 * (n - 1 - i))) & 0xFF
    return at + n


@kernel
def pack_int(out, at, number):  # type: ignore[no-untyped-def]
    """Write a number that is not negative."""
    if number < 128:
        out[at] = number
        return at + 1
    for kind in range(3):
        if number < 1 << (8 << kind):
            out[at] = 0xCC + kind
            return pack_big(out, at + 1, number, 1 << kind)
    out[at] = 0xCF
    return pack_big(out, at + 1, number, 8)


@kernel
def pack_text(out, at, kept, start, size):  # type: ignore[no-untyped-def]
    """Write a string."""
    if size < 32:
        out[at] = _TEXT | size
        at += 1
    else:
        kind = 0 if size < 1 << 8 else 1 if size < 1 << 16 else 2
        out[at] = 0xD9 + kind
        at = pack_big(out, at + 1, size, 1 << kind)
    return pack_raw(out, at, kept, start, size)


@kernel
def pack_raw(out, at, kept, start, size):  # type: ignore[no-untyped-def]
    """Write bytes as they are."""
    for i in range(size):
        out[at + i] = kept[start + i]
    return at + size


@kernel
def measure_rows(rows, now, notes, number):  # type: ignore[no-untyped-def]
    """Return how many bytes `pack_rows` needs at most."""
    n = np.int64(0)
    for i in range(now.shape[0]):
        row, note = rows[i], notes[now[i] >> NOTE_SHIFT]
        if now[i] & BIT.LIVE and row[ROW.WINDOW] == number:
            n += LONGEST + row[ROW.ID_SIZE] + row[ROW.TEXT_SIZE] + max(note[NOTE.LABEL_SIZE], 0) + note[NOTE.WORDS_SIZE]
            n += 4 * row[ROW.N_SCORES] if now[i] & BIT.SCORED else 0
    return n


@kernel
def pack_rows(rows, now, notes, kept, scores, number, out):  # type: ignore[no-untyped-def]
    """Write pairs of an id and its entry: text, time, came, aside, label, its weight's bits, words, scores.

    Parameters
    ----------
    rows, now, notes, kept : of a MessageStore
    scores : uint8, the bytes of its scores
    number : of the window whose rows these are; others are left out
    out : uint8, changed

    Returns
    -------
    n : int, how many bytes that took
    """
    at = np.int64(0)
    for i in range(now.shape[0]):
        row, note = rows[i], notes[now[i] >> NOTE_SHIFT]
        if now[i] & BIT.LIVE == 0 or row[ROW.WINDOW] != number:
            continue
        out[at] = _ARRAY | 2
        at = pack_text(out, at + 1, kept, row[ROW.AT], row[ROW.ID_SIZE])
        out[at] = _ARRAY | 8
        at = pack_text(out, at + 1, kept, row[ROW.AT] + row[ROW.ID_SIZE], row[ROW.TEXT_SIZE])
        at = pack_int(out, at, row[ROW.TIME_MS])
        out[at] = _FALSE + (1 if now[i] & BIT.CAME else 0)
        out[at + 1] = _FALSE + (1 if now[i] & BIT.ASIDE else 0)
        at += 2
        if note[NOTE.LABEL_SIZE] < 0:
            out[at] = _NIL
            at += 1
        else:
            at = pack_text(out, at, kept, note[NOTE.LABEL_AT], note[NOTE.LABEL_SIZE])
        at = pack_int(out, at, note[NOTE.LABEL_WEIGHT])
        if note[NOTE.N_WORDS] < 16:
            out[at] = _ARRAY | note[NOTE.N_WORDS]
            at += 1
        else:
            out[at] = 0xDC
            at = pack_big(out, at + 1, note[NOTE.N_WORDS], 2)
        at = pack_raw(out, at, kept, note[NOTE.WORDS_AT], note[NOTE.WORDS_SIZE])
        if now[i] & BIT.SCORED:
            size = 4 * row[ROW.N_SCORES]
            kind = 0 if size < 1 << 8 else 1 if size < 1 << 16 else 2
            out[at] = _BINARY + kind
            at = pack_big(out, at + 1, size, 1 << kind)
            at = pack_raw(out, at, scores, 4 * row[ROW.SCORES_AT], size)
        else:
            out[at] = _NIL
            at += 1
    return at


def array_head(n: int) -> bytes:
    """Return how an array of n begins in msgpack."""
    if n < 1 << 4:
        return bytes([0x90 | n])
    return b"\xdc" + n.to_bytes(2, "big") if n < 1 << 16 else b"\xdd" + n.to_bytes(4, "big")
