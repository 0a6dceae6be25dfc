"""How are records handed to Kafka without an object for each?

Through the same C interface as they are read with (librdkafka.py): a kernel queues the records of a submit from their
columns, and what librdkafka then calls for each of them is compiled, too: it notes where the record went, and which
submits are through. No step of the interpreter is taken for a record.

A record that is on its way is known to librdkafka by the address of its row (see Delivery), so rows stay where they are
until every record of the submit has been told of, whatever becomes of it.
"""

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import cache
from typing import Any, Final

import numpy as np
from confluent_kafka import KafkaError, KafkaException
from numba.core import types
from numpy.typing import NDArray

from driftline.stream.errors import LogError
from driftline.stream.kernels import callback, kernel
from driftline.stream.log.base import Appended, NewColumns, NewRecord, Places
from driftline.stream.log.kafka import librdkafka
from driftline.stream.log.kafka.librdkafka import PRODUCER, address_of, call3, load_at, low_int, store_at
from driftline.stream.wire.column import Column

Ints = NDArray[np.int64]
Explain = Callable[[KafkaException], LogError]

_PURGE: Final = 1 | 2  # RD_KAFKA_PURGE_F_QUEUE, RD_KAFKA_PURGE_F_INFLIGHT
# Places in rd_kafka_message_t, bytes.
_ERR, _PARTITION, _OFFSET, _PRIVATE = 0, 16, 56, 64
# What rd_kafka_produceva is told of a record: rd_kafka_vu_t, each its kind and what is of that kind; part of
# librdkafka's public interface (rdkafka.h) since 1.5.
_WORDS: Final = 9  # of 64 bits, of each
_KINDS: Final = (2, 7, 8, 5, 4, 6, 10)  # RD_KAFKA_VTYPE_RKT, MSGFLAGS, TIMESTAMP, KEY, VALUE, OPAQUE, HEADERS
_TIME, _KEY, _VALUE, _OPAQUE, _HEADERS = (_WORDS * place + 1 for place in range(2, len(_KINDS)))
_N_UNITS: Final = len(_KINDS)
_COPY: Final = 2  # RD_KAFKA_MSG_F_COPY
# Columns of a submit's rows: where the submit's own row is, which error, where the record went. In the submit's own
# row, the first: how many are not through, and the submit that was before it.
HEAD, ERROR, PARTITION, OFFSET = range(4)
LEFT, NEXT = range(2)
_ROW_BYTES: Final = 4 * 8
_NONE: Final = np.empty(0, np.bool_)


class Delivery:
    """What becomes of one submit.

    Attributes
    ----------
    future : of the records' places
    sent : how many records are queued, in their order; only who submits changes it
    never : how many will not be, once that is known
    rows : int64 [n + 1, 4], shared with librdkafka
    headers : int64 [n], addresses of rd_kafka_headers_t, which are librdkafka's once the record is queued; or 0

    Raises
    ------
    TypeError, ValueError, OverflowError : a record is none.
    """

    def __init__(self, topic: str, records: Sequence[NewRecord], explain: Explain, library: Any) -> None:
        self.future: Future[Sequence[Appended]] = Future()
        self.future.set_running_or_notify_cancel()  # once queued it cannot be taken back
        self.topic, self.sent, self.never = topic, 0, 0
        self.error: LogError | None = None
        self._explain, self._in_columns = explain, isinstance(records, NewColumns)
        self.headers: Ints = np.zeros(len(records), np.int64)
        if isinstance(records, NewColumns):
            self.keys, self.values, self.times_ms = records.keys, records.values, records.times_ms
        else:
            keys, values, times_ms, headers = zip(*records, strict=True)
            self.keys, self.values = Column.of(keys), Column.of(values)
            self.times_ms = np.array([time_ms or 0 for time_ms in times_ms], np.int64)
            encoded = [[(name.encode(), value) for name, value in pairs or ()] for pairs in headers]
            self.headers[:] = [_made_headers(library, pairs) if pairs else 0 for pairs in encoded]
        self.rows: Ints = np.zeros((len(records) + 1, 4), np.int64)
        self.address = self.rows.ctypes.data
        self.rows[0, LEFT], self.rows[1:, HEAD] = len(records), self.address

    def settle(self) -> None:
        """Tell where the records went, or what kept the first of those that did not arrive."""
        codes = self.rows[1:, ERROR]
        if codes.any():
            first = int(codes[np.flatnonzero(codes)[0]])
            self.error = self._explain(KafkaException(KafkaError(first)))
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            places = Places(self.rows[1:, PARTITION], self.rows[1:, OFFSET])
            self.future.set_result(places if self._in_columns else list(places))


