"""What becomes of who has mapped a file, when somebody cuts it short, or the disk cannot give a part of it?

Linux then has no page to give to whoever looks there, and ends the process (SIGBUS); to look at the file's size before
does not help, since it may be cut between the two. So here the signal is met: a few instructions put empty memory in
the place of what is missing, note that, and whoever read there goes on with zeros and finds the note before it believes
them: `cut`. systemd and the X server do the same (sigbus.c, busfault.c). A mapping that is not one of ours (SQLite has
some) still ends the process, since nobody would look for a note there.

The handler is LLVM's, since no Python may run in it: it takes no lock, no memory, and calls mmap and sigaction alone.
"""

import ctypes
import mmap
import signal
import sys
import threading
import weakref
from typing import Any, Final

import numpy as np
from llvmlite import binding
from numpy.typing import NDArray

PLACES: Final = 256  # mappings that are guarded at once; more of them are as they would be without
END, CUT, WORDS = 1, 2, 3  # of a place: int64 each, the first is where it begins
_MAP_FIXED: Final = 0x10  # sys/mman.h
_SA_SIGINFO: Final = 4  # signal.h
_SIGACTION_BYTES: Final = 152  # of 64-bit Linux, as glibc and musl have it: handler, mask, flags, restorer
_FLAGS_AT: Final = 136

# `number`, `info`, `context` as sigaction(2) has them; si_addr is 16 bytes into the info.
_HANDLER: Final = """
define void @on_sigbus(i32 %number, ptr %info, ptr %context) {{
begin:
  %field = getelementptr i8, ptr %info, i64 16
  %address = load i64, ptr %field
  br label %look
look:
  %place = phi i64 [ {table}, %begin ], [ %next, %go_on ]
  %start_at = inttoptr i64 %place to ptr
  %end_at = getelementptr i64, ptr %start_at, i64 {END}
  %start = load volatile i64, ptr %start_at
  %end = load volatile i64, ptr %end_at
  %behind = icmp uge i64 %address, %start
  %before = icmp ult i64 %address, %end
  %within = and i1 %behind, %before
  br i1 %within, label %mend, label %go_on
go_on:
  %next = add i64 %place, {place_bytes}
  %over = icmp eq i64 %next, {table_end}
  br i1 %over, label %leave, label %look
mend:
  %cut_at = getelementptr i64, ptr %start_at, i64 {CUT}
  store volatile i64 1, ptr %cut_at
  %page = and i64 %address, {page_mask}
  %length = sub i64 %end, %page
  %map = inttoptr i64 {mmap} to ptr
  %mapped = call i64 %map(i64 %page, i64 %length, i32 {protection}, i32 {how}, i32 -1, i64 0)
  %done = icmp eq i64 %mapped, %page
  br i1 %done, label %end_of_it, label %leave
leave:
  %restore = inttoptr i64 {sigaction} to ptr
  %ignored = call i32 %restore(i32 %number, i64 {before}, i64 0)
  br label %end_of_it
end_of_it:
  ret void
}}
"""

_lock: Final = threading.Lock()
_table: Final[NDArray[np.int64]] = np.zeros((PLACES + 1, WORDS), np.int64)  # of the last one nothing is noted
_notes: Final = _table.reshape(-1).data.cast("B").cast("q")  # quicker to look at than an array
_before: Final = ctypes.create_string_buffer(_SIGACTION_BYTES)
_engine: Any = None  # keeps the handler's code


class Mapped:
    """A file's bytes, mapped, as an array that claims to be writable (`np.asarray`), and whether they are still there.

    A kernel is compiled once, for arrays that it may write to, and refuses others, even where it would only read them.
    Any thread; the arrays keep the mapping.
    """

    def __init__(self, mapped: mmap.mmap) -> None:
        self._map, self._bytes = mapped, np.frombuffer(mapped, np.uint8)
        address, _ = self._bytes.__array_interface__["data"]
        self.__array_interface__: dict[str, Any] = self._bytes.__array_interface__ | {"data": (address, False)}
        place = _guard(address, len(mapped))
        self._note_at = place * WORDS + CUT
        if place < PLACES:  # given back before the memory is: another's may be there next
            weakref.finalize(self, _forget, place).atexit = False

    @property
    def cut(self) -> bool:
        """Whether something of it was missing when it was looked at: nothing of it is to be believed from then on."""
        return _notes[self._note_at] != 0

    def is_whole(self) -> bool:
        """Tell whether the file has its size, and nothing of it was missing so far."""
        return self._map.size() >= len(self._map) and not self.cut


def _guard(address: int, n_bytes: int) -> int:
    """Return the place of a mapping in the table; PLACES where there is no handler for it, or no room."""
    with _lock:
        free = np.flatnonzero(_table[:PLACES, END] == 0)
        if not len(free) or not _install():
            return PLACES
        place = int(free[0])
        _table[place] = address, 0, 0
        _table[place, END] = address + n_bytes  # from now on it counts
        return place


def _forget(place: int) -> None:
    _table[place, END] = 0


def _install() -> bool:
    """Have the signal met in this process, and in those that are forked from it; tell whether that could be done."""
    global _engine  # noqa: PLW0603
    if _engine is not None:
        return True
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    library = ctypes.CDLL(None)
    address = _table.ctypes.data
    source = _HANDLER.format(
        table=address,
        table_end=address + _table.nbytes,
        place_bytes=WORDS * 8,
        END=END,
        CUT=CUT,
        page_mask=-mmap.PAGESIZE,
        mmap=ctypes.cast(library.mmap, ctypes.c_void_p).value,
        sigaction=ctypes.cast(library.sigaction, ctypes.c_void_p).value,
        before=ctypes.addressof(_before),
        protection=mmap.PROT_READ | mmap.PROT_WRITE,
        how=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED,
    )
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = binding.parse_assembly(source)
    _engine = binding.create_mcjit_compiler(module, binding.Target.from_default_triple().create_target_machine())
    _engine.finalize_object()
    action = ctypes.create_string_buffer(_SIGACTION_BYTES)
    ctypes.c_uint64.from_buffer(action).value = _engine.get_function_address("on_sigbus")
    ctypes.c_int.from_buffer(action, _FLAGS_AT).value = _SA_SIGINFO
    return bool(library.sigaction(int(signal.SIGBUS), action, _before) == 0)
