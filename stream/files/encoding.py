"""Which characters are in a file's bytes, line by line?

UTF-8 unless something else is said: by a mark at the start (UTF-8, UTF-16, UTF-32), by zeros in every other byte, by
whoever names an encoding; or by the first line that is no UTF-8, where all before it was ASCII. Then the encoding is
guessed from that line and those behind it, once, and told. Bytes that are no characters become lone surrogates, so that
their row can be counted, and the next one read. Lines end with LF or CRLF, or with CR where there is no LF.
"""

import codecs
import io
from collections.abc import Callable
from typing import Any, Final

from driftline.stream.errors import ConfigError

MAX_ROW_BYTES: Final = 1 << 26
_SAMPLE_BYTES: Final = 1 << 16
_MARKS: Final = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
WESTERN: Final = "cp1252"
# What files of texts are in, by script; those that only old machines wrote come last and need good reasons.
_OLD: Final = ("mac_roman", "cp850")
_GUESSED: Final = [
    WESTERN,
    *("cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("cp932", "gb18030", "big5", "cp949", "euc_jp", "cp874", *_OLD),
]
# How much less than the best one the Western encoding may look like a language, and how much more like noise, of 1:
# accents in a short text look like noise. Chosen on single sentences of 30 languages.
_AS_GOOD: Final = 0.05
_AS_CLEAN: Final = 0.25
_NOISE: Final = 0.3  # from which on it is none at all


def _mark_bad(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", max(error.end, error.start + 1)


codecs.register_error("driftline.bad-characters", _mark_bad)


def check_encoding(encoding: str) -> str:
    """Return an encoding's name as Python spells it. Raises ConfigError for one that is not known."""
    try:
        "a".encode(encoding).decode(encoding)
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise ConfigError(
            f"encoding: {encoding!r} is not known; it is one as utf-8, latin-1, cp1252, utf-16, shift-jis, gb18030"
        ) from None
    return "utf-8" if name == "utf-8-sig" else name


class Lines:
    """The lines of a file.

    Parameters
    ----------
    file : of bytes
    encoding : as `check_encoding` returns it; None: what the bytes look like
    on_guess : called with the name of an encoding that was guessed

    Attributes
    ----------
    number : of the line read last, from 1
    encoding : by what is known so far
    """

    def __init__(
        self, file: io.BufferedReader, encoding: str | None, on_guess: Callable[[str], None] | None = None
    ) -> None:
        self._file, self._on_guess = file, on_guess
        self.number = 0
        head = file.peek(_SAMPLE_BYTES)
        marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
        self._is_open = encoding is None and marked is None  # whether it may still be guessed
        self.encoding = encoding or marked or _by_zeros(head) or "utf-8"
        self._errors = "surrogateescape"
        if (
            "\n".encode(self.encoding)[-1:] != b"\n" or len("\n".encode(self.encoding)) > 1
        ):  # no line ends with that byte
            self._file = io.BufferedReader(_InUtf8(file, self.encoding))
            self._codec, self._errors, self._is_open = "utf-8", "surrogatepass", False
        else:
            self._codec = self.encoding
        head = self._file.peek(_SAMPLE_BYTES)
        if head.startswith(codecs.BOM_UTF8) and self._codec == "utf-8":
            self._file.read(len(codecs.BOM_UTF8))
            head = self._file.peek(_SAMPLE_BYTES)
        if b"\n" not in head and b"\r" in head[:-1]:
            self._file = io.BufferedReader(_WithLineFeeds(self._file))
        self._decoder = codecs.getincrementaldecoder(self._codec)(self._errors)

    def head(self) -> bytes:
        """Return the first bytes, as far as they are there."""
        return self._file.peek(512)

    def next(self) -> str:
        """Return the next line with its end, cut where it is longer than MAX_ROW_BYTES, or "" at the file's end."""
        line = self._file.readline(MAX_ROW_BYTES + 1)
        self.number += bool(line)
        rest = line
        while len(rest) > MAX_ROW_BYTES and not rest.endswith(b"\n"):
            rest = self._file.readline(MAX_ROW_BYTES + 1)
        return self._decoded(line)

    def piece(self, n_bytes: int) -> str:
        """Return some of the text that is left, whatever its lines are, or "" at the file's end."""
        text = ""
        while not text:
            raw = self._file.read1(n_bytes)
            if self._is_open and not raw.isascii():
                self._settle(raw)
            text = self._decoder.decode(raw, final=not raw)
            if not raw:
                break
        return text

    def _decoded(self, line: bytes) -> str:
        if self._is_open and not line.isascii():
            self._settle(line)
        return line.decode(self._codec, self._errors)

    def _settle(self, raw: bytes) -> None:
        """Decide on the encoding, at the first bytes that are not ASCII."""
        self._is_open = False
        sample = raw[:_SAMPLE_BYTES]
        if len(sample) < _SAMPLE_BYTES:
            sample += self._file.peek(_SAMPLE_BYTES)[: _SAMPLE_BYTES - len(sample)]
        guessed = guess_encoding(sample)
        if guessed != "utf-8":
            self.encoding = self._codec = guessed
            self._decoder = codecs.getincrementaldecoder(guessed)(self._errors)
            if self._on_guess:
                self._on_guess(guessed)


def guess_encoding(sample: bytes) -> str:
    """Return what some bytes that are not all ASCII are in, most likely; UTF-8 where most of their lines are."""
    lines = [line for line in sample.split(b"\n") if not line.isascii()]
    if len(lines) > 1:
        lines = lines[:-1] if not sample.endswith(b"\n") else lines  # the last one may be cut
    good = sum(map(_is_utf8, lines))
    if 2 * good >= len(lines) or (len(lines) == 1 and _is_utf8_but_cut(lines[0])):
        return "utf-8"
    from charset_normalizer import from_bytes  # noqa: PLC0415  (only where it is needed)

    found = from_bytes(b"\n".join(lines), cp_isolation=_GUESSED, threshold=_NOISE)
    best = found.best()
    if best is None:
        return "latin-1"
    western = next((match for match in found if WESTERN in (match.encoding, *match.could_be_from_charset)), None)
    if western is None or western.chaos > best.chaos + _AS_CLEAN:
        return str(best.encoding)
    is_as_good = best.encoding in _OLD or western.coherence >= best.coherence - _AS_GOOD
    return WESTERN if is_as_good else str(best.encoding)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_utf8_but_cut(line: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(line)
    except UnicodeDecodeError:
        return False
    return True


def _by_zeros(head: bytes) -> str | None:
    """Return UTF-16 where every other byte is nearly always zero, as in Latin script without a mark."""
    even, odd = head[: 1 << 12 : 2], head[1 : 1 << 12 : 2]
    for zeros, others, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if len(odd) >= 2 and zeros.count(0) > 0.4 * len(zeros) and others.count(0) < 0.1 * zeros.count(0):
            return encoding
    return None


class _InUtf8(io.RawIOBase):
    """A file in another encoding, as UTF-8; what is no character is a lone surrogate."""

    def __init__(self, file: io.BufferedReader, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)("driftline.bad-characters")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self._rest:
            raw = self._file.read1(1 << 16)
            self._rest = self._decoder.decode(raw, final=not raw).encode("utf-8", "surrogatepass")
            if not raw:
                break
        chunk, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(chunk)] = chunk
        return len(chunk)


class _WithLineFeeds(io.RawIOBase):
    """A file whose lines end with CR, as if they ended with LF."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        chunk = self._file.read1(len(view)).replace(b"\r", b"\n")
        view[: len(chunk)] = chunk
        return len(chunk)
