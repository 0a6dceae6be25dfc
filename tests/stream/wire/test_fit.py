"""What is sent fits into the log, whatever came in."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from driftline.stream.wire.records import Prediction, decode_prediction, decode_rejected, encode, reject
from driftline.stream.wire.shorten import fit_prediction, fit_rejected

LEAST = 1024  # max_record_bytes is at least this
LABELS = st.text(max_size=256)


@given(st.text(max_size=512), st.lists(LABELS, max_size=100, unique=True), st.integers(LEAST, 1 << 15))
def test_a_prediction_keeps_its_best_scores(message_id: str, labels: list[str], limit: int) -> None:
    scores = {label: 1 / (n + 1) for n, label in enumerate(labels)}
    whole = Prediction(message_id, next(iter(labels), None), 1.0, scores, "abc-12", "2026-01-01T00:00:00.000Z")
    value = fit_prediction(encode(whole), limit)
    if value is None:
        assert len(encode(msgspec.structs.replace(whole, scores={}))) > limit
        return
    assert len(value) <= limit
    found = decode_prediction(value)
    n = len(found.scores)
    assert found == msgspec.structs.replace(whole, scores=dict(list(scores.items())[:n]))
    if n < len(scores):
        one_more = msgspec.structs.replace(whole, scores=dict(list(scores.items())[: n + 1]))
        assert len(encode(one_more)) > limit


@given(st.binary(max_size=300), st.text(max_size=3000), st.integers(LEAST, 1 << 13))
def test_a_dead_letter_fits_and_says_where_from(content: bytes, detail: str, limit: int) -> None:
    whole = reject("p" * 200 + "feedback", 1023, 1 << 62, content, "too-many-labels", detail)
    value = fit_rejected(whole, limit)
    assert len(value) <= limit
    found = decode_rejected(value)
    assert msgspec.structs.replace(found, detail="", value_start="") == msgspec.structs.replace(
        whole, detail="", value_start=""
    )
    assert whole.detail.startswith(found.detail)
    assert whole.value_start.startswith(found.value_start)
    assert found.detail == whole.detail or found.value_start == ""
