"""CRC-32 (zlib's) of the rows of a matrix, and of many rows at once from the checks of each.

CRC-32 is linear over GF(2): the check of two pieces after one another is a fixed linear map of the first one's, for the length
of the second, xor the second one's. So the check of a block of rows follows from the checks of the rows, and a block that is
sound is proved so by one call of zlib on all its bytes: several times as fast as row by row, and in threads (a short buffer
keeps the interpreter lock). One or two flipped bits in a block are always found; any other change with a chance of 1 - 2^-32.
Source: ``crc32_combine`` of zlib by Mark Adler.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np

_POLYNOMIAL = 0xEDB88320


def of_rows(matrix: np.ndarray) -> np.ndarray:
    """(N,) uint32, the check of the bytes of each row of (N, D)."""
    return np.fromiter(map(zlib.crc32, np.ascontiguousarray(matrix)), dtype=np.uint32, count=len(matrix))


def of_blocks(checks: np.ndarray, width: int) -> np.ndarray:
    """The check of each block of rows, from those of its rows.

    Args:
        checks: (B, R) uint32, of B blocks of R rows; R is a power of two.
        width: bytes of a row.

    Returns:
        (B,) uint32.
    """
    while checks.shape[1] > 1:
        checks = _followed(checks[:, 0::2], width) ^ checks[:, 1::2]
        width *= 2
    return checks[:, 0]


def _followed(checks: np.ndarray, length: int) -> np.ndarray:
    """What checks become when so many zero bytes follow (and their own check is taken out again)."""
    tables = _tables(length)
    result: np.ndarray = tables[0][checks & 0xFF]
    for number in range(1, 4):
        result ^= tables[number][checks >> (8 * number) & 0xFF]
    return result


@functools.lru_cache(maxsize=256)
def _tables(length: int) -> np.ndarray:
    """(4, 256) uint32: the map for so many zero bytes, of each byte of a check."""
    columns = _power(8 * length)
    bytes_ = np.arange(256, dtype=np.uint32)
    return np.stack([_mapped(columns, bytes_ << np.uint32(8 * number)) for number in range(4)])


def _power(bits: int) -> np.ndarray:
    """(32,) uint32, the columns of the map for so many zero bits, by squaring."""
    square = np.array([_POLYNOMIAL, *(1 << bit for bit in range(31))], dtype=np.uint32)
    result = np.array([1 << bit for bit in range(32)], dtype=np.uint32)
    while bits:
        if bits & 1:
            result = _mapped(square, result)
        square, bits = _mapped(square, square), bits >> 1
    return result


def _mapped(columns: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """A linear map over GF(2), given by its 32 columns, of uint32 vectors."""
    result = np.zeros_like(vectors)
    for bit in range(32):
        result ^= np.where(vectors >> np.uint32(bit) & np.uint32(1), columns[bit], np.uint32(0))
    return result
