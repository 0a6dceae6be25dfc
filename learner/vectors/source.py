"""What are word vectors read from: a text file, or the two files of a static embedding model?"""

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from driftline.learner.vectors import static_model, text_file
from driftline.learner.vectors.blocks import Block
from driftline.stream.errors import ConfigError


class Source(NamedTuple):
    """Open files.

    Attributes
    ----------
    name : as it was named: a file, or a model's directory
    """

    name: Path
    paths: list[Path]
    files: list[BinaryIO]

    @property
    def key(self) -> tuple[int, ...]:
        """What changes where another file is put there, or something is written."""
        found = [os.fstat(file.fileno()) for file in self.files]
        return tuple(n for each in found for n in (each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns))

    @property
    def stamp(self) -> tuple[int, int]:
        """Bytes, and when they were written last, in nanoseconds since 1970: what changes where they do."""
        found = [os.fstat(file.fileno()) for file in self.files]
        return sum(each.st_size for each in found), max(each.st_mtime_ns for each in found)

    def sha256(self) -> str:
        """Return the SHA-256 of the file; of two, that of both sums, one after the other."""
        sums = []
        for file in self.files:
            file.seek(0)
            sums.append(hashlib.file_digest(cast(io.BufferedReader, file), "sha256").hexdigest())
        return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()

    def blocks(self) -> Iterator[Block]:
        """Give the words and their vectors. Raises ConfigError, OSError."""
        self.files[0].seek(0)
        if len(self.files) == 1:
            return text_file.blocks(self.name, self.files[0])
        return static_model.blocks(self.paths[0], self.paths[1])


@contextmanager
def opened_source(path: Path) -> Iterator[Source]:
    """Open what is named, a file or a directory. Raises ConfigError where it can be neither, OSError."""
    if path.is_dir():
        paths = [path / static_model.MODEL, path / static_model.TOKENIZER]
    elif path.suffix == static_model.SUFFIX:
        paths = [path, path.with_name(static_model.TOKENIZER)]
    else:
        paths = [path]
    with ExitStack() as stack:
        files: list[BinaryIO] = []
        for each in paths:
            if not stat.S_ISREG(each.stat().st_mode):
                raise ConfigError(f"vectors: {each} is no file")
            files.append(stack.enter_context(each.open("rb")))
        yield Source(path, paths, files)
