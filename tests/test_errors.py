"""Errors of the operating system, each turned into one of featx."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import featx
from featx.errors import CacheMissError, FeatxError, FileError, OutOfMemoryError, system_errors


def test_an_error_names_its_files_and_its_cause(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"^nowhere: No such file or directory$") as caught, system_errors("given"):
        Path("nowhere").read_bytes()
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(FileError, match=r"^.*/a -> .*/b: No such file or directory$"), system_errors():
        (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(FileError, match=r"^given: Bad file descriptor$"), system_errors("given"):
        os.fsync(10**6)
    with pytest.raises(FileError, match=r"^Bad file descriptor$"), system_errors():
        os.fsync(10**6)
    with pytest.raises(OutOfMemoryError, match=r"^given: there is not enough memory: of 3 GB$"), system_errors("given"):
        raise MemoryError("of 3 GB")


def test_errors_of_featx_closed_pipes_and_mistakes_of_the_code_pass_unchanged() -> None:
    for error in (CacheMissError("no file"), BrokenPipeError(32, "Broken pipe"), KeyError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, system_errors():
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    "call",
    [
        lambda path: featx.extract(path, "lenet5"),
        lambda path: featx.scan_images(path),
        lambda path: featx.fit_head(path),
        lambda path: featx.promote(path),
        lambda path: featx.predict(path, [path]),
        lambda path: featx.evaluate(path, path),
        lambda path: featx.rank(path, ["lenet5"]),
        lambda path: featx.advise(path),
        lambda path: featx.load_model(path),
        lambda path: featx.load_backbone("lenet5", weights=path),
    ],
)
def test_a_path_that_no_system_takes_is_an_error_of_featx(call: object, in_tmp: Path) -> None:
    for path in ("d/" * 3000 + "x", "n" * 300, "n" * 300 + ".h5", "n" * 300 + ".csv"):
        with pytest.raises(FeatxError, match=r"(?s)."):
            call(path)  # type: ignore[operator]
