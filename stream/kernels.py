"""How are the hot loops compiled, and where do they stay compiled?

numba compiles a kernel at its first call and keeps it on the disk. It looks for changes only in the file of the kernel
itself, not in those that the kernel calls; so here each state of the files with kernels has a directory of its own, and
a kernel can never be older than what it was compiled from. NUMBA_CACHE_DIR puts it elsewhere.
"""

import hashlib
import os
import shutil
import sys
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


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function into each kernel that calls it.

    A call hands over seven numbers for each array: with the buffers of a text, or a tree's memory, they take longer
    than hashing a text does.
    """
    compiler: Any = numba.njit
    return compiler(nogil=True, cache=True, error_model="numpy", _nrt=False, forceinline=True)(function)


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

# What follows looks at AT_ONCE places of an array at once and tells by a bit of each: LLVM's own vectors, so that every
# processor does it in as few steps as it can, and what numba's loops are not turned into. Nothing is checked.
AT_ONCE: Final = 64
_BITS: Final = ir.IntType(AT_ONCE)


def _vector(context: Any, builder: Any, array_type: Any, array: Any, place: Any) -> Any:
    """Load AT_ONCE values of an array from a place on."""
    element = context.get_data_type(array_type.dtype)
    pointer = builder.gep(context.make_array(array_type)(context, builder, array).data, [place])
    vector = ir.VectorType(element, AT_ONCE)
    load = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    load.align = array_type.dtype.bitwidth // 8
    return load


def _splat(builder: Any, value: Any) -> Any:
    """Return a vector of AT_ONCE times the same value."""
    vector = ir.VectorType(value.type, AT_ONCE)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), AT_ONCE), [0] * AT_ONCE)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)


def _in_range(_: Any, array: Any, _place: Any, _first: Any, _count: Any) -> Any:
    """Return, as bits, which of AT_ONCE values from a place on are first, first + 1, ... first + count - 1."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = _vector(context, builder, signature.args[0], arguments[0], arguments[1])
        first, count = (_splat(builder, argument) for argument in arguments[2:])
        return builder.bitcast(builder.icmp_unsigned("<", builder.sub(values, first), count), _BITS)

    return types.uint64(array, types.intp, array.dtype, array.dtype), generate


def _same(_: Any, array: Any, _place: Any, _other: Any) -> Any:
    """Return, as bits, which of AT_ONCE values from a place on equal those from another one on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one, other = (_vector(context, builder, signature.args[0], arguments[0], place) for place in arguments[1:])
        return builder.bitcast(builder.icmp_unsigned("==", one, other), _BITS)

    return types.uint64(array, types.intp, types.intp), generate


def _first_bit(_: Any, _bits: Any) -> Any:
    """Return the place of the lowest bit, 64 if there is none."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(0))

    return types.uint64(types.uint64), generate


def _count_bits(_: Any, _bits: Any) -> Any:
    """Return how many bits there are."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


def _eight_bytes(_: Any, array: Any, _place: Any) -> Any:
    """Return eight bytes of an array as a number, the first one lowest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        load = builder.load(builder.bitcast(builder.gep(data, [arguments[1]]), _BITS.as_pointer()))
        load.align = 1
        return load if sys.byteorder == "little" else builder.bswap(load)

    return types.uint64(array, types.intp), generate


in_range: Final[Any] = intrinsic(_in_range)
same: Final[Any] = intrinsic(_same)
first_bit: Final[Any] = intrinsic(_first_bit)
count_bits: Final[Any] = intrinsic(_count_bits)
eight_bytes: Final[Any] = intrinsic(_eight_bytes)


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
