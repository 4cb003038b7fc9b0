"""``featx fit-head``: the printed evaluation, and every kind of head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import featx, without_times
from joint_features import part, written

from featx.workflows import comparison


def test_fit_head_prints_the_evaluation(fitted: Path) -> None:
    result = featx("fit-head", "cache/split--lenet5.h5", "--model", "logreg", "-C", "1")
    assert without_times(result.stdout) == (
        "logreg (C=1) on penultimate of cache/split--lenet5.h5: fitted to 32 images of 2 classes in TIME\n"
        "\n"
        "Evaluated on 16 images of split val\n"
        "accuracy  1.0000  (95 % interval 0.8064 to 1.0000; 16 of 16 right; always 'dark' 0.5000)\n"
        "balanced accuracy  macro F1  log loss   AUROC  average precision     ECE\n"
        + next(line for line in result.stdout.splitlines() if line.startswith("           1.0000    1.0000  ")) + "\n"
        "\n"
        "class  precision  recall      F1  images\n"
        "dark       1.000   1.000   1.000       8\n"
        "light      1.000   1.000   1.000       8\n"
        "\n"
        "true \\ predicted  dark  light\n"
        "dark                 8      0\n"
        "light                0      8\n"
        "\n"
        "head: models/split--lenet5--logreg--C1.safetensors\n"
        "confusion matrix: models/split--lenet5--logreg--C1.png\n"
    )  # fmt: skip
    assert Path("models/split--lenet5--logreg--C1.png").read_bytes().startswith(b"\x89PNG")


def test_a_regression_needs_no_kind_of_head_in_options_and_recipes(split_photos: Path, in_tmp: Path) -> None:
    files = sorted(path.relative_to(split_photos) for path in split_photos.rglob("*.png"))
    rows = [f"{file},{number / 7},{file.parts[0]}" for number, file in enumerate(files)]
    (split_photos / "t.csv").write_text("\n".join(["path,label,split", *rows]))
    featx("extract", split_photos / "t.csv", "-b", "lenet5")
    facts = json.loads(featx("fit-head", "--task", "regression", "--cv", "3", "--layer", "best", "--json").stdout)
    assert (facts["model"], facts["task"]) == ("ridge", "regression")
    Path("r.toml").write_text('[fit-head]\ntask = "regression"\n')
    facts = json.loads(featx("run", "r.toml", "--json").stdout)["fit-head"]
    assert (facts["model"], facts["head"]) == ("ridge", "models/t--lenet5--ridge.safetensors")
    assert (
        "logreg cannot do regression" in featx("fit-head", "--task", "regression", "--model", "logreg", status=1).stderr
    )


def test_what_was_requested_is_printed_before_what_every_fit_prints(fitted: Path) -> None:
    shown = featx("fit-head", "--cv", "3", "--shots", "1,2", "--model", "ridge").stdout
    assert "nan" not in shown, "a single draw has no standard deviation"
    places = [
        shown.index(text) for text in ("shots  accuracy", "Cross-validated: 3 folds", "images of split val", "head: ")
    ]
    assert places == sorted(places)


def test_more_neighbours_than_training_images_are_noted(fitted: Path) -> None:
    facts = json.loads(featx("fit-head", "--model", "knn", "--k", "500", "--cv", "none", "--json").stdout)
    assert facts["k"] == 32
    note = "k is 32 instead of 500: the head has no more training rows to find neighbours among"
    assert [n for n in facts["notes"] if n.startswith("k is")] == [note]


def test_the_selected_kind_is_named_by_the_options_that_fit_it_again(
    fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "auto_candidates", lambda task, rows: [("svm", "rbf")])
    shown = featx("fit-head", "--model", "auto", "--cv", "none").stdout
    assert "Selected: --model svm --kernel rbf, the simplest head" in shown


def test_a_single_image_of_each_class_makes_a_head_that_nothing_judges(split_photos: Path, in_tmp: Path) -> None:
    for kind in ("dark", "light"):
        image = sorted((split_photos / "train" / kind).iterdir())[0]
        (in_tmp / "one" / kind).mkdir(parents=True)
        (in_tmp / "one" / kind / image.name).write_bytes(image.read_bytes())
    featx("extract", "one", "-b", "lenet5", "--cache", "single")
    result = featx("fit-head", "single/one--lenet5.h5", "--model", "centroid")
    assert "fitted to 2 images of 2 classes" in result.stdout
    assert "accuracy" not in result.stdout
    assert (
        "nothing judges this head: it was fitted to all 2 labelled images, which are too few to be divided"
        in result.stderr
    )
    assert "needs two classes or more" in featx("fit-head", "single/one--lenet5.h5", "--cv", "2", status=1).stderr


@pytest.mark.parametrize("model", ["default", "auto"])
def test_the_best_layer_for_numbers_is_that_of_a_head_for_numbers(model: str, in_tmp: Path) -> None:
    X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    np.savez("v.npz", features=X, labels=2.5 * X[:, 0] + 0.1, ids=np.arange(60).astype(str))
    featx("import", "v.npz")
    options = [] if model == "default" else ["--model", model]
    facts = json.loads(featx("fit-head", "--layer", "best", "--cv", "none", *options, "--json").stdout)
    assert (facts["model"], facts["task"]) == ("ridge", "regression")
    assert [line["layer"] for line in facts["compared_layers"]] == ["penultimate"]
    wrong = featx("fit-head", "--layer", "best", "--model", "logreg", status=1).stderr
    assert "logreg cannot do regression; expected one of ridge" in wrong


@pytest.mark.parametrize("model", ["linear", "svm", "ridge", "knn", "centroid", "mlp", "auto"])
def test_every_kind_of_head_can_be_fitted(fitted: Path, model: str) -> None:
    facts = json.loads(featx("fit-head", "--model", model, "--json").stdout)
    assert facts["model"] == model or model == "auto"
    assert facts["accuracy"] > 0.8
    assert Path(facts["head"]).is_file()


def test_c_for_a_head_that_has_none_is_refused(fitted: Path) -> None:
    assert featx("fit-head", "--model", "knn", "-C", "1", status=1).stderr == (
        "Error: C is only for logreg, svm, ridge, bilinear; knn has none, so leave out -C\n"
    )


def test_a_comparison_is_printed_before_what_every_fit_prints(fitted: Path) -> None:
    featx("fit-head", "--model", "ridge", "-o", "earlier.safetensors")
    shown = featx("fit-head", "--model", "logreg", "--compare", "earlier.safetensors")
    assert "compared with earlier.safetensors on 16 images of split val that neither head has seen:\n" in shown.stdout
    assert "earlier    1.0000  0.8064 to 1.0000            0\n" in shown.stdout
    places = [
        shown.stdout.index(text) for text in ("compared with", "No difference is shown (p = 1, ", "balanced accuracy")
    ]
    assert places == sorted(places)
    facts = json.loads(featx("fit-head", "--model", "logreg", "--compare", "earlier.safetensors", "--json").stdout)
    assert (facts["compare"]["verdict"], facts["compare"]["n"]) == ("undecided", 16)
    wrong = featx("fit-head", "--compare", "cache/split--lenet5.h5", status=1).stderr
    assert "is a feature file" in wrong


def test_the_predictions_for_each_labelled_image_go_to_a_file(fitted: Path) -> None:
    shown = featx("fit-head", "--predictions", "each.csv").stdout
    assert "predictions for each labelled image: each.csv\n" in shown
    rows = [row.split(",") for row in Path("each.csv").read_text().splitlines()]
    place = {name: number for number, name in enumerate(rows[0])}
    by = {(row[place["split"]], row[place["predicted_by"]]) for row in rows[1:]}
    assert by == {("train", "out of fold"), ("val", "head")}
    assert json.loads(featx("fit-head", "--predictions", "each.csv", "--json").stdout)["predictions"] == "each.csv"
    Path("mine.csv").write_text("path,label\n")
    assert "name another file with --predictions" in featx("fit-head", "--predictions", "mine.csv", status=1).stderr


def test_several_files_are_fitted_and_what_each_adds_is_printed(in_tmp: Path) -> None:
    for name in ("one", "two"):
        written(Path("cache"), part(name))
    result = featx("fit-head", "cache/pets--one.h5", "cache/pets--two.h5", "--model", "ridge", "-C", "0.01")
    assert "on penultimate of cache/pets--one.h5 and cache/pets--two.h5: fitted to 60 images" in result.stdout
    assert "\nbackbones  accuracy  log loss  images/s" in result.stdout
    assert "\ntogether " in result.stdout
    assert "\ntwo beside the other: " in result.stdout
    by_name = featx("fit-head", "cache/pets--one.h5", "--with", "two", "--model", "ridge", "-C", "0.01", "--json")
    assert json.loads(by_name.stdout)["files"] == ["cache/pets--one.h5", "cache/pets--two.h5"]
    wrong = featx("fit-head", "cache/pets--one.h5", "--with", "four", status=1).stderr
    assert (
        "--with four: there is no other feature file of pets through it in cache; there are files through: two. featx"
        in wrong
    )
    third = part("three")
    third.backbone["name"] = "timm/four"
    written(Path("cache"), third, name="pets--four.h5")
    wrong = featx("fit-head", "cache/pets--one.h5", "--with", "four", status=1).stderr
    assert "there are files through: timm/four, two; did you mean --with timm/four?" in wrong
