"""What the workers of a cluster do: read and decode images, and run the network. Tables of Arrow go in and out.

A fault that concerns all images is a row of its own in the output, ``refused``, which stops the run with one line; an exception
would be retried and reported with its traceback.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Callable, Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featx._version import __version__
from featx.data.augment import read_random_view
from featx.data.boxes import split_box
from featx.data.loader import LoadedImage, PixelReader, read_images, views_reader
from featx.data.openers import open_store
from featx.data.pillow import reader_name
from featx.data.store import ImageFile
from featx.data.transform import Transform
from featx.data.urls import adopt_secrets
from featx.errors import FeatxError
from featx.layer_spec import RandomView, View
from featx.text import brief, from_utf8

Samples = tuple[tuple[bytes, int | None], ...]
"""Paths of images, in the bytes of the file system, and their sizes in bytes; None for one that was not asked for."""

FEATURES = "features of "
"""Begins the names of the columns with features, which end in the name of the layer."""

_DEVICE_LANES = 2
"""Threads that run the network on a GPU, so that copies overlap with kernels."""


@dataclass(frozen=True)
class Places:
    """Where the images are, as the driver sees them.

    Attributes:
        location: of the store.
        samples: some of them, as ``Samples``.
    """

    location: str
    samples: Samples

    def fault(self) -> str:
        """What this machine does not see as the driver does; "" if it sees all samples."""
        try:
            store = open_store(self.location)
            if not store.exists():
                return f"does not see {self.location}"
            for name, size in self.samples:
                path = os.fsdecode(name)
                found = int(store.facts([split_box(path)[0]]).sizes[0])
                if found < 0 or size not in (None, found):
                    what = f"finds {found:,} bytes instead of {size:,} at" if found >= 0 else "does not see"
                    return f"{what} {ImageFile(store, path).name}"
        except FeatxError as error:
            return f"cannot open the images: {error}"
        return ""


@dataclass(frozen=True)
class Decoding:
    """How images are read and decoded.

    Attributes:
        places: where they are.
        transform: what makes them the input of the network.
        views: V views of each.
        max_pixels: an image with more pixels fails.
        known: a reference to the (K,) S16 sorted keys of images whose pixels are not needed; or None.
        secrets: what grants access to URLs of the images.
    """

    places: Places
    transform: Transform
    views: tuple[View | RandomView, ...]
    max_pixels: int
    known: Any
    secrets: Any

    @property
    def reader(self) -> PixelReader:
        """The function that makes the (V, C, H, W) uint8 pixels of an image."""
        view, limit = self.views[0], self.max_pixels
        if isinstance(view, RandomView):
            return lambda _, file: read_random_view(file.data, self.transform, view, max_pixels=limit, box=file.box)[
                None
            ]
        return views_reader(self.transform, [view for view in self.views if isinstance(view, View)], max_pixels=limit)


@dataclass(frozen=True)
class Encoding:
    """How the network is built and run.

    Attributes:
        name: of the backbone.
        described: name, weights and parts of the backbone, as a feature file stores them.
        identities: of the features of each layer in each view of the plan.
        views: the views whose pixels come.
        device: of torch.
        engine: the name of the engine.
        batch: images of a pass; None for the engine's default.
        folder: the driver's working folder, which names of files may be relative to.
    """

    name: str
    described: Mapping[str, Any]
    identities: Mapping[str, str]
    views: tuple[View | RandomView, ...]
    device: str
    engine: str
    batch: int | None
    folder: str


class _Keys(Container[bytes]):
    """Membership in (K,) S16 sorted keys."""

    def __init__(self, keys: np.ndarray) -> None:
        self._keys = keys

    def __contains__(self, key: object) -> bool:
        at = int(np.searchsorted(self._keys, np.bytes_(key)))
        return at < len(self._keys) and self._keys[at] == np.bytes_(key)


_checked: dict[Places, str] = {}
"""What ``Places.fault`` said in this process."""


def decode(table: Any, decoding: Decoding) -> Any:
    """Read and decode some images.

    Args:
        table: ``row`` and ``path`` of R images.
        decoding: how.

    Returns:
        One row for each image, with its ``pixels`` where they are needed.
    """
    began = time.perf_counter()
    places = decoding.places
    if places not in _checked:
        adopt_secrets(decoding.secrets)
        _checked[places] = places.fault()
    if fault := _checked[places]:
        return _refused("DatasetError", f"{_node()} {fault}; {SHARED}")
    import ray

    known = _Keys(ray.get(decoding.known)) if decoding.known is not None else ()
    try:
        store = open_store(places.location)
        files = (
            (row, ImageFile(store, os.fsdecode(path)))
            for row, path in zip(table["row"].to_pylist(), table["path"].to_pylist(), strict=True)
        )
        images = list(read_images(files, decoding.reader, workers=1, known=known))
    except FeatxError as error:
        return _refused(type(error).__name__, f"{_node()}: {error}")
    return _table_of(images, (time.perf_counter() - began) / max(1, len(images)))


SHARED = "all machines of the cluster must see the images under the same path, on a shared file system or on a server such as s3://…"


def _node() -> str:
    import ray

    return f"the machine {ray.util.get_node_ip_address()}"


def _table_of(images: list[LoadedImage], seconds: float) -> Any:
    pixels = [None if image.pixels is None else image.pixels.tobytes() for image in images]
    facts = np.array([(image.row, image.size, image.mtime_ns, *image.marks) for image in images], dtype=np.int64)
    return pa.table(
        {
            **{name: facts[:, at] for at, name in enumerate(("row", "size", "mtime", "ctime", "inode"))},
            "key": pa.array([image.key for image in images], type=pa.binary(16)),
            "error": pa.array([image.error.encode(errors="surrogateescape") for image in images], type=pa.binary()),
            "pixels": pa.array(pixels, type=pa.large_binary()),
            "decoding": np.full(len(images), seconds),
            "refused": pa.array([""] * len(images), type=pa.string()),
        }
    )


def _refused(kind: str, message: str) -> Any:
    """A table that stops the run with an error of this class."""
    text = f"{kind}:{message}".encode(errors="replace").decode()
    image = LoadedImage(-1, bytes(16), None)
    table = _table_of([image], 0.0)
    return table.set_column(table.schema.get_field_index("refused"), "refused", pa.array([text], type=pa.string()))


class Encoder:
    """An actor that has the network, and runs it on tables of decoded images, or of images that it decodes itself.

    The network is built once, and checked to give features of the driver's identities before the first images come.
    """

    def __init__(self, encoding: Encoding, decoding: Decoding | None = None) -> None:
        """Build the network.

        Args:
            encoding: how.
            decoding: how to read and decode images besides; None where tasks of their own do so.
        """
        self._encoding, self._decoding = encoding, decoding
        self._engine: Any = None
        self._lanes: ThreadPoolExecutor
        self._fault = ("", "")
        try:
            self._backbone = self._restored()
        except FeatxError as error:
            self._fault = type(error).__name__, str(error)
        except Exception as error:  # of torch or a file of code; an exception here would be retried
            self._fault = "BackboneError", f"{encoding.name} cannot be loaded: {brief(error)}"

    def _restored(self) -> Any:
        import torch

        encoding = self._encoding
        if encoding.device == "cuda" and not torch.cuda.is_available():
            raise FeatxError("torch finds no CUDA GPU, although Ray has given one to this worker")
        return restored(encoding.described, encoding.identities, encoding.name, encoding.device, encoding.folder)

    def __call__(self, table: Any) -> Any:
        """Run the network on the images of a table that have pixels.

        Args:
            table: as ``decode`` returns it; or as it takes it, if this actor decodes.

        Returns:
            The table with the features of each layer, zeros where there are none, in the place of the pixels.
        """
        if self._decoding and not self._fault[0]:
            table = decode(table, self._decoding)
        return self._encoded(table)

    def _encoded(self, table: Any) -> Any:
        began = time.perf_counter()
        if self._fault[0] and (self._decoding or not any(table["refused"].to_pylist())):
            table = _refused(self._fault[0], f"{_node()}: {self._fault[1]}")
        some = table["pixels"].is_valid().to_numpy()
        features: dict[str, np.ndarray] = {}
        if some.any():
            try:
                features = self._features(table["pixels"].filter(pa.array(some)))
            except FeatxError as error:
                return self._encoded(_refused(type(error).__name__, f"{_node()}: {error}"))
        rows = len(table)
        table = table.drop_columns(["pixels"]).append_column("computed", pa.array(some))
        for layer, dtype_width in self._widths().items():
            whole = np.zeros((rows, dtype_width), dtype=np.uint8)
            if layer in features:
                whole[some] = np.ascontiguousarray(features[layer]).view(np.uint8)
            table = table.append_column(FEATURES + layer, packed(whole))
        seconds = (time.perf_counter() - began) / max(1, rows)
        return table.append_column("encoding", pa.array(np.full(rows, seconds)))

    def _widths(self) -> dict[str, int]:
        """The bytes of a row of each layer in the views that come; nothing where the network could not be built."""
        if self._fault[0]:
            return {}
        views = self._backbone.with_views(self._encoding.views)
        return {layer: dim * np.dtype(views.dtype).itemsize for layer, dim in views.layers.items()}

    def _features(self, pixels: Any) -> dict[str, np.ndarray]:
        """(B, D) of each layer of B images."""
        import torch

        from featx.backbones.backbone import split_views
        from featx.extraction.engines import one_thread_each, open_engine

        shape = self._backbone.transform.shape
        batch = np.concatenate([np.frombuffer(cell.as_buffer(), dtype=np.uint8) for cell in pixels]).reshape(-1, *shape)
        with one_thread_each():
            if self._engine is None:
                encoding = self._encoding
                lanes = 1 if encoding.device == "cpu" else _DEVICE_LANES
                self._lanes = ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(1,))
                self._engine = open_engine(
                    encoding.engine, self._backbone, lanes=lanes, batch=encoding.batch, sample=batch[:8]
                )
            engine = self._engine
            size = engine.batch * max(1, engine.portion // engine.batch)
            parts = [batch[at : at + size] for at in range(0, len(batch), size)]
            outputs = list(self._lanes.map(engine, parts) if engine.lanes > 1 else map(engine, parts))
        rows = {layer: np.concatenate([output[layer] for output in outputs]) for layer in outputs[0]}
        return split_views(rows, self._encoding.views)


def restored(described: Mapping[str, Any], identities: Mapping[str, str], name: str, device: str, folder: str) -> Any:
    """The backbone that the driver has, built here; see ``Encoding`` for the arguments."""
    from featx.backbones.restored import restore_backbone

    with _in_folder(folder):
        return restore_backbone(described, layers=identities, name=name, device=device)


@contextlib.contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    """Work in a folder, where there is one of this name."""
    if not Path(folder).is_dir():
        yield
        return
    with contextlib.chdir(folder):
        yield


def packed(rows: np.ndarray) -> Any:
    """(N, W) uint8 as N cells of W bytes."""
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.shape[1]), len(rows), [None, pa.py_buffer(rows.tobytes())]
    )


def unpacked(column: Any, dtype: str) -> np.ndarray:
    """(N, D) of N cells, as ``packed`` makes them."""
    array = column.combine_chunks()
    width = array.type.byte_width
    data = np.frombuffer(array.buffers()[1], dtype=np.uint8)[array.offset * width : (array.offset + len(array)) * width]
    return data.reshape(len(array), width).view(dtype)


def error_text(cell: bytes) -> str:
    """The reason why an image failed."""
    return from_utf8(cell)


def versions() -> dict[str, str]:
    """What decides the features beside the backbone: featx, torch, and what decodes images."""
    torch = importlib.import_module("torch").__version__.partition("+")[0]  # builds for CPUs and GPUs have one version
    return {"featx": __version__, "torch": torch, "a decoder of images": reader_name()}


def network_fault(
    described: Mapping[str, Any], identities: Mapping[str, str], name: str, folder: str
) -> tuple[str, str]:
    """Why this machine cannot build the network that the driver has.

    Args:
        described: as of ``Encoding``.
        identities: as of ``Encoding``.
        name: as of ``Encoding``.
        folder: as of ``Encoding``.

    Returns:
        The name of the error's class, and its message; ("", "") if it can.
    """
    try:
        restored(described, identities, name, "cpu", folder)
    except FeatxError as error:
        return type(error).__name__, str(error)
    except Exception as error:  # of torch or a file of code
        return "BackboneError", f"{name} cannot be loaded: {brief(error)}"
    return "", ""


def look_around() -> Callable[..., tuple[str, str] | None]:
    """The function with which each machine is asked, before anything runs, whether it can take part.

    It is sent by its code, not by its name, since featx may be missing there.
    """

    def look(
        expected: dict[str, str],
        network: dict[str, Any],
        location: str,
        samples: Any,
        secrets: Any,
    ) -> tuple[str, str] | None:
        import importlib

        everywhere = "install the same version on all machines of the cluster"
        try:
            there = importlib.import_module("featx").__version__
            if there != expected["featx"]:
                return "EngineError", f"has featx {there}, and this one {expected['featx']}; {everywhere}"
            workers = importlib.import_module("featx.extraction.cluster.workers")
            found = workers.versions()
        except ImportError as error:
            return (
                "EngineError",
                f"cannot import what it needs ({error}); install featx[ray] on all machines of the cluster",
            )
        for what, version in expected.items():
            if found[what] != version:
                return "EngineError", f"has {what} {found[what]}, and this one {version}; {everywhere}"
        workers.adopt_secrets(secrets)
        if fault := workers.Places(location, samples).fault():
            return "DatasetError", f"{fault}; {workers.SHARED}"
        kind, fault = workers.network_fault(**network)
        return (kind, f"cannot take part: {fault}") if kind else None

    return look
