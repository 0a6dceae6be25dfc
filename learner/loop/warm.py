"""Which kernels are there to compile, before the first record comes, and how many of them are?

Those of the loop's own parts, whatever the model; those of a model are its own affair (registry.py). As a program it
compiles every one that there is: an image that is built so starts without compiling anything.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from driftline.learner import registry
from driftline.learner.machine import prediction_lines, served
from driftline.learner.quality import drift, progress, publish_gate
from driftline.learner.serving import double_buffer
from driftline.learner.tree.part import look_up
from driftline.learner.vectors import sent
from driftline.stream import kernels
from driftline.stream.join import join
from driftline.stream.wire import outline


def warm_up() -> None:
    """Compile the kernels of the loop, or load them compiled, so that no record waits for that."""
    for part in (drift, join, outline, progress, publish_gate, double_buffer, served, prediction_lines, sent):
        part.warm_up()


def shares(model: str) -> Callable[[], float]:
    """Return what tells, from any thread, how much of a start with a model is compiled, 0 to 1.

    By the lengths of the kernels' code, those of other models left out: about so much of the time.
    """
    others = [name for name in registry.REGISTRY if name != model]
    own = {id(each) for each in kernels.called_by(_of_model(model))}
    foreign = {id(each) for name in others for each in kernels.called_by(_of_model(name))} - own
    sizes = {id(each): len(each.py_func.__code__.co_code) for each in kernels.KERNELS if id(each) not in foreign}
    total = sum(sizes.values())

    def share() -> float:
        compiled = kernels.called_by(
            each for each in kernels.KERNELS if each.signatures
        )  # what one calls is part of it
        return sum(sizes.get(id(each), 0) for each in compiled) / total

    return share


def _of_model(name: str) -> list[Any]:
    """Return the kernels that a model's own module calls."""
    entry = registry.REGISTRY.get(name)
    if entry is None:  # of another library
        return []
    known = {id(each) for each in kernels.KERNELS}
    return [each for each in vars(sys.modules[entry.settings.__module__]).values() if id(each) in known]


def warm_up_all() -> None:
    """Compile every kernel that there is, of each log and model, own or foreign (tests/learner/loop/test_warm.py)."""
    from driftline.learner.foreign import adapters  # noqa: PLC0415  (only where a foreign model is used)
    from driftline.stream.log.kafka import librdkafka, sender  # noqa: PLC0415  (each log loads only its own library)

    warm_up()
    librdkafka.warm_up()
    sender.warm_up()
    adapters.warm_up()
    look_up(np.zeros(1, np.uint64), np.zeros((1, 3), np.float32), np.zeros(1, np.uint32), 1)
    for name in registry.REGISTRY:
        registry.warm_up(name)


def warm_up_at_once() -> None:
    """Compile every kernel, in two processes where there are two processors; here they are then loaded.

    More would be of no use: the tree's take half of the time, and are the work of one.
    """
    parts = ["tree", "", *sorted(registry.REGISTRY.keys() - {"tree"})]
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 2), multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_warm_up_part, parts))
    warm_up_all()  # two that have compiled one kernel for different types at once have kept it for one of them


def _warm_up_part(model: str) -> None:
    """Compile the kernels of a model, or those of the loop."""
    registry.warm_up(model) if model else warm_up()


if __name__ == "__main__":
    warm_up_at_once()
