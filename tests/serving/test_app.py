"""A service answers what ``featx.predict`` says, and refuses everything else with a reason."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from images.make import FOLDER
from pictures import file_of, noise
from starlette.testclient import TestClient

import featx
from featx.errors import FeatxError, SettingsError
from featx.heads.head import Head
from featx.serving.creation import create_app
from featx.serving.facts import public_name
from featx.serving.limits import Limits

RAW = {"Content-Type": "application/octet-stream"}
PNG = file_of(noise(8, 8))

Serve = Callable[..., TestClient]


def images_of(folder: Path) -> list[Path]:
    return sorted((folder / "val").rglob("*.png"))


def form(files: list[Path] | list[tuple[str, bytes]], field: str = "files") -> Any:
    named = [(file.name, file.read_bytes()) if isinstance(file, Path) else file for file in files]
    return [(field, (name, data)) for name, data in named]


def assert_same(found: dict[str, Any], expected: featx.inference.Prediction) -> None:
    assert found["label"] == expected.value
    assert [each["label"] for each in found["top"]] == [label for label, _ in expected.top]
    np.testing.assert_allclose([each["probability"] for each in found["top"]], [p for _, p in expected.top], atol=1e-6)


# Predictions


def test_a_form_of_several_images_gets_the_predictions_of_featx_predict_in_its_order(
    client: TestClient, model: Any, photos_here: Path
) -> None:
    files = images_of(photos_here)[::-1]
    answer = client.post("/predict", files=form(files))
    assert answer.status_code == 200
    assert [each["name"] for each in answer.json()["predictions"]] == [file.name for file in files]
    for found, expected in zip(
        answer.json()["predictions"], featx.predict(model, files, top=2, cache=None), strict=True
    ):
        assert_same(found, expected)


@pytest.mark.parametrize(
    "kind", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded", "image/jpeg", None]
)
def test_a_body_that_is_an_image_is_predicted_whatever_binary_type_it_is_called(
    client: TestClient, model: Any, photos_here: Path, kind: str | None
) -> None:
    file = images_of(photos_here)[0]
    answer = client.post("/predict?top=1", content=file.read_bytes(), headers={"Content-Type": kind} if kind else {})
    (found,) = answer.json()["predictions"]
    assert found["name"] == "image 0"
    assert_same(found, featx.predict(model, file, cache=None)[0])


@pytest.mark.parametrize("field", ["file", "images", "anything"])
def test_files_may_be_in_fields_of_any_name(client: TestClient, field: str) -> None:
    assert client.post("/predict", files=form([("a.png", PNG)], field)).status_code == 200


def test_names_are_returned_as_they_came(client: TestClient) -> None:
    names = ["Käfer 1.png", "../../etc/passwd", "=1+1"]
    answer = client.post("/predict", files=form([(name, PNG) for name in names]))
    assert [each["name"] for each in answer.json()["predictions"]] == names


def test_a_bad_image_among_several_does_not_spoil_the_others(client: TestClient, model: Any) -> None:
    damaged = (FOLDER / "truncated.png").read_bytes()
    answer = client.post("/predict", files=form([("a.png", PNG), ("b.png", damaged), ("c.png", PNG)]))
    assert answer.status_code == 200
    first, second, third = answer.json()["predictions"]
    assert first["label"] == third["label"]
    assert second == {"name": "b.png", "error": featx.predict(model, damaged, cache=None)[0].error}


def test_a_request_whose_images_are_all_bad_gets_422_and_the_reasons(client: TestClient) -> None:
    one = client.post("/predict", content=b"hello", headers=RAW)
    assert one.status_code == 422
    assert one.json()["error"] == "not an image of a known format (it begins with b'hello')"
    two = client.post("/predict", files=form([("a", b"hello"), ("b", b"")]))
    assert two.status_code == 422
    assert two.json()["error"] == "none of the 2 images could be predicted"
    assert [each["error"] for each in two.json()["predictions"]] == [one.json()["error"], "the file is empty"]


def test_top_limits_the_classes_and_is_checked(client: TestClient) -> None:
    assert [
        len(client.post(f"/predict{query}", content=PNG, headers=RAW).json()["predictions"][0]["top"])
        for query in ("", "?top=1", "?top=99", "?top=000000002")
    ] == [2, 1, 2, 2]
    for wrong in ("0", "-1", "1.5", "x", "", "9" * 5000):
        answer = client.post(f"/predict?top={wrong}", content=PNG, headers=RAW)
        assert answer.status_code == 422
        assert answer.json()["error"].endswith("expected a whole number above 0")


def test_a_rejected_image_has_no_label_and_a_reason(serve: Serve, model: Any) -> None:
    head = Head.load(model.head.save(model.head.source_.with_name("copy.safetensors")))
    head.postprocess_ = dataclasses.replace(head.postprocess_, reject_below=1.0)
    found = serve(head).post("/predict", content=PNG, headers=RAW).json()["predictions"][0]
    assert found["label"] is None
    assert found["rejected"] is True
    assert found["reason"].startswith("rejected: the most probable class, ")
    assert found["reason"].endswith(", is not probable enough")


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_are_served_too(serve: Serve, features: featx.FeatureSet, photos_here: Path, task: str) -> None:
    rng = np.random.default_rng(0)
    names = ("a", "b|a", "|") if task == "multilabel" else ("1.5", "2.5", "4")
    changed = dataclasses.replace(features, labels=rng.integers(0, 3, len(features)), classes=names)
    head = Head("logreg" if task == "multilabel" else "ridge", C=1.0, task=task).fit(changed)
    files = images_of(photos_here)
    answer = serve(head).post("/predict", files=form(files)).json()["predictions"]
    for found, expected in zip(answer, featx.predict(head, files, top=2, cache=None), strict=True):
        if task == "regression":
            assert found == {"name": found["name"], "value": pytest.approx(expected.value, rel=1e-5)}
        else:
            assert found["labels"] == expected.value
            assert {each["label"]: pytest.approx(each["probability"], abs=1e-5) for each in found["top"]} == dict(
                expected.top
            )


@pytest.mark.parametrize("layer", ["penultimate@flip", "features.3:max,penultimate"])
def test_a_promoted_model_in_views_or_of_several_layers_predicts_as_by_itself(
    serve: Serve, photos_here: Path, in_tmp: Path, layer: str
) -> None:
    views = "flip" if "@flip" in layer else "plain"
    backbone = featx.load_backbone("lenet5", layers=["features.3:max"], views=views, device="cpu")
    head = Head("logreg").fit(featx.extract(photos_here, backbone, compute="eager").load(layer))
    file = featx.promote(head.save("head.safetensors"), out="model.safetensors").path
    promoted, files = featx.load_model(file, device="cpu"), images_of(photos_here)
    service = serve(promoted)
    assert service.app.state.service.facts["kind"] == "promoted model"  # type: ignore[attr-defined]
    for served in (service, serve(head)):
        answer = served.post("/predict", files=form(files)).json()["predictions"]
        for found, expected in zip(answer, featx.predict(promoted, files, top=2), strict=True):
            assert_same(found, expected)


# Refusals


@pytest.mark.parametrize(
    ("kind", "body", "status", "reason"),
    [
        ("application/json", b"{}", 415, "the body is application/json; expected a form"),
        ("text/plain", PNG, 415, "the body is text/plain; expected a form"),
        ("multipart/form-data", b"x", 400, "multipart/form-data without a boundary"),
        ("multipart/form-data; boundary=b", b"x", 400, "not a valid form"),
        ("multipart/form-data; boundary=b", b"", 400, "it ends too early"),
        ("multipart/form-data; boundary=b", b"--b\r\nbroken\r\n\r\n\r\n--b--\r\n", 400, "not a valid form"),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 422, "the form has no image"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + PNG,
            400,
            "it ends too early",
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="url"\r\n\r\nhttp://host/a.jpg\r\n--b--\r\n',
            422,
            "the field 'url' of the form is no file; send image files in fields named files (addresses of images are never",
        ),
        ("application/octet-stream", b"", 422, "the file is empty"),
    ],
)  # fmt: skip
def test_a_body_that_holds_no_images_is_refused_with_a_reason(
    client: TestClient, kind: str, body: bytes, status: int, reason: str
) -> None:
    answer = client.post("/predict", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert reason in answer.json()["error"]


def test_a_compressed_body_is_refused(client: TestClient) -> None:
    answer = client.post("/predict", content=PNG, headers={**RAW, "Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]) == (
        415,
        "the body has a Content-Encoding; send image files as they are",
    )


@pytest.mark.parametrize("path", ["/nothing", "/model/../nothing"])
def test_unknown_paths_and_methods_are_refused_in_the_same_form(client: TestClient, path: str) -> None:
    assert (client.get(path).status_code, client.get(path).json()) == (404, {"error": "not found"})
    refused = client.get("/predict")
    assert (refused.status_code, refused.json(), refused.headers["allow"]) == (
        405,
        {"error": "this path takes POST, not GET"},
        "POST",
    )


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/model", "/metrics", "/", "/docs", "/openapi.json"])
def test_head_is_answered_as_get_without_a_body(client: TestClient, path: str) -> None:
    """Load balancers and monitors ask for health by HEAD."""
    got, head = client.get(path), client.head(path)
    assert (head.status_code, got.status_code, head.content) == (200, 200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    if path != "/metrics":  # whose counters grow
        assert head.headers["content-length"] == got.headers["content-length"]
    assert client.head("/predict").status_code == 405


def test_too_many_bytes_are_refused_before_or_while_they_arrive(serve: Serve) -> None:
    small = serve(limits=Limits(request_bytes=500, image_bytes=300, images=2))
    head = small.post("/predict", content=bytes(501), headers=RAW)
    chunked = small.post("/predict", content=(bytes(100) for _ in range(6)), headers=RAW)
    for answer in (head, chunked):
        assert answer.status_code == 413
        assert answer.json() == {"error": "the request has too many bytes; at most 500 bytes are accepted"}
    image = small.post("/predict", content=bytes(301), headers=RAW)
    assert (image.status_code, image.json()["error"]) == (
        413,
        "image 0 has 301 bytes; at most 300 bytes are accepted for one image",
    )
    several = small.post("/predict", files=form([("a", b""), ("b", b""), ("c", b"")]))
    assert (several.status_code, several.json()["error"]) == (
        413,
        "the request has more than 2 images; send several requests",
    )


def test_an_image_of_too_many_pixels_is_refused_by_its_header(serve: Serve) -> None:
    answer = serve(limits=Limits(pixels=63)).post("/predict", content=PNG, headers=RAW)
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "8 x 8 pixels; at most 63 are read (--max-pixels)",
    )
    bomb = (FOLDER / "header-of-30000-squared.png").read_bytes()
    assert "at most 178,956,970" in serve().post("/predict", content=bomb, headers=RAW).json()["error"]


def test_requests_that_find_no_room_get_503_and_may_come_again(serve: Serve) -> None:
    client = serve(limits=Limits(queue=2, images=2, request_bytes=1000, held_bytes=1000))
    service = client.app.state.service  # type: ignore[attr-defined]
    with service.held.share() as take:
        take(1000)
        answer = client.post("/predict", content=PNG, headers=RAW)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "as many bytes of other requests" in answer.json()["error"]
    service.batcher._waiting.extend([None, None])
    answer = client.post("/predict", content=PNG, headers=RAW)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"] == "the queue is full (2 images wait, of at most 2); try again"
    assert client.get("/readyz").json() == {"error": "the queue is full"}
    assert client.get("/healthz").status_code == 200
    service.batcher._waiting.clear()
    assert client.post("/predict", content=PNG, headers=RAW).status_code == 200
    assert service.held.bytes == 0


def test_a_fault_of_featx_is_a_500_without_a_traceback_and_the_service_goes_on(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve()
    batcher = client.app.state.service.batcher  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(batcher, "_compute", lambda _: 1 / 0)
        answer = client.post("/predict", content=PNG, headers=RAW)
    assert (answer.status_code, answer.json()) == (500, {"error": "the service has failed; its log has the reason"})
    assert "ZeroDivisionError" in caplog.text
    assert client.post("/predict", content=PNG, headers=RAW).status_code == 200


def test_an_image_with_scores_that_are_no_numbers_has_no_prediction(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    batcher = client.app.state.service.batcher  # type: ignore[attr-defined]
    monkeypatch.setattr(batcher, "_compute", lambda pixels: np.full((len(pixels), 2), np.nan))
    answer = client.post("/predict", content=PNG, headers=RAW)
    assert (answer.status_code, answer.json()["error"]) == (422, featx.inference.NOT_FINITE)


# What else there is


def test_with_a_token_only_who_has_it_gets_answers(serve: Serve) -> None:
    client = serve(token="s3cret")
    for path in ("/model", "/metrics"):
        assert client.get(path).status_code == 401
    for wrong in ("s3cret", "Bearer", "Bearer s3cre", "Basic s3cret", "Bearer s3cret2"):
        answer = client.post("/predict", content=PNG, headers={**RAW, "Authorization": wrong})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post("/predict", content=PNG, headers={**RAW, b"Authorization": b"Bearer \xff"}).status_code == 401  # type: ignore[dict-item]
    answer = client.post("/predict", content=PNG, headers={**RAW, "Authorization": "Bearer s3cret"})
    assert answer.status_code == 200
    assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json")] == [
        200
    ] * 5


@pytest.mark.parametrize("token", ["", " ", "a b", "ä", "a\n"])
def test_a_token_that_no_header_can_hold_is_refused(model: Any, token: str) -> None:
    with pytest.raises(SettingsError, match="the token is empty, or has other characters than printable ASCII"):
        create_app(model, token=token)


def test_metrics_count_requests_images_and_batches(serve: Serve) -> None:
    client = serve()
    for body in (PNG, PNG, b"hello"):
        client.post("/predict", content=body, headers=RAW)
    client.get("/no/such/path")
    lines = client.get("/metrics").text.splitlines()
    for line in (
        'featx_requests_total{path="/predict",status="200"} 2.0',
        'featx_requests_total{path="/predict",status="422"} 1.0',
        'featx_requests_total{path="other",status="404"} 1.0',
        'featx_images_total{result="predicted"} 2.0',
        'featx_images_total{result="failed"} 1.0',
        "featx_request_seconds_count 3.0",
        "featx_batch_images_sum 2.0",
        "featx_queued_images 0.0",
        "featx_held_bytes 0.0",
    ):
        assert line in lines
    assert any(line.startswith('featx_model_info{backbone="lenet5",engine="eager",') for line in lines)


def test_the_description_of_the_model_has_its_numbers_and_nothing_of_this_machine(
    client: TestClient, model: Any, photos_here: Path
) -> None:
    facts = client.get("/model").json()
    assert facts["name"] == "dark-or-light"
    assert facts["kind"] == "logreg head"
    assert facts["classes"] == ["dark", "light"]
    assert facts["identity"] == model.head.identity_
    assert facts["report"]["accuracy"] == 1.0
    assert facts["report"]["n"] == 8
    low, high = facts["report"]["interval"]
    assert low < high == 1.0
    assert len(facts["sha256"]) == 64
    for path in ("/model", "/metrics", "/openapi.json", "/docs", "/"):
        text = client.get(path).text
        assert str(photos_here.parent) not in text
        assert "photographs/" not in text


def test_the_name_of_a_backbone_loses_the_folders_of_this_machine() -> None:
    assert public_name("../nets/mine.py:build") == "mine.py:build"
    assert public_name("C:\\nets\\mine.py:build") == "mine.py:build"


def test_a_service_that_was_told_to_stop_is_alive_but_not_ready(serve: Serve) -> None:
    client = serve()
    client.app.state.service.stopping = True  # type: ignore[attr-defined]
    assert client.get("/healthz").json() == {"status": "ok"}
    assert (client.get("/readyz").status_code, client.get("/readyz").json()) == (
        503,
        {"error": "the service is stopping"},
    )


def test_pages_of_other_origins_may_call_the_service_only_if_they_are_allowed(serve: Serve) -> None:
    headers = {**RAW, "Origin": "https://example.org"}
    assert "access-control-allow-origin" not in serve().post("/predict", content=PNG, headers=headers).headers
    allowed = serve(allow_origins=["https://example.org"])
    answer = allowed.post("/predict", content=PNG, headers=headers)
    assert answer.headers["access-control-allow-origin"] == "https://example.org"
    other = allowed.post("/predict", content=PNG, headers={**RAW, "Origin": "https://other.org"})
    assert "access-control-allow-origin" not in other.headers


def test_the_openapi_description_names_every_path_and_its_page_needs_no_other_server(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert sorted(described["paths"]) == ["/healthz", "/metrics", "/model", "/predict", "/readyz"]
    assert set(described["paths"]["/predict"]["post"]["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/octet-stream",
        "image/*",
    }
    assert {"200", "400", "401", "408", "413", "415", "422", "503"} <= set(
        described["paths"]["/predict"]["post"]["responses"]
    )
    page = client.get("/docs")
    assert all(f"<code>{path}" not in page.text for path in ("http://", "https://"))
    assert "script-src 'sha256-" in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_an_app_can_be_mounted_in_another_one(model: Any) -> None:
    outer = FastAPI()
    outer.mount("/ants", create_app(model, compute="eager"))
    client = TestClient(outer)
    assert client.post("/ants/predict", content=PNG, headers=RAW).status_code == 200
    assert client.get("/ants/model").json()["classes"] == ["dark", "light"]


def test_each_request_is_logged_on_a_line_if_that_is_wanted(serve: Serve) -> None:
    lines: list[str] = []
    client = serve(access_log=lines.append)
    client.post("/predict?top=1", content=PNG, headers=RAW)
    client.get("/a%0Ab")
    assert lines[0].startswith("testclient POST /predict 200 1 image ")
    assert lines[1].startswith("testclient GET /a\\nb 404 0 images ")


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client", "python_multipart"])
def test_a_missing_package_is_one_line_with_its_remedy(
    model: Any, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(
        FeatxError, match=rf"^a service needs {package.replace('_', '-')}: pip install 'featx\[serve\]'$"
    ):
        create_app(model)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"images": 0}, "images is 0; expected a whole number above 0"),
        ({"queue": True}, "queue is True; expected a whole number above 0"),
        ({"arrival_seconds": -1}, "arrival_seconds is -1; expected a number above 0"),
        ({"stop_seconds": float("inf")}, "stop_seconds is inf; expected a number above 0"),
        ({"queue": 8}, "expected a queue that holds the images of a whole request"),
        ({"held_bytes": 8}, "expected room for the bytes of a whole request"),
    ],
)
def test_limits_that_cannot_be_are_refused(limits: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        Limits(**limits)


# Strange images


def test_every_strange_image_gets_a_prediction_or_the_reason_of_featx_predict(client: TestClient, model: Any) -> None:
    files = [file for file in sorted(FOLDER.iterdir()) if file.suffix not in (".py", ".md", "") and file.is_file()]
    assert len(files) > 80
    expected = featx.predict(model, [file.read_bytes() for file in files], top=2, cache=None)
    for file, one in zip(files, expected, strict=True):
        answer = client.post("/predict", content=file.read_bytes(), headers=RAW)
        (found,) = answer.json()["predictions"]
        if one.error:
            assert (answer.status_code, found["error"]) == (422, one.error), file.name
        else:
            assert answer.status_code == 200, file.name
            assert_same(found, one)


def test_random_bodies_are_refused_or_predicted_but_never_break_the_service(client: TestClient) -> None:
    rng = np.random.default_rng(0)
    whole = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + PNG + b"\r\n--b--\r\n"
    for _ in range(150):
        body = bytearray(whole)
        for _ in range(rng.integers(1, 8)):
            at = int(rng.integers(len(body)))
            if rng.random() < 0.7:
                body[at] = int(rng.choice([0, 10, 13, 34, 45, 58, 61, 255]))
            else:
                del body[at : at + int(rng.integers(1, 40))]
        kind = "multipart/form-data; boundary=b"
        answer = client.post("/predict", content=bytes(body), headers={"Content-Type": kind})
        assert answer.status_code in (200, 400, 413, 415, 422), json.dumps(answer.json())
        assert answer.status_code == 200 or answer.json()["error"]
    assert client.post("/predict", content=PNG, headers=RAW).status_code == 200
