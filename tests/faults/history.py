"""What did a recorded learner promise at each of its operations, and does what is on a disk keep it?

Written down from the operations alone: which checkpoints were complete, which of them were synced, and what the outside
had seen by then (predictions, the status). What is on the disk is read with the program's own functions.
"""

import json
from pathlib import Path

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import journal as journals
from driftline.learner.disk.lock import Lock
from driftline.learner.report.status import read_status
from driftline.learner.serving.snapshot import Follower
from driftline.learner.serving.versions import Versions
from driftline.stream.errors import StateError
from tests.faults.disk import Disk, Op

STATUS = "data/status.json"
CHECKPOINTS = "data/checkpoints"


class History:
    """What has been promised so far. `follow` each operation, then `check` any number of states."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.sums: dict[int, bytes] = {}  # each complete checkpoint's SHA256SUMS
        self.durable: int | None = None  # the newest checkpoint whose name was synced
        self.message = -1  # the last message whose prediction was seen
        self.batch = self.epoch = 0  # of the status that was seen

    def follow(self, op: Op) -> None:
        """Take the next operation."""
        self.disk.apply(op)
        if op.kind == "seen":
            self.message = max(self.message, int(op.data))
        elif op.kind == "move" and op.to == STATUS:
            status = json.loads(self._content(op.to))
            self.batch, self.epoch = max(self.batch, status["batch"]), max(self.epoch, status["epoch"])
        elif op.kind == "move" and Path(op.to).parent == Path(CHECKPOINTS) and Path(op.to).name.isdigit():
            assert int(Path(op.to).name) not in self.sums, f"{op.to}: a name that existed before"
            self.sums[int(Path(op.to).name)] = self._content(f"{op.to}/SHA256SUMS")
        elif op.kind == "sync" and op.path == CHECKPOINTS:
            self.durable = max(self.sums, default=None)

    def check(self, data: Path) -> str:
        """Demand that a data directory after a power cut keeps what was promised; return what was found there."""
        if not data.is_dir():
            assert self.durable is None
            assert self.message < 0
            return "nothing"
        newest = checkpoints.load_newest(data / "checkpoints")
        self._check_outside(data)
        epoch = _next_epoch(data)
        assert epoch > self.epoch, "an epoch that was seen comes again"
        if newest is None:
            assert self.durable is None, f"checkpoint {self.durable} is lost"
            assert self.message < 0, f"the prediction for message {self.message} was seen, and nothing is left"
            return "no checkpoint"
        for path in checkpoints.list_checkpoints(data / "checkpoints"):
            checkpoints.load_checkpoint(path)
        found = newest.manifest.batch
        assert self.sums[found] == (checkpoints.path_of(data / "checkpoints", found) / "SHA256SUMS").read_bytes()
        assert self.durable is None or found >= self.durable, f"checkpoint {self.durable} is lost"
        after = journals.read_since(data / "journal", found)
        positions = {topic: parts["0"] for topic, parts in newest.manifest.positions.items()}
        for applied in after:
            for span in applied.spans:
                assert positions[span.partition.topic] == span.start, "a gap, or a record twice"
                positions[span.partition.topic] = span.end
        assert positions["messages"] > self.message, f"the prediction for message {self.message} was seen"
        assert found + len(after) >= self.batch, f"batch {self.batch} was seen"
        return "the newest checkpoint" if found == max(self.sums) else "the one before"

    def _check_outside(self, data: Path) -> None:
        """What is not durable is whole, or it is refused; it never raises anything else."""
        try:
            read_status(data)
        except StateError as error:
            assert "is not a status" in str(error)
        Follower(data / "snapshots").look()
        for kept in Versions(data).kept():
            assert kept.sha256

    def _content(self, path: str) -> bytes:
        inode = self.disk.find(path)
        return inode.with_content(inode.pending)


def _next_epoch(data: Path) -> int:
    lock = Lock(data)
    try:
        return 1 + max(lock.last_epoch(), journals.last_epoch(data / "journal"))
    finally:
        lock.close()