class Sender:
    """A producer of librdkafka's. What submits may be called from any thread, the rest from one at a time.

    Parameters
    ----------
    config : librdkafka's properties, and the callbacks `error_cb` and `logger`

    Raises
    ------
    KafkaException : a property is none.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        warm_up()
        self._library = library = librdkafka.load()
        self._lock = threading.Lock()
        self._topics: dict[str, int] = {}
        self._under_way: dict[int, Delivery] = {}  # by address
        self._short: list[Delivery] = []  # of which not all is sent, nor will be
        self._through: Ints = np.zeros(1, np.int64)  # the address of the submit that was through last
        self._fatal: list[KafkaException] = []
        fatal, tell = self._fatal, config["error_cb"]  # of this object the callback must know nothing: it holds it

        def on_error(error: KafkaError) -> None:
            if error.code() == KafkaError._FATAL:
                fatal.append(KafkaException(error))
            else:
                tell(error)

        def prepare(conf: int) -> None:
            library.conf_set_opaque(conf, self._through.ctypes.data)
            library.conf_set_dr_msg_cb(conf, delivered.address)

        properties = {name: value for name, value in config.items() if name not in ("error_cb", "logger")}
        self._client, callbacks = librdkafka.open_client(
            library, PRODUCER, properties, on_error, config["logger"], prepare
        )
        self._produce = address_of(library.produceva)
        kept = callbacks, self._through, self._under_way
        # Not where the interpreter ends: another thread may be within the client then, and it ends with the process.
        weakref.finalize(self, _destroy, library, self._client, self._topics, kept).atexit = False

    def __len__(self) -> int:
        """Return how many records are on their way."""
        return int(self._library.outq_len(self._client))

    def begin(self, topic: str, records: Sequence[NewRecord], explain: Explain) -> Delivery:
        """Return a submit, nothing of it sent yet; raises what Delivery does."""
        delivery = Delivery(topic, records, explain, self._library)
        with self._lock:
            self._under_way[delivery.address] = delivery
            if topic not in self._topics:
                self._topics[topic] = self._library.topic_new(self._client, topic.encode(), None)
        return delivery

    def send(self, delivery: Delivery) -> bool:
        """Queue what is not sent yet; tell whether that is all, or only what there was room for.

        Raises
        ------
        KafkaException : the next record is not taken.
        """
        units = np.zeros((len(_KINDS), _WORDS), np.int64)
        units[:, 0] = _KINDS
        units[0, 1], units[1, 1] = self._topics[delivery.topic], _COPY
        delivery.sent, error = queue(
            self._client,
            self._produce,
            _readable(delivery.keys),
            _readable(delivery.values),
            delivery.times_ms,
            delivery.headers,
            delivery.rows,
            units.reshape(-1),
            delivery.sent,
        )
        if not error:
            return True
        code, text = self._library.error_code(error), self._library.error_string(error) or b""
        found = KafkaError(code, text.decode(errors="replace"), fatal=bool(self._library.error_is_fatal(error)))
        self._library.error_destroy(error)
        if code == KafkaError._QUEUE_FULL:
            return False
        raise KafkaException(found)

    def give_up(self, delivery: Delivery, error: LogError) -> None:
        """Fail a submit, once what of it is sent is through: an answer before that could be overtaken by it."""
        delivery.error = error
        for headers in filter(None, delivery.headers[delivery.sent :].tolist()):
            self._library.headers_destroy(headers)
        with self._lock:
            delivery.never = len(delivery.headers) - delivery.sent
            self._short.append(delivery)
        self._settle()

    def poll(self, timeout_s: float) -> None:
        """Take delivery reports, and tell who waits. Raises KafkaException where an error has ended this producer."""
        self._library.poll(self._client, max(0, int(timeout_s * 1000)))
        self._take_through()
        self._settle()
        if self._fatal:
            raise self._fatal.pop()

    def flush(self, timeout_s: float) -> None:
        """Wait until all is delivered, or the time is over."""
        self._library.flush(self._client, max(0, int(timeout_s * 1000)))
        self._take_through()
        self._settle()

    def purge(self) -> None:
        """Let go of what is not delivered; `poll` and `flush` tell who waits."""
        self._library.purge(self._client, _PURGE)

    def _take_through(self) -> None:
        """Tell of the submits of which all was sent and is through, in that order."""
        address, self._through[0] = int(self._through[0]), 0
        through: list[Delivery] = []
        while address:
            with self._lock:
                through.append(self._under_way.pop(address))
            address = int(through[-1].rows[0, NEXT])
        for delivery in reversed(through):
            delivery.settle()

    def _settle(self) -> None:
        """Tell of the submits of which all that was sent is through, and not all was. Any thread."""
        if self._short:
            with self._lock:
                through = [each for each in self._short if each.rows[0, LEFT] == each.never]
                for delivery in through:
                    self._short.remove(delivery)
                    del self._under_way[delivery.address]
            for delivery in through:
                delivery.settle()


@cache
def warm_up() -> None:
    """Compile the kernels, or load them compiled, so that no record waits for that."""
    none = np.empty(0, np.int64)
    column = _readable(Column.of([]))
    queue(0, 0, column, column, none, none, np.empty((1, 4), np.int64), none, 0)
    delivered.address  # noqa: B018  (compiled where it is first asked for)


def _made_headers(library: Any, pairs: Sequence[tuple[bytes, bytes]]) -> int:
    headers: int = library.headers_new(len(pairs))
    for name, value in pairs:
        library.header_add(headers, name, len(name), value, len(value))
    return headers


def _readable(column: Column) -> tuple[NDArray[np.uint8], Ints, NDArray[np.bool_]]:
    """Return a column as kernels read it."""
    return column.data, column.starts, _NONE if column.missing is None else column.missing


def _destroy(library: Any, client: int, topics: Mapping[str, int], kept: Any) -> None:
    for topic in topics.values():
        library.topic_destroy(topic)
    library.destroy(client)
    del kept  # until here it may be written to, and called


@kernel
def queue(client, function, keys, values, times_ms, headers, rows, units, at):  # type: ignore[no-untyped-def]
    """Queue records from a place on; return up to which, and the address of an error or 0.

    Parameters
    ----------
    function : the address of rd_kafka_produceva
    keys, values : bytes, starts [n + 1], which are missing [n] or none
    times_ms : int64 [n], 0 for now
    headers, rows : of the Delivery
    units : int64 [7 * 9], rd_kafka_vu_t with kinds, topic and flags written; changed
    """
    for i in range(at, times_ms.shape[0]):
        units[_TIME] = times_ms[i]
        _tell(units, _KEY, keys, i)
        _tell(units, _VALUE, values, i)
        units[_OPAQUE] = rows.ctypes.data + (i + 1) * _ROW_BYTES
        units[_HEADERS] = headers[i]
        error = call3(function, client, units.ctypes.data, _N_UNITS)
        if error != 0:
            return i, error
    return times_ms.shape[0], 0


@kernel
def _tell(units, place, column, i):  # type: ignore[no-untyped-def]
    """Write where a value lies, and its size; 0 where it is none."""
    data, starts, missing = column
    there = missing.shape[0] == 0 or not missing[i]
    units[place] = data.ctypes.data + starts[i] if there else 0
    units[place + 1] = starts[i + 1] - starts[i] if there else 0


@callback(types.void(types.int64, types.int64, types.int64))
def delivered(_client, message, through):  # type: ignore[no-untyped-def]
    """Note what became of a record, as librdkafka tells it: in its row, and where its submit is through with it."""
    row = load_at(message + _PRIVATE)
    head = load_at(row)
    store_at(row + 8 * ERROR, low_int(load_at(message + _ERR)))
    store_at(row + 8 * PARTITION, low_int(load_at(message + _PARTITION)))
    store_at(row + 8 * OFFSET, load_at(message + _OFFSET))
    left = load_at(head + 8 * LEFT) - 1
    store_at(head + 8 * LEFT, left)
    if left == 0:
        store_at(head + 8 * NEXT, load_at(through))
        store_at(through, head)
