"""What is held back by a transaction of Kafka that is open?

A reader sees only what is decided: it ends at the last stable offset, before the first record of a transaction that is
neither committed nor aborted, whoever appended what lies behind. Wherever there are transactions one is open at most
moments; one that was open at two looks, and is the first that is, holds back what comes behind it.
"""

from collections.abc import Mapping

from driftline.stream.log.base import TopicPartition, TopicState
from driftline.stream.words import counted


def held_back(before: Mapping[str, TopicState], now: Mapping[str, TopicState]) -> dict[TopicPartition, int]:
    """Return, of each partition that was held back at both looks, how many offsets lie behind its end."""
    found = {}
    for topic, state in now.items():
        was = before.get(topic)
        if was is None or was.identity != state.identity:
            continue
        for number, offsets in state.undecided.items():
            mark = was.watermarks.get(number)
            stays = mark is not None and mark.high == state.watermarks[number].high
            if offsets and stays and was.undecided.get(number):
                found[TopicPartition(topic, number)] = offsets
    return found


def describe(held: Mapping[TopicPartition, int]) -> str:
    """Say what is held back, and by what; "" where nothing is."""
    places = ", ".join(f"{counted(offsets, 'offset')} of {partition}" for partition, offsets in sorted(held.items()))
    return (
        f"an open transaction holds back {places}: they are read once their producer commits or aborts it"
        if places
        else ""
    )
