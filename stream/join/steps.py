"""What is to be scored and learned of a batch, in which order?

Its steps, column by column: a kernel writes them (join/rules.py), and what is taken one by one is added to them.
"""

import numpy as np
from numpy.typing import NDArray

from driftline.stream.join.message_rows import ROW, MessageStore
from driftline.stream.join.rules import STEP
from driftline.stream.texts import Texts

Ints = NDArray[np.int64]


class Steps:
    """Texts to be scored; those with a target are then learned.

    Attributes
    ----------
    table, weights : int64 [room, len(STEP)], float32 [room]
    n : how many there are
    """

    def __init__(self, room: int) -> None:
        self.table: Ints = np.zeros((room, len(STEP)), np.int64)
        self.weights: NDArray[np.float32] = np.ones(room, np.float32)
        self.n = 0

    def __len__(self) -> int:
        """Return how many steps these are."""
        return self.n

    def ensure(self, n: int) -> None:
        """Make room for so many in all."""
        if n > len(self.table):
            more = 2 * n - len(self.table)
            self.table = np.concatenate([self.table, np.zeros((more, len(STEP)), np.int64)])
            self.weights = np.concatenate([self.weights, np.ones(more, np.float32)])

    def cut_off(self) -> "Steps":
        """Return all that are there, and have none."""
        found = Steps(self.n)
        found.table[:], found.weights[:], found.n = self.table[: self.n], self.weights[: self.n], self.n
        self.n = 0
        return found

    def add(
        self,
        store: MessageStore,
        row: int,
        target: int = -1,
        weight: float = 1.0,
        place: int = -1,
        time_ms: int = 0,
        *,
        served: bool = False,
    ) -> None:
        """Add a step with a row's text; `served`: its label is to be compared with what was served."""
        self.ensure(self.n + 1)
        at, key_size, size = store.rows[row, [ROW.AT, ROW.ID_SIZE, ROW.TEXT_SIZE]].tolist()
        columns = [STEP.ROW, STEP.TEXT_AT, STEP.TEXT_BYTES, STEP.TARGET, STEP.PLACE, STEP.TIME_MS, STEP.SERVED]
        self.table[self.n, columns] = row, at + key_size, size, target, place, time_ms, served
        self.weights[self.n] = weight
        self.n += 1

    def texts(self, store: MessageStore) -> Texts:
        """Return the texts, once all steps are there."""
        return Texts.gathered(store.kept, self._column(STEP.TEXT_AT), self._column(STEP.TEXT_BYTES))

    def _column(self, column: int) -> Ints:
        return np.ascontiguousarray(self.table[: self.n, column])

    @property
    def rows(self) -> Ints:
        """Each text's row in the window's store."""
        return self._column(STEP.ROW)

    @property
    def targets(self) -> NDArray[np.int32]:
        """The column of its label, or -1."""
        return self._column(STEP.TARGET).astype(np.int32)

    @property
    def places(self) -> Ints:
        """The place in the batch of the record that it is due to, or -1."""
        return self._column(STEP.PLACE)

    @property
    def times_ms(self) -> Ints:
        """That record's time."""
        return self._column(STEP.TIME_MS)

    @property
    def served(self) -> Ints:
        """1 where its label is to be compared with what was served."""
        return self._column(STEP.SERVED)
