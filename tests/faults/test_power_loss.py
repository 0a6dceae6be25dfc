"""Whatever a power cut leaves of what was not synced: the old or the new generation loads, and nothing seen is lost.

A real learner is recorded on a real stream while it is killed and started again. Then, for operations of the record,
the states that a power cut may leave there are laid out and read. The embedded log is SQLite's business (WAL,
synchronous=FULL) and stands outside: what it takes is believed to be there.
"""

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from driftline.learner.disk.checkpoint import list_checkpoints, load_checkpoint
from driftline.learner.disk.journal import read_since
from driftline.learner.serving.snapshot import SUFFIX
from tests.faults import strace
from tests.faults.disk import Op, Tree, digest, lay_out
from tests.faults.history import CHECKPOINTS, History
from tests.faults.scene import ALL, Recorder, Scene, by_hooks, by_strace, learn_to_end, make_scene
from tests.faults.tally import tally
from tests.often import TORTURE, times

COMMAND = "make torture ONLY=test_power_loss"
POINTS = times(600, 60)  # operations before which the power is cut, where it is not all
JOURNAL = "data/journal"
DURABLE = (CHECKPOINTS, JOURNAL)
SAMPLES = 4 if TORTURE else 2
RUNS = times(200, 12)  # states from which a whole learner is started
KILLS = [3, 9, 14] if TORTURE else [9, 6]

RECORDERS = [
    pytest.param(
        by_hooks,
        id="hooks",
        marks=pytest.mark.skipif(strace.is_there() and not TORTURE, reason="strace records it as well, and more"),
    ),
    pytest.param(
        by_strace,
        id="strace",
        marks=pytest.mark.skipif(not strace.is_there(), reason="strace is not on this machine"),
    ),
]


@pytest.fixture(scope="module", params=RECORDERS)
def recorded(request: pytest.FixtureRequest, module_memory: Path) -> tuple[Scene, list[Op]]:
    """Give a scene and the operations of its learners."""
    recorder: Recorder = request.param
    scene = make_scene(module_memory / recorder.__name__)
    return scene, recorder(scene, KILLS)


def places(ops: list[Op], rng: random.Random) -> set[int]:
    """Return the operations before which the power is cut."""
    changes = [number for number, op in enumerate(ops) if op.kind != "seen"]
    if not ALL:  # behind a rename is where it is told which generation counts
        renamed = [n for n in changes if ops[n - 1].kind == "move" and ops[n - 1].to.startswith(DURABLE)]
        changes = rng.sample(changes, min(POINTS, len(changes))) + renamed[:: max(1, len(renamed) // POINTS * 2)]
    return set(changes)


def states(ops: list[Op], rng: random.Random) -> Iterator[tuple[History, Tree]]:
    """Give each different state that a power cut may leave, with what had been promised by then."""
    chosen = places(ops, rng)
    history, known = History(), set()
    for number, op in enumerate(ops):
        if number in chosen:
            for tree in history.disk.after_power_cut(rng, SAMPLES):
                if (mark := digest(tree)) not in known:
                    known.add(mark)
                    yield history, tree
        history.follow(op)


def test_the_record_is_what_happened(recorded: tuple[Scene, list[Op]]) -> None:
    scene, ops = recorded
    history = History()
    for op in ops:
        history.follow(op)
    real = {str(path.relative_to(scene.root)): path for path in scene.root.rglob("*")}
    tree = history.disk.tree(lambda _, change: change)
    assert tree.keys() == {"", *real}
    for name, path in real.items():
        if path.suffix != SUFFIX:  # written through a mapping, which no recorder sees; recovery needs none
            assert tree[name] == (None if path.is_dir() else path.read_bytes()), name
    assert len(history.sums) > 4
    assert history.check(scene.root / "data") == "the newest checkpoint"


def test_the_last_three_checkpoints_and_the_journals_between_them_stay(recorded: tuple[Scene, list[Op]]) -> None:
    data = recorded[0].stream.data
    kept = [load_checkpoint(path).manifest.batch for path in list_checkpoints(data / "checkpoints")]
    assert len(kept) == 3
    assert {batch + len(read_since(data / "journal", batch)) for batch in kept} == {kept[0]}


def test_every_state_after_a_power_cut_keeps_what_was_seen(recorded: tuple[Scene, list[Op]], memory: Path) -> None:
    found: Counter[str] = Counter()
    for number, (history, tree) in enumerate(states(recorded[1], random.Random(1))):
        root = memory / str(number)
        lay_out(tree, root)
        found[history.check(root / "data")] += 1
        shutil.rmtree(root)
    assert found["the newest checkpoint"] > 50
    assert found["the one before"] > 0
    cuts = len(places(recorded[1], random.Random(1)))
    what = "power cut before a system call of learner or recovery, unsynced writes dropped, torn, reordered"
    tally(f"{what}: states read", COMMAND, found.total(), calls=cuts, **found)


def test_a_learner_that_starts_from_such_a_state_gets_to_the_same_bytes(
    recorded: tuple[Scene, list[Op]], memory: Path
) -> None:
    scene, ops = recorded
    expected = learn_to_end(scene.at(memory / "undisturbed"))
    trees = (tree for _, tree in states(ops, random.Random(2)))
    for number, tree in enumerate(drawn(trees, RUNS, random.Random(3))):
        root = memory / str(number)
        lay_out(tree, root)
        assert learn_to_end(scene.at(root)) == expected
        shutil.rmtree(root)
    tally("the same: learners started from such a state, learned on to the end", COMMAND, number + 1)


def drawn(trees: Iterator[Tree], count: int, rng: random.Random) -> list[Tree]:
    """Return so many of the trees, each as likely as any other, and hold no more than these."""
    found = list(islice(trees, count))
    for seen, tree in enumerate(trees, start=count + 1):
        if (place := rng.randrange(seen)) < count:
            found[place] = tree
    return found


def test_what_must_last_is_written_synced_renamed_and_synced_again(recorded: tuple[Scene, list[Op]]) -> None:
    """Write, fsync, rename to a name that never existed, fsync of the directory, before anything else is done there.

    Checkpoints are written in a thread, a new journal in another, and the log is in a third. So what happens in one
    folder may be seen between a rename and its fsync in another: that it does no harm, the states after a power cut
    show.
    """
    history, names, unsynced = History(), set(), set()
    for op in recorded[1]:
        history.follow(op)
        folder = str(Path(op.to or op.path).parent)
        if op.kind in {"make", "makedir"} and folder in DURABLE:
            assert Path(op.path).name.startswith(".writing-"), op.path
        if op.kind == "move" and folder in DURABLE:
            assert op.to not in names, f"{op.to}: a name that existed before"
            names.add(op.to)
            assert folder not in unsynced, f"{op.to}: renamed before the names of {folder} are durable"
            unsynced.add(folder)
            moved = history.disk.find(op.to)
            assert not moved.pending, f"{op.to}: renamed before it was synced"
            assert not any(inode.pending for inode in moved.names.values()), f"{op.to}: its files are not synced"
        elif op.kind == "sync":
            unsynced.discard(op.path)
        elif op.kind == "drop" and folder.startswith(DURABLE):
            assert not unsynced, f"{op.path} deleted before the names of {unsynced} are durable"
        elif folder.startswith(DURABLE):
            needed = next(name for name in DURABLE if folder.startswith(name))
            assert needed not in unsynced, f"{op.kind} {op.path} before the names of {needed} are durable"
        if op.kind == "write" and folder == JOURNAL and not Path(op.path).name.startswith(".writing-"):
            assert op.number == len(history._content(op.path)) - len(op.data), "a journal only grows"
    assert len(names) >= 10
