"""How are records read from Kafka without an object for each?

Through the C interface of the librdkafka that confluent-kafka brings along: a kernel copies keys, values, offsets and
times of a whole batch into columns. Appending goes the same way (sender.py); everything else stays with
confluent-kafka. Where its library cannot be found or has no such symbols, `load` gives None, and reader.py and
producer.py do with confluent-kafka itself.

The layout of `rd_kafka_message_t` is part of librdkafka's public interface (rdkafka.h), the same since 0.9.
"""

import ctypes
import logging
import sys
import weakref
from collections.abc import Callable, Mapping
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_ssize_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import confluent_kafka as ck
import numpy as np
from confluent_kafka import KafkaError, KafkaException
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from driftline.stream.kernels import kernel
from driftline.stream.log.base import Chunk, TopicPartition
from driftline.stream.wire.column import PADDING, Column
from driftline.stream.wire.records import Headers

Ints = NDArray[np.int64]

PRODUCER, CONSUMER = 0, 1  # RD_KAFKA_PRODUCER, RD_KAFKA_CONSUMER
_TEXT_BYTES: Final = 512  # of an error
# Places in rd_kafka_message_t, bytes.
_ERR, _TOPIC, _PARTITION, _PAYLOAD, _SIZE, _KEY, _KEY_SIZE, _OFFSET = 0, 8, 16, 24, 32, 40, 48, 56
# Columns of what `look` finds.
ERROR, TOPIC, PARTITION, VALUE_SIZE, KEY_SIZE, OFFSET, TIME_MS, HEADERS = range(8)
N_COLUMNS: Final = 8

_ON_ERROR = CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_void_p)
_ON_LOG = CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_char_p)
_LEVELS: Final = (50, 50, 50, 40, 30, 20, 20, 10)  # of syslog, as logging has them
_log = logging.getLogger(__name__)

