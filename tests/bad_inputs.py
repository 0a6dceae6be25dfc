"""What is tried on the API that no good client sends: each as the bytes on the wire.

`tests/api/http/test_bad_inputs.py` sends them all to a running API and compares what each got with docs/bad-inputs.md.
"""

import gzip
import json
import zlib
from typing import Any, Final, NamedTuple

MAX_BODY_BYTES: Final = 1 << 16  # of the API that they are sent to
MAX_TEXT_CHARS: Final = 1000


class Bad(NamedTuple):
    """Something to send. After it the client waits for an answer, unless it is done with sending."""

    what: str
    sent: bytes
    ends: bool = False  # the client closes its side


def request(
    body: bytes = b"", method: bytes = b"POST", path: bytes = b"/predict", head: bytes = b"", version: bytes = b"1.1"
) -> bytes:
    """Return a request that is well formed but for what is given."""
    length = b"Content-Length: %d\r\n" % len(body) if body or method == b"POST" else b""
    return method + b" " + path + b" HTTP/" + version + b"\r\nHost: localhost\r\n" + length + head + b"\r\n" + body


def chunked(chunks: bytes, head: bytes = b"Transfer-Encoding: chunked\r\n") -> bytes:
    """Return a request whose body is these bytes, in whatever chunks they say."""
    return b"POST /predict HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n" + chunks


def _raw(*lines: bytes) -> bytes:
    return b"\r\n".join(lines)


_GOOD: Final = b'{"text": "win a prize"}'
_SMUGGLED: Final = b"GET /model HTTP/1.1\r\nHost: localhost\r\n\r\n"

