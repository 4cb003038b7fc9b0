"""A model is exported, proved, written, and runs without featx."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from command_line import featx as run_featx
from PIL import Image

import featx
from featx.deployment import WholeModel, onnx_file, openvino_file, proof
from featx.deployment.onnx_graph import Graph
from featx.deployment.precision import Comparison
from featx.errors import ExportError, FileError, OutputError, SettingsError
from featx.heads.head import Head
from featx.io.outputs import OutputKind
from featx.metrics.classification import ClassificationReport
from featx.metrics.paired import PairedTest


@pytest.fixture(scope="module", autouse=True)
def _network_exported_once() -> Iterator[None]:
    """Preprocessing and network are the same in all tests, and take seconds to export."""
    made: dict[bool, Graph] = {}
    export = Graph.of

    def of(whole: WholeModel, *, has_float64: bool = True) -> Graph:
        if has_float64 not in made:
            made[has_float64] = export(whole, has_float64=has_float64)
        return made[has_float64].with_head_of(whole)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Graph, "of", of)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of two tints and sizes, a head on LeNet-5's features of them that rejects, and its export."""
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for name, tint in (("dark one", 60), ("light", 190)):
            (folder / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                size = (40 + 3 * number, 33, 3)
                pixels = np.clip(rng.normal(tint, 40, size), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "photos" / split / name / f"{number}.png")
    features = featx.extract(folder / "photos", "lenet5", cache=folder / "cache").load()
    head = Head("svm", kernel="rbf", reject_below=0.7, calibrate="isotonic").fit(features)
    head.save(folder / "head.safetensors", report=head.evaluate(features))
    featx.export_model(folder / "head.safetensors", folder / "model.onnx")
    return folder


def opened(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_model_runs_in_onnx_runtime_alone_on_images_that_pillow_opens(place: Path) -> None:
    files = sorted((place / "photos" / "val").rglob("*.png"))
    session, classes = opened(place / "model.onnx"), featx.Head.load(place / "head.safetensors").names_
    decisions = set()
    for prediction in featx.predict(place / "head.safetensors", files, top=2, cache=None):
        pixels = np.asarray(Image.open(prediction.path).convert("RGB"))
        p, label, embedding = session.run(None, {"image": pixels})
        assert dict(zip(classes, p[0].tolist(), strict=True)) == pytest.approx(dict(prediction.top), abs=1e-5)
        assert (None if label[0] == -1 else classes[label[0]]) == prediction.value
        assert embedding.shape == (1, 84)
        decisions.add(prediction.value)
    assert len(decisions) > 1


def test_a_batch_gives_what_its_images_give_alone(place: Path) -> None:
    session = opened(place / "model.onnx")
    batch = np.random.default_rng(1).integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)
    together = session.run(None, {"image": batch})
    for row, pixels in enumerate(batch):
        for found, alone in zip(together, session.run(None, {"image": pixels}), strict=True):
            np.testing.assert_allclose(found[row], alone[0], atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 4), (2, 5, 6, 1), (3, 5, 6, 4)])
