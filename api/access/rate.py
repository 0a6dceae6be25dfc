"""Has this caller asked too often?

A token bucket for each key, and for each address that has none, kept as one number: the time at which the bucket will
be full again (the generic cell rate algorithm, ITU-T I.371). It lies in a table of fixed size, shared by the workers.
Two callers whose places meet share a rate; where an address goes is a keyed hash, so nobody can choose to meet another.
Two workers that ask at the same instant may count one request for two: it is a limit for load, not for money.
"""

import hashlib
import ipaddress
import struct
import time
from typing import Final

PER_S: Final = 1000.0  # where keys are asked for, and no other number was given
PLACES: Final = 1 << 16
TABLE_BYTES: Final = 8 * PLACES
BURST_S: Final = 2.0  # what may come at once, in seconds of the rate
_PLACE: Final = struct.Struct("<Q")


class Rate:
    """Lets so many requests a second pass, for each who asks.

    Parameters
    ----------
    per_s : requests; above 0
    table : TABLE_BYTES of memory, zeros at first
    secret : of all who share the table; up to 64 bytes
    """

    def __init__(self, per_s: float, table: memoryview, secret: bytes) -> None:
        self._step_s = 1 / per_s
        self._burst_s = max(BURST_S, self._step_s)
        self._full_at, self._secret = table.cast("d"), secret

    def place(self, who: bytes) -> int:
        """Return where a caller's bucket is."""
        hashed = hashlib.blake2b(who, digest_size=8, key=self._secret).digest()
        return int(_PLACE.unpack(hashed)[0]) % PLACES

    def wait_s(self, place: int) -> float:
        """Take a token. Returns 0, or without one the seconds until there will be one."""
        now = time.monotonic()
        full_at = max(self._full_at[place], now) + self._step_s
        wait = full_at - now - self._burst_s
        if wait > 1e-9:
            return wait
        self._full_at[place] = full_at
        return 0.0


def address_of(host: str) -> bytes:
    """Return the part of a client's address that counts as one caller: of IPv6 the network, which one client has."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.encode()
    return address.packed[:8] if address.version == 6 else address.packed
