"""What can be on a disk after a power cut?

A model of what POSIX promises, after ALICE (Pillai et al. 2014). What was written to a file is sure only once the file
was synced, a name only once its directory was; until then each change is there or not, whatever came before or behind
it, and a write may be there in part or as zeros. So a rename may be durable before the content of the file it names.

Operations come from a recorder (strace.py, hooks.py), in their order, with paths relative to one directory.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

Tree = dict[str, bytes | None]  # a path and the content of the file; None for a directory


class Op(NamedTuple):
    """One operation.

    kind : make, makedir, link, write, cut, move, drop, sync, or seen (the outside saw something; nothing on the disk)
    data : of a write, at `number`; of what was seen
    number : of a write its place, of a cut the new length
    to : of a move or a link
    since : of a sync, which operations it covers: those before this one of the list; None for all
    """

    kind: str
    path: str = ""
    data: bytes = b""
    number: int = 0
    to: str = ""
    since: int | None = None


class Change(NamedTuple):
    """A change of an inode that is not durable yet."""

    at: int  # the operation's number
    op: Op
    inode: "Inode | None"  # that a directory's name is to mean


class Inode:
    """A file or a directory: what is durable, and the changes since."""

    def __init__(self, is_directory: bool) -> None:
        self.is_directory = is_directory
        self.content = b""
        self.names: dict[str, Inode] = {}
        self.pending: list[Change] = []

    def change(self, change: Change) -> None:
        """Take a change, which is not durable for now."""
        self.pending.append(change)
        if len(self.pending) > WRITTEN_BACK:
            self.sync(self.pending[1].at)

    def sync(self, before: int) -> None:
        """Make the changes before an operation durable."""
        done = [change for change in self.pending if change.at < before]
        self.content, self.names = self.with_content(done), self.with_names(done)
        self.pending = [change for change in self.pending if change.at >= before]

    def with_names(self, changes: list[Change]) -> "dict[str, Inode]":
        """Return a directory's names after some changes."""
        names = dict(self.names)
        for _, op, inode in changes if self.is_directory else []:
            name = Path(op.path).name
            if op.kind == "move":
                if names.get(name) is inode:
                    del names[name]
                names[Path(op.to).name] = inode
            elif op.kind == "drop":
                names.pop(name, None)
            elif op.kind == "link" and inode is not None:
                names[Path(op.to).name] = inode
            else:
                names[name] = inode
        return names

    def with_content(self, changes: list[Change]) -> bytes:
        """Return a file's content after some changes."""
        content = self.content
        for _, op, _ in changes if not self.is_directory else []:
            head = content[: op.number].ljust(op.number, b"\0")
            content = head if op.kind == "cut" else head + op.data + content[op.number + len(op.data) :]
        return content


WRITTEN_BACK = 40  # changes of an inode, older than which the kernel has written each to the disk by itself
Keep = Callable[[Inode, Change], Change | None]


class Disk:
    """A directory's inodes while operations go by."""

    def __init__(self) -> None:
        self.root = Inode(True)
        self.count = 0

    def apply(self, op: Op) -> None:
        """Do an operation, as running processes see it."""
        at, self.count = self.count, self.count + 1
        if op.kind == "seen":
            return
        if op.kind == "sync":
            self.find(op.path).sync(at if op.since is None else op.since)
        elif op.kind in {"write", "cut"}:
            self.find(op.path).change(Change(at, op, None))
        else:
            made = Inode(op.kind == "makedir") if op.kind in {"make", "makedir"} else self.find(op.path)
            changed = op.to if op.kind == "link" else op.path
            self.find(str(Path(changed).parent)).change(Change(at, op, made))

    def find(self, path: str) -> Inode:
        """Return what a path means to running processes."""
        inode = self.root
        for name in Path(path).parts:
            inode = inode.with_names(inode.pending)[name]
        return inode

    def has(self, path: str) -> bool:
        """Tell whether running processes see something there."""
        try:
            self.find(path)
        except KeyError:
            return False
        return True

    def tree(self, keep: Keep) -> Tree:
        """Return what is on the disk where just these changes got there, each as `keep` returns it."""
        found: Tree = {}
        self._walk(self.root, "", keep, found)
        return found

    def _walk(self, inode: Inode, path: str, keep: Keep, found: Tree) -> None:
        kept = [done for change in inode.pending if (done := keep(inode, change)) is not None]
        if not inode.is_directory:
            found[path] = inode.with_content(kept)
            return
        found[path] = None
        for name, child in inode.with_names(kept).items():
            self._walk(child, f"{path}/{name}".lstrip("/"), keep, found)

    def pending(self) -> list[Change]:
        """Return every change that is not durable, of what running processes see."""
        found: list[Change] = []

        def note(_: Inode, change: Change) -> Change:
            found.append(change)
            return change

        self.tree(note)
        return found

    def after_power_cut(self, rng: random.Random, samples: int) -> Iterator[Tree]:
        """Give states that a power cut may leave now: the telling ones, and `samples` drawn ones."""
        yield self.tree(lambda _, change: change)
        yield self.tree(lambda *_: None)
        yield self.tree(lambda inode, change: change if inode.is_directory else None)
        yield self.tree(lambda inode, change: None if inode.is_directory else change)
        for tear in (_half, _zeros):
            yield self.tree(lambda inode, change, tear=tear: change if inode.is_directory else tear(change))
        pending = self.pending()
        for odd in rng.sample(pending, min(len(pending), samples)):
            yield self.tree(lambda _, change, odd=odd: None if change is odd else change)
            yield self.tree(lambda _, change, odd=odd: change if change is odd else None)
        for _ in range(samples if pending else 0):
            share = rng.random()
            yield self.tree(lambda inode, change, share=share: _drawn(rng, share, inode, change))


def digest(tree: Tree) -> bytes:
    """Return what tells trees apart."""
    sums = [(path, content and hashlib.sha256(content).digest()) for path, content in sorted(tree.items())]
    return hashlib.sha256(repr(sums).encode()).digest()


def lay_out(tree: Tree, root: Path) -> None:
    """Write a tree into a directory that is not there."""
    for path, content in sorted(tree.items()):
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


def _half(change: Change) -> Change:
    data = change.op.data
    return change._replace(op=change.op._replace(data=data[: len(data) // 2]))


def _zeros(change: Change) -> Change:
    return change._replace(op=change.op._replace(data=bytes(len(change.op.data))))


def _drawn(rng: random.Random, share: float, inode: Inode, change: Change) -> Change | None:
    if rng.random() > share:
        return None
    if inode.is_directory or change.op.kind == "cut" or rng.random() < 0.5:
        return change
    data, torn = change.op.data, rng.randrange(len(change.op.data) + 1)
    rest = bytes(len(data) - torn) if rng.random() < 0.5 else b""
    return change._replace(op=change.op._replace(data=data[:torn] + rest))
