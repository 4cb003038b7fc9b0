"""Checksums of rows and of blocks of rows."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from featx.features.checksums import block_checksums, consecutive_runs, row_checksums, rows_match


@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize("width", [1, 3, 84])
def test_the_checksum_of_a_block_follows_from_those_of_its_rows(rows: int, width: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, (3, rows, width), dtype=np.uint8)
    by_row = np.stack([row_checksums(block) for block in data])
    assert block_checksums(by_row, width).tolist() == [zlib.crc32(block.tobytes()) for block in data]


def test_each_row_that_has_changed_is_found_in_a_file_of_several_blocks(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(5000, 100)).astype(np.float32)  # 2 MB, blocks of 1 MB
    expected = row_checksums(data)
    data[[7, 4999], 3] += 1
    path = tmp_path / "matrix"
    path.write_bytes(b"front" + data.tobytes())
    handle = os.open(path, os.O_RDONLY)
    try:
        rows = np.array([*range(6, 5000), 7, 0])
        matches = rows_match(handle, offset=5, width=400, rows=rows, expected=expected[rows])
    finally:
        os.close(handle)
    assert rows[~matches].tolist() == [7, 4999, 7]


def test_no_rows_match_without_reading() -> None:
    none = np.array([], dtype=np.int64)
    assert rows_match(-1, offset=0, width=4, rows=none, expected=none.astype(np.uint32)).tolist() == []


def test_runs_end_where_row_numbers_jump_and_at_the_longest_length() -> None:
    assert list(consecutive_runs(np.array([3, 4, 5, 9, 8, 9]), 2)) == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert list(consecutive_runs(np.array([], dtype=np.int64), 2)) == []


def test_the_bytes_that_were_verified_are_those_of_the_rows(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).integers(0, 256, (5000, 400), dtype=np.uint8)
    file = tmp_path / "matrix"
    file.write_bytes(matrix.tobytes())
    rows = np.array([*range(100, 4000), 7, 4990, 4999])
    expected = row_checksums(matrix)[rows]
    expected[17] ^= 1
    into = np.zeros((len(rows), 400), np.uint8)
    with file.open("rb") as opened:
        matches = rows_match(opened.fileno(), offset=0, width=400, rows=rows, expected=expected, into=into)
    assert np.flatnonzero(~matches).tolist() == [17]
    assert np.array_equal(into, matrix[rows])
