"""Which texts get a vector, where not all can?

So many a second of the log's time, and what was spared of a minute at once: a sentence model takes a millisecond a text
where all else takes microseconds, and no flood may make the stream wait for it. What is beyond is scored, or learned,
by all other experts. Messages and labels have a bucket each, so a flood of the one takes nothing from the other.

A function of the records in their order, wherever they are cut: a replay gives the same texts their vectors.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

BURST_US: Final = 60_000_000  # of the log's time: so much of what was not taken may come at once
SECOND_US: Final = 1_000_000
MS_US: Final = 1_000


class Budget(msgspec.Struct, array_like=True):
    """What was taken of each kind of texts, as the time up to which it is paid for. Part of a machine's state."""

    now_us: int = 0  # the latest of the log's times; an earlier one counts as that
    messages_us: int = -BURST_US
    labels_us: int = -BURST_US

    def take(self, times_ms: NDArray[np.int64], are_labels: NDArray[np.bool_], rate: int) -> NDArray[np.bool_]:
        """Return which of some texts get a vector, in their order.

        Parameters
        ----------
        times_ms : int64 [n], of the records that they are due to; 0 where they are due to none
        are_labels : bool [n]
        rate : texts a second; 0: all
        """
        given = np.ones(len(times_ms), np.bool_)
        if not rate:
            return given
        for at, (time_ms, is_label) in enumerate(zip(times_ms.tolist(), are_labels.tolist(), strict=True)):
            self.now_us = max(self.now_us, time_ms * MS_US)
            paid_us = self.labels_us if is_label else self.messages_us
            paid_us = max(paid_us, self.now_us - BURST_US) + SECOND_US // rate
            given[at] = paid_us <= self.now_us
            if not given[at]:
                continue
            if is_label:
                self.labels_us = paid_us
            else:
                self.messages_us = paid_us
        return given
