"""Nobody can send ids that share a hash; and if somebody could, look-ups would not stay slow."""

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import product

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline.stream.join import shared
from driftline.stream.join.message_rows import MessageStore, hash_bytes
from driftline.stream.siphash import new_secret, siphash
from tests.learner.machine.test_machine import Stream, digest, machine, run

ZERO = np.frombuffer(bytes(16), np.uint64)


def hashed(data: bytes, secret: NDArray[np.uint64]) -> int:
    return int(siphash(np.frombuffer(data, np.uint8), 0, len(data), secret))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 0x726FDB47DD0E0E31),
        (1, 0x74F839C593DC67FD),
        (8, 0x93F5F5799A932462),
        (15, 0xA129CA6149BE45E5),
        (63, 0x958A324CEB064572),
    ],
)
def test_the_plain_hash_has_the_vectors_of_its_authors(size: int, expected: int) -> None:
    """They are of two and four rounds; ours has one and three."""
    assert oracles.siphash(bytes(range(size)), bytes(range(16)), 2, 4) == expected


@given(st.binary(max_size=100), st.binary(min_size=16, max_size=16), st.integers(0, 9), st.integers(0, 9))
def test_the_kernel_is_the_plain_hash(data: bytes, secret: bytes, before: int, behind: int) -> None:
    """Wherever the bytes stand, and whatever stands around them."""
    around = np.frombuffer(os.urandom(before) + data + os.urandom(behind), np.uint8)
    assert int(siphash(around, before, len(data), np.frombuffer(secret, np.uint64))) == oracles.siphash(data, secret)


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="this Python hashes bytes otherwise")
def test_it_is_the_hash_that_python_has() -> None:
    program = "whole = bytes(range(256)) * 2\nfor n in range(1, 300): print(hash(whole[:n]) % 2**64)"
    environment = os.environ | {"PYTHONHASHSEED": "0"}  # then its secret is zero
    told = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    whole = bytes(range(256)) * 2
    assert [hashed(whole[:n], ZERO) for n in range(1, 300)] == list(map(int, told.split()))


def differing(n_blocks: int) -> Iterator[str]:
    """Give ids that differ only by what a multiplication by an odd number, and half of the bits added, may cancel."""
    same, other = "a" * 16, "!aaaaaaa!aaa!aaa"
    yield from ("".join(blocks) for blocks in product((same, other), repeat=n_blocks))


def test_no_difference_of_ids_cancels() -> None:
    """Of 262,144 with 30 bits about 32 share one with another by chance; of those before, all but 2,682 did."""
    secret = new_secret()
    found = {int(hash_bytes(np.frombuffer(key.encode(), np.uint8), 0, 288, secret)) for key in differing(18)}
    assert len(found) > 262_144 - 100


def test_no_bit_of_an_id_or_of_its_size_is_without_effect() -> None:
    secret, plain = new_secret(), bytes(100)
    flipped = [(1 << bit).to_bytes(100, "little") for bit in range(800)]
    shorter = [plain[:size] for size in range(101)]
    assert len({hashed(data, secret) for data in (*flipped, *shorter)}) == 901


def test_no_two_stores_share_a_secret() -> None:
    assert len({MessageStore().hash(np.frombuffer(b"an id", np.uint8)) for _ in range(50)}) > 45


def crowded(store: MessageStore, n: int) -> Iterator[str]:
    """Give ids that all have their places in the table at its beginning: only who knows the secret can find them."""
    found = (f"m{number}" for number in range(1 << 30))
    near = (key for key in found if store.hash(np.frombuffer(key.encode(), np.uint8)) & 0xFFF < 4)
    return (key for key, _ in zip(near, range(n), strict=False))


def test_look_ups_of_ids_that_share_places_are_soon_fast_again_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With labels that wait and texts that share an id: what is known of these by a hash is known by the new one."""
    monkeypatch.setattr(shared, "LONGEST", 40)
    attacked, other = machine(), machine()
    keys = list(crowded(attacked.join.store, 100))
    stream = Stream()
    stream.label("first", "spam", text="win a prize")
    stream.label("second", "ham", text="see you")
    for key in keys[:90]:
        stream.message(key, f"text of {key}")
    for key in keys[90:]:
        stream.label(key, "spam")
    for key in keys[:5]:
        stream.message(key, f"another text of {key}")
    cut = len(stream.records)
    for number, key in enumerate(keys):
        stream.message(key, f"text of {key}")
        stream.label(key, "ham" if number % 2 else "spam")
    run(attacked, stream.records[:cut])
    run(other, stream.records[:cut])
    assert attacked.join.store.passed > 40 > other.join.store.passed, "or this shows nothing"
    secret = attacked.join.store.secret
    assert run(attacked, stream.records[cut:], [50]) == run(other, stream.records[cut:], [50])
    assert attacked.join.store.secret is not secret
    assert attacked.join.store.passed < 40
    assert digest(attacked) == digest(other)
    assert attacked.counts.labels_learned > 90
