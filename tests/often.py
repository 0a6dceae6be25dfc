"""How often is a thing tried, or at which size? Little in `make test`, much in `make torture` (DRIFTLINE_TORTURE).

`make torture` runs what is marked `long`: all of tests/faults, whatever is generated, and what says so itself.
"""

import os
from collections.abc import Callable
from typing import Any, Final

import pytest

TORTURE: Final = os.environ.get("DRIFTLINE_TORTURE") == "1"  # `make torture`
SCALE: Final = float(os.environ.get("DRIFTLINE_TORTURE_SCALE") or 1)  # of its counts


def times(torture: int, test: int) -> int:
    """Return how often a thing is tried in `make torture`, or in `make test`."""
    return max(1, test, round(SCALE * torture)) if TORTURE else test


only_long: Final = (
    pytest.mark.long,
    pytest.mark.skipif(not TORTURE, reason="in `make torture` only"),
)  # marks of a test, or of one of its parameters

# Of a test whose fixture `stage` is a log of each kind, where what it looks at does not depend on the kind.
kafka_in_torture: Final = pytest.mark.parametrize(
    "stage", ["sqlite", pytest.param("kafka", marks=only_long)], indirect=True
)


def in_torture_only(test: Callable[..., Any]) -> Callable[..., Any]:
    """Leave a whole test to `make torture`."""
    for mark in only_long:
        test = mark(test)
    return test
