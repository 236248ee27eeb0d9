"""The CRC-32 of pieces end to end is that of all their bytes."""

import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.crc import joined


@given(st.lists(st.integers(0, 70), min_size=1, max_size=40), st.sampled_from([1, 6, 128, 1024]), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_joined_is_the_crc_of_all_bytes(lengths, size, seed):
    pieces = [np.random.default_rng([seed, n]).bytes(length * size) for n, length in enumerate(lengths)]
    checks = np.array([zlib.crc32(piece) for piece in pieces], np.uint32)
    assert joined(checks, np.array(lengths), size) == zlib.crc32(b"".join(pieces))


def test_a_million_rows():
    data = bytes(range(256)) * 4000
    checks = np.array([zlib.crc32(data[:1000]), zlib.crc32(data[1000:])], np.uint32)
    assert joined(checks, np.array([1000, len(data) - 1000]), 1) == zlib.crc32(data)
