"""No file of the user's is lost under one that featx writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from made import photos
from matplotlib.figure import Figure

from featx.errors import OutputError
from featx.heads.head import Head
from featx.heads.head_file import HEAD
from featx.io.outputs import (
    ADVICE,
    CONFUSION,
    PAGE,
    RANKING,
    Output,
    OutputKind,
    require_outputs,
    require_replaceable,
    table,
    write_output,
)
from featx.promotion.model_file import MODEL
from featx.report import plots
from featx.report.html import Page, render_inspection

LOG = table("log", ("epoch", "loss"))
EVERY_KIND = (HEAD.kind, MODEL.kind, CONFUSION, RANKING, ADVICE, PAGE, LOG)


def fitted() -> Head:
    return Head("centroid").fit(photos())


def a_picture(kind: OutputKind, path: Path) -> Path:
    plots.save_png(Figure(figsize=(1, 1)), path, kind)
    return path


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Path]:
    """A file of every kind that a head brings."""
    files = {name: tmp_path / "own" / f"x{name}" for name in (".safetensors", ".png", ".html", ".csv")}
    files[".png"].parent.mkdir()
    fitted().save(files[".safetensors"])
    a_picture(RANKING, files[".png"])
    page = Page(title="t", summary="", facts={}, headline="")
    files[".html"].write_text(render_inspection(page, "{}", "[]"))
    write_output(files[".csv"], b"epoch,loss\n0,1\n", LOG)
    return files


def test_a_file_is_replaced_by_its_own_kind_alone(own: dict[str, Path]) -> None:
    of = {".safetensors": HEAD.kind, ".png": RANKING, ".html": PAGE, ".csv": LOG}
    for suffix, path in own.items():
        for kind in EVERY_KIND:
            if kind == of[suffix] or kind.noun == of[suffix].noun:
                require_replaceable(path, kind)
            else:
                with pytest.raises(
                    OutputError, match=f"{path.name} exists and is not {kind.article} of featx, so it is"
                ):
                    require_replaceable(path, kind)


STRANGERS = {
    "thesis.docx": b"PK\x03\x04 a thesis",
    "text": b"featx",
    "picture.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "drawn.png": None,
    "page.html": b"<!DOCTYPE html><html><head><title>featx</title>",
    "table.csv": b"path,label\na.jpg,ant\n",
    "longer.csv": b"epoch,loss,note\n0,1,mine\n",
    "weights.safetensors": b"\x02\0\0\0\0\0\0\0{}",
    "cut.safetensors": b"\xff\xff",
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_file_of_somebody_else_is_never_replaced(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = STRANGERS[name]
    if content is None:
        Figure(figsize=(1, 1)).savefig(path)  # one's own figure, by the same library
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    for kind in EVERY_KIND:
        for call in (
            lambda kind=kind: write_output(path, b"new", kind),
            lambda kind=kind: require_outputs([Output(path, kind)]),
        ):
            with pytest.raises(OutputError, match="so it is not overwritten; name another file with -o, or remove it"):
                call()
    with pytest.raises(OutputError, match="is not a head of featx, so it is not overwritten"):
        fitted().save(path)
    assert path.read_bytes() == before


def test_an_empty_file_and_a_link_to_nothing_have_nothing_to_lose(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("empty", "link"):
        write_output(tmp_path / name, b"epoch,loss\n", LOG)
        assert (tmp_path / name).read_bytes() == b"epoch,loss\n"
    assert not (tmp_path / "gone").exists()


def test_a_file_that_cannot_be_read_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log.csv").write_text("epoch,loss\n")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(OutputError, match=r"cannot read .*log\.csv, which would be overwritten: Input/output error"):
        require_replaceable(tmp_path / "log.csv", LOG)


def test_no_output_is_an_input_in_whatever_spelling(own: dict[str, Path], tmp_path: Path) -> None:
    head = own[".safetensors"]
    (tmp_path / "link.safetensors").symlink_to(head)
    os.link(head, tmp_path / "hard.safetensors")
    (tmp_path / "folder").symlink_to(head.parent)
    spellings = [
        head,
        head.parent / "." / ".." / "own" / head.name,
        tmp_path / "link.safetensors",
        tmp_path / "hard.safetensors",
        tmp_path / "folder" / head.name,
    ]
    for path in spellings:
        with pytest.raises(OutputError, match=r"is a file that is read here .*; name another file with -o"):
            require_outputs([Output(path, HEAD.kind)], [tmp_path / "missing", "default", head])
    require_outputs([Output(head, HEAD.kind)], [own[".csv"]])


def test_two_outputs_never_share_a_place(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    pairs = [
        ("x.csv", "x.csv"),
        ("x.csv", "./x.csv"),
        ("x.csv", "X.CSV"),
        ("x.csv", "link/x.csv"),
        ("é.csv", "e\u0301.csv"),
    ]
    for one, other in pairs:
        with pytest.raises(OutputError, match="is where the head and the log would both go; name another file with -o"):
            require_outputs([Output(tmp_path / one, HEAD.kind), Output(tmp_path / other, LOG)])
    require_outputs([Output(tmp_path / "x.safetensors", HEAD.kind), Output(tmp_path / "x.csv", LOG)])


def test_no_output_is_an_image_of_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "photos" / "ant").mkdir(parents=True)
    image = a_picture(RANKING, tmp_path / "photos" / "ant" / "1.png")
    for paths in ({"ant/1.png"}, {str(image)}):
        with pytest.raises(OutputError, match="is an image of the data set; name another file with -o"):
            require_outputs([Output(image, RANKING)], images=(str(tmp_path / "photos"), paths))
    require_outputs([Output(image, RANKING)], images=(str(tmp_path / "photos"), {"ant/2.png"}))


def test_a_named_file_has_the_ending_of_its_format_or_none(tmp_path: Path) -> None:
    for name in ("x.pdf", "x.jpg", "x.safetensors"):
        with pytest.raises(
            OutputError, match=r"but a picture of a ranking is written; name a file that ends in \.png with"
        ):
            require_outputs([Output(tmp_path / name, RANKING, named=True)])
    for name in ("x.png", "x.PNG", "x"):
        require_outputs([Output(tmp_path / name, RANKING, named=True)])
