"""At which steps can a process be stopped, and how?

The steps are those of loop/loop.py, state/saver.py and the recovery, with their numbers there. Nothing in the
program knows of them: a process under test (nursery.py) has one function replaced by one that stops at a given call.
"""

import importlib
import inspect
import itertools
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final, NamedTuple


class Point(NamedTuple):
    """A place before or after a function; `when` says which of its calls count, by their arguments.

    `first` is done before the process is stopped.
    """

    where: str  # module:attribute
    after: bool = False
    when: Callable[..., bool] = lambda *_, **__: True
    first: Callable[..., object] = lambda *_, **__: None


def _journal(_: object, path: Path, *__: object) -> bool:
    return path.suffix == ".journal" and path.parent.name == "journal"


def _torn(file: Any, content: Any) -> None:
    file.write(memoryview(content).cast("B")[: len(content) // 2])


def _in(folder: str) -> Callable[..., bool]:
    return lambda path, *_: path.parent.name == folder


POINTS: Final = {
    "1 a batch was taken": Point("driftline.stream.log.merge:Merger.take", after=True),
    "3 it was planned": Point("driftline.learner.machine.machine:Machine.plan", after=True),
    "4 before it is learned": Point("driftline.learner.machine.machine:Machine.learn"),
    "4 it was learned": Point("driftline.learner.machine.machine:Machine.learn", after=True),
    "5 before its entry": Point("driftline.learner.disk.journal:Journal.append"),
    "5 half of its entry is written": Point(
        "driftline.learner.disk.durable:_write_all",
        when=lambda file, _: str(file.name).endswith(".journal"),
        first=_torn,
    ),
    "5 before its entry is synced": Point("driftline.learner.disk.durable:_sync", when=_journal),
    "5 its entry is durable": Point("driftline.learner.disk.journal:Journal.append", after=True),
    "6 before its predictions": Point("driftline.learner.state.outbox:Outbox.send"),
    "6 its predictions are sent": Point("driftline.learner.state.outbox:Outbox.send", after=True),
    "6 in the middle of a publish": Point("driftline.learner.serving.double_buffer:copy_changed"),
    "6 before a snapshot has its name": Point("driftline.learner.serving.double_buffer:Writer.appear"),
    "6 a snapshot was published": Point("driftline.learner.serving.snapshot:Publisher.publish", after=True),
    "6 before the status": Point("driftline.learner.loop.reporter:write_status"),
    "7.i the state was copied": Point("driftline.learner.state.saver:Saver.copy", after=True),
    "7.i before the new journal": Point("driftline.learner.disk.journal:Journal.__init__"),
    "7.i the new journal is there": Point("driftline.learner.disk.journal:Journal.__init__", after=True),
    "7.ii before the windows are encoded": Point("driftline.learner.state.saver:Saver._save"),
    "7.iii before one of the files": Point("driftline.learner.disk.durable:_write_parts"),
    "7.iii before the rename": Point(
        "driftline.learner.disk.durable:sync_directory", after=True, when=lambda path: path.parent.name == "checkpoints"
    ),
    "7.iii before the rename is synced": Point(
        "driftline.learner.disk.durable:sync_directory", when=lambda path: path.name == "checkpoints"
    ),
    "7.iii the checkpoint is durable": Point("driftline.learner.disk.checkpoint:save_checkpoint", after=True),
    "7.iv before offsets are committed": Point("driftline.learner.state.committer:Committer.tell"),
    "7.v before old checkpoints go": Point("driftline.learner.disk.checkpoint:prune"),
    "7.v a checkpoint has lost its name": Point(
        "driftline.learner.disk.durable:rename", after=True, when=_in("checkpoints")
    ),
    "7.v before old journals go": Point("driftline.learner.disk.journal:prune"),
    "7.v old journals are gone": Point("driftline.learner.disk.journal:prune", after=True),
    "a before the epoch is announced": Point("driftline.learner.disk.lock:Lock.announce"),
    "a the epoch is announced": Point("driftline.learner.disk.lock:Lock.announce", after=True),
    "a before journals are settled": Point("driftline.learner.disk.journal:settle"),
    "a a checkpoint was loaded": Point("driftline.learner.disk.checkpoint:load_newest", after=True),
    "b before a batch is applied again": Point("driftline.learner.machine.machine:Machine.apply"),
    "c all is applied and sent again": Point("driftline.learner.loop.recovery:replay", after=True),
    "d before the checkpoint": Point("driftline.learner.loop.loop:Learner._checkpoint_now"),
    "d after the checkpoint": Point("driftline.learner.loop.loop:Learner._checkpoint_now", after=True),
}
# Of several learners (learner/cluster/), of which one leads.
OF_MEMBERS: Final = {
    "e before it is a member": Point("driftline.stream.log.kafka.election:Election._take_part"),
    "e it was chosen": Point("driftline.stream.log.kafka.election:Election._assign", after=True),
    "e before the newest checkpoint is found": Point("driftline.learner.cluster.base:find"),
    "e the newest checkpoint is there": Point("driftline.learner.cluster.base:find", after=True),
    "e before a batch of the leader's is applied": Point("driftline.learner.cluster.standby:Standby._apply"),
    "e before the claim": Point("driftline.learner.cluster.log_journal:LogJournal.claim"),
    "e the claim is read back": Point("driftline.learner.cluster.log_journal:LogJournal.claim", after=True),
    "e before what may be missing is sent": Point("driftline.learner.cluster.standby:Standby.lead", after=True),
    "5 before its entry is sent to the log": Point("driftline.learner.cluster.log_journal:LogJournal._append"),
    "5 its entry is in the log, and not read back": Point(
        "driftline.learner.cluster.log_journal:LogJournal._append", after=True
    ),
    "5 its entry counts": Point("driftline.learner.cluster.log_journal:LogJournal.append", after=True),
    "7 before a mark": Point("driftline.learner.cluster.log_journal:LogJournal.mark"),
    "7 before all are to go on from it": Point("driftline.learner.cluster.log_journal:LogJournal.restart"),
    "7 before its digest is told": Point("driftline.learner.cluster.log_journal:LogJournal.saved"),
}
# Of one that follows (learner/follow/).
OF_FOLLOWERS: Final = {
    "f before a base is looked for": Point("driftline.learner.follow.bases:Bases.take"),
    "f a base is there": Point("driftline.learner.follow.bases:Bases.take", after=True),
    "f before a batch is learned": Point("driftline.learner.follow.model:FollowedModel.learn"),
    "f a batch was learned": Point("driftline.learner.follow.model:FollowedModel.learn", after=True),
    "f before a digest is taken": Point("driftline.learner.follow.model:FollowedModel.digest"),
    "f before its status": Point("driftline.learner.follow.follower:change_status"),
}
API_POINTS: Final = {
    "before a label is appended": Point("driftline.api.shared.connection:Connection.append"),
    "a label was appended, nobody was told": Point("driftline.api.shared.connection:Connection.append", after=True),
}
_STORE: Final = "driftline.learner.store.checkpoint_store:CheckpointStore"
STORE_POINTS: Final = {
    "before a file is put into the store": Point(f"{_STORE}.put_file"),
    "a file was put into the store": Point(f"{_STORE}.put_file", after=True),
    "all files are put into the store": Point(f"{_STORE}._check_there"),
    "before a checkpoint counts in the store": Point(f"{_STORE}._put_new"),
    "a checkpoint counts in the store": Point(f"{_STORE}._put_new", after=True),
    "before old ones go from the store": Point(f"{_STORE}.prune"),
    "an old one has lost a part in the store": Point(f"{_STORE}.delete", after=True),
    "before one of the store has its name": Point(
        "driftline.learner.disk.durable:sync_directory", after=True, when=lambda path: path.name.startswith(".writing")
    ),
    "one was fetched from the store": Point(f"{_STORE}.fetch", after=True),
}

FOLLOWER_POINTS: Final = (
    *OF_FOLLOWERS,
    *("before one of the store has its name", "a before the epoch is announced", "a the epoch is announced"),
    *("6 in the middle of a publish", "6 before a snapshot has its name", "6 a snapshot was published"),
)
CLUSTER_POINTS: Final = (
    *OF_MEMBERS,
    *STORE_POINTS,
    *("1 a batch was taken", "3 it was planned", "4 it was learned", "6 before its predictions"),
    *("6 its predictions are sent", "7.i the state was copied", "7.iii the checkpoint is durable"),
    "a before the epoch is announced",
)


def stop_at(name: str, nth: int, number: int) -> None:
    """Have this process send itself a signal at the nth time that it gets to a point."""
    point = (POINTS | OF_MEMBERS | OF_FOLLOWERS | API_POINTS | STORE_POINTS)[name]
    owner, attribute, function = find(point)
    calls = itertools.count(1)

    def reached(*arguments: Any, **options: Any) -> None:
        if point.when(*arguments, **options) and next(calls) == nth:
            point.first(*arguments, **options)
            os.kill(os.getpid(), number)

    @wraps(function)
    def stopping(*arguments: Any, **options: Any) -> Any:
        if not point.after:
            reached(*arguments, **options)
        done = function(*arguments, **options)
        if point.after:
            reached(*arguments, **options)
        return done

    @wraps(function)
    async def stopping_later(*arguments: Any, **options: Any) -> Any:
        if not point.after:
            reached(*arguments, **options)
        done = await function(*arguments, **options)
        if point.after:
            reached(*arguments, **options)
        return done

    setattr(owner, attribute, stopping_later if inspect.iscoroutinefunction(function) else stopping)


def find(point: Point) -> tuple[Any, str, Any]:
    """Return whose attribute it is, its name, and the function."""
    module, _, path = point.where.partition(":")
    *parents, attribute = path.split(".")
    owner: Any = importlib.import_module(module)
    for name in parents:
        owner = getattr(owner, name)
    return owner, attribute, getattr(owner, attribute)