HTTP: Final = [
    Bad("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64),
    Bad("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Bad("HTTP/0.9", b"GET /model\r\n\r\n"),
    Bad("HTTP/3.7", request(method=b"GET", path=b"/model", version=b"3.7")),
    Bad("a method that is none", request(method=b"FROB", path=b"/model")),
    Bad("a method in small letters", request(method=b"get", path=b"/model")),
    Bad("only line feeds", b"GET /model HTTP/1.1\nHost: localhost\n\n"),
    Bad("no Host", b"GET /model HTTP/1.1\r\n\r\n"),
    Bad("two Hosts", _raw(b"GET /model HTTP/1.1", b"Host: localhost", b"Host: evil.example", b"", b"")),
    Bad("the Host of another site", _raw(b"GET /model HTTP/1.1", b"Host: evil.example", b"", b"")),
    Bad("a Host of 10,000 characters", _raw(b"GET /model HTTP/1.1", b"Host: " + b"a." * 5000, b"", b"")),
    Bad("an Origin of another site", request(_GOOD, head=b"Origin: https://evil.example\r\n")),
    Bad("the Origin null", request(_GOOD, head=b"Origin: null\r\n")),
    Bad("a space before the colon", _raw(b"GET /model HTTP/1.1", b"Host : localhost", b"", b"")),
    Bad("a header that goes on in the next line", request(_GOOD, head=b"X: a\r\n b\r\n")),
    Bad("a header with a NUL", request(_GOOD, head=b"X: a\x00b\r\n")),
    Bad("a header with a lone carriage return", request(_GOOD, head=b"X: a\rb\r\n")),
    Bad("a header without a name", request(_GOOD, head=b": a\r\n")),
    Bad("a header of raw Latin-1", request(_GOOD, head=b"X: \xe4\xff\r\n")),
    Bad("10,000 headers", request(_GOOD, head=b"X: y\r\n" * 10_000)),
    Bad("a head of 1 MiB", request(_GOOD, head=b"X: " + b"y" * (1 << 20) + b"\r\n")),
    Bad("a path of 1 MiB", request(method=b"GET", path=b"/" + b"a" * (1 << 20))),
    Bad("a path that is no UTF-8", request(method=b"GET", path=b"/%ff%fe%80")),
    Bad("a path with a NUL", request(method=b"GET", path=b"/model%00")),
    Bad("a path with a lone surrogate", request(method=b"GET", path=b"/%ed%a0%80")),
    Bad("a path out of the tree", request(method=b"GET", path=b"/static-offline-docs/../../../etc/passwd")),
    Bad("the same, escaped", request(method=b"GET", path=b"/static-offline-docs/..%2f..%2f..%2fetc%2fpasswd")),
    Bad("a whole URL of another host", request(method=b"GET", path=b"http://evil.example/model")),
    Bad("CONNECT", _raw(b"CONNECT evil.example:443 HTTP/1.1", b"Host: evil.example:443", b"", b"")),
    Bad("TRACE", request(method=b"TRACE", path=b"/model")),
    Bad("a query of 10,000 parts", request(method=b"GET", path=b"/model?" + b"a=1&" * 10_000)),
    Bad("an upgrade to WebSocket", request(_GOOD, head=b"Connection: Upgrade\r\nUpgrade: websocket\r\n")),
    Bad("an upgrade to HTTP/2", request(_GOOD, head=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n")),
    Bad("an expectation that is none", request(_GOOD, head=b"Expect: a-miracle\r\n")),
    Bad("HTTP/1.0 without a Host", b"POST /predict HTTP/1.0\r\nContent-Length: 23\r\n\r\n" + _GOOD),
    Bad("HTTP/1.0 in chunks", chunked(b"17\r\n" + _GOOD + b"\r\n0\r\n\r\n").replace(b"/1.1", b"/1.0")),
]

LENGTHS: Final = [
    Bad(
        "a length and chunks (smuggling)",
        chunked(b"0\r\n\r\n" + _SMUGGLED, b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
    ),
    Bad(
        "chunks and a length (smuggling)",
        chunked(b"0\r\n\r\n" + _SMUGGLED, b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
    ),
    Bad(
        "chunked that is not the last coding",
        chunked(b"0\r\n\r\n" + _SMUGGLED, b"Transfer-Encoding: chunked, identity\r\n"),
    ),
    Bad("chunked with a tab", chunked(b"0\r\n\r\n" + _SMUGGLED, b"Transfer-Encoding:\tchunked\x0b\r\n")),
    Bad(
        "chunked twice",
        chunked(b"0\r\n\r\n" + _SMUGGLED, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    ),
    Bad("a coding that is none", chunked(b"0\r\n\r\n", b"Transfer-Encoding: xchunked\r\n")),
    Bad("gzip as transfer coding", chunked(b"0\r\n\r\n", b"Transfer-Encoding: gzip, chunked\r\n")),
    Bad("two lengths", chunked(_GOOD, b"Content-Length: 23\r\nContent-Length: 5\r\n")),
    Bad("the same length twice", chunked(_GOOD, b"Content-Length: 23\r\nContent-Length: 23\r\n")),
    Bad("a list of lengths", chunked(_GOOD, b"Content-Length: 23, 23\r\n")),
    Bad("a negative length", chunked(b"", b"Content-Length: -1\r\n")),
    Bad("a length with a plus", chunked(_GOOD, b"Content-Length: +23\r\n")),
    Bad("a length of letters", chunked(b"", b"Content-Length: many\r\n")),
    Bad("a length of 2**64", chunked(b"", b"Content-Length: 18446744073709551616\r\n")),
    Bad("a length of 2**63", chunked(b"", b"Content-Length: 9223372036854775808\r\n")),
    Bad("a length over the limit", chunked(b"", b"Content-Length: %d\r\n" % (MAX_BODY_BYTES + 1))),
    Bad(
        "more than the limit in chunks",
        chunked(b"8000\r\n" + b" " * 0x8000 + b"\r\n8001\r\n" + b" " * 0x8001 + b"\r\n0\r\n\r\n"),
    ),
    Bad("a chunk of 2**64", chunked(b"10000000000000000\r\n")),
    Bad("a chunk of negative size", chunked(b"-1\r\n\r\n")),
    Bad("a chunk whose size is none", chunked(b"zz\r\n\r\n")),
    Bad("a chunk longer than it says", chunked(b"2\r\n{}garbage\r\n0\r\n\r\n")),
    Bad("a chunk with an extension of 100 kB", chunked(b"17;a=" + b"b" * 100_000 + b"\r\n" + _GOOD + b"\r\n0\r\n\r\n")),
    Bad("a body in chunks of one byte", chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in _GOOD) + b"0\r\n\r\n")),
    Bad("10,000 trailers", chunked(b"0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n")),
    Bad("half a body, then the end", chunked(b'{"text"', b"Content-Length: 23\r\n"), ends=True),
    Bad("half a head, then the end", b"POST /predict HT", ends=True),
    Bad("a good request, then garbage", request(_GOOD) + b"\x00\x01garbage\r\n\r\n"),
    Bad("a body behind a GET", request(_SMUGGLED, method=b"GET", path=b"/healthz")),
]

_CHUNKED: Final = b"17\r\n" + _GOOD + b"\r\n"
_OFFER: Final = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"

CUT: Final = [
    Bad("HTTP/2.0 in the first line", request(method=b"GET", path=b"/model", version=b"2.0")),
    Bad("HTTP/0.9 with headers", request(method=b"GET", path=b"/model", version=b"0.9")),
    Bad("HTTP/1.2", request(method=b"GET", path=b"/model", version=b"1.2")),
    Bad("a carriage return alone at a line's end", b"GET /model HTTP/1.1\rHost: localhost\r\r"),
    Bad("a line feed alone behind a header", b"GET /model HTTP/1.1\r\nHost: localhost\n\r\n"),
    Bad("a line feed alone before the body", b"GET /model HTTP/1.1\r\nHost: localhost\r\n\n"),
    Bad("empty lines first", b"\r\n\r\n" + request(_GOOD)),
    Bad("a space first", b" " + request(_GOOD)),
    Bad("two spaces in the first line", request(_GOOD).replace(b"POST /", b"POST  /")),
    Bad("a space behind the version", request(_GOOD).replace(b"/1.1\r\n", b"/1.1 \r\n")),
    Bad("a tab in the first line", request(_GOOD).replace(b"POST /", b"POST\t/")),
    Bad("a NUL in the path", request(method=b"GET", path=b"/mo\x00del")),
    Bad("a byte above 127 in the path", request(method=b"GET", path=b"/mod\xe9l")),
    Bad("a path without a slash", request(method=b"GET", path=b"model")),
    Bad("a fragment in the path", request(method=b"GET", path=b"/model#part")),
    Bad("a star that is no OPTIONS", request(method=b"GET", path=b"*")),
    Bad("OPTIONS of all", request(method=b"OPTIONS", path=b"*")),
    Bad("a host instead of a path", request(method=b"GET", path=b"localhost:8000")),
    Bad("a whole URL of this host", request(_GOOD, path=b"http://localhost/predict")),
    Bad(
        "a whole URL of this host, in another's name",
        request(_GOOD, path=b"HTTP://localhost:8000/predict").replace(b"Host: localhost", b"Host: evil.example"),
    ),
    Bad("a whole URL with a user", request(_GOOD, path=b"http://me@localhost/predict")),
    Bad("a whole URL over FTP", request(method=b"GET", path=b"ftp://localhost/model")),
    Bad("a whole URL without a path", request(method=b"GET", path=b"http://localhost")),
    Bad("a whole URL without a Host", b"GET http://localhost/model HTTP/1.1\r\n\r\n"),
    Bad("two slashes first", request(method=b"GET", path=b"//evil.example/model")),
    Bad("CONNECT to the API", request(method=b"CONNECT", path=b"/predict")),
    Bad("PUT", request(_GOOD, method=b"PUT")),
    Bad("DELETE where there is none", request(method=b"DELETE", path=b"/predict")),
    Bad("OPTIONS of a route", request(method=b"OPTIONS", path=b"/predict")),
    Bad("a header of no token", request(_GOOD, head=b"X@Y: a\r\n")),
    Bad("a header name of letters above 127", request(_GOOD, head=b"X\xe9: a\r\n")),
    Bad("a header without a colon", request(_GOOD, head=b"X\r\n")),
    Bad("a tab before the colon", request(_GOOD, head=b"X\t: a\r\n")),
    Bad("the first header goes on in the next line", b"GET /model HTTP/1.1\r\n Host: localhost\r\n\r\n"),
    Bad("a header with DEL", request(_GOOD, head=b"X: a\x7fb\r\n")),
    Bad("a header with an escape sequence", request(_GOOD, head=b"X: \x1b[2J\r\n")),
    Bad("an empty header", request(_GOOD, head=b"X:\r\n")),
    Bad("an empty Host", request(_GOOD).replace(b"Host: localhost", b"Host:")),
    Bad("a Host with a space", request(_GOOD).replace(b"Host: localhost", b"Host: local host")),
    Bad("a Host with a user", request(_GOOD).replace(b"Host: localhost", b"Host: me@localhost")),
    Bad("a Host that is a URL", request(_GOOD).replace(b"Host: localhost", b"Host: http://localhost/")),
    Bad("two Hosts that are the same", request(_GOOD, head=b"Host: localhost\r\n")),
    Bad("two Authorizations", request(_GOOD, head=b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n")),
    Bad("the last one", request(_GOOD, head=b"Connection: close\r\n")),
    Bad("the last one, then another", request(_GOOD, head=b"Connection: close\r\n") + request(_GOOD)),
    Bad(
        "the last one of a long way, then another",
        request(method=b"GET", path=b"/model", head=b"Connection: close\r\n") + request(_GOOD),
    ),
    Bad("close and keep-alive", request(_GOOD, head=b"Connection: keep-alive, close\r\n") + request(_GOOD)),
    Bad("HTTP/1.0", request(_GOOD, version=b"1.0") + request(_GOOD)),
    Bad("HTTP/1.0 that is kept alive", request(_GOOD, version=b"1.0", head=b"Connection: keep-alive\r\n") * 2),
    Bad(
        "HTTP/1.0 of a long way, kept alive",
        request(method=b"GET", path=b"/model", version=b"1.0", head=b"Connection: keep-alive\r\n") * 2,
    ),
    Bad("HTTP/1.0 that expects to go on", request(_GOOD, version=b"1.0", head=b"Expect: 100-continue\r\n")),
    Bad("it expects to go on, and goes on", request(_GOOD, head=b"Expect: 100-continue\r\n")),
    Bad("an offer of HTTP/2 with a body, then another", request(_GOOD, head=_OFFER) + request(_GOOD)),
    Bad("an offer of HTTP/2 with chunks", chunked(_CHUNKED + b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\n" + _OFFER)),
    Bad("an offer of HTTP/2 with a request as body", request(_SMUGGLED, head=_OFFER)),
    Bad("an offer of HTTP/2 with bad chunks", chunked(b"zz\r\n\r\n", b"Transfer-Encoding: chunked\r\n" + _OFFER)),
    Bad("an offer of HTTP/2 without a body, twice", request(method=b"GET", path=b"/healthz", head=_OFFER) * 2),
    Bad("an offer that is not on this connection", request(_GOOD, head=b"Upgrade: h2c\r\n")),
    Bad(
        "gzip and chunked in two headers",
        chunked(b"0\r\n\r\n" + _SMUGGLED, b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
    ),
    Bad(
        "chunked and gzip in two headers",
        chunked(b"0\r\n\r\n" + _SMUGGLED, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"),
    ),
    Bad("chunked in capitals", chunked(_CHUNKED + b"0\r\n\r\n", b"TRANSFER-ENCODING: CHUNKED\r\n")),
    Bad("an empty transfer coding", chunked(b"0\r\n\r\n", b"Transfer-Encoding:\r\n")),
    Bad("an empty length", chunked(b"", b"Content-Length:\r\n")),
    Bad("a length with zeros first", chunked(_GOOD, b"Content-Length: 00023\r\n")),
    Bad("a length in hexadecimals", chunked(_GOOD, b"Content-Length: 0x17\r\n")),
    Bad("a length with a space inside", chunked(_GOOD, b"Content-Length: 2 3\r\n")),
    Bad("a length with spaces around", chunked(_GOOD, b"Content-Length: \t 23 \t\r\n")),
    Bad("a body without a length", chunked(_GOOD, b"")),
    Bad("a chunk with extensions", chunked(b'17;a;b=c;d="e;f"\r\n' + _GOOD + b"\r\n0;last\r\n\r\n")),
    Bad("a chunk with a line feed in an extension", chunked(b"17;a\n\r\n" + _GOOD + b"\r\n0\r\n\r\n")),
    Bad("a chunk whose size ends in a line feed", chunked(b"17\n" + _GOOD + b"\r\n0\r\n\r\n")),
    Bad("a chunk whose data end in a line feed", chunked(b"17\r\n" + _GOOD + b"\n0\r\n\r\n")),
    Bad("a chunk with a space behind its size", chunked(b"17 \r\n" + _GOOD + b"\r\n0\r\n\r\n")),
    Bad("a chunk with zeros first", chunked(b"00000017\r\n" + _GOOD + b"\r\n000\r\n\r\n")),
    Bad("a chunk whose size has 0x", chunked(b"0x17\r\n" + _GOOD + b"\r\n0\r\n\r\n")),
    Bad("a good chunk, then a bad one", chunked(_CHUNKED + b"zz\r\n")),
    Bad("a bad chunk where nothing is", chunked(b"zz\r\n").replace(b"/predict", b"/nothing")),
    Bad(
        "a bad chunk of another site",
        chunked(b"zz\r\n", b"Transfer-Encoding: chunked\r\nOrigin: https://evil.example\r\n"),
    ),
    Bad(
        "chunks of another site, then another",
        chunked(_CHUNKED + b"0\r\n\r\n", b"Transfer-Encoding: chunked\r\nOrigin: https://evil.example\r\n")
        + request(_GOOD),
    ),
    Bad("a trailer", chunked(_CHUNKED + b"0\r\nX: y\r\n\r\n")),
    Bad("a Host in the trailer", chunked(_CHUNKED + b"0\r\nHost: evil.example\r\n\r\n")),
    Bad("a key in the trailer", chunked(_CHUNKED + b"0\r\nX-API-Key: dlk_a\r\nAuthorization: Bearer dlk_a\r\n\r\n")),
    Bad("a length in the trailer", chunked(_CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n" + _SMUGGLED)),
    Bad("a content encoding in the trailer", chunked(_CHUNKED + b"0\r\nContent-Encoding: gzip\r\n\r\n")),
    Bad("a trailer with a NUL", chunked(_CHUNKED + b"0\r\nX: a\x00\r\n\r\n")),
    Bad("a trailer that goes on in the next line", chunked(_CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n")),
    Bad("two good ones, then garbage", request(_GOOD) + request(method=b"GET", path=b"/model") + b"garbage\r\n\r\n"),
    Bad(
        "a slow one, a good one, a bad head, a good one",
        request(method=b"GET", path=b"/nothing") + request(_GOOD) + request(_GOOD, head=b"X@: a\r\n") + request(_GOOD),
    ),
    Bad("two Hosts, then another", request(_GOOD, head=b"Host: localhost\r\n") + request(_GOOD)),
    Bad(
        "a head of 70,000 bytes",
        request(_GOOD, head=b"X: " + b"y" * 1000 + b"\r\n").replace(b"X: ", b"X: " + b"z" * 69_000),
    ),
    Bad("a trailer of 100,000 bytes", chunked(_CHUNKED + b"0\r\nX: " + b"y" * 100_000 + b"\r\n\r\n")),
    Bad("a trailer of 2 MiB", chunked(_CHUNKED + b"0\r\nX: " + b"y" * (2 << 20) + b"\r\n\r\n")),
    Bad(
        "a chunk with an extension of 2 MiB", chunked(b"17;a=" + b"b" * (2 << 20) + b"\r\n" + _GOOD + b"\r\n0\r\n\r\n")
    ),
    Bad("a megabyte of empty lines", b"\r\n" * (1 << 19) + request(_GOOD)),
]

BODIES: Final = [
    (what, body, b"")
    for what, body in {
        "nothing": b"",
        "a space": b" ",
        "null": b"null",
        "a number": b"1e999",
        "a number of 10,000 digits": b'{"text": ' + b"9" * 10_000 + b"}",
        "NaN": b'{"text": NaN}',
        "Infinity": b'{"text": -Infinity}',
        "NaN in what is skipped": b'{"text": "a", "x": NaN}',
        "a lone surrogate": b'{"text": "\\ud800"}',
        "surrogates the wrong way round": b'{"text": "\\udc00\\ud800"}',
        "a surrogate in UTF-8": b'{"text": "\xed\xa0\x80"}',
        "bytes that are no UTF-8": b'{"text": "\xff\xfe"}',
        "overlong UTF-8": b'{"text": "\xc0\xaf"}',
        "UTF-16": '{"text": "a"}'.encode("utf-16"),
        "UTF-32": '{"text": "a"}'.encode("utf-32"),
        "a byte order mark": b'\xef\xbb\xbf{"text": "a"}',
        "Latin-1": '{"text": "ä"}'.encode("latin-1"),
        "a raw NUL": b'{"text": "a\x00b"}',
        "an escaped NUL": b'{"text": "a\\u0000b"}',
        "a raw line feed in a string": b'{"text": "a\nb"}',
        "an escape that is none": b'{"text": "\\x41"}',
        "a string that does not end": b'{"text": "a',
        "single quotes": b"{'text': 'a'}",
        "a comma too many": b'{"text": "a",}',
        "a comment": b'{"text": "a" /* no */}',
        "two documents": b'{"text": "a"}{"text": "b"}',
        "the same key twice": b'{"text": 1, "text": "a"}',
        "the same key twice, the other way": b'{"text": "a", "text": 1}',
        "text and texts": b'{"text": "a", "texts": ["b"]}',
        "neither": b"{}",
        "a list where an object must be": b'["a"]',
        "a number where text must be": b'{"text": 1}',
        "no texts": b'{"texts": []}',
        "1,001 texts": json.dumps({"texts": [""] * 1001}).encode(),
        "null among the texts": b'{"texts": ["a", null]}',
        "a text over the limit": json.dumps({"text": "a" * (MAX_TEXT_CHARS + 1)}).encode(),
        "30,000 lists in each other": b'{"x": ' + b"[" * 30_000 + b"]" * 30_000 + b', "text": "a"}',
        "10,000 objects in each other": b'{"x":' * 10_000 + b"1" + b"}" * 10_000,
        "20,000 lists in what is skipped": b'{"x": [' + b"[]," * 19_999 + b'[]], "text": "a"}',
        "20,000 texts": b'{"texts": [' + b'"",' * 19_999 + b'""]}',
        "20,000 offsets": b'{"text": "a", "min_feedback_offset": [' + b"{}," * 19_999 + b"{}]}",
        "half of a pair behind 10,000 escapes": b'{"x": "' + b"\\n" * 10_000 + b'\\ud800", "text": "a"}',
        "a number of 60,000 digits in what is skipped": b'{"x": 1' + b"0" * 60_000 + b', "text": "a"}',
        "a key of 60,000 characters": b'{"' + b"a" * 60_000 + b'": 1}',
        "a vector that the model does not take": b'{"text": "a", "vector": [1, 2]}',
        "a vector that is null": b'{"text": "a", "vector": null}',
        "a vector with NaN": b'{"text": "a", "vector": [1, NaN]}',
        "a vector with a number of 10,000 digits": b'{"text": "a", "vector": [1, ' + b"9" * 10_000 + b"]}",
        "a vector of 20,000 numbers": b'{"text": "a", "vector": [1' + b",1" * 19_999 + b"]}",
        "a vector of lists in each other": b'{"text": "a", "vector": ' + b"[" * 2_000 + b"]" * 2_000 + b"}",
        "20,000 vectors of a text": b'{"text": "a"' + b',"vector":[1,1]' * 20_000 + b"}",
        "half of a vector in base64": b'{"text": "a", "vector": "AABA"}',
        "a vector in base64 with NaN": b'{"text": "a", "vector": "AACAPwAAwH8"}',
        "__proto__ and constructor": b'{"__proto__": {"x": 1}, "constructor": 1, "text": "a"}',
        "a form": b"text=win+a+prize",
        "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "a pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.",
    }.items()
] + [
    ("gzip", gzip.compress(_GOOD), b"Content-Encoding: gzip\r\n"),
    ("a gzip bomb", gzip.compress(b" " * (40 << 20)), b"Content-Encoding: gzip\r\n"),
    ("deflate", zlib.compress(_GOOD), b"Content-Encoding: deflate\r\n"),
    ("two content encodings", _GOOD, b"Content-Encoding: br, gzip\r\n"),
    ("gzip that does not say so", gzip.compress(_GOOD), b""),
    ("another content type", _GOOD, b"Content-Type: image/png\r\n"),
    ("a charset that it has not", _GOOD, b"Content-Type: application/json; charset=utf-16\r\n"),
]

_TENSOR: Final = {"name": "t", "shape": [1], "datatype": "BYTES", "data": ["a"]}
ITEMS: Final[dict[str, dict[str, Any]]] = {  # what is bytes is sent as it is
    "/messages": {
        "no text": {"id": "m"},
        "an empty id": {"id": "", "text": "a"},
        "an id of 513 characters": {"id": "m" * 513, "text": "a"},
        "an id with a NUL": {"id": "m\0", "text": "a"},
        "a time that is none": {"text": "a", "ts": "2026-02-30T00:00:00Z"},
        "a time in the year 10000": {"text": "a", "ts": "10000-01-01T00:00:00Z"},
        "metadata 100 deep": {"text": "a", "metadata": {"a": json.loads("[" * 99 + "]" * 99)}},
        "metadata that is a list": {"text": "a", "metadata": [1]},
        "metadata of 5,000 lists": {"text": "a", "metadata": {"a": [[]] * 5_000}},
        "metadata of 500 lists 25 deep": {"text": "a", "metadata": {"a": [json.loads("[" * 25 + "]" * 25)] * 500}},
        "metadata with half of a pair": {"text": "a", "metadata": {"a": "\ud800"}},
        "metadata with a number that is too large": b'{"text": "a", "metadata": {"a": 1e999}}',
        "a vector of zeros": {"text": "a", "vector": [0, 0]},
        "a vector of one number": {"text": "a", "vector": [1]},
        "a vector with true": {"text": "a", "vector": [1, True]},
        "a vector that is an object": {"text": "a", "vector": {"0": 1}},
        "a vector that begins in escapes": b'{"text": "a", "vector": "\\u0041\\ud800"}',
        "1,001 messages": [{"text": ""}] * 1001,
        "an id that is a fraction": {"id": 2.5, "text": "a"},
    },
    "/feedback": {
        "no label": {"message_id": "m"},
        "an empty label": {"message_id": "m", "label": ""},
        "a label of 257 characters": {"message_id": "m", "label": "a" * 257},
        "a label that is a list": {"message_id": "m", "label": ["a"]},
        "a weight of 0": {"message_id": "m", "label": "a", "weight": 0},
        "a weight of -1": {"message_id": "m", "label": "a", "weight": -1},
        "a weight of 1e308": {"message_id": "m", "label": "a", "weight": 1e308},
        "an operation that is none": {"message_id": "m", "label": "a", "op": "drop table"},
        "an operation of 60,000 characters": {"message_id": "m", "label": "a", "op": "a" * 60_000},
        "a retraction without a label": {"message_id": "m", "op": "retract"},
        "a retraction of an empty label": {"message_id": "m", "label": "", "op": "retract"},
        "a retraction of nobody's label": {"op": "retract"},
        "a source of 10,000 marks out of order": {"message_id": "m", "label": "a", "source": "\u0301\u0316" * 5000},
        "a label of 10,000 characters that nobody sees": {"message_id": "m", "label": "\u200b" * 10_000},
        "a label that is a number": {"message_id": 1, "label": 2.0},
    },
    "/explain": {
        "labels that are numbers": {"text": "a", "labels": [1, 2.5]},
        "11 labels": {"text": "a", "labels": ["a"] * 11},
        "a text of 10,001 characters": {"text": "a" * 10_001},
    },
    "/label-requests/claim": {
        "ids that are numbers": {"labeller": "a", "ids": [1, 2.5, True]},
        "ids that are lists": {"labeller": "a", "ids": [["m"]]},
        "1,001 ids": {"labeller": "a", "ids": ["m"] * 1001},
        "a labeller that is none": {"labeller": "a\nb"},
    },
    "/invocations": {
        "rows that are numbers": {"inputs": [1]},
        "1,001 rows": {"inputs": [""] * 1001},
        "10,000 rows that are empty": {"inputs": [[]] * 10_000},
        "a table of 10,000 columns": {"dataframe_split": {"columns": ["text"] + ["a"] * 9_999, "data": []}},
        "a parameter that is a list": {"inputs": ["a"], "params": []},
    },
    "/v2/models/driftline/infer": {
        "no inputs": {"inputs": []},
        "a tensor 40 deep": {"inputs": [_TENSOR | {"data": json.loads("[" * 40 + '"a"' + "]" * 40)}]},
        "a tensor that is uneven": {"inputs": [_TENSOR | {"data": [["a"], "b"]}]},
        "a shape of 100 numbers": {"inputs": [_TENSOR | {"shape": [1] * 100}]},
        "a shape of 2**200": {"inputs": [_TENSOR | {"shape": [1 << 200]}]},
        "10,000 tensors": {"inputs": [{}] * 10_000},
        "an id that is a number": {"inputs": [_TENSOR], "id": 7},
    },
}
