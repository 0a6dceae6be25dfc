"""How does a learner share what it shows, beside its loop?

A thread reads the shared topic into the data directory, and while this learner leads tells the others what it shows.
The loop does not wait for it: only whoever begins to lead waits, a moment, until what the leader before has told is
here, so that history, label requests and what was asked to be erased go on from there.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Condition
from typing import Final

from driftline.learner.shared.replica import Replica
from driftline.learner.shared.teller import Teller
from driftline.stream.errors import Overtaken
from driftline.stream.log.base import Log
from driftline.stream.process import threads
from driftline.stream.process.settings import StreamSettings

TURN_S: Final = 0.1
RETRY_S: Final = 1.0
LEAD_S: Final = 5.0
CLOSE_S: Final = 10.0
_LOG: Final = logging.getLogger(__name__)


class Beside:
    """Shares a learner's data directory. Its methods are for the learner's thread.

    Parameters
    ----------
    log : where the topic lies; it is made where it is missing

    Raises
    ------
    LogError : it cannot be made or read.
    """

    def __init__(self, log: Log, stream: StreamSettings) -> None:
        self._log, self._stream = log, stream
        self._replica = Replica(log, stream, may_lead=True)
        self._changed = Condition()  # of the three below
        self._wanted: tuple[int, Callable[[], None]] | None = None  # to lead: the epoch, and what checks it
        self._leads = self._closing = False
        self._thread = threads.start("shared-topic", self._run)

    def lead(self, epoch: int, check: Callable[[], None]) -> None:
        """Tell what this learner shows from here on, once all is here that was told before.

        Parameters
        ----------
        check : raises where it was overtaken; any thread
        """
        with self._changed:
            self._wanted = epoch, check
            if not self._changed.wait_for(lambda: self._leads, LEAD_S):
                _LOG.warning(
                    "%s is not read to its end yet: what was shown before is shown late", self._stream.state_name
                )

    def follow(self) -> None:
        """Tell once more, and then nothing: another one leads from here on, or nobody."""
        with self._changed:
            self._wanted = None
            self._changed.wait_for(lambda: not self._leads, CLOSE_S)

    def close(self) -> None:
        """End the thread."""
        self.follow()
        with self._changed:
            self._closing = True
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        teller: Teller | None = None
        try:
            while not self._closing:
                try:
                    wanted = (
                        self._wanted
                    )  # before it is seen that there is no more: so what is told later is not missed
                    self._replica.turn(TURN_S)
                    teller = self._go_by(wanted, teller)
                    if teller is not None:
                        teller.turn()
                except Overtaken:
                    self._stop(teller)
                    teller = None
                except Exception as error:  # noqa: BLE001, RUF100  (whatever it is, it must not end the learner)
                    _LOG.warning("what is shared is not up to date: %s", error or repr(error))
                    time.sleep(RETRY_S)
        finally:
            self._stop(teller)
            self._replica.close()

    def _go_by(self, wanted: tuple[int, Callable[[], None]] | None, teller: Teller | None) -> Teller | None:
        """Begin or end to lead, where that is wanted."""
        if wanted is None and teller is not None:
            with suppress(Overtaken):
                teller.finish()
            self._stop(teller)
            return None
        if wanted is not None and teller is None and self._replica.caught_up and self._replica.at_end:
            epoch, check = wanted
            self._replica.note_epoch(epoch)
            self._replica.own_history()
            self._replica.leads = True
            teller = Teller(self._log, self._stream.state_name, self._stream.data, self._replica, epoch, check)
            with self._changed:
                self._leads = True
                self._changed.notify_all()
        return teller

    def _stop(self, teller: Teller | None) -> None:
        if teller is not None:
            teller.close()
        self._replica.leads = False
        with self._changed:
            self._leads = False
            self._wanted = None
            self._changed.notify_all()
