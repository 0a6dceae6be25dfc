"""What does every worker of the API need, that they can share?

Imported once by the process that workers are forked from (workers.py): modules, and the compiled kernels of the model
that MODEL names, lie in memory once, until somebody writes to their pages. So nothing here starts a thread, and what is
there is not looked through again. Who compiles for a minute hears nothing meanwhile; so a timer looks whether
STARTED_BY is still there.
"""

import os
import signal
from typing import Final

from driftline.stream.process import interrupts

MODEL: Final = "_DRIFTLINE_PRELOADED_MODEL"  # it is no option
STARTED_BY: Final = "_DRIFTLINE_STARTED_BY"  # nor is this
LINES: Final = "_DRIFTLINE_PRELOADED_LINES"  # nor this
LOOK_S: Final = 0.2


_model, _started_by, _lines = (os.environ.pop(name, None) for name in (MODEL, STARTED_BY, LINES))


def _end_if_alone(*_: object) -> None:
    if str(os.getppid()) != _started_by:
        os._exit(0)


if _model is not None:
    interrupts.ignored()  # they are for the one above to hear
    signal.signal(signal.SIGALRM, _end_if_alone)
    signal.setitimer(signal.ITIMER_REAL, LOOK_S, LOOK_S)

import gc  # noqa: E402  (from here on it takes long)

import driftline.api.run.process  # noqa: E402
import driftline.stream.log.kafka.log  # noqa: E402
import driftline.stream.log.sqlite.log  # noqa: E402, F401
from driftline.learner.registry import warm_up  # noqa: E402
from driftline.learner.serving import double_buffer  # noqa: E402
from driftline.stream.process import log_lines  # noqa: E402

if _model is not None:
    log_lines.begin("json" if _lines == "json" else "text" if _lines else None)
    double_buffer.warm_up()
    warm_up(_model)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    gc.collect()
    gc.freeze()
