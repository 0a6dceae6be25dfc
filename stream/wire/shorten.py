"""What is sent where a prediction or a dead letter is larger than the log takes?

As much of it as fits, so that no record that came in can end the learner by what follows from it. Of a prediction the
best scores stay, of a dead letter the start of the value goes first, then the end of the detail.
"""

from bisect import bisect_right

import msgspec

from driftline.stream.wire.records import Rejected, decode_prediction, encode


def fit_prediction(value: bytes, max_bytes: int) -> bytes | None:
    """Return a prediction with as many of its scores as fit; None where not even its message's id and label do."""
    prediction = decode_prediction(value)
    scores = list(prediction.scores.items())

    def part(n: int) -> bytes:
        return encode(msgspec.structs.replace(prediction, scores=dict(scores[:n])))

    n = bisect_right(range(len(scores) + 1), max_bytes, key=lambda n: len(part(n))) - 1
    return None if n < 0 else part(n)


def fit_rejected(rejected: Rejected, max_bytes: int) -> bytes:
    """Return a dead letter of at most so many bytes; all but its texts takes less than 600."""
    for field in ("value_start", "detail"):
        if len(encode(rejected)) > max_bytes:
            rejected = _shorten(rejected, field, max_bytes)
    return encode(rejected)


def _shorten(rejected: Rejected, field: str, max_bytes: int) -> Rejected:
    text = getattr(rejected, field)

    def part(n: int) -> Rejected:
        return msgspec.structs.replace(rejected, **{field: text[:n]})

    n = bisect_right(range(len(text) + 1), max_bytes, key=lambda n: len(encode(part(n)))) - 1
    return part(max(n, 0))