def test_other_channels_are_refused(shape: tuple[int, ...], place: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(place / "model.onnx", options)
    with pytest.raises(Exception, match="cannot be reshaped"):
        session.run(None, {"image": np.zeros(shape, np.uint8)})


def test_the_file_says_what_the_model_is_and_how_it_was_proved(place: Path) -> None:
    metadata = opened(place / "model.onnx").get_modelmeta()
    facts = metadata.custom_metadata_map
    assert json.loads(facts["classes"]) == ["dark one", "light"]
    assert facts["identity"] == Head.load(place / "head.safetensors").identity_
    assert facts["featx"] == featx.__version__
    assert (facts["split"], facts["n"], facts["reject_below"]) == ("val", "12", "0.7")
    assert len(json.loads(facts["interval"])) == 2
    assert facts["dataset"] == "photos"
    assert str(place) not in "".join(facts.values())
    proved = json.loads(facts["proof"])
    assert (proved["images"], proved["same_labels"]) == (36, 36)
    assert proved["largest_difference"] <= proof.TOLERANCE
    assert metadata.producer_name == "featx"
    assert onnx_file.read_facts(place / "model.onnx")["classes"] == ["dark one", "light"]


def test_the_operators_are_those_of_opset_18(place: Path) -> None:
    model = onnx.load(place / "model.onnx")
    assert {(each.domain, each.version) for each in model.opset_import} == {("", 18)}
    assert model.ir_version == 8
    assert not model.functions


def test_a_model_that_predicts_otherwise_is_not_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnx_file.runner

    def shifted(session: Any) -> Any:
        run = real(session)

        def wrong(pixels: np.ndarray) -> Mapping[str, np.ndarray]:
            found = run(pixels)
            return {**found, "probabilities": found["probabilities"] + 2e-4}

        return wrong

    monkeypatch.setattr(onnx_file, "runner", shifted)
    with pytest.raises(ExportError, match=r"not the same as in featx: on 36 images the largest difference is 0\.0002"):
        featx.export_model(place / "head.safetensors", place / "wrong.onnx")
    assert not (place / "wrong.onnx").exists()


def test_a_file_of_somebody_else_is_not_replaced(place: Path) -> None:
    (place / "theirs.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    with pytest.raises(OutputError, match="exists and is not an ONNX model of featx"):
        featx.export_model(place / "head.safetensors", place / "theirs.onnx")


def test_images_that_are_gone_need_a_folder(place: Path, tmp_path: Path) -> None:
    head = Head.load(place / "head.safetensors")
    head.source_, head.dataset_ = None, {**head.dataset_, "root": str(tmp_path / "gone")}
    head.save(tmp_path / "moved.safetensors")
    with pytest.raises(ExportError, match="name a folder of such images with --images"):
        featx.export_model(tmp_path / "moved.safetensors", tmp_path / "x.onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match=r"not found \(.*empty"):  # what is wrong with the folder that was named
        featx.export_model(tmp_path / "moved.safetensors", tmp_path / "x.onnx", images=tmp_path / "empty")
    assert not (tmp_path / "x.onnx").exists()
    folders = [tmp_path / "empty", place / "photos"]
    assert featx.export_model(tmp_path / "moved.safetensors", tmp_path / "x.onnx", images=folders).proof.holds


def test_unknown_formats_and_precisions_are_refused_by_name(place: Path) -> None:
    with pytest.raises(SettingsError, match=r"model\.tflite is no format of a model; expected model\.onnx"):
        featx.export_model(place / "head.safetensors", "model.tflite")
    with pytest.raises(SettingsError, match="precision is 'int4'; expected float32, float16, int8"):
        featx.export_model(place / "head.safetensors", "x.onnx", precision="int4")


def test_the_command_refuses_what_does_not_fit_together(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    features = str(next(Path("cache").glob("*.h5")))
    for words, message in (
        ((features, "--to", "x.onnx"), "is a feature file; expected a head or a promoted model for --to x.onnx"),
        (("head.safetensors", "--to", "x.parquet"), "x.parquet is no format of a model"),
        (("head.safetensors", "--to", "x.onnx", "--layer", "y"), "--layer has no effect with a model"),
        ((features, "--to", "x.npy", "--precision", "int8"), "--precision has no effect with features"),
    ):
        result = run_featx("export", *words, status=2 if "no effect" in message else 1)
        assert message in result.stderr


def test_int8_is_calibrated_and_judged_on_the_same_images(place: Path) -> None:
    exported = featx.export_model(place / "head.safetensors", place / "int8.onnx", precision="int8")
    found = exported.comparison
    assert found is not None
    assert found.images == 12
    assert exported.proof.holds
    assert found.paired is not None
    assert found.paired.n == 12
    assert found.before.headline[1] == featx.Head.load(place / "head.safetensors").evaluate(
        featx.FeatureSet.load(next((place / "cache").glob("*.h5")))
    ).headline[1]  # fmt: skip
    model = onnx.load(place / "int8.onnx")
    kinds = {each.op_type for each in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    inputs = [name for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.input]
    assert all(name.startswith("network/") or name == "preprocess/images" for name in inputs)
    facts = onnx_file.read_facts(place / "int8.onnx")
    assert facts["precision"] == "int8"
    assert facts["comparison"]["int8"] == found.after.headline[1]


def test_float16_changes_the_network_alone(place: Path) -> None:
    exported = featx.export_model(place / "head.safetensors", place / "half.onnx", precision="float16", batch_only=True)
    model = onnx.load(place / "half.onnx")
    onnx.checker.check_model(model, full_check=True)
    halves = [each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT16]
    assert halves
    assert all(name.startswith("network/") for name in halves)
    assert exported.comparison is not None
    assert exported.comparison.same_labels == 12
    sides = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["N", "H", "W", 3]


def test_a_loss_of_accuracy_that_luck_does_not_explain_is_said() -> None:
    names = [f"{n}.png" for n in range(20)]
    labels, worse = np.zeros(20, dtype=np.int64), np.array([1] * 8 + [0] * 12)
    probabilities = np.tile([0.9, 0.1], (20, 1))
    reports = [
        ClassificationReport.from_predictions(labels, p, ("a", "b"), split="test")
        for p in (probabilities, np.eye(2)[worse])
    ]
    for precision, remedy in (("int8", "--precision float16 loses less"), ("float16", "leave out --precision")):
        paired = PairedTest.from_predictions(names, labels, labels, worse)
        found = Comparison(precision, reports[0], reports[1], paired, (4, 1), (1.0, 2.0), 12, 20)
        (note,) = found.notes()
        assert "8 more of 20 images are wrong than in float32, which luck does not explain" in note
        assert note.endswith(remedy)
        assert replace(found, paired=PairedTest.from_predictions(names, labels, labels, labels)).notes() == []


def test_openvino_gives_the_same(place: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO")
    exported = featx.export_model(place / "head.safetensors", place / "ov" / "model.xml")
    assert [path.name for path, _ in exported.files] == ["model.xml", "model.bin"]
    assert exported.proof.holds
    model = openvino.Core().compile_model(place / "ov" / "model.xml", "CPU")
    pixels = np.asarray(Image.open(place / "photos" / "val" / "light" / "3.png"))
    expected = opened(place / "model.onnx").run(["probabilities"], {"image": pixels})[0]
    np.testing.assert_allclose(model({"image": pixels[None]})["probabilities"], expected, atol=1e-4)
    featx.export_model(place / "head.safetensors", place / "ov" / "model.xml")  # its own files are replaced
    (place / "ov" / "other.bin").write_bytes(b"data")
    with pytest.raises(OutputError, match=r"other\.bin exists and is not a file of weights"):
        featx.export_model(place / "head.safetensors", place / "ov" / "other.xml")


def test_no_graph_of_openvino_is_left_beside_the_weights_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write, fault = tmp_path / "m.xml", openvino_file.write_output, OSError(28, "No space left on device")
    graph, weights = b"<net ><featx /></net>", b"1" + openvino_file._MARK
    openvino_file.write_pair(path, graph, weights)

    def stop_at_the_graph(at: Path, data: bytes, kind: OutputKind) -> None:
        if at == path:
            raise fault
        write(at, data, kind)

    with monkeypatch.context() as patch:
        patch.setattr(openvino_file, "write_output", stop_at_the_graph)
        with pytest.raises(FileError, match="No space left"):
            openvino_file.write_pair(path, graph, b"2" + openvino_file._MARK)
    assert [each.name for each in tmp_path.iterdir()] == ["m.bin"]  # which OpenVINO does not take for a model
    openvino_file.write_pair(path, graph, weights)  # the next run is not stopped by what the last one left
    assert path.read_bytes() == graph
