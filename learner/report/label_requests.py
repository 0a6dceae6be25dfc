"""Which messages should a person label?

Those that the model is least sure of, but none is left out for certain: each message is chosen with a chance that rises
with the model's own doubt and is never 0, and the chance is kept with it. So accuracy on what was labelled can be
re-weighted by 1 / chance to what it is on all messages (Horvitz and Thompson 1952; the quotient is Hajek's).

The budget is tokens that come evenly. A message of doubt w is chosen with the chance w * tokens / W, at most 1, where W
is the doubt of the messages of the last minutes, so that in the long run a horizon's tokens are spent in a horizon.
What is spent is the chance itself. Neither depends on what was drawn for this message, which keeps the estimate right
whatever the stream does. Nothing a model depends on is here: a replay draws nothing.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from driftline.stream.wire.fielded import Fields, shortened, split

MAX_OPEN: Final = 200  # requests that wait for a label; the oldest are given up
MAX_TEXT_CHARS: Final = 500
MAX_FIELD_CHARS: Final = 100
N_SCORES: Final = 9
HORIZON_S: Final = 300.0
LEAST_DOUBT: Final = (
    0.02  # a message that the model is sure of is chosen 50 times less often than one it knows nothing of
)


class Shown(NamedTuple):
    """A message to be looked at: the beginnings of its text and its fields, and whether there is more of any."""

    text: str
    fields: Fields
    truncated: bool

    @classmethod
    def of(cls, whole: str) -> "Shown":
        """Return what is shown of a text with its fields."""
        text, fields = split(whole)
        short = shortened(fields, MAX_FIELD_CHARS)
        return cls(text[:MAX_TEXT_CHARS], short, len(text) > MAX_TEXT_CHARS or short != fields)


class LabelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A message that it would help to have labelled."""

    id: str
    text: str  # its first MAX_TEXT_CHARS characters
    truncated: bool  # of the text, or of a field
    timestamp_ms: int  # of its record
    label: str | None  # predicted when it came in; null: no label was known
    score: float
    scores: dict[str, float]  # of the N_SCORES best labels
    chance: float  # with which it was chosen
    fields: Fields = {}  # the first MAX_FIELD_CHARS characters of each


class Estimate(msgspec.Struct):
    """Accuracy on all messages, estimated from those that were chosen and then labelled.

    Attributes
    ----------
    labels, correct : how many there were, and of how many the prediction was right
    weight, weight_correct : sums of 1 / chance, over all and over those
    squares, squares_correct : sums of 1 / chance**2, likewise
    """

    labels: int = 0
    correct: int = 0
    weight: float = 0.0
    weight_correct: float = 0.0
    squares: float = 0.0
    squares_correct: float = 0.0

    def add(self, chance: float, *, correct: bool) -> None:
        """Count a message."""
        self.labels += 1
        self.weight += 1 / chance
        self.squares += 1 / chance**2
        if correct:
            self._add_correct(chance, 1)

    def remove(self, chance: float, *, correct: bool) -> None:
        """Count a message no longer, which was counted so."""
        self.labels -= 1
        self.weight = self.weight - 1 / chance if self.labels else 0.0  # no rest of a sum stays
        self.squares = self.squares - 1 / chance**2 if self.labels else 0.0
        if correct:
            self._add_correct(chance, -1)

    def _add_correct(self, chance: float, n: int) -> None:
        self.correct += n
        self.weight_correct = self.weight_correct + n / chance if self.correct else 0.0
        self.squares_correct = self.squares_correct + n / chance**2 if self.correct else 0.0

    @property
    def accuracy(self) -> float | None:
        """The re-weighted accuracy; None before the first label."""
        return self.weight_correct / self.weight if self.labels else None

    @property
    def standard_error(self) -> float | None:
        """The standard error of `accuracy`, linearised; None while all or none were right: then it says nothing."""
        if self.accuracy is None or self.correct in (0, self.labels):
            return None
        a = self.accuracy
        return math.sqrt(max(0.0, self.squares_correct * (1 - 2 * a) + self.squares * a * a)) / self.weight


class Requests:
    """Chooses messages, and keeps those that wait for a label. One thread.

    Parameters
    ----------
    per_hour : the budget; 0: none is chosen
    seed : of the draws
    """

    def __init__(self, per_hour: float, seed: int) -> None:
        self.open: OrderedDict[str, LabelRequest] = OrderedDict()
        self._settled: OrderedDict[str, tuple[LabelRequest, str]] = OrderedDict()  # the last ones, with their labels
        self.estimate = Estimate()
        self._rate = per_hour / 3600.0
        self._tokens = self._rate * HORIZON_S
        self._doubt = 0.0  # of the messages of the last minutes
        self._now: float | None = None
        self._random = np.random.default_rng(seed)

    def draw(self, p_best: NDArray[np.float32], now: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Choose among messages that came in by now.

        Parameters
        ----------
        p_best : float32 [n], the score of each one's predicted label; 0: none was known
        now : seconds, of any clock that goes evenly

        Returns
        -------
        places, chances : of those that were chosen
        """
        passed_s = max(0.0, now - self._now) if self._now is not None else 0.0
        self._now = now
        self._tokens = min(self._tokens + self._rate * passed_s, 2 * self._rate * HORIZON_S)
        doubts = LEAST_DOUBT + (1 - LEAST_DOUBT) * (1 - np.clip(np.nan_to_num(p_best.astype(np.float64)), 0, 1))
        self._doubt = self._doubt * math.exp(-passed_s / HORIZON_S) + float(doubts.sum())
        if self._tokens <= 0 or not len(doubts):
            return np.zeros(0, np.int64), np.zeros(0)
        chances = np.minimum(1.0, doubts * (self._tokens / self._doubt))
        self._tokens -= float(chances.sum())
        places = np.flatnonzero(self._random.random(len(chances)) < chances)
        return places, chances[places]

    def add(self, request: LabelRequest) -> None:
        """Keep a message that was chosen."""
        self.open[request.id] = request
        if len(self.open) > MAX_OPEN:
            self.open.popitem(last=False)

    def forget(self, keys: Iterable[str]) -> None:
        """Keep nothing of these messages, whether they wait or have a label by now."""
        for key in keys:
            self.open.pop(key, None)
            self._settled.pop(key, None)

    def settle(self, label_of: Callable[[LabelRequest], str | None]) -> None:
        """Look which ones have a label by now, and which of the last ones another one.

        One whose label was taken back (None) waits for a label again. `label_of` raises KeyError for those that can no
        longer be labelled.
        """
        for key, (request, before) in list(self._settled.items()):
            try:
                label = label_of(request)
            except KeyError:
                continue
            if label != before:
                del self._settled[key]
                if request.label is not None:
                    self.estimate.remove(request.chance, correct=before == request.label)
                self.add(request)
        for key, request in list(self.open.items()):
            try:
                label = label_of(request)
            except KeyError:
                del self.open[key]
                continue
            if label is not None:
                del self.open[key]
                if request.label is not None:
                    self.estimate.add(request.chance, correct=label == request.label)
                self._settled[key] = request, label
                if len(self._settled) > MAX_OPEN:
                    self._settled.popitem(last=False)
