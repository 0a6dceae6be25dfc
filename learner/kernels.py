"""How are the hot loops compiled, and where do they stay compiled?

numba compiles a kernel at its first call and keeps it on the disk. It looks for changes only in the file of the kernel
itself, not in those that the kernel calls; so here each state of the files with kernels has a directory of its own, and
a kernel can never be older than what it was compiled from. NUMBA_CACHE_DIR puts it elsewhere.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numba

HERE: Final = Path(__file__).parent
PREFIX: Final = "kernels-"


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function for batches: without the GIL, kept on the disk."""
    return numba.njit(nogil=True, cache=True)(function)


def _choose_directory() -> None:
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    sources = (path.read_bytes() for path in sorted(HERE.glob("*.py")))
    with_kernels = b"".join(source for source in sources if b"learner.kernels" in source)
    name = PREFIX + hashlib.blake2b(with_kernels, digest_size=8).hexdigest()
    for parent in (HERE / "__pycache__", Path.home() / ".cache" / "driftline"):
        try:
            (parent / name).mkdir(parents=True, exist_ok=True)
        except OSError:  # a read-only installation
            continue
        if os.access(parent / name, os.W_OK):
            for old in parent.glob(f"{PREFIX}*"):
                if old.name != name:
                    shutil.rmtree(old, ignore_errors=True)
            numba.config.CACHE_DIR = str(parent / name)  # type: ignore[attr-defined]
            return


_choose_directory()
