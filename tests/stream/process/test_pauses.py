"""What ends again and again is started less and less often; what was well for a while, soon."""

import signal

import pytest

from driftline.stream.process.pauses import FIRST_S, MOST_S, Pauses
from driftline.stream.words import ended


def test_they_grow_up_to_a_limit_and_begin_anew() -> None:
    pauses = Pauses()
    taken = [pauses.take() for _ in range(10)]
    assert taken == [1, 2, 4, 8, 16, 32, MOST_S, MOST_S, MOST_S, MOST_S]
    pauses.well()
    assert [pauses.take(), pauses.take()] == [FIRST_S, 2 * FIRST_S]


@pytest.mark.parametrize(
    ("exit_code", "said"),
    [
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (-200, "was killed by signal 200"),
        (1, "ended with exit code 1"),
        (None, "ended with exit code None"),
    ],
)
def test_how_a_process_ended(exit_code: int | None, said: str) -> None:
    assert ended(exit_code) == said
