"""``featx export``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import featx
from PIL import Image

import featx as api
from featx.errors import HeadError, SettingsError
from featx.inspection.coordinates import map_coordinates
from featx.inspection.neighbours import nearest_neighbours

parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")


def rows_of(path: str) -> list[dict[str, Any]]:
    return parquet.read_table(path).to_pylist()


def test_a_file_for_embedding_atlas_has_its_columns(photos: Path, in_tmp: Path) -> None:
    file = json.loads(featx("extract", photos, "-b", "lenet5", "--json").stdout)["file"]
    result = featx("export", "--for", "embedding-atlas", "-o", "photos.parquet")
    assert result.stdout.splitlines()[0] == "40 images, 40 of them with their pixels: photos.parquet"
    command = "next: embedding-atlas photos.parquet --x x --y y --neighbors neighbors --image image"
    assert result.stdout.splitlines()[2] == command
    rows = rows_of("photos.parquet")
    features = api.FeatureSet.load(file)
    assert [row["path"] for row in rows] == features.paths.tolist()
    assert [row["label"] for row in rows] == [features.classes[label] for label in features.labels]
    np.testing.assert_array_equal([[row["x"], row["y"]] for row in rows], map_coordinates(features))
    near = nearest_neighbours(features)
    np.testing.assert_array_equal([row["neighbors"]["ids"] for row in rows], near.indices)
    np.testing.assert_array_equal([row["neighbors"]["distances"] for row in rows], near.distances)
    assert {row["image"]["path"] for row in rows} == set(features.paths.tolist())
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).format == "JPEG"
    assert {"is_label_issue", "is_outlier_issue", "near_duplicate_score"} <= rows[0].keys()


def test_images_that_are_missing_are_null_and_files_are_exported_whole(photos: Path, in_tmp: Path) -> None:
    featx("extract", photos, "-b", "lenet5")
    (photos / "dark" / "03.png").unlink()
    (photos / "light" / "05.png").write_bytes(b"changed")
    result = featx("export", "--for", "embedding-atlas", "-o", "all.parquet", "--pixels", "full", "--no-findings")
    assert "the file has no pixels of 2 images, which could not be read or had changed" in result.stderr
    rows = {row["path"]: row for row in rows_of("all.parquet")}
    assert [path for path, row in rows.items() if row["image"] is None] == ["dark/03.png", "light/05.png"]
    assert rows["dark/04.png"]["image"]["bytes"] == (photos / "dark" / "04.png").read_bytes()
    assert "is_outlier_issue" not in rows["dark/04.png"]
    result = featx("export", "--for", "embedding-atlas", "-o", "all.parquet", "--pixels", "none", "--json")
    assert json.loads(result.stdout)["command"] == "embedding-atlas all.parquet --x x --y y --neighbors neighbors"
    assert "image" not in rows_of("all.parquet")[0]


def test_the_predictions_of_a_head_are_added(fitted: Path, in_tmp: Path) -> None:
    featx("export", "--for", "embedding-atlas", "-o", "a.parquet", "--head", fitted, "--pixels", "none")
    rows = rows_of("a.parquet")
    assert {row["prediction"] for row in rows} == {"dark", "light"}
    assert all(0.5 <= row["probability"] <= 1 for row in rows)


def test_what_cannot_be_exported_is_one_message(photos: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    featx("extract", photos, "-b", "lenet5")
    assert "ends in .csv" in featx("export", "--for", "embedding-atlas", "-o", "a.csv", status=1).stderr
    assert (
        "'fiftyone' is not 'embedding-atlas'"
        in featx("export", "--for", "fiftyone", "-o", "a.parquet", status=2).stderr
    )
    Path("mine.parquet").write_bytes(b"PAR1 mine")
    result = featx("export", "--for", "embedding-atlas", "-o", "mine.parquet", status=1)
    assert "mine.parquet exists and is not an export for embedding-atlas of featx" in result.stderr
    result = featx(
        "export", "--for", "embedding-atlas", "-o", "a.parquet", "--no-findings", "--task", "regression", status=2
    )
    assert "--task has no effect with --no-findings" in result.stderr
    monkeypatch.setattr("featx.io.tables.find_spec", lambda name: None)
    result = featx("export", "--for", "embedding-atlas", "-o", "a.parquet", status=1)
    assert "writing a.parquet needs pyarrow: pip install 'featx[parquet]'" in result.stderr


def test_one_image_names_that_are_not_utf8_and_features_that_are_not_finite(in_tmp: Path) -> None:
    from inspections import unlabelled

    one = unlabelled(np.ones((1, 4), dtype=np.float32))
    assert api.export(one, out="one.parquet", pixels="none").images == 1
    several = unlabelled(np.random.default_rng(0).normal(size=(6, 4)))
    several.features[2] = np.nan
    several.paths[3] = "caf\udce9 <b>.png"
    exported = api.export(several, out="six.parquet", pixels="full")
    assert any("the features of 1 image are NaN or infinite" in note for note in exported.notes)
    rows = rows_of("six.parquet")
    assert [row["path"] for row in rows] == ["0.png", "1.png", "caf� <b>.png", "4.png", "5.png"]
    assert {each for row in rows for each in row["neighbors"]["ids"]} <= set(range(5))
    with pytest.raises(HeadError, match="no image with finite features"):
        api.export(several.take(np.array([2])), out="none.parquet")
    with pytest.raises(SettingsError, match="tool is 'fiftyone'; expected one of embedding-atlas"):
        api.export(several, out="six.parquet", tool="fiftyone")
    with pytest.raises(SettingsError, match="seed is -1; expected 0 to"):
        api.export(several, out="six.parquet", method="tsne", seed=-1)


def test_features_are_exported_by_the_ending_of_the_file(photos: Path, in_tmp: Path) -> None:
    file = json.loads(featx("extract", photos, "-b", "lenet5", "--json").stdout)["file"]
    lines = featx("export", "--to", "photos.npy").stdout.splitlines()
    assert lines[0].startswith("40 images: photos.npy (")
    assert lines[1] == "layers: penultimate (84)"
    assert lines[2] == "columns in photos.csv: path, label, label_index, split, key"
    facts = json.loads(featx("export", file, "--to", "photos.safetensors", "--json").stdout)
    assert (facts["layers"], facts["left_out"], facts["names"]) == ({"penultimate": 84}, 0, None)


def test_an_export_has_one_purpose(in_tmp: Path) -> None:
    assert "expected either --to FILE" in featx("export", status=1).stderr
    assert "expected either --to FILE" in featx("export", "--to", "a.npy", "--for", "embedding-atlas", status=1).stderr
    result = featx("export", "--for", "embedding-atlas", status=1)
    assert "--for embedding-atlas needs a file to write; name it with -o" in result.stderr
    result = featx("export", "--to", "a.npy", "--map", "pca", "-o", "b.parquet", status=2)
    assert "have no effect without --for" in result.stderr
