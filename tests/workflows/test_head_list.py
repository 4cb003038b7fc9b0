"""The list of heads and promoted models of a folder."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from made import photos
from task_features import measured, tagged

from featx.errors import ModelNotFoundError, SettingsError
from featx.heads.head import Head
from featx.promotion.promotion import promote
from featx.workflows.fit import fit_head
from featx.workflows.head_files import HeadFiles
from featx.workflows.head_list import HeadEntry, list_heads


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than all else here."""
    monkeypatch.setattr(HeadFiles, "write_picture", lambda *_: None)


def names(folder: Path, **options: str) -> list[str]:
    return [entry.name for entry in list_heads(folder, **options)]


def test_an_entry_says_what_was_fitted_and_how_good_it_is(tmp_path: Path) -> None:
    fit = fit_head(photos(source=Path("c/pets--lenet5.h5"), layer="inner@flip"), "ridge", C=0.5, models=tmp_path)
    (entry,) = list_heads(tmp_path)
    assert (entry.path, entry.name) == (fit.path, "pets--lenet5--inner--flip--ridge--C0.5")
    assert (entry.kind, entry.head, dict(entry.chosen), entry.calibration) == (
        "ridge",
        "ridge",
        {"C": 0.5},
        "temperature",
    )
    assert (entry.dataset, entry.backbone, entry.layer, entry.views) == ("pets", "lenet5", "inner", "flip")
    assert entry.result is not None
    assert (entry.result.value, entry.result.interval, entry.result.n) == (fit.report.accuracy, fit.report.interval, 45)
    assert (entry.n_train, entry.seconds, entry.bytes) == (60, fit.head.seconds_, fit.path.stat().st_size)
    assert abs((datetime.datetime.now(datetime.UTC) - entry.at).total_seconds()) < 60
    json.dumps(list_heads(tmp_path).as_dict(), allow_nan=False)


def test_heads_judged_by_the_same_images_share_a_letter_and_no_others(tmp_path: Path) -> None:
    relabelled = photos()
    relabelled.labels[-1] = (relabelled.labels[-1] + 1) % 3
    for kind, features in (
        ("ridge", photos()), ("centroid", photos()), ("knn", photos(test=10)), ("logreg", relabelled),
    ):  # fmt: skip
        fit_head(features, kind, models=tmp_path)
    found = list_heads(tmp_path)
    letters = {entry.kind: entry.test_set for entry in found}
    assert letters["ridge"] == letters["centroid"] == "A"
    assert len(set(letters.values())) == 3
    assert found.test_sets["A"] == "45 images of split test of pets"


def test_an_error_and_an_accuracy_on_the_same_images_have_two_letters(tmp_path: Path) -> None:
    fit_head(measured(), "ridge", task="regression", models=tmp_path / "m")
    fit_head(tagged(), "ridge", models=tmp_path / "m", out=tmp_path / "m" / "labels.safetensors")
    by_name = {entry.task: entry for entry in list_heads(tmp_path / "m")}
    assert by_name["regression"].result.name == "RMSE"
    assert (by_name["multilabel"].result.name, by_name["multilabel"].result.interval) == ("mAP", None)
    assert by_name["regression"].test_set != by_name["multilabel"].test_set


def test_files_of_earlier_versions_are_told_apart_by_what_they_state(tmp_path: Path) -> None:
    for name, features in (("a", photos()), ("b", photos()), ("c", photos(test=10))):
        head = Head("centroid").fit(features)
        head.save(tmp_path / f"{name}.safetensors", report=head.evaluate(features))
        os.utime(tmp_path / f"{name}.safetensors", (1e9, 1e9))
    found = list_heads(tmp_path, sort="name")
    assert [entry.test_set for entry in found] == ["A", "A", "B"]
    assert found.entries[0].at == datetime.datetime.fromtimestamp(1e9, datetime.UTC)
    assert found.test_sets["A"].endswith("not known which: the files are of an earlier version")


