"""A folder that is handed over works without featx: with torch alone, and in the library of its network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vision_models
from command_line import featx as run_featx
from PIL import Image
from safetensors.torch import load_file

import featx
from featx.data.decode import read_pixels
from featx.deployment import handover
from featx.deployment.handover import MANIFEST
from featx.deployment.job import ExportJob
from featx.deployment.proof import Proof
from featx.errors import OutputError
from featx.inspection import describe_file

NAMES = ("no", 'a "b" |\n---', "größe 1e3")
"""Names of classes that YAML, Markdown and JSON each could misread."""


def photographs(folder: Path, names: tuple[str, ...] = NAMES) -> str:
    """A table of noise in a tint for each class, in two splits; it lies beside its images."""
    import csv

    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    rows = []
    for tint, name in zip((40, 130, 220), names, strict=True):
        for number in range(12):
            pixels = np.clip(rng.normal(tint, 40, (37 + number, 41, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / f"{tint}-{number}.png")
            rows.append((f"photos/{tint}-{number}.png", name, "test" if number > 7 else "train"))
    with (folder / "secret-place.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return str(folder / "secret-place.csv")


def exported(folder: Path, backbone: str, kind: str = "logreg", **options: Any) -> Path:
    """A head on a backbone, fitted to photographs and handed over in the folder ``out``."""
    network = featx.load_backbone(backbone, weights=options.pop("weights", "default"), device="cpu")
    extraction = featx.extract(photographs(folder), network, cache=folder / "cache")
    featx.fit_head(extraction.file, kind, task="classification", out=folder / "head.safetensors", **options)
    return featx.export_model(folder / "head.safetensors", f"{folder}/out/").path


def expected(folder: Path) -> tuple[list[Path], np.ndarray]:
    """Some images, and featx's own (n, C) probabilities for them, in the order of its classes."""
    files = sorted((folder / "photos").glob("*.png"))[::5]
    classes = featx.Head.load(folder / "head.safetensors").names_
    found = [dict(p.top) for p in featx.predict(folder / "head.safetensors", files, top=9, cache=None)]
    return files, np.array([[each[name] for name in classes] for each in found])