# Name, result, arguments.
_FUNCTIONS: Final[list[tuple[str, Any, list[Any]]]] = [
    ("conf_new", c_void_p, []),
    ("conf_destroy", None, [c_void_p]),
    ("conf_set", c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    ("conf_set_error_cb", None, [c_void_p, _ON_ERROR]),
    ("conf_set_log_cb", None, [c_void_p, _ON_LOG]),
    ("conf_set_dr_msg_cb", None, [c_void_p, c_void_p]),
    ("conf_set_opaque", None, [c_void_p, c_void_p]),
    ("new", c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    ("set_log_queue", c_int, [c_void_p, c_void_p]),
    ("poll_set_consumer", c_int, [c_void_p]),
    ("queue_get_consumer", c_void_p, [c_void_p]),
    ("queue_destroy", None, [c_void_p]),
    ("topic_partition_list_new", c_void_p, [c_int]),
    ("topic_partition_list_add", c_void_p, [c_void_p, c_char_p, c_int32]),
    ("topic_partition_list_set_offset", c_int, [c_void_p, c_char_p, c_int32, c_int64]),
    ("topic_partition_list_destroy", None, [c_void_p]),
    ("assign", c_int, [c_void_p, c_void_p]),
    ("pause_partitions", c_int, [c_void_p, c_void_p]),
    ("resume_partitions", c_int, [c_void_p, c_void_p]),
    ("consume_batch_queue", c_ssize_t, [c_void_p, c_int, c_void_p, c_size_t]),
    ("message_errstr", c_char_p, [c_void_p]),
    ("message_headers", c_int, [c_void_p, c_void_p]),
    ("message_timestamp", c_int64, [c_void_p, c_void_p]),
    ("message_destroy", None, [c_void_p]),
    ("header_get_all", c_int, [c_void_p, c_size_t, POINTER(c_char_p), POINTER(c_void_p), POINTER(c_size_t)]),
    ("topic_name", c_char_p, [c_void_p]),
    ("consumer_close", c_int, [c_void_p]),
    ("destroy", None, [c_void_p]),
    ("topic_new", c_void_p, [c_void_p, c_char_p, c_void_p]),
    ("topic_destroy", None, [c_void_p]),
    ("produceva", c_void_p, [c_void_p, c_void_p, c_size_t]),
    ("headers_new", c_void_p, [c_size_t]),
    ("header_add", c_int, [c_void_p, c_char_p, c_ssize_t, c_char_p, c_ssize_t]),
    ("headers_destroy", None, [c_void_p]),
    ("error_code", c_int, [c_void_p]),
    ("error_string", c_char_p, [c_void_p]),
    ("error_is_fatal", c_int, [c_void_p]),
    ("error_destroy", None, [c_void_p]),
    ("name", c_char_p, [c_void_p]),
    ("poll", c_int, [c_void_p, c_int]),
    ("flush", c_int, [c_void_p, c_int]),
    ("purge", c_int, [c_void_p, c_int]),
    ("outq_len", c_int, [c_void_p]),
]


class Event(NamedTuple):
    """What came instead of a record."""

    topic: str
    partition: int
    offset: int
    error: KafkaError


class Taken(NamedTuple):
    """What came at once.

    Attributes
    ----------
    chunks : the records
    told : in their order, the events, and partitions of which records came before, between and after them
    """

    chunks: list[Chunk]
    told: list[Event | TopicPartition]


@cache
def load() -> Any:
    """Return librdkafka with its functions declared, the same that confluent-kafka uses; None where it is not there."""
    folder = Path(ck.__file__).parent
    for path in sorted([*folder.parent.glob("confluent_kafka.libs/librdkafka*"), *folder.glob(".dylibs/librdkafka*")]):
        try:
            library = ctypes.CDLL(str(path))
            for name, result, arguments in _FUNCTIONS:
                function = getattr(library, f"rd_kafka_{name}")
                function.restype, function.argtypes = result, arguments
                setattr(library, name, function)
        except (OSError, AttributeError) as error:
            _log.warning("records are read the slower way: %s", error)
            continue
        if ctypes.sizeof(c_void_p) == 8 and sys.byteorder == "little":  # what the layout above is for
            return library
    return None


def open_client(
    library: Any,
    kind: int,
    config: Mapping[str, Any],
    on_error: Callable[[KafkaError], None],
    logger: logging.Logger,
    prepare: Callable[[int], None] = lambda _: None,
) -> tuple[int, Any]:
    """Return a client of librdkafka, and its callbacks, which have to live as long.

    They are called by who polls the client. `prepare` is given the address of the configuration.

    Raises
    ------
    KafkaException : a property is none.
    """

    def say(client: int, level: int, facility: bytes, text: bytes) -> None:
        words = [each.decode(errors="replace") for each in (facility, library.name(client) or b"", text)]
        logger.log(_LEVELS[level & 7], "%s [%s] %s", *words)  # as confluent-kafka does

    callbacks = (
        _ON_ERROR(lambda _, code, reason, __: on_error(KafkaError(code, (reason or b"").decode(errors="replace")))),
        _ON_LOG(say),
    )
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    conf = library.conf_new()
    for name, value in {**config, "log.queue": True}.items():
        given = str(value).lower() if isinstance(value, bool) else str(value)
        if library.conf_set(conf, name.encode(), given.encode(), text, _TEXT_BYTES):
            library.conf_destroy(conf)
            raise KafkaException(KafkaError(KafkaError._INVALID_ARG, text.value.decode(errors="replace")))
    library.conf_set_error_cb(conf, callbacks[0])
    library.conf_set_log_cb(conf, callbacks[1])
    prepare(conf)
    client = library.new(kind, conf, text, _TEXT_BYTES)
    if not client:
        library.conf_destroy(conf)
        raise KafkaException(KafkaError(KafkaError._INVALID_ARG, text.value.decode(errors="replace")))
    library.set_log_queue(client, None)
    return client, callbacks


class Consumer:
    """A consumer with partitions assigned to it. One thread.

    Parameters
    ----------
    config : librdkafka's properties
    positions : which partitions to read, and from where
    on_error : called with what is wrong with a broker or the whole client, from within `take`

    Raises
    ------
    KafkaException : a property is none.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        positions: Mapping[TopicPartition, int],
        on_error: Callable[[KafkaError], None],
        logger: logging.Logger,
    ) -> None:
        self._library = library = load()
        self._names = {(p.topic, p.partition): p for p in positions}
        client, callbacks = open_client(library, CONSUMER, config, on_error, logger)
        library.poll_set_consumer(client)
        self._client, self._queue = client, library.queue_get_consumer(client)
        # Before the interpreter goes: librdkafka's threads would call back into nothing.
        self._close = weakref.finalize(self, _close, library, client, self._queue, callbacks)
        self._with_list(library.assign, positions)
        self._pointers: Ints = np.empty(0, np.int64)
        self._look_at: Ints = np.array(
            [address_of(library.message_timestamp), address_of(library.message_headers)], np.int64
        )
        self._destroy = address_of(library.message_destroy)

    def take(self, max_records: int, timeout_s: float) -> Taken:
        """Return what is there; wait until there is as much, or the time is over."""
        if max_records > len(self._pointers):
            self._pointers = np.empty(max_records, np.int64)
        milliseconds, room = max(0, int(timeout_s * 1000)), self._pointers.ctypes.data
        n = self._library.consume_batch_queue(self._queue, milliseconds, room, max_records)
        if n <= 0:
            return Taken([], [])
        pointers = self._pointers[:n]
        found = np.empty((n, N_COLUMNS), np.int64)
        try:
            look(pointers, self._look_at, found)
            told = self._told(pointers, found)
            chunks = [self._chunk(partition, pointers[which], found[which]) for partition, which in self._runs(found)]
        finally:
            destroy(pointers, self._destroy)
        return Taken(chunks, told)

    def pause(self, partition: TopicPartition) -> None:
        """Leave a partition out; what was fetched of it and not taken is fetched again."""
        self._with_list(self._library.pause_partitions, {partition: 0})

    def resume(self, partition: TopicPartition) -> None:
        """Take a partition up again."""
        self._with_list(self._library.resume_partitions, {partition: 0})

    def close(self) -> None:
        """Give back sockets and threads."""
        self._close()

    def _with_list(self, function: Any, positions: Mapping[TopicPartition, int]) -> None:
        library = self._library
        partitions = library.topic_partition_list_new(len(positions))
        for (topic, number), offset in positions.items():
            library.topic_partition_list_add(partitions, topic.encode(), number)
            library.topic_partition_list_set_offset(partitions, topic.encode(), number, offset)
        error = function(self._client, partitions)
        library.topic_partition_list_destroy(partitions)
        if error:
            raise KafkaException(KafkaError(error))

    def _name(self, topic: int, number: int) -> tuple[str, int]:
        raw = self._library.topic_name(topic) if topic else b""
        return (raw or b"").decode(errors="replace"), number

    def _runs(self, found: Ints) -> list[tuple[TopicPartition, Any]]:
        """Return which records are of which partition."""
        good = np.flatnonzero(found[:, ERROR] == 0)
        if not len(good):
            return []
        if len(self._names) == 1:
            (partition,) = self._names.values()
            return [(partition, slice(None) if len(good) == len(found) else good)]
        of = np.unique(found[good][:, [TOPIC, PARTITION]], axis=0)
        return [
            (self._names[self._name(*pair)], good[(found[good][:, [TOPIC, PARTITION]] == pair).all(axis=1)])
            for pair in of.tolist()
        ]

    def _told(self, pointers: Ints, found: Ints) -> list[Event | TopicPartition]:
        odd = np.flatnonzero(found[:, ERROR]).tolist()
        told: list[Event | TopicPartition] = []
        start = 0
        for place in [*odd, len(found)]:
            told += [partition for partition, _ in self._runs(found[start:place])]
            if place < len(found):
                topic, number = self._name(*found[place, [TOPIC, PARTITION]].tolist())
                text = (self._library.message_errstr(int(pointers[place])) or b"").decode(errors="replace")
                error = KafkaError(int(found[place, ERROR]), text)
                told.append(Event(topic, number, int(found[place, OFFSET]), error))
            start = place + 1
        return told

    def _chunk(self, partition: TopicPartition, pointers: Ints, found: Ints) -> Chunk:
        keys, values = (_room(found[:, column]) for column in (KEY_SIZE, VALUE_SIZE))
        gather(np.ascontiguousarray(pointers), keys[0], keys[1], values[0], values[1])
        headers = None
        if found[:, HEADERS].any():
            headers = [self._headers(each) if each else None for each in found[:, HEADERS].tolist()]
        offsets, times_ms = (np.ascontiguousarray(found[:, column]) for column in (OFFSET, TIME_MS))
        missing = (found[:, [KEY_SIZE, VALUE_SIZE]] < 0).T
        columns = [
            Column(data, starts, none if none.any() else None)
            for (data, starts), none in zip((keys, values), missing, strict=True)
        ]
        return Chunk(partition, offsets, times_ms, columns[0], columns[1], headers)

    def _headers(self, headers: int) -> Headers | None:
        """Return a record's headers; None too where a header's name is not UTF-8, so that it stops nobody."""
        name, value, size = c_char_p(), c_void_p(), c_size_t()
        found: Headers = []
        while self._library.header_get_all(headers, len(found), byref(name), byref(value), byref(size)) == 0:
            try:
                text = (name.value or b"").decode()
            except UnicodeDecodeError:
                _log.warning("a header's name is not UTF-8: that record's headers are left out")
                return None
            found.append((text, ctypes.string_at(value.value, size.value) if value.value else b""))
        return found


def warm_up() -> None:
    """Compile the kernels, or load them compiled, so that no record waits for that."""
    none = np.empty(0, np.int64)
    keys, values = _room(none), _room(none)
    low_int(0)
    look(none, np.zeros(2, np.int64), np.empty((0, N_COLUMNS), np.int64))
    gather(none, keys[0], keys[1], values[0], values[1])
    destroy(none, 0)


def _close(library: Any, client: int, queue: int, callbacks: Any) -> None:
    library.consumer_close(client)
    library.queue_destroy(queue)
    library.destroy(client)
    del callbacks  # until here they may be called


def address_of(function: Any) -> int:
    """Return where a function of the library lies."""
    return int(ctypes.cast(function, c_void_p).value or 0)


def _room(sizes: Ints) -> tuple[NDArray[np.uint8], Ints]:
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(np.maximum(sizes, 0), out=starts[1:])
    data = np.empty(starts[-1] + PADDING, np.uint8)
    data[starts[-1] :] = 0
    return data, starts


# Memory that is not Python's.


def _load(_: Any, address: Any) -> Any:
    """Return the 64 bits at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

    del address
    return types.int64(types.int64), generate


def _calling(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
    """Call a C function whose arguments and result have 64 bits."""
    number = ir.IntType(64)
    kind = ir.FunctionType(number, [number] * (len(arguments) - 1))
    return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])


def _call(_: Any, function: Any, first: Any, second: Any) -> Any:
    """Return what a C function of two arguments gives."""
    del function, first, second
    return types.int64(types.int64, types.int64, types.int64), _calling


def _call3(_: Any, function: Any, first: Any, second: Any, third: Any) -> Any:
    """Return what a C function of three arguments gives."""
    del function, first, second, third
    return types.int64(types.int64, types.int64, types.int64, types.int64), _calling


def _store(_: Any, address: Any, word: Any) -> Any:
    """Write 64 bits to an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del signature
        builder.store(arguments[1], builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))
        return context.get_dummy_value()

    del address, word
    return types.void(types.int64, types.int64), generate


def _fetch(_: Any, address: Any, size: Any, array: Any, place: Any) -> Any:
    """Copy bytes from an address to a place in an array of bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, count, target, start = arguments
        data = context.make_array(signature.args[2])(context, builder, target).data
        byte = ir.IntType(8).as_pointer()
        place = builder.gep(data, [start])
        cgutils.raw_memcpy(builder, place, builder.inttoptr(source, byte), count, 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    del address, size, place
    return types.void(types.int64, types.int64, array, types.intp), generate


load_at: Final[Any] = intrinsic(_load)
store_at: Final[Any] = intrinsic(_store)
call: Final[Any] = intrinsic(_call)
call3: Final[Any] = intrinsic(_call3)
fetch: Final[Any] = intrinsic(_fetch)
_INT: Final = (1 << 32) - 1


@kernel
def low_int(word):  # type: ignore[no-untyped-def]
    """Return the low half of 64 bits as a number with a sign."""
    half = word & _INT
    return half - (1 << 32) if half >> 31 else half


@kernel
def look(pointers, functions, found):  # type: ignore[no-untyped-def]
    """Write what messages say of themselves, -1 for the size of what is not there.

    Parameters
    ----------
    pointers : int64 [n], of rd_kafka_message_t
    functions : int64 [2], the addresses of rd_kafka_message_timestamp and rd_kafka_message_headers
    found : int64 [n, N_COLUMNS], changed; HEADERS is the address of headers, or 0
    """
    for i in range(pointers.shape[0]):
        at, row = pointers[i], found[i]
        row[ERROR] = low_int(load_at(at + _ERR))
        row[TOPIC] = load_at(at + _TOPIC)
        row[PARTITION] = low_int(load_at(at + _PARTITION))
        row[VALUE_SIZE] = load_at(at + _SIZE) if load_at(at + _PAYLOAD) != 0 else -1
        row[KEY_SIZE] = load_at(at + _KEY_SIZE) if load_at(at + _KEY) != 0 else -1
        row[OFFSET] = load_at(at + _OFFSET)
        row[HEADERS] = 0
        if row[ERROR] == 0:
            row[TIME_MS] = call(functions[0], at, 0)
            place = found.ctypes.data + 8 * (i * N_COLUMNS + HEADERS)
            if low_int(call(functions[1], at, place)) != 0:
                row[HEADERS] = 0


@kernel
def gather(pointers, keys, key_starts, values, value_starts):  # type: ignore[no-untyped-def]
    """Copy the keys and the values of messages into columns."""
    for i in range(pointers.shape[0]):
        at = pointers[i]
        fetch(load_at(at + _KEY), key_starts[i + 1] - key_starts[i], keys, key_starts[i])
        fetch(load_at(at + _PAYLOAD), value_starts[i + 1] - value_starts[i], values, value_starts[i])


@kernel
def destroy(pointers, function):  # type: ignore[no-untyped-def]
    """Give messages back."""
    for i in range(pointers.shape[0]):
        call(function, pointers[i], 0)