def test_each_order_is_that_of_its_column(tmp_path: Path) -> None:
    for number, (kind, features) in enumerate(
        (("ridge", photos(gap=1.0)), ("centroid", photos()), ("knn", photos(dataset={"name": "Bees", "root": "r"})))
    ):
        fit = fit_head(features, kind, models=tmp_path)
        text = fit.path.read_bytes()
        assert text
        os.utime(fit.path, (number, number))
    entries = {entry.name: entry for entry in list_heads(tmp_path)}
    keys: dict[str, Callable[[HeadEntry], object]] = {
        "name": lambda e: e.name.casefold(), "time": lambda e: e.seconds, "size": lambda e: -e.bytes,
        "data": lambda e: e.dataset.casefold(), "kind": lambda e: e.kind, "backbone": lambda e: e.backbone,
    }  # fmt: skip
    for order, key in keys.items():
        assert [key(e) for e in list_heads(tmp_path, sort=order)] == sorted(map(key, entries.values())), order
    by_accuracy = list_heads(tmp_path, sort="accuracy").entries
    assert [e.test_set for e in by_accuracy] == sorted(e.test_set for e in by_accuracy)
    with pytest.raises(
        SettingsError, match=r"sort is 'acuracy'; did you mean accuracy\?; expected one of date, accuracy"
    ):
        list_heads(tmp_path, sort="acuracy")


def test_the_best_comes_first_and_for_errors_that_is_the_lowest(tmp_path: Path) -> None:
    for noise in (0.1, 1.0, 3.0):
        fit_head(measured(), Head("ridge", task="regression", C=10 ** -(3 * noise)), models=tmp_path)
    values = [entry.result.value for entry in list_heads(tmp_path, sort="accuracy")]
    assert values == sorted(values)
    other = tmp_path / "classes"
    for kind in ("ridge", "knn", "centroid"):
        fit_head(photos(gap=1.0), kind, models=other)
    values = [entry.result.value for entry in list_heads(other, sort="accuracy")]
    assert values == sorted(values, reverse=True)


def test_filters_take_a_data_set_and_a_kind(tmp_path: Path) -> None:
    fit_head(photos(), "ridge", models=tmp_path)
    fit_head(photos(), "knn", models=tmp_path)
    fit_head(photos(dataset={"name": "蜜蜂 Bees", "root": "r"}), "ridge", models=tmp_path)
    assert names(tmp_path, data="*bees", sort="name") == ["蜜蜂 Bees--ridge"]
    assert names(tmp_path, kind="ridge", sort="name") == ["pets--ridge", "蜜蜂 Bees--ridge"]
    assert names(tmp_path, kind="promoted") == []


def test_files_that_cannot_be_used_are_listed_last_with_the_reason(tmp_path: Path) -> None:
    whole = fit_head(photos(), "centroid", models=tmp_path).path.read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.safetensors").write_bytes(b"")
    (tmp_path / "c.safetensors").mkdir()
    (tmp_path / "d.safetensors").symlink_to("nowhere")
    (tmp_path / "e.safetensors").write_bytes((12).to_bytes(8, "little") + b'{"a":[1, 2]}')
    first, *faulty = list_heads(tmp_path)
    assert first.fault == ""
    assert [entry.path.name[0] for entry in faulty] == [*"abcde"]
    for entry, words in zip(faulty, ("header of", "empty", "folder", "No such file", "tensor"), strict=True):
        assert words in entry.fault
        assert str(entry.path) not in entry.fault
        assert (entry.kind, entry.result) == ("", None)


def test_a_folder_that_is_not_there_has_no_heads_and_a_file_is_an_error(tmp_path: Path) -> None:
    assert len(list_heads(tmp_path / "none")) == 0
    (tmp_path / "f").write_text("x")
    with pytest.raises(ModelNotFoundError, match=r"f is a file; expected a folder of heads and models"):
        list_heads(tmp_path / "f")


def test_a_promoted_model_shares_the_letter_of_its_head(split_photos: Path, in_tmp: Path) -> None:
    import featx

    file = featx.extract(split_photos, "lenet5").file
    fit = fit_head(file, C=1.0)
    promote(fit.path)
    head, model = sorted(list_heads("models"), key=lambda entry: entry.kind)
    assert (model.kind, model.verdict, model.head, dict(model.chosen)) == (
        "promoted",
        "assembled",
        "logreg",
        {"C": 1.0},
    )
    assert (model.test_set, model.judged) == (head.test_set, head.judged)
    assert model.result == head.result
    assert names(Path("models"), kind="promoted") == ["split--lenet5--logreg--C1--promoted"]
    assert dataclasses.replace(model, path=head.path) != head
