"""In which order do the tests run, so that no worker is left with a long one at the end?

Long are the tests of some rooms: they wait, for processes, brokers, pages. A worker begins with those of its share, half
of the workers with none: the others compute meanwhile. What a worker has left is taken over by others from the end of
its share (xdist's worksteal), and there short ones are. The tests of a file stay together, as what they share needs.
"""

from itertools import groupby
from typing import Final

import pytest

LONG: Final = ("tests/faults/", "tests/whole/", "tests/cli/", "tests/learner/rebuild/", "tests/learner/follow/")


def arrange(items: list[pytest.Item], n_workers: int) -> None:
    """Put tests into the order in which they run; xdist cuts it into as many equal shares as there are workers."""
    files = [list(group) for _, group in groupby(items, lambda item: item.nodeid.partition("::")[0])]
    long = [tests for tests in files if tests[0].nodeid.startswith(LONG)]
    n_long = n_workers // 2 + 1 if n_workers > 1 else 1
    shares = [sum(long[number::n_long], []) for number in range(n_long)] + [[] for _ in range(n_workers - n_long)]
    short = [test for tests in files if not tests[0].nodeid.startswith(LONG) for test in tests]
    for number, share in enumerate(shares):
        room = max(0, -(-(len(items) - number) // n_workers) - len(share))
        share += short[:room]
        del short[:room]
    items[:] = [test for share in [*shares, short] for test in share]
