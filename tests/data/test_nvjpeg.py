"""JPEGs on the GPU: everything but nvJPEG itself is tried on the CPU, by torchvision's decoder in its place."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from featx.backbones.backbone import load_backbone
from featx.data.decode import is_plain_jpeg, read_pixels, read_views
from featx.data.file_bytes import FileBytes
from featx.data.nvjpeg import coded_reader, pixels_on
from featx.data.transform import Transform
from featx.errors import EngineError, ImageError
from featx.extraction.pipeline import extract
from featx.layer_spec import VIEWS

CPU = torch.device("cpu")
TRANSFORM = Transform(resize=48, crop=40, decoding="nvjpeg")


def in_memory(data: bytes) -> FileBytes:
    return FileBytes(data, len(data), -1)


def photograph(width: int, height: int, *, seed: int = 0, form: str = "JPEG", **options: Any) -> bytes:
    """A smooth image, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(stream, form, **options)
    return stream.getvalue()


def turned(data: bytes) -> bytes:
    """The same JPEG with EXIF orientation 6."""
    image, stream, exif = Image.open(io.BytesIO(data)), io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    image.save(stream, "JPEG", exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (photograph(64, 48), True),
        (photograph(64, 48, progressive=True), True),
        (photograph(64, 48, form="PNG"), False),
        (turned(photograph(64, 48)), False),
        (photograph(64, 48)[:20], False),
        (b"", False),
        (photograph(200, 100), False),
    ],
    ids=["baseline", "progressive", "png", "turned", "cut in the header", "empty", "too many pixels"],
)
def test_only_upright_jpegs_of_an_allowed_size_go_to_the_gpu(data: bytes, plain: bool) -> None:
    assert is_plain_jpeg(data, max_pixels=10_000) is plain


def test_grey_and_cmyk_jpegs_are_decoded_on_the_cpu() -> None:
    for mode in ("L", "CMYK"):
        stream = io.BytesIO()
        Image.new(mode, (64, 48)).save(stream, "JPEG")
        assert not is_plain_jpeg(stream.getvalue())
        assert coded_reader(TRANSFORM, VIEWS["flip"])(0, in_memory(stream.getvalue())).shape == (2, 3, 40, 40)


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (500, 375), (40, 40), (30, 20), (20, 400)])
@pytest.mark.parametrize(("resize", "crop"), [(48, 40), (0, 40), (32, 40)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_pixels_are_those_of_the_cpu_to_a_level(
    size: tuple[int, int], resize: int, crop: int, interpolation: str
) -> None:
    transform = Transform(resize=resize, crop=crop, interpolation=interpolation, decoding="nvjpeg")
    data = photograph(*size)
    found = pixels_on(CPU, [coded_reader(transform, VIEWS["10crop"])(0, in_memory(data))], transform, VIEWS["10crop"])
    wanted = read_views(data, transform, VIEWS["10crop"])
    assert found.dtype == torch.uint8
    assert found.shape == wanted.shape
    apart = np.abs(found.numpy().astype(int) - wanted)
    assert apart.max() <= (2 if interpolation == "bicubic" else 1)  # two roundings where the CPU has one
    assert apart.mean() < 0.25


@pytest.mark.parametrize("size", [(64, 48), (500, 375), (20, 400)])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_rectangles_and_padding_are_those_of_the_cpu_to_a_level(size: tuple[int, int], fit: str) -> None:
    transform = Transform(resize=48, crop=40, crop_width=56, fit=fit, decoding="nvjpeg")
    data = photograph(*size)
    found = pixels_on(CPU, [coded_reader(transform, VIEWS["10crop"])(0, in_memory(data))], transform, VIEWS["10crop"])
    wanted = read_views(data, transform, VIEWS["10crop"])
    assert found.shape == wanted.shape == (10, 3, 40, 56)
    assert np.abs(found.numpy().astype(int) - wanted).max() <= 1


def test_files_for_a_network_of_one_channel_are_decoded_on_the_cpu() -> None:
    transform = Transform(resize=48, crop=40, channels=1, mean=(0.5,), std=(0.5,), decoding="nvjpeg")
    data = photograph(64, 48)
    np.testing.assert_array_equal(
        coded_reader(transform, VIEWS["flip"])(0, in_memory(data)), read_views(data, transform, VIEWS["flip"])
    )


def test_files_and_pixels_keep_their_places_in_a_batch() -> None:
    read = coded_reader(TRANSFORM, VIEWS["flip"])
    files = [photograph(64, 48, seed=n, form="PNG" if n in (1, 2) else "JPEG") for n in range(5)]
    batch = pixels_on(CPU, [read(0, in_memory(data)) for data in files], TRANSFORM, VIEWS["flip"])
    for found, data in zip(batch.split(2), files, strict=True):
        wanted = read_views(data, TRANSFORM, VIEWS["flip"])
        np.testing.assert_allclose(found.numpy().astype(int), wanted.astype(int), atol=1)


def test_what_nvjpeg_refuses_is_decoded_by_the_cpu_alone_and_not_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    decode, asked = torchvision.io.decode_jpeg, []

    def picky(files: list[torch.Tensor], **options: Any) -> list[torch.Tensor]:
        asked.append(len(files))
        if any(len(file) == len(refused) for file in files):
            raise RuntimeError("nvjpegDecode failed: 2")
        return decode(files, **options)

    monkeypatch.setattr(torchvision.io, "decode_jpeg", picky)
    files = [photograph(60 + 4 * n, 48) for n in range(4)]
    refused = files[2]
    batch = pixels_on(CPU, [np.frombuffer(data, np.uint8) for data in files], TRANSFORM, VIEWS["plain"])
    assert asked == [4, 1, 1, 1, 1]
    np.testing.assert_array_equal(batch[2].numpy(), read_pixels(refused, TRANSFORM))
    assert len(batch) == 4


def test_a_file_that_nobody_decodes_says_why() -> None:
    cut = photograph(500, 375)[:-4000]
    assert is_plain_jpeg(cut)
    with pytest.raises(ImageError, match="truncated"):
        pixels_on(CPU, [np.frombuffer(cut, np.uint8)], TRANSFORM, VIEWS["plain"])


def test_without_a_gpu_nvjpeg_is_refused_before_any_work(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    make_image(tmp_path / "few" / "a" / "0.png", seed=0)
    backbone = load_backbone("lenet5", decoding="nvjpeg", device="cpu")
    with pytest.raises(EngineError, match=r"nvjpeg decodes on a CUDA GPU, and the backbone is on cpu"):
        extract(tmp_path / "few", backbone, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.cuda
@pytest.mark.parametrize("decoding", ["exact", "nvjpeg"])
@pytest.mark.parametrize("compute", ["eager", "compile"])
def test_features_of_a_gpu_are_those_of_the_cpu(tmp_path: Path, decoding: str, compute: str) -> None:
    for n in range(20):
        path = tmp_path / "photos" / "ab"[n % 2] / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(300 + n, 240, seed=n))
    on_cpu = extract(
        tmp_path / "photos", load_backbone("resnet18", weights="random", device="cpu"), cache=tmp_path / "a"
    )
    backbone = load_backbone("resnet18", weights="random", device="cuda", decoding=decoding)
    on_gpu = extract(tmp_path / "photos", backbone, cache=tmp_path / "b", compute=compute, batch_size=8)
    wanted, found = on_cpu.load().features, on_gpu.load().features
    distances = np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert distances.max() < (1e-3 if decoding == "exact" else 5e-2)
