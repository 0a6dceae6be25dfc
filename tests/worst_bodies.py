"""The bodies that cost most of what the limits let through, for each route that takes one.

Each fills its limit with what makes most of a byte: objects, objects to be collected, characters to be put together,
numbers, escapes. `bodies.py` and `test_held.py` send them.
"""

import gzip
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from driftline.api.protocols.open_inference import JSON_LENGTH

INFER: Final = "/v2/models/driftline/infer"
_LISTS: Final = b"[" * 25 + b"]" * 25


class Limits(NamedTuple):
    """What a body may have, as the API's settings say it."""

    body_bytes: int = 8 << 20
    record_bytes: int = 1 << 20
    items: int = 1000
    text_chars: int = 100_000


class Worst(NamedTuple):
    """A request."""

    path: str
    what: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


def filled(n_bytes: int, piece: bytes, first: bytes = b"", last: bytes = b"", between: bytes = b",") -> bytes:
    """Return as many pieces as there is room for, between two ends."""
    n = max(1, (n_bytes - len(first) - len(last)) // (len(piece) + len(between)))
    return first + between.join([piece] * n) + last


# JSON values of about so many bytes.
VALUES: Final[dict[str, Callable[[int], bytes]]] = {
    "lists in lists": lambda n: filled(n, _LISTS, b"[", b"]"),
    "empty lists": lambda n: filled(n, b"[]", b"[", b"]"),
    "empty objects": lambda n: filled(n, b"{}", b"[", b"]"),
    "objects of one": lambda n: filled(n, b'{"a":0}', b"[", b"]"),
    "lists of tiny strings": lambda n: filled(n, b'"ab"', b"[", b"]"),
    "short keys": lambda n: b"{" + b",".join(b'"%x":0' % i for i in range(n // 9)) + b"}",
    "the same key": lambda n: filled(n, b'"":[]', b"{", b"}"),
    "small numbers": lambda n: filled(n, b"0", b"[", b"]"),
    "fractions": lambda n: filled(n, b"1.7976931348623157e308", b"[", b"]"),
    "numbers that are too large": lambda n: filled(n, b"1e999", b"[", b"]"),
    "numbers of 4,300 digits": lambda n: filled(n, b"9" * 4300, b"[", b"]"),
    "a number of digits": lambda n: b"1." + b"3" * (n - 2),
    "escapes": lambda n: filled(n, b"\\u00e9", b'"', b'"', b""),
    "line feeds": lambda n: filled(n, b"\\n", b'"', b'"', b""),
    "halves of pairs": lambda n: filled(n, b"\\ud800", b'"', b'"', b""),
    "line feeds and half of a pair": lambda n: filled(n - 6, b"\\n", b'"', b'\\ud800"', b""),
    "emoji": lambda n: filled(n, "\U0001f600".encode(), b'"', b'"', b""),
    "marks out of order": lambda n: filled(n, "\u0301\u0316".encode(), b'"', b'"', b""),
    "brackets that stay open": lambda n: b"[" * n,
    "spaces": lambda n: b" " * n + b"0",
}


def everywhere(path: str, n_bytes: int, *templates: bytes) -> Iterator[Worst]:
    """Give each value in each place of a body, where a template has %s."""
    for template in templates:
        for what, value in VALUES.items():
            where = template[:48].decode()
            yield Worst(path, f"{what} in {where}", template % value(n_bytes - len(template)))


def words(n_chars: int) -> str:
    """Return a text of words, no two alike."""
    return " ".join(f"w{number}" for number in range(n_chars // 6))[:n_chars]


def predict(limits: Limits) -> Iterator[Worst]:
    """Give those of POST /predict."""
    n = limits.body_bytes
    yield from everywhere("/predict", n, b'{"texts":%s}', b'{"text":%s}', b'{"x":%s,"text":"a"}')
    for what, number in {"offsets": b"0", "offsets as fractions": b"1" + b"." + b"0" * 20}.items():
        offsets = filled(n - 100, b'{"partition":0,"offset":%s}' % number, b"[", b"]")
        yield Worst("/predict", what, b'{"text":"a","min_feedback_offset":%s}' % offsets)
        offsets = b",".join([b'{"partition":0,"offset":%s}' % number] * 1000)
        yield Worst("/predict", f"1,000 {what}", b'{"text":"a","min_feedback_offset":[%s]}' % offsets)
    yield from _texts("/predict", limits, lambda texts: {"texts": texts})


def _texts(path: str, limits: Limits, made: Callable[[list[str]], Any]) -> Iterator[Worst]:
    """Give as many and as long texts as there may be."""
    each = min(limits.text_chars, limits.body_bytes // limits.items - 8)
    for what, text in {
        "words": words(each),
        "emoji": "\U0001f600" * (each // 4),
        "marks": ("a" + "\u0316\u0301" * 20) * (each // 81),
        "small": "ab",
    }.items():
        body = json.dumps(made([text] * limits.items), ensure_ascii=False).encode()
        yield Worst(path, f"{limits.items} texts of {what}", body)
    long = json.dumps(made([words(limits.text_chars)] * (limits.body_bytes // (limits.text_chars + 8)))).encode()
    yield Worst(path, "the longest texts", long)


def records(limits: Limits) -> Iterator[Worst]:
    """Give those of POST /messages and POST /feedback."""
    whole, one = limits.body_bytes, limits.record_bytes - 200
    for what, value in VALUES.items():
        for template in (b'{"id":"m","text":"a","metadata":{"a":%s}}', b'{"id":"m","text":"a","x":%s}'):
            item = template % value(one - len(template))
            many = filled(whole, item, b"[", b"]")
            yield Worst("/messages", f"{what} in as many of {template[20:34].decode()} as there is room for", many)
        small = b'{"text":"a","metadata":{"a":%s}}' % value(whole // limits.items - 60)
        yield Worst(
            "/messages", f"{what} in metadata of {limits.items}", b"[" + b",".join([small] * limits.items) + b"]"
        )
        event = b'{"specversion":"1.0","id":"e","data":{"text":"a","metadata":%s}}' % value(one - 100)
        yield Worst("/messages", f"{what} in events", filled(whole, event, b"[", b"]"))
    for path, item in (("/messages", b'{"text":""}'), ("/feedback", b'{"message_id":"m","label":"a"}')):
        yield Worst(path, "more items than there may be", filled(whole, item, b"[", b"]"))
        yield Worst(path, "as many items as there may be", b"[" + b",".join([item] * limits.items) + b"]")
        yield Worst(path, "empty objects", filled(whole, b"{}", b"[", b"]"))
        yield Worst(path, "events that are none", filled(whole, b'{"specversion":""}', b"[", b"]"))
    for name in ("text", "source", "op", "ts", "label", "message_id", "x"):
        for what, value in VALUES.items():
            fields = {"message_id": b'"m"', "label": b'"a"', name: value(one)}
            item = b"{" + b",".join(b'"%s":%s' % (each.encode(), raw) for each, raw in fields.items()) + b"}"
            yield Worst("/feedback", f"{what} as {name}", filled(whole, item, b"[", b"]"))
    texts = json.dumps([{"text": words(whole // limits.items - 20)}] * limits.items).encode()
    yield Worst("/messages", f"{limits.items} texts of words", texts)


def others(limits: Limits) -> Iterator[Worst]:
    """Give those of POST /explain and of a claim, at the longest bodies that these take and at those of others."""
    for n in (limits.body_bytes, 256 << 10):
        yield from everywhere("/explain", n, b'{"text":%s}', b'{"text":"a","labels":%s}')
    for n in (limits.body_bytes, 1 << 20):
        yield from everywhere("/label-requests/claim", n, b'{"labeller":"a","ids":%s}', b'{"labeller":%s}')


def mlflow(limits: Limits) -> Iterator[Worst]:
    """Give those of POST /invocations."""
    n = limits.body_bytes
    yield from everywhere(
        "/invocations", n, b'{"inputs":%s}', b'{"instances":[{"text":"a","x":%s}]}', b'{"inputs":["a"],"params":%s}',
        b'{"dataframe_records":%s}', b'{"dataframe_split":{"columns":["text"],"data":%s}}',
        b'{"dataframe_split":{"columns":%s,"data":[]}}', b'{"inputs":{"text":%s}}',
    )  # fmt: skip
    row = b"[" + b",".join([b"0"] * 98) + b',"a"]'
    names = json.dumps([str(number) for number in range(98)] + ["text"]).encode()
    split = filled(limits.items * len(row), row, b'{"dataframe_split":{"columns":%s,"data":[' % names, b"]}}")
    yield Worst("/invocations", "as wide a table as there may be", split)
    yield from _texts("/invocations", limits, lambda texts: {"inputs": texts, "params": {"scores": True}})


def open_inference(limits: Limits) -> Iterator[Worst]:
    """Give those of the Open Inference Protocol."""
    n = limits.body_bytes
    head = b'{"name":"t","shape":[1],"datatype":"BYTES",'
    yield from everywhere(
        INFER, n, b'{"inputs":[' + head + b'"data":%s}]}', b'{"inputs":[{"name":"t","datatype":"BYTES","shape":%s}]}',
        b'{"inputs":[' + head + b'"data":["a"]}],"outputs":%s}', b'{"inputs":%s}', b'{"id":%s,"inputs":[]}',
        b'{"inputs":[' + head + b'"data":["a"],"parameters":%s}]}',
    )  # fmt: skip
    yield from _texts(
        INFER, limits, lambda t: {"inputs": [{"name": "t", "shape": [len(t)], "datatype": "BYTES", "data": t}]}
    )
    for what, element in {"empty": b"", "short": b"ab", "long": b"word " * 1600}.items():
        piece = struct.pack("<I", len(element)) + element
        raw = filled(n - 200, piece, between=b"")[: n - 200]
        count = len(raw) // len(piece)
        tensor = {"name": "t", "shape": [count], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
        said = json.dumps({"inputs": [tensor]}).encode()
        yield Worst(INFER, f"{what} elements as bytes", said + raw, ((JSON_LENGTH.encode(), b"%d" % len(said)),))


def encodings(limits: Limits) -> Iterator[Worst]:
    """Give what is not even JSON in UTF-8."""
    n = limits.body_bytes
    for path in ("/predict", "/messages", "/invocations", INFER):
        yield Worst(path, "a mark and brackets", b"\xef\xbb\xbf" + b"[" * (n - 3))
        yield Worst(path, "UTF-16", ('{"text":"' + "a" * (n // 2 - 20) + '"}').encode("utf-16"))
        yield Worst(path, "no UTF-8 at the end", b'{"text":"' + "\u20ac".encode() * ((n - 20) // 3) + b'\xff"}')
        bomb = gzip.compress(b"[" * n)
        yield Worst(path, "gzip that becomes a whole body", bomb, ((b"content-encoding", b"gzip"),))
        event = ((b"ce-specversion", b"1.0"), (b"ce-id", b"e"), (b"content-type", b"text/plain; charset=utf-7"))
        yield Worst(path, "a CloudEvent in UTF-7", b"+AGE-" * (min(n, limits.record_bytes) // 5), event)


ALL: Final = (predict, records, others, mlflow, open_inference, encodings)


def worst_bodies(limits: Limits) -> Iterator[Worst]:
    """Give all of them."""
    for each in ALL:
        yield from each(limits)
