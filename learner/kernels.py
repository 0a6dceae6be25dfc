"""With what are the learner's kernels compiled? With the stream's: stream/kernels.py."""

from driftline.stream.kernels import (
    AT_ONCE,
    copy,
    count_bits,
    eight_bytes,
    first_bit,
    in_range,
    inlined,
    kernel,
    prefetch,
    prefetch_only,
    same,
)

__all__ = [
    "AT_ONCE",
    "copy",
    "count_bits",
    "eight_bytes",
    "first_bit",
    "in_range",
    "inlined",
    "kernel",
    "prefetch",
    "prefetch_only",
    "same",
]
