"""What a repeated fit replaces, and where the files of other fits go."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import new, photos

from featx.heads.head import Head
from featx.heads.head_file import HEAD
from featx.heads.refits import Made, images_digest
from featx.io.model_file import read_metadata
from featx.workflows.fit import fit_head
from featx.workflows.head_files import HeadFiles


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than all else here."""
    monkeypatch.setattr(HeadFiles, "write_picture", lambda *_: None)


def name_of(models: Path, head: Head | str | None = None, **options: Any) -> str:
    return fit_head(photos(**options.pop("features", {})), head, models=models, **options).path.name


def test_each_option_that_is_no_default_stands_in_the_name_of_the_file(tmp_path: Path) -> None:
    assert name_of(tmp_path) == "pets--logreg.safetensors"
    assert name_of(tmp_path, C=0.1, class_weight="balanced") == "pets--logreg--C0.1--balanced.safetensors"
    assert name_of(tmp_path, "ridge", calibrate="isotonic", seed=3) == "pets--ridge--seed3--isotonic.safetensors"
    assert name_of(tmp_path, "ridge", calibrate="temperature") == "pets--ridge.safetensors", "as by default"
    assert name_of(tmp_path, "knn", k=3, reject_below=0.5) == "pets--knn--k3--reject0.5.safetensors"
    assert name_of(tmp_path, "logreg", C=1.0, calibrate="none", logit_adjustment=1) == (
        "pets--logreg--C1--adjust1.safetensors"
    )
    assert len(list(tmp_path.glob("*.safetensors"))) == 6


def test_the_same_fit_again_replaces_its_own_file_and_nothing_is_said(tmp_path: Path) -> None:
    first = fit_head(photos(), "centroid", models=tmp_path)
    again = fit_head(photos(), "centroid", models=tmp_path)
    assert (again.path, again.replaced, again.notes) == (first.path, None, first.notes)
    assert again.as_dict()["replaced"] is None


def test_a_fit_to_more_images_takes_the_same_name_and_says_what_it_replaces(tmp_path: Path) -> None:
    first = fit_head(photos(), "centroid", models=tmp_path)
    again = fit_head(photos(train=25), "centroid", models=tmp_path)
    assert again.path == first.path
    assert again.replaced is not None
    assert (again.replaced.why, again.replaced.n_train) == ("data", 60)
    assert again.notes[0].startswith(f"{first.path} replaces a head (centroid) fitted to 60 images at 20")
    assert (
        again.notes[0]
        .partition("; always ")[0]
        .endswith(
            f"with the same options but other images, labels or splits; its accuracy {first.report.accuracy:.4f} "
            f"({first.report.interval[0]:.4f} to {first.report.interval[1]:.4f}) on 45 images of split test"
        )
    )
    facts = again.as_dict()["replaced"]
    assert facts["result"]["value"] == first.report.accuracy
    assert facts["file"] == str(first.path)


@pytest.mark.parametrize("change", [{"dataset": {"name": "pets", "root": "/elsewhere"}}, {"identity": "f" * 64}])
def test_other_data_and_other_features_of_the_same_name_get_a_file_of_their_own(
    change: dict[str, Any], tmp_path: Path
) -> None:
    first = fit_head(photos(), "centroid", models=tmp_path)
    before = first.path.read_bytes()
    other = fit_head(photos(**change), "centroid", models=tmp_path)
    assert other.path.name.startswith("pets--centroid--")
    assert (len(other.path.name), other.replaced) == (len("pets--centroid--12345678.safetensors"), None)
    assert first.path.read_bytes() == before
    again = fit_head(photos(**change), "centroid", models=tmp_path)
    assert (again.path, again.replaced) == (other.path, None)


def test_a_named_file_is_replaced_and_it_is_said_by_what(tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    fit_head(photos(), "centroid", out=out)
    assert fit_head(photos(), "centroid", out=out).replaced is None
    fit = fit_head(photos(), "knn", k=3, out=out)
    assert fit.replaced is not None
    assert "replaces a head (centroid) fitted to 60 images" in fit.notes[0]
    assert "with other options" in fit.notes[0]
    again = fit_head(photos(), "ridge", out=out)
    assert again.replaced is not None
    assert again.replaced.what == "head (knn, k=3)"


def test_a_head_of_an_earlier_version_is_replaced_with_a_note(tmp_path: Path) -> None:
    head = new("centroid").fit(photos())
    head.save(tmp_path / "pets--centroid.safetensors", report=head.evaluate(photos()))
    fit = fit_head(photos(), "centroid", models=tmp_path)
    assert fit.path.name == "pets--centroid.safetensors"
    assert fit.replaced is not None
    assert (fit.replaced.why, fit.replaced.at) == ("", "")
    assert "fitted to 60 images; its accuracy" in fit.notes[0]


def test_options_that_make_a_name_too_long_become_a_hash(tmp_path: Path) -> None:
    features = dataclasses.replace(
        photos(), group="g" * 300, groups=np.arange(len(photos())).astype(str).astype(object)
    )
    name = fit_head(features, "centroid", models=tmp_path).path.name
    assert len(name) == len("pets--centroid--12345678.safetensors")


def test_a_file_states_its_options_and_which_images_judged_it(tmp_path: Path) -> None:
    fits = [fit_head(photos(), kind, models=tmp_path) for kind in ("centroid", "ridge")]
    fits.append(fit_head(photos(test=16), "knn", models=tmp_path))
    made = [Made.of(read_metadata(fit.path, HEAD)) for fit in fits]
    assert [each.options["model"] for each in made if each] == ["centroid", "ridge", "knn"]
    first, second, third = (each.judged for each in made if each)
    assert first == second != third


def test_a_digest_counts_copies_and_tells_labels_apart_at_any_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.random.default_rng(0).integers(0, 256, (50, 16), dtype=np.uint8)
    labels, names = np.arange(50) % 3 - 1, ["ant", "bee"]
    whole = images_digest(keys, labels, names)
    order = np.random.default_rng(1).permutation(50)
    assert images_digest(keys[order], labels[order], names) == whole
    assert images_digest(keys, labels, names, order) == whole
    monkeypatch.setattr("featx.heads.refits._ROWS_AT_ONCE", 7)
    assert images_digest(keys, labels, names) == whole
    twice = np.append(np.arange(50), 0)
    others = {images_digest(keys, labels, names, rows) for rows in (twice, order[:49], np.append(twice, 0))}
    swapped = labels.copy()
    swapped[[1, 2]] = swapped[[2, 1]]
    others |= {images_digest(keys, swapped, names), images_digest(keys, labels, ["ant", "cat"])}
    assert len(others - {whole}) == 5
    assert images_digest(keys[:0], labels[:0], names) == ""


@pytest.mark.parametrize("stored", [None, 3, {"options": 1}, {"options": {}, "at": 5}])
def test_a_strangers_record_counts_as_none(stored: Any) -> None:
    assert Made.of({"made": stored}) is None


@pytest.mark.parametrize("at", ["", "yesterday", "9" * 50])
def test_a_strangers_time_counts_as_none(at: str) -> None:
    assert Made(at, "1").time is None
