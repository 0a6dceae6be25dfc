"""What does every worker of the API need, that they can share?

Imported once by the process that workers are forked from (workers.py): modules, and the compiled kernels of the model
that MODEL names, lie in memory once, until somebody writes to their pages. So nothing here starts a thread, and what is
there is not looked through again.
"""

import gc
import os
from typing import Final

import driftline.api.run.process
import driftline.stream.log.kafka.log
import driftline.stream.log.sqlite.log  # noqa: F401
from driftline.learner.registry import warm_up
from driftline.learner.serving import double_buffer

MODEL: Final = "_DRIFTLINE_PRELOADED_MODEL"  # it is no option

if MODEL in os.environ:
    double_buffer.warm_up()
    warm_up(os.environ[MODEL])
    gc.collect()
    gc.freeze()
