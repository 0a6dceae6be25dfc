"""Which operations did a program make on a directory? Asked of Python's audit events, where there is no strace.

Run as a program: `python -m tests.faults.hooks OPERATIONS ROOT KILL -- ARGUMENTS` runs the command line with these
arguments and adds pickled operations to a file. At each event (an opened file, a rename, an fsync ...) the directory is
looked at, and what differs from the last look was done since. Names change under a lock: a look while another thread
renames would find a file twice or not at all. The KILLth fsync of a journal ends the process instead;
0 for none.
"""

import atexit
import os
import pickle
import re
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from driftline.stream.log.sqlite.log import SqliteLog
from tests.faults.disk import Op

PREDICTION: Final = re.compile(rb'"message_id":"m(\d+)"')
NAMING: Final = ("rename", "replace", "mkdir", "unlink", "remove", "rmdir", "link")  # functions of os that change names
EVENTS: Final = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link"})


def read(path: Path) -> list[Op]:
    """Return the operations of a file."""
    found = []
    with path.open("rb") as file:
        while True:
            try:
                found.append(pickle.load(file))
            except EOFError:
                return found


class _Seen(NamedTuple):
    """A file or directory at the last look."""

    inode: int
    stamp: tuple[int, int]  # length, time of change
    content: bytes | None


class _Recorder:
    def __init__(self, root: Path, out: BinaryIO, kill: int) -> None:
        self._root, self._out, self._kill = root, out, kill
        self._known = self._look({})
        self._lock, self._busy = threading.RLock(), threading.local()

    def install(self) -> None:
        """Record from now on, and at the end. Before the learner is imported: it may keep the functions it uses."""
        os.fsync, os.fdatasync = self._synced(os.fsync), self._synced(os.fdatasync)
        for name in NAMING:
            setattr(os, name, self._locked(getattr(os, name)))
        submit = SqliteLog.submit

        def submitted(log: SqliteLog, topic: str, records: Any) -> Any:
            if topic.endswith("predictions"):
                for record in records:
                    self.note([Op("seen", data=number) for number in PREDICTION.findall(record.value)])
            return submit(log, topic, records)

        SqliteLog.submit = submitted  # type: ignore[method-assign]
        sys.addaudithook(self._event)
        atexit.register(self.note, [])

    def note(self, more: list[Op]) -> None:
        """Write down what was done since the last look, then `more`."""
        with self._lock:
            self._busy.now = True
            now = self._look(self._known)
            for op in [*_differences(self._known, now), *more]:
                pickle.dump(op, self._out)
            self._out.flush()
            self._known = now
            self._busy.now = False

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and not getattr(self._busy, "now", False):
            path = arguments[0]
            if event != "open" or (isinstance(path, str) and path.startswith(str(self._root))):
                self.note([])

    def _locked(self, change: Callable[..., None]) -> Callable[..., None]:
        @wraps(change)
        def recorded(*arguments: Any, **options: Any) -> None:
            with self._lock:
                change(*arguments, **options)
                self.note([])

        return recorded

    def _synced(self, sync: Callable[[int], None]) -> Callable[[int], None]:
        def recorded(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if not path.is_relative_to(self._root):
                return sync(descriptor)
            name = str(path.relative_to(self._root))
            if "journal/0" in name:
                self._kill -= 1
                if self._kill == 0:
                    self.note([])
                    os.kill(os.getpid(), signal.SIGKILL)
            with self._lock:
                self.note([])
                sync(descriptor)
                self.note([Op("sync", name)])
            return None

        return recorded

    def _look(self, before: dict[str, _Seen]) -> dict[str, _Seen]:
        found = {}
        for folder, _, names in os.walk(self._root):
            for path in [Path(folder), *(Path(folder, name) for name in names)]:
                try:
                    stat = path.stat()
                    name, stamp = str(path.relative_to(self._root)), (stat.st_size, stat.st_mtime_ns)
                    known = before.get(name)
                    if path.is_dir():
                        found[name] = _Seen(stat.st_ino, (0, 0), None)
                    elif known is not None and (known.inode, known.stamp) == (stat.st_ino, stamp):
                        found[name] = known
                    else:
                        found[name] = _Seen(stat.st_ino, stamp, path.read_bytes())
                except FileNotFoundError:
                    continue  # gone between the two
        return found


def _differences(before: dict[str, _Seen], now: dict[str, _Seen]) -> list[Op]:
    """Return the operations that lead from one look to the next; between two there is at most one on names."""
    ops: list[Op] = []
    gone = {seen.inode: name for name, seen in before.items() if name not in now}
    there = {seen.inode: name for name, seen in before.items() if name in now and seen.content is not None}
    moved: dict[str, str] = {}
    for name, seen in sorted(now.items()):
        parent = next((old for old, new in moved.items() if name.startswith(f"{new}/")), None)
        known = before.get(name if parent is None else name.replace(moved[parent], parent, 1))
        if known is None or known.inode != seen.inode:
            source = gone.get(seen.inode)
            if source is not None:
                moved[source] = name
                ops.append(Op("move", source, to=name))
                known = before[source]
            elif seen.inode in there:
                ops.append(Op("link", there[seen.inode], to=name))
                known = before[there[seen.inode]]
            else:
                ops.append(Op("makedir" if seen.content is None else "make", name))
                known = None
        ops += _written(name, known.content or b"" if known else b"", seen.content)
    for name in sorted(before.keys() - now.keys(), reverse=True):
        if not any(name == old or name.startswith(f"{old}/") for old in moved):
            ops.append(Op("drop", name))
    return ops


def _written(name: str, old: bytes, new: bytes | None) -> list[Op]:
    if new is None or new == old:
        return []
    if new.startswith(old):
        return [Op("write", name, new[len(old) :], len(old))]
    return [Op("cut", name), Op("write", name, new)] if new else [Op("cut", name)]


def main() -> None:
    """Record the command line."""
    operations, root, kill = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    sys.argv = ["driftline", *sys.argv[5:]]
    out = operations.open("ab")
    _Recorder(root, out, kill).install()
    runpy.run_module("driftline", run_name="__main__")


if __name__ == "__main__":
    main()
