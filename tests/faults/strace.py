"""Which system calls did a program make on a directory? Asked of strace, so nothing that it does can be missed.

Only what changes the disk is kept: see disk.Op. A write through a shared mapping would not be seen; `parse` raises
where a file under `durable` is mapped so.
"""

import re
import shutil
from pathlib import Path
from typing import Final

from tests.faults.disk import Disk, Op

CALLS: Final = (
    *("open", "openat", "creat", "close", "lseek", "write", "pwrite64", "writev", "pwritev", "pwritev2"),
    *("fsync", "fdatasync", "sync_file_range", "rename", "renameat", "renameat2", "link", "linkat", "symlink"),
    *("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "truncate", "ftruncate", "fallocate", "mmap"),
    *("copy_file_range", "sendfile", "splice"),
)
PREDICTION: Final = re.compile(rb'"message_id":"m(\d+)"')
_LINE: Final = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)$")
_STRING: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FILE: Final = re.compile(r"(\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")


def is_there() -> bool:
    """Tell whether this machine has strace."""
    return shutil.which("strace") is not None


def command(output: Path, kill: int = 0) -> list[str]:
    """Return what is put in front of a command so that its calls are written to a file.

    Where `kill` is not 0, the thread that gets to so many fdatasync calls first ends the process before that one.
    """
    # Both at once do not work: with a filter in the kernel, strace 6.1 delivers no signal.
    how = f"--inject=fdatasync:signal=KILL:when={kill}" if kill else "--seccomp-bpf"
    return [
        *("strace", "--follow-forks", how, "--decode-fds=path", "--strings-in-hex=all"),
        *("--string-limit=100000000", f"--trace={','.join(CALLS)}", f"--output={output}"),
    ]


def parse(output: Path, root: Path, log: Path, disk: Disk) -> list[Op]:
    """Return the operations on a directory, in order.

    Parameters
    ----------
    root : the directory
    log : the embedded log's file, outside of it; predictions written to it count as seen
    disk : what was there before; is changed
    """
    return _Parser(root, log, disk).parse(output)


class _Parser:
    def __init__(self, root: Path, log: Path, disk: Disk) -> None:
        self._root, self._log, self._disk = f"{root}/", str(log), disk
        self._ops: list[Op] = []
        self._places: dict[str, int] = {}  # of an open file, by its number
        self._started: dict[str, tuple[str, int]] = {}  # an unfinished call's arguments, by its thread

    def parse(self, output: Path) -> list[Op]:
        with output.open() as lines:
            for line in lines:
                match = _LINE.match(line)
                if match is None:
                    continue  # a signal, an exit
                thread, call, rest = match.groups()
                since = self._disk.count
                if "resumed>" in line.partition("(")[0]:
                    begun, since = self._started.pop(thread)
                    rest = begun + rest
                elif rest.endswith("<unfinished ...>"):
                    self._started[thread] = rest.removesuffix("<unfinished ...>"), since
                    continue
                arguments, _, result = rest.rpartition(" = ")
                if not result.startswith("-1") and not result.startswith("?"):
                    self._call(call, arguments.rstrip().removesuffix(")"), result, since)
        return self._ops

    def _call(self, call: str, arguments: str, result: str, since: int) -> None:
        if call in {"open", "openat", "creat"}:
            self._open(arguments, result)
        elif call.startswith(("rename", "unlink", "rmdir", "mkdir", "link", "symlink")) or call == "truncate":
            self._name(call, arguments)
        else:
            self._file(call, arguments, result, since)

    def _do(self, op: Op) -> None:
        self._disk.apply(op)
        self._ops.append(op)

    def _inside(self, path: str) -> str | None:
        if not f"{path}/".startswith(self._root):
            return None
        return path[len(self._root) :] or "."

    def _open(self, arguments: str, result: str) -> None:
        opened = _FILE.match(result)
        assert opened, result
        path = self._inside(_text(opened[2]))
        if path is None or "O_DIRECTORY" in arguments:
            return
        self._places[opened[1]] = 0
        if "O_CREAT" in arguments and not self._disk.has(path):
            self._do(Op("make", path))
        elif "O_TRUNC" in arguments:
            self._do(Op("cut", path))

    def _name(self, call: str, arguments: str) -> None:
        found = [_text(match) for match in _STRING.findall(arguments)]
        base = _FILE.match(arguments)
        paths = [self._inside(str(Path(_text(base[2]), name)) if base else name) for name in found]
        if paths[0] is None:
            return
        if call.startswith("rename"):
            assert paths[1] is not None, arguments
            self._do(Op("move", paths[0], to=paths[1]))
        elif call.startswith("link"):
            assert paths[1] is not None, arguments
            self._do(Op("link", paths[0], to=paths[1]))
        elif call.startswith("mkdir"):
            self._do(Op("makedir", paths[0]))
        elif call.startswith(("unlink", "rmdir")):
            self._do(Op("drop", paths[0]))
        else:
            raise AssertionError(f"{call}({arguments}): not expected")

    def _file(self, call: str, arguments: str, result: str, since: int) -> None:
        file = _FILE.search(arguments)
        if file is None:
            return  # an anonymous mapping
        name = _text(file[2])
        if call == "pwrite64" and name == f"{self._log}-wal":
            for number in PREDICTION.findall(_string(arguments)):
                self._do(Op("seen", data=number))
        path = self._inside(name)
        if path is None:
            return
        if call in {"fsync", "fdatasync"}:
            self._do(Op("sync", path, since=since))
        elif call == "lseek":
            self._places[file[1]] = int(result)
        elif call == "write":
            data = _string(arguments)[: int(result)]
            at = self._places[file[1]]
            self._places[file[1]] = at + len(data)
            self._do(Op("write", path, data, at))
        elif call == "pwrite64":
            self._do(Op("write", path, _string(arguments)[: int(result)], int(arguments.rpartition(",")[2])))
        elif call == "ftruncate":
            self._do(Op("cut", path, number=int(arguments.rpartition(",")[2])))
        elif call == "mmap":
            assert not ("MAP_SHARED" in arguments and "PROT_WRITE" in arguments and "snapshots/" not in path), path
        elif call not in {"close", "fallocate"} or (call == "fallocate" and "snapshots/" not in path):
            raise AssertionError(f"{call}({arguments}): not expected")


def _text(escaped: str) -> str:
    return bytes.fromhex(escaped.replace("\\x", "")).decode()


def _string(arguments: str) -> bytes:
    match = _STRING.search(arguments)
    assert match, arguments[:200]
    return bytes.fromhex(match[1].replace("\\x", ""))
