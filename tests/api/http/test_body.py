"""Is any body answered, whatever is in it and however it arrives?"""

import json
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.api.load.holding import MAX_BODIES
from tests.often import times
from tests.place import (
    MAX_BODY_BYTES,
    POSTS,
    Api,
    Place,
    open_half,
    post,
    refusal,
    running,
)
from tests.waiting import wait_until


class TestBodies:
    @pytest.mark.parametrize("path", POSTS)
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", "not-json"),
            (b" ", "not-json"),
            (b"{", "not-json"),
            (b'{"text": NaN}', "not-json"),
            (b'{"text": Infinity}', "not-json"),
            (b'{"text": "a", "message_id": "m", "label": "a"} {}', "not-json"),
            (b"text=a", "not-json"),
            (b'\xef\xbb\xbf{"text": "a"}', "not-json"),
            (b'{"text": "\xff"}', "not-utf8"),
            (b'{"skipped": "\xed\xa0\x80", "text": "a"}', "not-utf8"),
            (b'{"text": 1e999}', "wrong-type"),
            (b'{"text": -0.0}', "wrong-type"),
            (b"null", "wrong-type"),
            (b'"a"', "wrong-type"),
            (b"1e999", "wrong-type"),
            (b"[[]]", "wrong-type"),
            (b"[null]", "wrong-type"),
            (b"[" * 10_000, "wrong-type"),
            (b'{"skipped":' + b"[" * 100_000, "too-deep"),
        ],
    )
    def test_refused(self, api: Api, path: str, body: bytes, code: str) -> None:
        assert refusal(api.http.post(path, content=body), 422)["code"] == code

    @pytest.mark.parametrize("path", POSTS)
    @settings(
        max_examples=times(150, 37),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        body=st.binary(max_size=200)
        | st.recursive(
            st.none() | st.floats() | st.integers() | st.text(st.characters(exclude_categories=())),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["id", "text", "texts", "message_id", "label", "op", "weight", "ts", "metadata"]),
                    inner,
                )
            ),
        ).map(lambda value: json.dumps(value).encode())
    )
    def test_any_body_is_answered(self, api: Api, path: str, body: bytes) -> None:
        answer = api.http.post(path, content=body)
        if answer.status_code not in (200, 202):
            refusal(answer, 422)

    @pytest.mark.parametrize("path", POSTS)
    def test_too_large(self, api: Api, path: str) -> None:
        body = b'{"text": "' + b"a" * MAX_BODY_BYTES + b'"}'
        assert refusal(api.http.post(path, content=body), 413)["code"] == "too-large"

    @pytest.mark.parametrize("path", POSTS)
    def test_too_large_in_chunks(self, api: Api, path: str) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(MAX_BODY_BYTES // 10_000 + 2):
                yield b" " * 10_000

        assert refusal(api.http.post(path, content=chunks()), 413)["code"] == "too-large"

    def test_in_chunks(self, api: Api) -> None:
        answer = api.http.post("/predict", content=iter([b'{"te', b'xt": "pri', b'ze"}']))
        assert answer.json()["predictions"][0]["label"] == "spam"

    @pytest.mark.parametrize("path", POSTS)
    def test_content_encoding(self, api: Api, path: str) -> None:
        answer = api.http.post(path, content=b'{"text": "a"}', headers={"content-encoding": "gzip"})
        assert refusal(answer, 415)["code"] == "content-encoding"

    @pytest.mark.parametrize("addresses", [1, 40], ids=["one address", "many addresses"])
    def test_unfinished_uploads_keep_nobody_out_who_sends_little(self, place: Place, addresses: int) -> None:
        """Nor, once they stand still, who sends much; what they hold is bounded, and given back."""
        place.publish()
        large = {"text": "a", "skipped": "b" * (MAX_BODY_BYTES - 100)}
        small = {"/feedback": {"message_id": "m", "label": "a"}, "/messages": {"text": "a"}, "/predict": {"text": "a"}}
        with running(place.stream, receive_timeout_s=60.0, trusted_proxies=["127.0.0.1"]) as url:
            heads = [f"X-Forwarded-For: 192.0.2.{number % addresses}\r\n" for number in range(40)]
            halves = [open_half(url, MAX_BODY_BYTES, MAX_BODY_BYTES - 8, head) for head in heads]
            try:
                for _ in range(10):
                    for path, body in small.items():
                        assert post(url + path, body).is_success
                wait_until(lambda: post(f"{url}/predict", large).status_code == 200)
                his = httpx.post(f"{url}/predict", json=large, headers={"X-Forwarded-For": "192.0.2.0"}, timeout=30)
                assert his.status_code == (503 if addresses == 1 else 200)
            finally:
                for half in halves:
                    half.close()
            wait_until(lambda: post(f"{url}/predict", large).status_code == 200)

    def test_what_was_answered_is_held_no_more(self, api: Api) -> None:
        large = json.dumps({"text": "a", "skipped": "b" * (MAX_BODY_BYTES - 100)}).encode()
        for body, status in ((large, 200), (large[:-1], 422)):
            for _ in range(2 * MAX_BODIES):
                assert api.http.post("/predict", content=body).status_code == status

    def test_a_long_body_may_take_its_time(self, place: Place) -> None:
        place.publish()
        with running(place.stream, receive_timeout_s=4.0) as url, closing(open_half(url, 6 << 16, 0)) as slow:
            for _ in range(5):
                time.sleep(1)
                slow.sendall(b" " * (1 << 16))
            slow.sendall(b'{"text":"a"}'.ljust(1 << 16))
            assert slow.recv(1000).startswith(b"HTTP/1.1 200 ")

    @pytest.mark.parametrize("path", ["/predict", "/explain", "/invocations"])
    def test_too_much_in_it(self, api: Api, path: str) -> None:
        body = b'{"text":"a","inputs":["a"],"x":[%s]}' % b",".join([b"[]"] * 60_000)
        assert refusal(api.http.post(path, content=body), 413)["code"] == "too-many-values"
        spoken = {"text": "[,]" * 3000, "inputs": ["[,]" * 3000]}  # what is in a text is no value
        assert api.http.post(path, content=json.dumps(spoken).encode().ljust(20_000)).status_code == 200

    def test_labels_may_be_numbers(self, api: Api) -> None:
        answer = api.http.post("/explain", json={"text": "a", "labels": [1, 2.50, True]})
        assert "'1'" in refusal(answer, 422)["error"]
