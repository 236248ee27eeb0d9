"""The CRC-32 of many pieces end to end, computed from the CRC-32 of each.

This way one pass over the bytes checks many memories, while Python's other threads keep running.

A CRC-32 is a polynomial over GF(2), x^0 in its highest bit, modulo POLYNOMIAL. The CRC-32 of A followed by B is
crc(A) x^(bits of B) + crc(B), as in zlib's crc32_combine.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

POLYNOMIAL, ONE = 0xEDB88320, 1 << 31


def joined(checks: NDArray[np.uint32], lengths: NDArray[np.int64], size: int) -> int:
    """The CRC-32 of n pieces end to end, from their own `checks` (n,) and `lengths` (n,) in rows of `size` bytes."""
    after = int(lengths.sum()) - np.cumsum(lengths)
    shifted = _powers(size, int(after[0]).bit_length())[after]  # (n, 32)
    return int(np.bitwise_xor.reduce(shifted.reshape(-1)[_terms(checks)]))


@lru_cache(8)
def _powers(size: int, bits: int) -> NDArray[np.uint32]:
    """x^(bits of k rows) times x^0 to x^31, for all k below 2^bits: (2^bits, 32)."""
    powers, step = np.array([ONE], np.uint32), _power(8 * size)
    for _ in range(bits):
        powers = np.concatenate([powers, _times(powers, step)])
        step = _times(step, step)
    return _multiples(powers)


def _power(exponent: int) -> NDArray[np.uint32]:
    """x^exponent (1,)."""
    found, square = np.array([ONE], np.uint32), np.array([ONE >> 1], np.uint32)
    while exponent:
        if exponent % 2:
            found = _times(found, square)
        square, exponent = _times(square, square), exponent // 2
    return found


def _times(values: NDArray[np.uint32], other: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The products (n,) of n polynomials and one other (1,)."""
    return np.bitwise_xor.reduce(_multiples(values)[:, _terms(other)], axis=1)


def _multiples(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Polynomials times x^0 to x^31: (n, 32)."""
    found = [values]
    for _ in range(31):
        found.append(_times_x(found[-1]))
    return np.stack(found, 1)


def _times_x(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return values >> np.uint32(1) ^ (values & np.uint32(1)) * np.uint32(POLYNOMIAL)


def _terms(values: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Which of x^0 to x^31 occur in each of n polynomials, end to end (32 n,)."""
    return np.unpackbits(values.astype(">u4").view(np.uint8)).view(np.bool_)
