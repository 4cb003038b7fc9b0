"""The same photos from every source: identical keys, features byte for byte, and no forward pass after the first."""

from __future__ import annotations

import functools
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_image

from featx.backbones.backbone import Backbone, load_backbone
from featx.data.scan import scan_images
from featx.extraction.pipeline import extract
from featx.extraction.result import Extraction
from featx.features.feature_file import FeatureFile

COUNT = 24


@pytest.fixture(scope="module")
def lenet() -> Backbone:
    return load_backbone("lenet5", device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two classes, some with names that need quoting in a URL."""
    root = tmp_path_factory.mktemp("from") / "photos"
    for number in range(COUNT):
        label, tint = (("dark", 60), ("light", 190))[number % 2]
        name = f"{number:02} ü#1%.png" if number < 4 else f"{number:02}.jpg"
        write_image(root / label / name, seed=number, tint=tint)
    return root


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def as_zip(folder: Path, out: Path) -> str:
    with zipfile.ZipFile(out / "photos.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files_of(folder):
            archive.write(path, path.relative_to(folder.parent))
    return str(out / "photos.zip")


def as_tar(folder: Path, out: Path, ending: str) -> str:
    with tarfile.open(out / f"photos{ending}", f"w:{'gz' if ending.endswith('gz') else ''}") as archive:
        archive.add(folder, "photos")
    return str(out / f"photos{ending}")


def as_shards(folder: Path, out: Path) -> str:
    for shard in range(2):
        with tarfile.open(out / f"shard-{shard:03}.tar", "w") as archive:
            for path in files_of(folder)[shard::2]:
                key = path.name.partition(".")[0].replace(" ", "_")
                for ending, data in ((path.suffix, path.read_bytes()), (".cls", path.parent.name.encode())):
                    member = tarfile.TarInfo(f"{key}{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return str(out / "shard-{000..001}.tar")


def as_parquet(folder: Path, out: Path) -> str:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")

    rows = [
        {"image": {"bytes": path.read_bytes(), "path": path.name}, "label": path.parent.name}
        for path in files_of(folder)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), out / "photos.parquet", row_group_size=7)
    return str(out / "photos.parquet")


def as_hugging_face(folder: Path, out: Path) -> str:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    files = files_of(folder)
    rows = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in files],
        "label": [("dark", "light").index(path.parent.name) for path in files],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dark", "light"])})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(out / "saved"))
    return str(out / "saved")


def as_memory(folder: Path, out: Path) -> str:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    memory = fsspec.filesystem("memory")
    for path in files_of(folder):
        memory.pipe(f"/{out.name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"memory://{out.name}"


def as_table(folder: Path, out: Path) -> str:
    rows = [{"path": str(path), "label": path.parent.name} for path in files_of(folder)]
    (out / "photos.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(out / "photos.jsonl")


class _Quiet(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("ETag", f'"{self.path}"')
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(folder: Path) -> Iterator[str]:
    """The URL of the photos on a web server that lists folders."""
    pytest.importorskip("fsspec", reason="needs fsspec")
    handler = functools.partial(_Quiet, directory=str(folder.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/photos/"
        server.shutdown()


def rows_of(result: Extraction) -> dict[bytes, tuple[bytes, str]]:
    """The features and the label of each image of a feature file, by its key."""
    file = FeatureFile(result.file)
    names = [file.classes[label] for label in file.images.labels]
    return {
        key.tobytes(): (row.tobytes(), name)
        for key, row, name in zip(file.keys, np.asarray(file.features("penultimate")), names, strict=True)
    }


SOURCES: dict[str, Callable[[Path, Path], str]] = {
    "zip": as_zip,
    "tar": lambda folder, out: as_tar(folder, out, ".tar"),
    "tar.gz": lambda folder, out: as_tar(folder, out, ".tar.gz"),
    "shards": as_shards,
    "parquet": as_parquet,
    "hugging face": as_hugging_face,
    "memory": as_memory,
    "table": as_table,
}


def assert_shared(data: str, folder: Path, lenet: Backbone, cache: Path) -> None:
    """Assert that a source shares its rows with the folder, whichever of the two is extracted first."""
    first = extract(folder, lenet, cache=cache)
    assert first.computed == COUNT
    other = extract(data, lenet, cache=cache)
    assert (other.images, other.computed, other.reused, other.failed) == (COUNT, 0, COUNT, 0)
    assert rows_of(other) == rows_of(first)
    again = extract(data, lenet, cache=cache)
    assert (again.computed, again.reused, again.file) == (0, COUNT, other.file)
    alone = extract(data, lenet, cache=cache / "alone")
    assert (alone.computed, alone.failed) == (COUNT, 0)
    assert rows_of(alone) == rows_of(first)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_shares_its_rows_with_the_folder(kind: str, folder: Path, tmp_path: Path, lenet: Backbone) -> None:
    assert_shared(SOURCES[kind](folder, tmp_path), folder, lenet, tmp_path / "cache")


def test_a_web_server_shares_its_rows_with_the_folder(
    served: str, folder: Path, tmp_path: Path, lenet: Backbone
) -> None:
    assert_shared(served, folder, lenet, tmp_path / "cache")


@pytest.mark.parametrize("kind", [*(kind for kind in SOURCES if kind != "memory"), "web"])  # memory has no versions
def test_a_second_run_reads_no_image(
    kind: str, folder: Path, tmp_path: Path, lenet: Backbone, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = served if kind == "web" else SOURCES[kind](folder, tmp_path)
    extract(data, lenet, cache=tmp_path / "cache")
    images = scan_images(data)
    monkeypatch.setattr(type(images.store), "read", None)  # any read fails
    assert extract(data, lenet, cache=tmp_path / "cache").reused == COUNT
