"""What is seen of a learner from outside? Its model, its status, which messages it asks labels for.

All of it belongs to one moment between two batches. Who looks sees it in the data directory.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from driftline.learner.disk.checkpoint import by_topic
from driftline.learner.disk.full import DiskRoom
from driftline.learner.disk.journal import Applied
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop import reporter
from driftline.learner.loop.reporter import Reporter
from driftline.learner.machine.plan import Plan
from driftline.learner.report.review import Reviewer
from driftline.learner.report.status import State, Status
from driftline.learner.serving.publishing import Publishing
from driftline.learner.state.ledger import Ledger
from driftline.learner.state.state import LearnerState
from driftline.learner.state.watch import Watch
from driftline.stream.process.settings import StreamSettings


class Outside:
    """What others see. For the loop's thread, but for `shown`.

    Parameters
    ----------
    ledger : what of it is on the disk
    room : what is waited for where the disk is full
    check : raises where this learner was overtaken

    Attributes
    ----------
    work : what is shown; None before there is any
    halted : nothing is whole until it has recovered
    """

    def __init__(
        self,
        stream: StreamSettings,
        settings: LearnerSettings,
        ledger: Ledger,
        room: DiskRoom,
        check: Callable[[], None],
    ) -> None:
        self._stream, self._settings, self._ledger, self._room, self._check = stream, settings, ledger, room, check
        self._reporter = Reporter(stream.data, self.status, self._lag, settings.stall_after_s, check)
        self._publishing: Publishing | None = None
        self._reviewer: Reviewer | None = None
        self.work: LearnerState | None = None
        self.halted = False

    # Before there is anything to see.

    def begin(self) -> None:
        """Note that it starts, which may take its time."""
        self._reporter.begin(self._ledger.batch)

    def show(self, status: Status) -> None:
        """Take a status that was written elsewhere for the last one."""
        self._reporter.show(status)

    def announce(self, epoch: int) -> None:
        """Show what is seen from now on as that of this epoch."""
        data, settings = self._stream.data, self._settings
        interval_s = settings.publish_interval_s
        self._publishing = Publishing(data / "snapshots", epoch, interval_s, self._room, self._check)
        if self._reviewer is None:
            self._reviewer = Reviewer(data, settings.label_requests_per_hour, epoch, self._check)

    def open(self) -> None:
        """Show what there is."""
        if self._work.machine.counts.updates:
            self.publish()
        else:
            self._shown.prepare(self._work.machine.classifier)
        self.report("running")

    # The model.

    def is_stale(self, now: float) -> bool:
        """Tell whether it is time to publish."""
        return self._shown.is_due(now)

    def publish(self) -> None:
        """Publish the model, and say whether it may be served."""
        offsets = by_topic(self._work.positions)[self._stream.topics.feedback]
        self._shown.publish(self._work.machine, offsets)
        self._ledger.tell_gate(self._work, self._shown.quarantine)

    def hurry(self) -> None:
        """Have it be time to publish."""
        self._shown.hurry()

    def withdraw(self) -> None:
        """Publish no more before the next `announce`."""
        self._shown.close()

    # The status, and what is asked.

    @property
    def shown(self) -> Status | None:
        """The last status, for any thread."""
        return self._reporter.shown

    def is_due(self, now: float) -> bool:
        """Tell whether it is time to say something."""
        return self._reporter.is_due(now)

    def beat(self, *, replays: bool = False) -> None:
        """Note that the loop gets on."""
        self._reporter.beat(self._work.batch, replays=replays)

    def status(self, state: State, detail: str = "") -> Status:
        """Say what the learner is doing and has done."""
        return reporter.describe(state, detail, self._work, self._ledger, self._shown, self._reporter.stalls)

    def report(self, state: State, detail: str = "", *, replays: bool = False) -> None:
        """Write the status, and, but for a replay, what labels are asked for. Raises Overtaken."""
        self._reporter.report(self._work.batch, state, detail, replays=replays)
        if self._reviewer is not None and not self.halted and not replays and state != "recovering":
            self._reviewer.report(self._work.machine, self._work.lag)

    def replaying(
        self, watch: Watch, todo: Sequence[Applied], on_replay: Callable[[int, int], None] | None
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """Return what a replay calls after each batch, and while it waits; the watchdog sees whether it gets on.

        `on_replay` is called with the batches replayed so far, and with how many there are.
        """
        first = self._work.batch

        def tell() -> None:
            problem, detail = watch.problem, f"batch {self._work.batch} of {todo[-1].batch}"
            self.report("waiting" if problem else "recovering", problem or detail, replays=True)

        def turn() -> None:
            self.beat(replays=True)
            if self.is_due(time.monotonic()):
                tell()

        def on_batch() -> None:
            if on_replay is not None:
                on_replay(self._work.batch - first, len(todo))
            turn()

        def on_wait() -> None:
            watch.turn(self._work.standing)  # for what the log says of itself; check_unchanged has the last word
            turn()

        if todo:
            tell()
        return on_batch, on_wait

    def see(self, plan: Plan) -> None:
        """Look at a batch that was finished for messages to ask labels for."""
        if self._reviewer is not None:
            for part in (*plan.parts, plan):
                self._reviewer.see(self._work.machine, part)

    def forget(self, unwanted: Any) -> None:
        """Show no more of what was erased."""
        if self._reviewer is not None:
            self._reviewer.forget(unwanted)
            self._reviewer.report(self._work.machine, self._work.lag)

    def stop(self) -> None:
        """Watch the loop no more."""
        self._reporter.close()

    def close(self, *, overtaken: bool) -> None:
        """Give back what is there; what one that is `overtaken` has published does not count any more."""
        if self._publishing is not None and not overtaken:
            self._publishing.close()
        if self._reviewer is not None:
            self._reviewer.close()

    @property
    def _work(self) -> LearnerState:
        return cast(LearnerState, self.work)

    @property
    def _shown(self) -> Publishing:
        return cast(Publishing, self._publishing)

    def _lag(self) -> int:
        return self._work.lag
