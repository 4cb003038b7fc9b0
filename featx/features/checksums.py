"""CRC-32 checksums (zlib's) of the rows of a matrix, and their verification in large blocks.

CRC-32 is linear over GF(2): the checksum of two byte strings, one after the other, is a fixed linear map of the first checksum,
which depends on the length of the second string, xor the second checksum. The checksum of a block of rows therefore follows
from the checksums of its rows, and one call of zlib on all its bytes verifies the whole block. That is several times as fast as
row by row, and it runs in threads, whereas a short buffer keeps the interpreter lock. One or two flipped bits in a block are
always found, any other change with a probability of 1 - 2^-32.

Source: ``crc32_combine`` of zlib by Mark Adler.
"""

from __future__ import annotations

import functools
import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from featx.features.open_file import read_at
from featx.text import counted, form

_POLYNOMIAL = 0xEDB88320

_BLOCK_BYTES = 1 << 20
"""The most bytes that are read and verified at once."""

_BLOCK_ROWS = 1 << 14
"""The most rows whose facts are put side by side at once."""

_MOST_TASKS, _MOST_THREADS = 256, 4


def row_checksums(matrix: np.ndarray) -> np.ndarray:
    """Compute the checksum of the bytes of each row: (N, D) to (N,) uint32.

    Examples:
        >>> row_checksums(np.zeros((2, 1), dtype=np.float32)).tolist()
        [558161692, 558161692]
    """
    return np.fromiter(map(zlib.crc32, np.ascontiguousarray(matrix)), dtype=np.uint32, count=len(matrix))


def fact_checksums(*columns: np.ndarray) -> np.ndarray:
    """Compute the checksum of what is known of each image: the bytes of its row in each of some columns, one after the other.

    Args:
        columns: each (N,) or (N, D), of any type.

    Returns:
        (N,) uint32.

    Examples:
        >>> fact_checksums(np.array([b"1.png", b"2.png"]), np.array([100, 100])).tolist()
        [2033475282, 3304993308]
    """
    count = len(columns[0])
    found = np.empty(count, np.uint32)
    for at in range(0, count, _BLOCK_ROWS):
        parts = [np.ascontiguousarray(column[at : at + _BLOCK_ROWS]) for column in columns]
        found[at : at + _BLOCK_ROWS] = row_checksums(
            np.concatenate([part.view(np.uint8).reshape(len(part), -1) for part in parts], axis=1)
        )
    return found


def block_checksums(checksums: np.ndarray, width: int) -> np.ndarray:
    """Compute the checksum of each block of rows from the checksums of its rows.

    Args:
        checksums: (B, R) uint32, those of B blocks of R rows; R is a power of two.
        width: the bytes of one row.

    Returns:
        (B,) uint32.
    """
    while checksums.shape[1] > 1:
        checksums = _shifted(checksums[:, 0::2], width) ^ checksums[:, 1::2]
        width *= 2
    return checksums[:, 0]


def rows_match(
    file: int,
    *,
    offset: int,
    width: int,
    rows: np.ndarray,
    expected: np.ndarray,
    into: np.ndarray | None = None,
) -> np.ndarray:
    """Verify rows of a matrix in a file, which are read in blocks, in threads, with little memory.

    Args:
        file: a descriptor, open for reading.
        offset: where the matrix begins in the file.
        width: the bytes of one row.
        rows: (R,) int64 row numbers; ascending ones are read fastest.
        expected: (R,) uint32, the checksum of each of these rows.
        into: (R, width) uint8, gets the bytes that were verified.

    Returns:
        (R,) bool: whether the row matches its checksum.
    """
    matches = np.zeros(len(rows), dtype=bool)
    block_rows = 1 << max(0, (_BLOCK_BYTES // width).bit_length() - 1)
    runs = list(consecutive_runs(rows, block_rows))
    whole = np.array([first for first, last in runs if last - first == block_rows], dtype=np.int64)
    of_blocks = block_checksums(expected[np.add.outer(whole, np.arange(block_rows))], width)
    expected_of_run = dict(zip(whole.tolist(), of_blocks.tolist(), strict=True))

    def verify(some: Sequence[tuple[int, int]]) -> None:
        for first, last in some:
            data = read_at(file, (last - first) * width, offset + int(rows[first]) * width)
            if into is not None:
                into[first:last].reshape(-1)[: len(data)] = np.frombuffer(data, np.uint8)
            if expected_of_run.get(first) == zlib.crc32(data):
                matches[first:last] = True
            else:  # the run is shorter than a block, or one of its rows does not match
                view = memoryview(data)
                found = [zlib.crc32(view[at : at + width]) for at in range(0, (last - first) * width, width)]
                matches[first:last] = found == expected[first:last]

    share = max(1, -(-len(runs) // _MOST_TASKS))
    if len(runs) <= 1:
        verify(runs)
        return matches
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="featx-checksums") as pool:
        list(pool.map(verify, (runs[at : at + share] for at in range(0, len(runs), share))))
    return matches


def damaged_rows(matches: np.ndarray, of: str = "") -> str:
    """The number of rows that are damaged, for a message.

    Args:
        matches: (N,) bool, which rows match their checksums.
        of: what the rows are of, with a space before it.

    Examples:
        >>> damaged_rows(np.array([True, False]), " of layer penultimate")
        '1 of 2 rows of layer penultimate does not match its checksum'
    """
    wrong = int(np.count_nonzero(~matches))
    does = form(wrong, "does not match its checksum", "do not match their checksums")
    return f"{wrong:,} of {counted(len(matches), 'row')}{of} {does}"


def consecutive_runs(rows: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Divide row numbers into runs of consecutive numbers, each of at most ``most`` rows.

    Yields:
        The positions [first, last) of each run within ``rows``.

    Examples:
        >>> list(consecutive_runs(np.array([4, 5, 6, 9]), most=2))
        [(0, 2), (2, 3), (3, 4)]
    """
    cuts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    for first, last in itertools.pairwise(cuts):
        for at in range(first, last, max(1, most)):
            yield at, min(at + most, last)


def _shifted(checksums: np.ndarray, length: int) -> np.ndarray:
    """The contribution of checksums to those of the same bytes followed by ``length`` more."""
    tables = _tables(length)
    result: np.ndarray = tables[0][checksums & 0xFF]
    for number in range(1, 4):
        result ^= tables[number][checksums >> (8 * number) & 0xFF]
    return result


@functools.lru_cache(maxsize=256)
def _tables(length: int) -> np.ndarray:
    """The linear map for ``length`` bytes, as (4, 256) uint32: a table for each byte of a checksum."""
    columns = _power(8 * length)
    bytes_ = np.arange(256, dtype=np.uint32)
    return np.stack([_mapped(columns, bytes_ << np.uint32(8 * number)) for number in range(4)])


def _power(bits: int) -> np.ndarray:
    """The (32,) uint32 columns of the linear map for ``bits`` bits, computed by squaring."""
    square = np.array([_POLYNOMIAL, *(1 << bit for bit in range(31))], dtype=np.uint32)
    result = np.array([1 << bit for bit in range(32)], dtype=np.uint32)
    while bits:
        if bits & 1:
            result = _mapped(square, result)
        square, bits = _mapped(square, square), bits >> 1
    return result


def _mapped(columns: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Apply a linear map over GF(2), given by its 32 columns, to uint32 vectors."""
    result = np.zeros_like(vectors)
    for bit in range(32):
        result ^= np.where(vectors >> np.uint32(bit) & np.uint32(1), columns[bit], np.uint32(0))
    return result
