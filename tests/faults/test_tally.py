"""The table of what was tried adds up, tells what failed, and the slope of what does not grow is none."""

import json
import random

from tests.faults.curve import Sample, slope
from tests.faults.tally import table


def line(what: str, times: int, lost: int = 0, **more: float) -> str:
    return json.dumps({"what": what, "command": "make torture", "times": times, "lost": lost, **more})


def test_counts_of_the_same_thing_are_added_up() -> None:
    found = table([line("kills", 1000), line("cuts", 3, calls=2, slowest_s=1.5), line("kills", 5, 1)])
    assert found.splitlines()[2:] == [
        "| kills | 1,005 | 1 | `make torture` |",
        "| cuts | 3 | 0 | `make torture` |",
        "",
        "cuts: calls 2, slowest_s 1.5",
    ]
    more = table([line("cuts", 3, calls=2, slowest_s=1.5), line("cuts", 4, calls=3, slowest_s=0.5)])
    assert more.endswith("cuts: calls 5, slowest_s 1.5")


def samples(kib_a_minute: float) -> list[Sample]:
    rng = random.Random(1)
    sizes = [1024 * round(100_000 + kib_a_minute * n / 6 + rng.gauss(0, 50)) for n in range(270)]
    return [Sample(10.0 * n, size, size, 9, 9, size, 0, n) for n, size in enumerate(sizes)]


def test_a_slope_comes_with_how_sure_it_is() -> None:
    still, growing = slope(samples(0.0), "learner_bytes"), slope(samples(30.0), "learner_bytes")
    assert abs(still.kib_per_minute) < still.confidence < 2
    assert abs(growing.kib_per_minute - 30) < growing.confidence < 2
    assert "± " in str(growing)
