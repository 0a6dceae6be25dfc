"""What does every worker of the API need, that they can share?

Imported once by the process that workers are forked from (workers.py): modules, and the compiled kernels of the model
that MODEL names, lie in memory once, until somebody writes to their pages. So nothing here starts a thread, and what is
there is not looked through again.
"""

import gc
import os
from typing import Final

import driftline.api.process
import driftline.stream.kafka_log
import driftline.stream.sqlite_log  # noqa: F401
from driftline.learner import pair
from driftline.learner.models import warm_up

MODEL: Final = "_DRIFTLINE_PRELOADED_MODEL"  # it is no option

if MODEL in os.environ:
    pair.warm_up()
    warm_up(os.environ[MODEL])
    gc.collect()
    gc.freeze()