def prepared(folder: Path, files: list[Path]) -> torch.Tensor:
    """The images as featx gives them to the network."""
    from featx.backbones.pixels import normalise

    transform = featx.load_model(folder / "head.safetensors", device="cpu").transform
    return normalise(
        torch.from_numpy(np.stack([read_pixels(file.read_bytes(), transform) for file in files])), transform
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handed")
    exported(folder, "lenet5", reject_below=0.5, conformal=0.2)
    return folder


@pytest.fixture
def without_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the program, which takes seconds to export: what a library loads does not depend on it."""

    def proved(job: ExportJob) -> tuple[bytes, Proof, dict[str, Any]]:
        reference = job.reference
        proof = Proof(len(reference.images), 0.0, len(reference.images), reference.split)
        return b"", proof, {**job.whole().facts, "torch": torch.__version__}

    monkeypatch.setattr(handover, "proved_program", proved)
    monkeypatch.setattr(handover, "_add_example", lambda *_: None)


ALONE = """
import sys
allowed = {"torch", "torchgen", "functorch", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec", "filelock",
           "typing_extensions", "setuptools", "pkg_resources", "nvidia", "cuda"}
class Alone:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first in allowed or first in sys.stdlib_module_names or first.startswith("_sysconfigdata"):
            return self.finder.find_spec(name, path, target)
sys.meta_path = [Alone(finder) for finder in sys.meta_path]
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What predict.py does where only torch and the standard library can be imported."""
    command = [sys.executable, "-W", "ignore", "-c", ALONE, "predict.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_script_predicts_the_example_with_torch_alone(place: Path) -> None:
    found = alone(place / "out", "example.ppm")
    assert found.returncode == 0, found.stderr
    answer, known = json.loads(found.stdout), json.loads((place / "out" / "example.json").read_text())
    assert answer.keys() == known.keys()
    assert answer["label"] == known["label"]
    assert answer["set"] == known["set"]
    assert answer["probabilities"] == pytest.approx(known["probabilities"], abs=1e-4)
    assert set(answer["probabilities"]) == set(NAMES)


def test_the_script_names_pillow_where_it_is_missing(place: Path) -> None:
    found = alone(place / "out", str(next((place / "photos").iterdir())))
    assert found.returncode == 1
    assert "pip install pillow" in found.stderr
    assert "Traceback" not in found.stderr


def test_the_script_gives_the_probabilities_of_featx_for_images_that_pillow_opens(place: Path) -> None:
    files, probabilities = expected(place)
    command = [sys.executable, "-W", "ignore", "predict.py", *map(str, files)]
    found = subprocess.run(command, cwd=place / "out", capture_output=True, text=True, check=True).stdout
    answers = [json.loads(line) for line in found.splitlines()]
    classes = featx.Head.load(place / "head.safetensors").names_
    np.testing.assert_allclose(
        [[a["probabilities"][name] for name in classes] for a in answers], probabilities, atol=1e-4
    )


def test_the_card_is_one_of_the_hub_whose_names_stay_texts(place: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs the hub's client")
    card = hub.ModelCard.load(place / "out" / "README.md")
    stored = describe_file(place / "head.safetensors")["report"]
    accuracy = next(result for result in card.data.eval_results if result.metric_type == "accuracy")
    assert accuracy.metric_value == stored["accuracy"]
    assert accuracy.dataset_split == "test"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.license is None
    assert r'a "b" \|\\n---' in card.text
    assert f"95 % interval {stored['interval'][0]:.4g}" in card.text


def test_no_file_names_a_folder_of_this_machine(place: Path) -> None:
    for file in (place / "out").iterdir():
        content = file.read_bytes()
        assert str(place).encode() not in content, file.name
        assert str(Path.home()).encode() + b"/" not in content, file.name
        assert b"handed0" not in content, file.name
        assert str(Path(featx.__file__).parent).encode() not in content, file.name
        assert str(Path(torch.__file__).parent).encode() not in content, file.name


@pytest.mark.usefixtures("without_program")
def test_a_folder_of_featx_is_replaced_and_one_with_other_files_is_not(place: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(place / "out", tmp_path / "out")
    featx.export_model(place / "head.safetensors", f"{tmp_path}/out/")
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["files"].keys() >= {"README.md", "model.pt2"}
    (tmp_path / "out" / "README.md").write_text("my own words")
    with pytest.raises(OutputError, match=r"README\.md changed.*not replaced"):
        featx.export_model(place / "head.safetensors", f"{tmp_path}/out/")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    result = run_featx("export", place / "head.safetensors", "--to", f"{tmp_path}/mine/", status=1)
    assert "is not a folder of an exported model of featx, so it is not replaced" in result.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mine", "out"]


def test_a_program_takes_images_of_any_size_and_carries_its_facts(place: Path) -> None:
    files = {"featx.json": ""}
    program = torch.export.load(place / "out" / "model.pt2", extra_files=files).module()
    facts = json.loads(files["featx.json"])
    assert facts["classes"] == sorted(NAMES)
    assert facts["proof"]["same_labels"] == facts["proof"]["images"] > 0
    whole = featx.deployment.WholeModel.load(place / "head.safetensors")
    for shape in ((1, 1, 1, 3), (3, 9, 400, 3), (2, 333, 200, 3)):
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        found, known = program(pixels), whole(pixels)
        torch.testing.assert_close(found["probabilities"], known.probabilities, atol=1e-5, rtol=0)
        assert torch.equal(found["label"], known.label)


@pytest.mark.usefixtures("without_program")
def test_timm_and_transformers_load_a_network_of_timm_with_the_head(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    package = vision_models.transformers()
    out = exported(tmp_path, "timm/test_efficientnet", weights="random")
    files, probabilities = expected(tmp_path)
    images = prepared(tmp_path, files)
    network = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    wrapped = package.AutoModelForImageClassification.from_pretrained(out)
    with torch.inference_mode():
        np.testing.assert_allclose(network(images).softmax(1), probabilities, atol=1e-4)
        np.testing.assert_allclose(wrapped(pixel_values=images).logits.softmax(1), probabilities, atol=1e-4)
    assert list(wrapped.config.id2label.values()) == list(network.pretrained_cfg["label_names"]) == sorted(NAMES)
    processor = package.AutoImageProcessor.from_pretrained(out)
    batch = processor([Image.open(file) for file in files], return_tensors="pt")["pixel_values"]
    std = torch.tensor(network.pretrained_cfg["std"]).view(1, 3, 1, 1)
    assert float(((batch - images).abs() * std * 255).max()) < 1.5  # levels: Pillow rounds otherwise than torch


@pytest.mark.usefixtures("without_program")
def test_transformers_loads_its_network_with_the_head_and_the_pixels_of_featx(tmp_path: Path) -> None:
    package = vision_models.transformers()
    vision_models.vit(tmp_path / "vit")
    out = exported(tmp_path, f"hf/{tmp_path / 'vit'}", "svm")
    files, probabilities = expected(tmp_path)
    network = package.AutoModelForImageClassification.from_pretrained(out)
    processor = package.AutoImageProcessor.from_pretrained(out)
    batch = processor([Image.open(file) for file in files], return_tensors="pt")
    assert float((batch["pixel_values"] - prepared(tmp_path, files)).abs().max()) < 1e-5
    with torch.inference_mode():
        np.testing.assert_allclose(network(**batch).logits.softmax(1), probabilities, atol=1e-4)
    assert network.config.label2id["no"] == sorted(NAMES).index("no")


@pytest.mark.usefixtures("without_program")
def test_a_head_that_is_no_layer_leaves_the_features_to_the_library(tmp_path: Path) -> None:
    package = vision_models.transformers()
    vision_models.vit(tmp_path / "vit")
    out = exported(tmp_path, f"hf/{tmp_path / 'vit'}", "knn")
    assert json.loads((out / "config.json").read_text())["architectures"] == ["ViTModel"]
    assert "scorer.support" in load_file(out / "head.safetensors")
    files, _ = expected(tmp_path)
    model = featx.load_model(tmp_path / "head.safetensors", device="cpu")
    features = model.backbone.embed(files)  # type: ignore[union-attr]
    with torch.inference_mode():
        tokens = package.AutoModel.from_pretrained(out)(pixel_values=prepared(tmp_path, files)).last_hidden_state
    np.testing.assert_allclose(tokens[:, 0], features, atol=1e-4)
    assert "gives the features alone" in (out / "README.md").read_text()


@pytest.mark.usefixtures("without_program")
def test_torchvision_builds_its_network_as_the_config_says(tmp_path: Path) -> None:
    import torchvision

    out = exported(tmp_path, "shufflenet_v2_x0_5", weights="random", C=1.0)
    config = json.loads((out / "config.json").read_text())
    network = torchvision.models.get_model(config["torchvision_model"], **config["arguments"]).eval()
    network.load_state_dict(load_file(out / "model.safetensors"))
    files, probabilities = expected(tmp_path)
    with torch.inference_mode():
        np.testing.assert_allclose(network(prepared(tmp_path, files)).softmax(1), probabilities, atol=1e-4)
