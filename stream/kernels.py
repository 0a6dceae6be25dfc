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
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

HERE: Final = Path(__file__).parent
FOLDERS: Final = ("stream", "learner")
PREFIX: Final = "kernels-"


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function for batches: without the GIL, kept on the disk.

    A division by zero gives what IEEE 754 says, as in NumPy: to look for it would keep loops from being vectorised.
    Without numba's runtime a kernel can allocate nothing, but counts no references either: two atomic steps for each
    array in a tuple and each slice, which cost as much as the hashing of a text.
    """
    compiler: Any = numba.njit  # its types do not know _nrt
    return compiler(nogil=True, cache=True, error_model="numpy", _nrt=False)(function)


@kernel
def copy(source, target):  # type: ignore[no-untyped-def]
    """Copy a row. `target[:] = source` would need numba's runtime: they might overlap."""
    for i in range(source.shape[0]):
        target[i] = source[i]


@kernel
def are_equal(data, at, other, there, size):  # type: ignore[no-untyped-def]
    """Tell whether some bytes are the same."""
    for i in range(size):  # noqa: SIM110  (a generator would need numba's runtime)
        if data[at + i] != other[there + i]:
            return False
    return True


def _prefetch(_: Any, array: Any, _place: Any) -> Any:
    """Ask the memory for the cache line of a place in an array, to be written; change nothing, wait for nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        builder.call(function, [pointer, number(1), number(3), number(1)])  # to write, to keep, data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


prefetch: Final[Any] = intrinsic(_prefetch)


def _choose_directory() -> None:
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    sources = (path.read_bytes() for folder in FOLDERS for path in sorted((HERE.parent / folder).glob("*.py")))
    with_kernels = b"".join(source for source in sources if b".kernels import" in source)
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
