"""How are bytes hashed that strangers choose, so that nobody can choose ones that collide?

By SipHash-1-3 with a secret of 128 bits (Aumasson and Bernstein 2012; one round for each word and three at the end, as
Python and Rust hash the keys of their tables): who does not know the secret cannot tell which bytes share a hash. One
that only starts from a secret number does not do: a difference that its rounds cancel, they cancel from any start.

Each table has a secret of its own process, so a hash must not reach a file nor decide an outcome.
Proved by test_it_is_the_hash_that_python_has, test_no_difference_of_ids_cancels.
"""

import os
from typing import Final

import numpy as np
from numpy.typing import NDArray

from driftline.stream.kernels import eight_bytes, inlined, kernel

# "somepseudorandomlygeneratedbytes", eight at a time
_FIRST: Final = np.uint64(0x736F6D6570736575)
_SECOND: Final = np.uint64(0x646F72616E646F6D)
_THIRD: Final = np.uint64(0x6C7967656E657261)
_FOURTH: Final = np.uint64(0x7465646279746573)
_END: Final = np.uint64(0xFF)
_WORD: Final = np.uint64(64)
_BYTE: Final = np.uint64(8)
_SIZE_SHIFT: Final = np.uint64(56)
_13, _16, _17, _21, _32 = map(np.uint64, (13, 16, 17, 21, 32))


def new_secret() -> NDArray[np.uint64]:
    """Return what nobody can know: uint64 [2]."""
    return np.frombuffer(os.urandom(16), np.uint64)


@inlined
def turned(word, n):  # type: ignore[no-untyped-def]
    """Return a word whose bits have moved up by n, those at its end to its beginning."""
    return word << n | word >> (_WORD - n)


@inlined
def mixed(v0, v1, v2, v3):  # type: ignore[no-untyped-def]
    """Return the state after a round."""
    v0 += v1
    v2 += v3
    v1 = turned(v1, _13) ^ v0
    v3 = turned(v3, _16) ^ v2
    v0 = turned(v0, _32) + v3
    v2 += v1
    v3 = turned(v3, _21) ^ v0
    v1 = turned(v1, _17) ^ v2
    return v0, v1, turned(v2, _32), v3


@kernel
def siphash(data, at, size, secret):  # type: ignore[no-untyped-def]
    """Return the hash of some bytes, of 64 bits.

    Parameters
    ----------
    data : uint8; data[at : at + size] is there, which nobody checks
    secret : uint64 [2], from `new_secret`
    """
    v0, v1 = secret[0] ^ _FIRST, secret[1] ^ _SECOND
    v2, v3 = secret[0] ^ _THIRD, secret[1] ^ _FOURTH
    n_left = size & 7
    end = at + size - n_left
    for place in range(at, end, 8):
        word = eight_bytes(data, place)
        v3 ^= word
        v0, v1, v2, v3 = mixed(v0, v1, v2, v3)
        v0 ^= word
    last = np.uint64(size) << _SIZE_SHIFT
    if size > 8 and n_left > 0:  # at once: the last eight, without those that were taken already
        last |= eight_bytes(data, end + n_left - 8) >> (_WORD - _BYTE * np.uint64(n_left))
    else:
        for i in range(n_left):
            last |= np.uint64(data[end + i]) << (_BYTE * np.uint64(i))
    v3 ^= last
    v0, v1, v2, v3 = mixed(v0, v1, v2, v3)
    v0 ^= last
    v2 ^= _END
    for _ in range(3):
        v0, v1, v2, v3 = mixed(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3
