"""How do texts that look the same become the same?

Each text in one form, before anything else is read of it: taken apart (NFKD), without what nobody sees, its marks in
order, put together again (NFC); see forms.py. So every text that Unicode calls canonically or compatibility equivalent
has the same features, wherever somebody put zero-width characters.

Two things go further. A mark that does not become one with its letter is left out after letters of Latin, Greek,
Cyrillic, Arabic and Hebrew, after ASCII, and where there is no letter: strokes through words, stress, vowel points. Of
other letters' marks MAX_MARKS are kept, the first in Unicode's order, so that nothing has to be sorted that is longer.
Letters that only look alike (Cyrillic а, Latin a) stay what they are, and so do ß and the dotless ı.

A text of ASCII is in this form, and so are nearly all others: `find_odd` tells. Part of the checkpoint format.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from driftline.learner.kernels import AT_ONCE, copy, first_bit, in_range, inlined, kernel
from driftline.learner.text.fielded import fields_end, has_fields
from driftline.learner.text.forms import (
    BARE,
    BLOCK_BITS,
    CLASS_MASK,
    CLASS_SHIFT,
    JOINS,
    MAX_GROWTH,
    ODD,
    PARTS_MASK,
    UNSEEN,
    load_forms,
)
from driftline.learner.text.tokens import LAST_POINT, N_ASCII, ONE, first_bits, is_ascii, rest_of
from driftline.stream.texts import PADDING, Texts

MAX_MARKS: Final = 8  # that a letter keeps
FIRST_BYTE, N_FIRST_BYTES = np.uint8(0xC0), np.uint8(0x40)  # of UTF-8 that is not ASCII
NOTHING: Final = -1  # no letter; no pair
# Hangul syllables, and the letters that they are made of: first, vowel, last.
SYLLABLES, FIRSTS, VOWELS, LASTS = 0xAC00, 0x1100, 0x1161, 0x11A7
N_FIRSTS, N_VOWELS, N_LASTS = 19, 21, 28  # no last letter counts as one
N_SYLLABLES: Final = N_FIRSTS * N_VOWELS * N_LASTS


class Placed(NamedTuple):
    """A text in the one form, and where in the text as it was given each character comes from."""

    codes: NDArray[np.uint32]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]  # one past the last; what is left out goes with the character before


def normalised(texts: Texts, most: int) -> Texts:
    """Return texts in the one form: `texts` itself where all are.

    Parameters
    ----------
    most : characters of each that are wanted; of a text that has to be changed no more are returned, but where fields
        are behind them
    """
    if texts.is_ascii:
        return texts
    forms, n = load_forms(), len(texts)
    odd = np.empty(n, np.uint8)
    room = find_odd(texts.codes, texts.starts, forms, odd)
    if not room:
        return texts
    starts = np.zeros(n + 1, np.int64)
    codes = np.empty(room + PADDING, np.uint8)  # what is not needed of it is never touched
    work = np.empty((3, MAX_MARKS), np.int64)
    normalise_all(texts.codes, texts.starts, odd, most, forms, work, starts, codes)
    codes.flags.writeable = False  # as those of strings: the kernels are compiled for such
    return Texts(codes, starts)


@inlined
def code_point(codes, at):  # type: ignore[no-untyped-def]
    """Return the code point of UTF-8 that begins at a place, and where the next one does."""
    first = np.int64(codes[at])
    if first < N_ASCII:
        return first, at + 1
    second, third, last = rest_of(codes[at + 1]), rest_of(codes[at + 2]), rest_of(codes[at + 3])
    if first < 0xE0:
        return (first & 31) << 6 | second, at + 2
    if first < 0xF0:
        return (first & 15) << 12 | second << 6 | third, at + 3
    return min((first & 7) << 18 | second << 12 | third << 6 | last, LAST_POINT), at + 4


@inlined
def write_point(code, out, at):  # type: ignore[no-untyped-def]
    """Write the UTF-8 of a code point. Returns one past its last byte."""
    if code < N_ASCII:
        out[at] = code
        return at + 1
    n_more = 1 + int(code >= 0x800) + int(code >= 0x10000)
    out[at] = (0x7F80 >> n_more) & 0xFF | code >> 6 * n_more
    for _ in range(n_more):
        n_more -= 1
        at += 1
        out[at] = 0x80 | code >> 6 * n_more & 63
    return at + 1


@kernel
def entry_of(code, forms):  # type: ignore[no-untyped-def]
    """Return the entry of a code point."""
    block = np.int64(forms.blocks[code >> BLOCK_BITS])
    return np.int64(forms.entries[block << BLOCK_BITS | code & (1 << BLOCK_BITS) - 1])


@kernel
def is_odd(codes, start, stop, forms):  # type: ignore[no-untyped-def]
    """Return whether a text has a character that may not stay as it is: of each that is not ASCII, its first byte tells
    whether it has to be looked at.
    """
    for place in range(start, stop, AT_ONCE):
        bits = in_range(codes, place, FIRST_BYTE, N_FIRST_BYTES) & first_bits(stop - place)
        while bits:
            at = place + np.int64(first_bit(bits))
            bits &= bits - ONE
            if forms.leads[codes[at]]:
                code, _ = code_point(codes, at)
                if entry_of(code, forms) & ODD:
                    return True
    return False


@kernel
def find_odd(codes, starts, forms, odd):  # type: ignore[no-untyped-def]
    """Write which texts may have to be changed. Returns how many bytes all may have then, 0 where none is."""
    n = odd.shape[0]
    first, last = starts[0], starts[n]
    if is_ascii(codes[first : last + PADDING], last - first):
        return 0
    room, some = 0, False
    for text in range(n):
        odd[text] = is_odd(codes, starts[text], starts[text + 1], forms)
        some = some or odd[text] != 0
        room += (starts[text + 1] - starts[text]) * (MAX_GROWTH if odd[text] else 1)
    return room if some else 0


@kernel
def normalise_all(codes, starts, odd, most, forms, work, new_starts, out):  # type: ignore[no-untyped-def]
    """Write all texts, and zeros behind the last one; and where each begins."""
    for text in range(odd.shape[0]):
        start, stop, at = starts[text], starts[text + 1], new_starts[text]
        if odd[text]:
            end = fields_end(codes, start, stop)
            wanted = MAX_GROWTH * (end - start) if has_fields(codes, start, stop) else most
            at = normalise(codes, start, end, wanted, forms, work, out, at)
            copy(codes[end:stop], out[at:])  # a vector is as it was
            new_starts[text + 1] = at + stop - end
        else:
            copy(codes[start:stop], out[at:])
            new_starts[text + 1] = at + stop - start
    end = new_starts[-1]
    out[end : end + PADDING] = 0


@kernel
def one_of(first, second, forms):  # type: ignore[no-untyped-def]
    """Return what two code points become, or NOTHING."""
    if FIRSTS <= first < FIRSTS + N_FIRSTS and VOWELS <= second < VOWELS + N_VOWELS:
        return SYLLABLES + ((first - FIRSTS) * N_VOWELS + second - VOWELS) * N_LASTS
    if SYLLABLES <= first < SYLLABLES + N_SYLLABLES and LASTS < second < LASTS + N_LASTS:
        return first + second - LASTS if (first - SYLLABLES) % N_LASTS == 0 else NOTHING
    pair = np.uint64(first << 21 | second)
    low, high = 0, forms.pairs.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if forms.pairs[middle] < pair:
            low = middle + 1
        else:
            high = middle
    return np.int64(forms.wholes[low]) if low < forms.pairs.shape[0] and forms.pairs[low] == pair else NOTHING


@kernel
def add_mark(code, kind, marks, n):  # type: ignore[no-untyped-def]
    """Put a mark in its place among n, in the order of their classes. Returns how many there are, MAX_MARKS at most."""
    if n == MAX_MARKS and kind >= marks[1, n - 1]:
        return n
    at = min(n, MAX_MARKS - 1)
    while at > 0 and marks[1, at - 1] > kind:
        marks[0, at], marks[1, at] = marks[0, at - 1], marks[1, at - 1]
        at -= 1
    marks[0, at], marks[1, at] = code, kind
    return min(n + 1, MAX_MARKS)


@kernel
def settle(letter, marks, n, forms, kept):  # type: ignore[no-untyped-def]
    """Put a letter and its n marks together. Returns the letter, and how many marks it keeps beside it."""
    n_kept, last = 0, 0
    for i in range(n if letter >= 0 else 0):
        if marks[1, i] != last:
            whole = one_of(letter, marks[0, i], forms)
            if whole >= 0:
                letter = whole
                continue
        last = marks[1, i]
        kept[n_kept] = marks[0, i]
        n_kept += 1
    if n_kept and entry_of(letter, forms) & BARE:
        n_kept = 0
    return letter, n_kept


@inlined
def emit(letter, kept, n_kept, n, most, out, at):  # type: ignore[no-untyped-def]
    """Write a letter and its marks, where there is one, up to the most characters. Returns where, and how many now."""
    if letter >= 0 and n < most:
        at = write_point(letter, out, at)
        n += 1
        for i in range(min(n_kept, most - n)):
            at = write_point(kept[i], out, at)
            n += 1
    return at, n


@kernel
def normalise(codes, start, stop, most, forms, work, out, at):  # type: ignore[no-untyped-def]
    """Write one text in the one form.

    Parameters
    ----------
    codes, start, stop : as in `hash_text`
    most : characters to write
    forms : from `load_forms`
    work : int64 [3, MAX_MARKS], overwritten
    out, at : uint8, changed: the text from `at` on; there must be MAX_GROWTH times its bytes

    Returns
    -------
    end : one past the last byte written

    Notes
    -----
    1. Two characters that stay as they are, one after another: nothing can happen to the first.
    2. What is not seen is passed over, before marks are put in order: so it keeps nothing apart.
    3. A mark waits until its letter has all. A letter waits for its marks, and for what it may become one with.

    O(stop - start). Bit-exact: part of the checkpoint format.
    """
    marks, kept = work[:2], work[2]
    letter, n_kept, n_marks, n = np.int64(NOTHING), 0, 0, 0
    next_code, here = code_point(codes, start) if start < stop else (np.int64(0), start)
    next_entry = entry_of(next_code, forms)
    more = start < stop
    while more and n < most:
        code, entry = next_code, next_entry
        more = here < stop
        if more:
            next_code, here = code_point(codes, here)
            next_entry = entry_of(next_code, forms)
        # 1
        if not entry & ODD and not (more and next_entry & ODD):
            letter, n_kept = settle(letter, marks, n_marks, forms, kept) if n_marks else (letter, n_kept)
            at, n = emit(letter, kept, n_kept, n, most, out, at)
            at, n = emit(code, kept, 0, n, most, out, at)
            letter, n_kept, n_marks = np.int64(NOTHING), 0, 0
            continue
        # 2
        if entry & UNSEEN:
            continue
        # 3
        number = entry & PARTS_MASK
        first, last = (forms.starts[number], forms.starts[number + 1]) if number else (np.int32(0), np.int32(1))
        for k in range(first, last):
            part = np.int64(forms.parts[k]) if number else code
            its = entry_of(part, forms) if number else entry
            if its & CLASS_MASK:
                n_marks = add_mark(part, (its & CLASS_MASK) >> CLASS_SHIFT, marks, n_marks)
                continue
            if n_marks:
                letter, n_kept = settle(letter, marks, n_marks, forms, kept)
                n_marks = 0
            whole = one_of(letter, part, forms) if its & JOINS and letter >= 0 and n_kept == 0 else np.int64(NOTHING)
            if whole >= 0:
                letter = whole
            else:
                at, n = emit(letter, kept, n_kept, n, most, out, at)
                letter, n_kept = part, 0
    if n_marks:
        letter, n_kept = settle(letter, marks, n_marks, forms, kept)
    at, n = emit(letter, kept, n_kept, n, most, out, at)
    return at


# The same once more, in plain Python and with places (trace.py). Proved by test_places_are_those_of_the_kernel.


class _Piece:
    """A character on its way: its code point, and where it comes from."""

    def __init__(self, code: int, start: int, stop: int) -> None:
        self.code, self.start, self.stop = code, start, stop

    def take(self, other: "_Piece") -> None:
        """Reach over another one's place, too."""
        self.start, self.stop = min(self.start, other.start), max(self.stop, other.stop)

    def joined(self, other: "_Piece") -> bool:
        """Become one with another one, if the two do. Returns whether they did."""
        whole = int(one_of.py_func(self.code, other.code, load_forms()))
        if whole >= 0:
            self.code = whole
            self.take(other)
        return whole >= 0


