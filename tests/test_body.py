"""Is any body answered, whatever is in it and however it arrives?"""

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.place import (
    MAX_BODY_BYTES,
    POSTS,
    Api,
    Place,
    get,
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
            (b"[" * 100_000, "wrong-type"),
            (b'{"skipped":' + b"[" * 100_000, "too-deep"),
        ],
    )
    def test_refused(self, api: Api, path: str, body: bytes, code: str) -> None:
        assert refusal(api.http.post(path, content=body), 422)["code"] == code

    @pytest.mark.parametrize("path", POSTS)
    @settings(
        max_examples=150,
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

    def test_large_bodies_share_a_limit(self, place: Place) -> None:
        """Clients that send half a large body and stop may hold so much memory, and no more."""
        place.publish()
        with running(place.stream, max_body_bytes=1 << 16) as url:
            halves = [open_half(url, 1 << 16, 60_000) for _ in range(20)]
            try:
                large = {"text": "a", "skipped": "b" * 60_000}
                wait_until(lambda: post(f"{url}/predict", large).status_code == 503)
                assert get(f"{url}/healthz").status_code == 200
            finally:
                for half in halves:
                    half.close()
            wait_until(lambda: post(f"{url}/predict", {"text": "a"}).status_code == 200)
