"""Does the log still have what the learner goes by?

Positions, those of the checkpoint and those that the journal after it reached, are compared with the log's watermarks
and its topics' identities. What is missing is named by partition, range, count and reason; nothing is decided here.

What follows from a loss that was accepted:

- `retention`: the records below the low watermark are gone; from there on everything is taken.
- `truncated`: what lay at and behind the high watermark is gone; from there on everything is taken.
- `recreated`, `deleted`: all of the topic is gone, also what the journal would replay; the new one is taken whole.
- `compacted`: only the replay finds this, by its spans' numbers of records; what is left of them is taken.

What the journal names and the log no longer has is left out of the replay; the rest is replayed in its order. So the
state is always the checkpoint's and exactly those records that are not in the list of losses.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from driftline.learner.disk.journal import Applied
from driftline.learner.disk.losses import Loss
from driftline.stream.errors import RecordsLost
from driftline.stream.log.base import TopicPartition, TopicState, Watermarks
from driftline.stream.log.merge import Span
from driftline.stream.words import counted


class Standing(NamedTuple):
    """How far a learner is, and what it knows of the log.

    `held` is what the state holds that it goes on from; `applied`, at or behind it, what the journal reached.
    """

    held: Mapping[TopicPartition, int]
    applied: Mapping[TopicPartition, int]
    ends: Mapping[TopicPartition, int]  # the high watermarks seen last
    identities: Mapping[str, str | None]


class Stock(NamedTuple):
    """What a comparison found."""

    losses: list[Loss]
    positions: dict[TopicPartition, int]  # from which to read: each partition that the log has
    added: list[TopicPartition]  # partitions that are new
    gone: dict[TopicPartition, Watermarks]  # of what is to be replayed, only this range is still there

    @property
    def new_topics(self) -> bool:
        """Whether the log has other topics than those that were learned from."""
        return any(loss.why in {"recreated", "deleted"} for loss in self.losses)

    def clip(self, applied: Applied) -> Applied:
        """Return a batch without what the log no longer has."""
        if not self.gone:
            return applied
        return applied._replace(spans=list(self._clip(applied.spans)))

    def _clip(self, spans: Iterable[Span]) -> Iterator[Span]:
        for span in spans:
            low, high = self.gone.get(span.partition, (span.start, span.end))
            start, end = max(span.start, low), min(span.end, high)
            if (start, end) == (span.start, span.end):
                yield span
            elif start < end:
                yield Span(span.partition, start, end, end - start if is_whole(span) else None)

    def refuse(self) -> None:
        """Raise RecordsLost where anything was lost, with what to do about it."""
        if self.losses:
            raise RecordsLost(
                "; ".join(map(str, self.losses))
                + ". Put the records back from a copy of the log, or go on without them with --accept-loss"
            )


class Shortfall:
    """What a replay finds less of than the journal says that there was."""

    def __init__(self) -> None:
        self._found: dict[TopicPartition, tuple[int, int, int]] = {}  # start, end, records

    def add(self, wanted: Iterable[Span], found: Iterable[Span]) -> bool:
        """Compare a batch's spans with what was found of them; tell whether anything is missing."""
        counts = {span.partition: span.records or 0 for span in found}
        short = False
        for span in wanted:
            lost = 0 if span.records is None else span.records - counts.get(span.partition, 0)
            if lost > 0:
                start, _, before = self._found.get(span.partition, (span.start, 0, 0))
                self._found[span.partition] = start, span.end, before + lost
                short = True
        return short

    def losses(self) -> list[Loss]:
        """Return a loss for each partition: its range goes from the first span with a record missing to the last."""
        return [
            Loss(topic=topic, partition=number, start=start, end=end, lost=lost, why="compacted")
            for (topic, number), (start, end, lost) in sorted(self._found.items())
        ]


def is_whole(span: Span) -> bool:
    """Tell whether each of a span's offsets was a record."""
    return span.records == span.end - span.start


def reached(positions: Mapping[TopicPartition, int], todo: Iterable[Applied]) -> dict[TopicPartition, int]:
    """Return the positions behind the last batch of a journal."""
    found = dict(positions)
    for applied in todo:
        for span in applied.spans:
            found[span.partition] = max(span.end, found.get(span.partition, 0))
    return found


def compare(standing: Standing, log: Mapping[str, TopicState]) -> Stock:
    """Compare what a learner goes by with what there is.

    Raises
    ------
    RecordsLost : a topic has fewer partitions than before, which nothing can go on from.
    """
    stock = Stock([], {}, [], {})
    numbers: dict[str, int] = {}
    for topic, number in standing.held:
        numbers[topic] = max(number + 1, numbers.get(topic, 0))
    for topic, n_before in numbers.items():
        known, now = standing.identities.get(topic), log.get(topic)
        if now is not None and len(now.watermarks) < n_before:
            raise RecordsLost(
                f"{topic} has {counted(len(now.watermarks), 'partition')}, it had {n_before}: it was deleted and made "
                f"again with fewer. Make it with {n_before} and start again, or start anew with another --data "
                "directory"
            )
        recreated = now is None or (None not in (known, now.identity) and known != now.identity)
        for number in range(max(n_before, len(now.watermarks) if now else 0)):
            partition = TopicPartition(topic, number)
            mark = now.watermarks[number] if now else None
            if partition not in standing.held:
                stock.added.append(partition)
            if recreated:
                _recreated(stock, standing, partition, mark)
            elif mark is not None:
                _moved(stock, standing, partition, mark)
    return stock


def _recreated(stock: Stock, standing: Standing, partition: TopicPartition, mark: Watermarks | None) -> None:
    if (start := standing.held.get(partition)) is not None:
        end = max(start, standing.applied.get(partition, 0), standing.ends.get(partition, 0))
        _add(stock, partition, start, end, end - start, "deleted" if mark is None else "recreated")
        stock.gone[partition] = Watermarks(0, 0)
    if mark is not None:
        stock.positions[partition] = mark.low


def _moved(stock: Stock, standing: Standing, partition: TopicPartition, mark: Watermarks) -> None:
    held = standing.held.get(partition, 0)  # of a partition that was added, everything is still to come
    applied = max(held, standing.applied.get(partition, 0))
    stock.positions[partition] = min(max(held, mark.low), mark.high)
    if held < mark.low:
        _add(stock, partition, held, mark.low, mark.low - held, "retention")
        stock.gone[partition] = mark
    if applied > mark.high:
        end = max(applied, standing.ends.get(partition, 0))
        _add(stock, partition, mark.high, end, end - max(mark.high, held), "truncated")
        stock.gone[partition] = mark


def _add(stock: Stock, partition: TopicPartition, start: int, end: int, lost: int, why: str) -> None:
    topic, number = partition
    stock.losses.append(Loss(topic=topic, partition=number, start=start, end=end, lost=lost, why=why))  # type: ignore[arg-type]
