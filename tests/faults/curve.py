"""What do processes and a directory weigh while they are at work, and does it grow?"""

import contextlib
import csv
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from scipy import stats

BLOCKS: Final = 20  # neighbouring samples are alike, so that each says little of its own; means of blocks say more


class Sample(NamedTuple):
    """What a learner, an API and their directory weigh at a moment."""

    at_s: float
    learner_bytes: int
    api_bytes: int
    files: int
    threads: int
    disk_bytes: int  # without what is free in the log's file: that stays as large as it was at its fullest
    log_free_bytes: int
    learned: int


class Slope(NamedTuple):
    """How much more it becomes, and how sure that is."""

    kib_per_minute: float
    confidence: float  # with a chance of 95 % the truth is no further away

    def __str__(self) -> str:
        """Say it in a few words."""
        return f"{self.kib_per_minute:+.1f} ± {self.confidence:.1f} KiB/minute"


def resident(pid: int) -> int:
    """Return a process's resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free_in(log: Path) -> int:
    """Return how much of an embedded log's file later records will use again."""
    with contextlib.closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True, timeout=10)) as db:
        pages, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size"))
    return int(pages * size)


def sample(started: float, pids: Sequence[int], data: Path, learned: int) -> Sample:
    """Look at a learner and an API, in this order, and at their directory."""
    files = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
    threads = sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids)
    disk = 0
    for folder, _, names in os.walk(data):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # it goes just now
                disk += Path(folder, name).stat().st_blocks * 512
    free = free_in(data / "log.db")
    at_s = round(time.monotonic() - started, 2)
    return Sample(at_s, resident(pids[0]), resident(pids[1]), files, threads, disk - free, free, learned)


def write(path: Path, samples: Sequence[Sample]) -> None:
    """Write them down as CSV."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([Sample._fields, *samples])


def slope(samples: Sequence[Sample], of: str) -> Slope:
    """Return the slope of the line through the means of BLOCKS stretches of time."""
    blocks = np.array_split(np.array([(each.at_s / 60, getattr(each, of) / 1024) for each in samples]), BLOCKS)
    minutes, kib = np.array([block.mean(axis=0) for block in blocks if len(block)]).T
    line = stats.linregress(minutes, kib)
    return Slope(float(line.slope), float(line.stderr * stats.t.ppf(0.975, len(kib) - 2)))