class _Letter:
    """A letter with its marks, which wait for each other."""

    def __init__(self, piece: _Piece | None) -> None:
        self.piece = piece
        self.marks: list[tuple[int, _Piece]] = []
        self.kept: list[_Piece] = []

    def settle(self) -> None:
        """Put it together."""
        marks, self.marks = sorted(self.marks, key=lambda mark: mark[0])[:MAX_MARKS], []
        last = 0
        if self.piece is None:
            return
        for kind, mark in marks:
            if kind == last or not self.piece.joined(mark):
                last = kind
                self.kept.append(mark)
        if load_forms().entry(self.piece.code) & BARE:
            for mark in self.kept:
                self.piece.take(mark)
            self.kept = []

    @property
    def pieces(self) -> list[_Piece]:
        """What it is, once it is put together."""
        return [] if self.piece is None else [self.piece, *self.kept]


def placed(text: str) -> Placed:
    """Return a text in the one form, with places."""
    forms = load_forms()
    codes = np.fromiter(map(ord, text), np.int64, len(text))
    entries = forms.entries_of(codes)
    odd = np.flatnonzero(entries & (UNSEEN | CLASS_MASK | JOINS | PARTS_MASK))
    if not len(odd):
        return as_written(text)
    done: list[_Piece] = []
    letter = _Letter(None)
    begun = 0
    for place in [*odd.tolist(), len(text)]:
        if begun < place:  # nothing becomes one with these but what follows the last
            letter.settle()
            plain = codes[begun:place].tolist()
            done += [*letter.pieces, *map(_Piece, plain[:-1], range(begun, place), range(begun + 1, place))]
            letter = _Letter(_Piece(plain[-1], place - 1, place))
        begun = place + 1
        if place == len(text):
            break
        entry = int(entries[place])
        if entry & UNSEEN:
            before = letter.marks[-1][1] if letter.marks else letter.piece
            if before is not None:
                before.stop = max(before.stop, place + 1)
            continue
        for code in forms.apart(int(codes[place]), entry):
            its = forms.entry(code)
            piece = _Piece(code, place, place + 1)
            if its & CLASS_MASK:
                letter.marks.append(((its & CLASS_MASK) >> CLASS_SHIFT, piece))
                continue
            letter.settle()
            if its & JOINS and letter.piece is not None and not letter.kept and letter.piece.joined(piece):
                continue
            done += letter.pieces
            letter = _Letter(piece)
    letter.settle()
    done += letter.pieces
    return Placed(
        np.array([piece.code for piece in done], np.uint32),
        np.array([piece.start for piece in done], np.int64),
        np.array([piece.stop for piece in done], np.int64),
    )


def as_written(text: str) -> Placed:
    """Return a text as it is, with places."""
    places = np.arange(len(text) + 1)
    return Placed(np.array([ord(character) for character in text], np.uint32), places[:-1], places[1:])
