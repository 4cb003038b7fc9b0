"""Reading image files in threads: in order, a bounded number ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from featx.data.file_bytes import FileBytes, image_key
from featx.data.loader import batched, read_images
from featx.errors import ImageError


def test_images_come_in_order_however_long_one_takes(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(30)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    later_read = threading.Event()

    def read(row: int, file: FileBytes) -> np.ndarray:
        if row == 0:
            assert later_read.wait(20), "one thread only"
        if row == 10:
            later_read.set()
        if row == 2:
            raise ImageError("spoilt")
        return np.full((3, 1, 1), file.data[0], dtype=np.uint8)

    images = list(read_images(enumerate(paths), read, workers=2))
    assert [image.row for image in images] == list(range(30))
    assert [image.error for image in images if image.error] == ["spoilt"]
    assert all(image.pixels[0, 0, 0] == image.row for image in images if image.pixels is not None)
    assert [image.key for image in images] == [image_key(bytes([number])) for number in range(30)]


def test_only_a_bounded_number_of_images_is_read_ahead(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    asked: list[int] = []

    def files() -> Iterator[tuple[int, Path]]:
        for row in range(1000):
            asked.append(row)
            yield row, tmp_path / "one"

    images = read_images(files(), lambda _row, _data: np.zeros((3, 1, 1), dtype=np.uint8), workers=2)
    next(images)
    images.close()
    assert len(asked) <= 4 * 2 + 8


def test_pixels_of_known_images_are_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    images = read_images([(0, tmp_path / "one")], pytest.fail, workers=1, known={image_key(b"1")})
    assert [(image.pixels, image.error) for image in images] == [(None, "")]


def test_batches_are_full_but_for_the_last() -> None:
    assert [list(batch) for batch in batched(range(7), 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched([], 3)) == []
