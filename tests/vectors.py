"""A made file of word vectors, for who needs a model with some.

Half of the words of `generated` (tests/learner/models/test_classifiers.py) are in it: those of a label lie together.
"""

import os
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

DIMENSION: Final = 6


def made(path: Path, seed: int = 3) -> Path:
    """Write a file of vectors, in fastText's form."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, DIMENSION))
    words = [(f"own{label}x{n}", centres[label]) for label in range(12) for n in range(0, 40, 2)]
    words += [(f"word{n}", np.zeros(DIMENSION)) for n in range(0, 300, 2)]
    words += [(word, np.zeros(DIMENSION)) for word in ("free", "money", "meeting", "noon", "lunch", "字", "👍", "win")]
    lines = [f"{len(words)} {DIMENSION}"]
    for word, centre in words:
        lines.append(" ".join([word, *(f"{x:.4f}" for x in centre + rng.normal(0, 0.5, DIMENSION))]))
    partial = path.with_name(f"{path.name}-{os.getpid()}")
    partial.write_text("\n".join(lines) + "\n")
    partial.replace(path)
    return path


def _shared() -> Path:
    """Return one that stays where it is: it is part of tests' names, which must be the same in all processes."""
    directory = Path(tempfile.gettempdir()) / f"driftline-test-vectors-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    path = directory / "made.vec"
    return path if path.exists() else made(path)


MADE: Final = str(_shared())
