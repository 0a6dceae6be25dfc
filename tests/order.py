"""In which order do the tests run, so that no worker is left with a long one at the end?

Long are the tests of some rooms: they wait, for processes, brokers, pages. More than half of the workers begin with
such tests, the others compute meanwhile. What a worker has left is taken over by others from the end of its share
(xdist's worksteal), and there short ones are. The tests of a file stay together, as what they share needs.
"""

from itertools import chain, groupby
from typing import Final

import pytest

LONG: Final = ("tests/faults/", "tests/whole/", "tests/cli/", "tests/learner/rebuild/", "tests/learner/follow/")


def arrange(items: list[pytest.Item], n_workers: int) -> None:
    """Put tests into the order in which they run; xdist cuts it into as many equal shares as there are workers."""
    files = [list(tests) for _, tests in groupby(items, lambda item: item.nodeid.partition("::")[0])]
    long = [tests for tests in files if tests[0].nodeid.startswith(LONG)]
    short = chain.from_iterable(tests for tests in files if not tests[0].nodeid.startswith(LONG))
    n_long, found = n_workers // 2 + 1, list[pytest.Item]()
    for number in range(n_workers):
        if number < n_long:
            found += chain.from_iterable(long[number::n_long])
        while len(found) < len(items) * (number + 1) // n_workers and (test := next(short, None)):
            found.append(test)
    items[:] = [*found, *short]
