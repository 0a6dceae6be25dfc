"""Which objects are in a file of JSON: one a line, one over several lines, or the items of one array?

An array is cut into its items by their brackets, and each is decoded alone, so that an item that is none costs only
itself, and memory holds one item, never the array. A string ends with its line at the latest, as JSON has it.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from driftline.stream.files.encoding import MAX_ROW_BYTES, Lines
from driftline.stream.files.rows import Rows, Unusable
from driftline.stream.wire.fields import mend_escapes

_PIECE_BYTES: Final = 1 << 18
_TOKENS: Final = re.compile(r'"(?:[^"\\\n]++|\\.)*+("|\n|\Z)?|[\[\]{},]', re.DOTALL)
_BETWEEN: Final = re.compile(r"(?<=\})\s*,\s*(?=\{)")
_ARRAY: Final = re.compile(r'\s*\[\s*(?:[{\["\]]|(?:null|true|false)\s*[,\]]|\Z)')


def is_array(head: bytes) -> bool:
    """Whether a file that begins so is one array."""
    return _ARRAY.match(head.decode("utf-8", "replace")) is not None


def json_lines(lines: Lines, first: str) -> Rows:
    """Give the objects of a file that has one in each line."""
    read = _reader(lines)
    line = first
    while line:
        if not line.isspace():
            yield lines.number, read(line)
        line = lines.next()


def json_blocks(lines: Lines, first: str) -> Rows:
    """Give the objects of a file that has each over several lines: from one that is `{` to one that is `}`."""
    read = _reader(lines)
    begin, block, n_chars = lines.number, [first], len(first)
    while line := lines.next():
        if not block:
            if line.isspace():
                continue
            begin = lines.number
        block.append(line)
        n_chars += len(line)
        if line.rstrip() in ("}", "},") or n_chars > MAX_ROW_BYTES:
            yield begin, read("".join(block).rstrip().removesuffix(","))
            block, n_chars = [], 0
    if block:
        yield begin, read("".join(block))


def json_items(lines: Lines) -> Rows:
    """Give the objects of an array, with their numbers from 1."""
    read, items = _reader(lines), _Items(lines)
    number = 0
    for item in items.all():
        found = read(item)
        parts = _BETWEEN.split(item) if isinstance(found, Unusable) and found.kind == "not JSON" else []
        if len(parts) > 1:  # a bracket or a quote was missing, and the array's end may have been taken in
            parts[-1] = parts[-1].removesuffix("]").rstrip()
        for each in map(read, parts) if len(parts) > 1 else (found,):
            number += 1
            yield number, each
    if items.fault:
        yield number + 1, Unusable("not JSON", items.fault)


def _reader(lines: Lines) -> Callable[[str], dict[str, Any] | Unusable]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode

    def read(text: str) -> dict[str, Any] | Unusable:
        try:
            if len(text) > MAX_ROW_BYTES:
                return Unusable("too long", f"longer than {MAX_ROW_BYTES} bytes")
            return decode(mend_escapes(text.encode()))
        except UnicodeEncodeError as error:
            byte = f"byte {ord(text[error.start]) & 0xFF:#04x} is" if lines.encoding == "utf-8" else "some bytes are"
            return Unusable(f"not {lines.encoding.upper()}", f"{byte} not {lines.encoding.upper()}")
        except msgspec.ValidationError:
            return Unusable("not an object", "JSON, but not an object")
        except (ValueError, RecursionError) as error:
            return _with_nan(text) or Unusable("not JSON", f"not JSON: {error}")

    return read


def _with_nan(text: str) -> dict[str, Any] | None:
    """Return an object in which `NaN` stands for nothing, as Python's own json writes what is missing."""
    if "NaN" not in text:
        return None
    try:
        found = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class _Items:
    """An array's items as texts. `fault` says, once they are through, what was wrong with the array itself."""

    def __init__(self, lines: Lines) -> None:
        self._lines, self._text = lines, ""
        self._from = self._at = 0  # where the item begins, and what is still to be looked at
        self._depth, self._ended = 0, False
        self.fault = ""

    def all(self) -> Iterator[str]:
        """Give each item."""
        while not self._ended:
            for begin, end in self._seen():
                if item := self._text[begin:end].strip():
                    yield item
                elif not self._ended:
                    yield ""  # two commas
            if self._ended:
                break
            if not self._more():
                if item := self._text[self._from :].strip():
                    yield item
                self.fault = "" if self._text.rstrip().endswith("]") else "the file ends before its array does"
                return
            if len(self._text) - self._from > MAX_ROW_BYTES:
                yield self._text[self._from : self._at]
                self._from, self._depth = self._at, 1
        rest = self._text[self._at :]
        while rest and not rest.strip():
            rest = self._lines.piece(_PIECE_BYTES)
        if rest:
            self.fault = "there is more behind the end of the array: it was not read"

    def _seen(self) -> Iterator[tuple[int, int]]:
        """Look at what is there; give where items begin and end. `}` alone never ends the array: it is one too many."""
        for token in _TOKENS.finditer(self._text, self._at):
            kind = token[0][0]
            if kind == '"' and not token[1]:
                return  # it may go on in what comes next
            if kind in "[{":
                self._depth += 1
                if self._depth == 1:
                    self._from = token.end()
            elif kind == "]" or (kind == "}" and self._depth > 1):
                self._depth -= 1
                if self._depth == 0:
                    self._ended, self._at = True, token.end()
                    yield self._from, token.start()
                    return
            elif kind == "," and self._depth == 1:
                yield self._from, token.start()
                self._from = token.end()
            self._at = token.end()

    def _more(self) -> bool:
        """Read on; whether there was more. A string that is long takes longer and longer pieces."""
        unseen = len(self._text) - self._at
        piece = self._lines.piece(max(_PIECE_BYTES, unseen))
        self._text = self._text[self._from :] + piece
        self._at -= self._from
        self._from = 0
        return bool(piece)
