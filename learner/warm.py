"""Which kernels are there to compile, before the first record comes?

Those of the loop's own parts, whatever the model; those of a model are its own affair (models.py). As a program it
compiles every one that there is: an image that is built so starts without compiling anything.
"""

import numpy as np

from driftline.learner import drift, gate, models, pair, progress, served
from driftline.learner.tree_part import look_up
from driftline.stream import join


def warm_up() -> None:
    """Compile the kernels of the loop, or load them compiled, so that no record waits for that."""
    for part in (drift, join, progress, gate, pair, served):
        part.warm_up()


def warm_up_all() -> None:
    """Compile every kernel that there is, of each log and model, own or foreign (tests/test_warm.py)."""
    from driftline.learner import adapters  # noqa: PLC0415  (only where a foreign model is used)
    from driftline.stream import librdkafka  # noqa: PLC0415  (each log loads only its own library)

    warm_up()
    librdkafka.warm_up()
    adapters.warm_up()
    look_up(np.zeros(1, np.uint64), np.zeros((1, 3), np.float32), np.zeros(1, np.uint32), 1)
    for name in models.REGISTRY:
        models.warm_up(name)


if __name__ == "__main__":
    warm_up_all()
