"""With what are the learner's kernels compiled? With the stream's: stream/kernels.py."""

from stream.kernels import copy, kernel, prefetch

__all__ = ["copy", "kernel", "prefetch"]
