"""How are the kernels compiled before the first record, and what is said meanwhile?"""

from collections.abc import Callable
from contextlib import suppress

from driftline.learner import registry
from driftline.learner.disk.lock import Lock
from driftline.learner.disk.settings import DEFAULT_MODEL
from driftline.learner.loop import recovery, warm
from driftline.learner.report.starting import Start, telling
from driftline.learner.report.status import Status, change_status, last_status
from driftline.stream.errors import DiskFull
from driftline.stream.process.settings import StreamSettings


def compile_all(asked: str | None, stream: StreamSettings, lock: Lock, show: Callable[[Status], None]) -> None:
    """Compile all that there is to compile, and say so meanwhile.

    Parameters
    ----------
    asked : the model; None: that of the last status, or the default
    show : called with each status that is written

    Raises
    ------
    ConfigError : the model cannot be meant.
    Overtaken : another learner has taken over.
    """
    status = last_status(stream.data, asked or DEFAULT_MODEL)
    if asked:
        recovery.check_spec(asked, stream)
    model = (asked or status.model).partition("?")[0]

    def tell(start: Start) -> None:
        lock.check()
        with suppress(DiskFull):
            change_status(stream.data, status, "starting", str(start), lock.last_epoch(), start)
        show(status)

    with telling(tell, "compiling", warm.shares(model)), registry.waiting_said(model):
        warm.warm_up()
        registry.warm_up(model)
