"""How are the hot loops compiled, and where do they stay compiled?

numba compiles a kernel at its first call and keeps it on the disk, for one processor and one version of numba. It looks
for changes only in the file of the kernel itself: not in those that the kernel calls, and not in those whose constants
it has frozen. So here each state of all these files has a directory of its own, and a kernel can never be older than
what it was compiled from. NUMBA_CACHE_DIR says where those directories are.
"""

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

import llvmlite
import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

HERE: Final = Path(__file__).parent
FOLDERS: Final = ("stream", "learner")
PREFIX: Final = "kernels-"
KERNELS: Final[list[Any]] = []  # all that were imported, for who wants to know how many of them are compiled
KEPT: Final = 4  # states of the sources whose kernels stay: two versions may take turns, and a branch come back
# What numba itself does not tell apart: options by which the same source becomes other code.
OPTIONS: Final = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT")
_IMPORT: Final = re.compile(rb"^(?:from|import) +([\w.]+)(?: +import +(\([^)]*\)|[^\n#]*))?", re.MULTILINE)


def digest(package: Path) -> str:
    """Return what changes with anything that a kernel is made of: sources, numba, its options.

    The sources are the files with kernels and all of ours that they import, and so on: a global is a constant to numba.

    Parameters
    ----------
    package : the folder in which FOLDERS are
    """
    sources = {
        ".".join(("driftline", *path.relative_to(package).with_suffix("").parts)).encode(): path.read_bytes()
        for folder in FOLDERS
        for path in sorted((package / folder).rglob("*.py"))
    }
    found: set[bytes] = set()
    left = [name for name, source in sources.items() if b".kernels import" in source]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            for module, names in _IMPORT.findall(sources[name]):
                imported = {module, *(module + b"." + each for each in re.findall(rb"\w+", names))}
                left += imported & sources.keys()
    made = hashlib.blake2b(digest_size=8)
    options = [getattr(numba.config, option, None) for option in OPTIONS]
    made.update(repr((numba.__version__, llvmlite.__version__, options)).encode())
    for name in sorted(found):
        made.update(b"%d %s %d " % (len(name), name, len(sources[name])) + sources[name])
    return made.hexdigest()


def _choose_directory() -> str | None:
    """Return where the kernels of this state of the sources are kept; None where nothing can be written."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    name = PREFIX + digest(HERE.parent)
    for parent in (Path(chosen),) if chosen else (HERE / "__pycache__", Path.home() / ".cache" / "driftline"):
        own = parent / name
        try:
            own.mkdir(parents=True, exist_ok=True)
            os.utime(own)  # used last
        except OSError:  # a read-only installation
            continue
        if os.access(own, os.W_OK):
            _forget(parent)
            return str(own)
    return None


def _forget(parent: Path) -> None:
    """Delete the kernels that were used longest ago, but for KEPT states of the sources."""

    def used(path: Path) -> float:
        with suppress(OSError):
            return path.stat().st_mtime
        return 0.0

    for old in sorted(parent.glob(f"{PREFIX}*"), key=used, reverse=True)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


DIRECTORY: Final = _choose_directory()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function for batches: without the GIL, kept on the disk.

    A division by zero gives what IEEE 754 says, as in NumPy: to look for it would keep loops from being vectorised.
    Without numba's runtime a kernel can allocate nothing, but counts no references either: two atomic steps for each
    array in a tuple and each slice, which cost as much as the hashing of a text.
    """
    return _made(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function into each kernel that calls it.

    A call hands over seven numbers for each array: with the buffers of a text, or a tree's memory, they take longer
    than hashing a text does.
    """
    return _made(function, forceinline=True)


class Callback:
    """A compiled function that a library of C is given."""

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        self._function, self._signature = function, signature

    @cached_property
    def address(self) -> int:
        """Where its machine code lies, which is compiled, or loaded compiled, where it is first asked for."""
        compiler = cast(Any, numba.cfunc)
        made = _kept(compiler(self._signature, cache=True, error_model="numpy", _nrt=False), self._function)
        self._code = made  # it lives as long as this does
        return int(made.address)


def callback(signature: Any) -> Callable[[Callable[..., Any]], Callback]:
    """Make a function one that C calls, in whichever thread, without the GIL."""
    return lambda function: Callback(function, signature)


def _made(function: Callable[..., Any], **options: bool) -> Any:
    """Return what numba makes of a function."""
    compiler = cast(Any, numba.njit)  # its types do not know _nrt
    made = _kept(compiler(nogil=True, cache=True, error_model="numpy", _nrt=False, **options), function)
    KERNELS.append(made)
    return made


def _kept(compiler: Callable[..., Any], function: Callable[..., Any]) -> Any:
    """Return what a compiler of numba's makes. It is told where that is kept, and not where others' kernels are."""
    config = cast(Any, numba.config)
    before = config.CACHE_DIR
    config.CACHE_DIR = DIRECTORY or before
    try:
        return compiler(function)
    finally:
        config.CACHE_DIR = before


def called_by(kernels: Iterable[Any]) -> list[Any]:
    """Return kernels, and those that they call, and so on; each once."""
    found: dict[int, Any] = {}
    left = list(kernels)
    while left:
        one = left.pop()
        if id(one) not in found:
            found[id(one)] = one
            names = one.py_func.__code__.co_names
            known = {id(other): other for other in KERNELS}
            left += [each for name in names if id(each := one.py_func.__globals__.get(name)) in known]
    return list(found.values())


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


def _prefetching(write: int) -> Callable[..., Any]:
    """Return what asks the memory for the cache line of a place in an array; it changes nothing, waits for nothing."""

    def prefetch(_: Any, array: Any, _place: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
            number = ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
            builder.call(function, [pointer, number(write), number(3), number(1)])  # to keep, data
            return context.get_dummy_value()

        return types.void(array, types.intp), generate

    return prefetch


prefetch: Final[Any] = intrinsic(_prefetching(1))  # to be written, too
prefetch_only: Final[Any] = intrinsic(_prefetching(0))  # where nobody may write, the other one does nothing

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
