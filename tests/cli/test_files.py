"""``featx info``, ``verify`` and ``cache``."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_line import featx
from joint_features import part

from featx.cli.info_page import show_info
from featx.cli.main import main
from featx.features.feature_file import FeatureFile
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.workflows.head_list import list_heads


def test_info_failed_is_for_feature_files(fitted: Path) -> None:
    assert "is a head; --failed is for feature files" in featx("info", "--failed", fitted, status=1).stderr
    assert featx("info", "--failed", "cache/split--lenet5.h5").stdout == "path,error\n"


def test_cache_lists_the_files_and_rm_removes_those_that_nothing_needs(fitted: Path) -> None:
    Path("cache/other.h5.new").write_bytes(b"")
    Path("cache/keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    Path("cache/notes.txt").write_text("mine")
    damaged = Path("cache/split--lenet5.h5").read_bytes()[:-1]
    Path("cache/damaged.h5").write_bytes(damaged)
    files = {Path(f["file"]).name: f for f in json.loads(featx("cache", "--json").stdout)["files"]}
    assert {name: f["state"] for name, f in files.items()} == {
        "split--lenet5.h5": "complete",
        "other.h5.new": "leftover",
        "keras.h5": "foreign",
        "damaged.h5": "damaged",
    }
    assert (files["split--lenet5.h5"]["images"], files["split--lenet5.h5"]["done"]) == (48, 48)
    listed = featx("cache").stdout
    assert re.search(r"^split--lenet5\.h5 +\d+\.\d kB +\d+ s  complete +48  \S+split, lenet5$", listed, re.MULTILINE)
    assert re.search(r"^keras\.h5 .* foreign +0  not featx's$", listed, re.MULTILINE)
    assert re.search(r"^4 files, .*\n2 not needed, .* \(featx cache rm removes them\)$", listed, re.MULTILINE)

    answered = CliRunner().invoke(main, ["cache", "rm"], input="n\n")
    assert answered.exit_code == 1
    assert "Remove 2 files? [y/N]: " in answered.stderr
    assert "damaged.h5" in answered.stderr
    assert "split--lenet5.h5:" not in answered.stderr
    assert len(list(Path("cache").glob("*.h5*"))) == 4
    assert re.fullmatch(r"2 files removed, [\d.]+ kB freed\n", featx("cache", "rm", "--yes").stdout)
    assert sorted(path.name for path in Path("cache").iterdir()) == ["keras.h5", "notes.txt", "split--lenet5.h5"]
    assert featx("cache", "rm").stdout == "there is nothing to remove in cache\n"


def test_cache_rm_removes_named_files_and_no_others(fitted: Path) -> None:
    assert "there is no feature file cache/none.h5" in featx("cache", "rm", "cache/none.h5", status=1).stderr
    assert "is a head; expected a feature file, which ends in .h5" in featx("cache", "rm", fitted, status=1).stderr
    Path("cache/keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    foreign = featx("cache", "rm", "-y", "cache/split--lenet5.h5", "cache/keras.h5", status=1).stderr
    assert "keras.h5 is not a feature file of featx; remove it by hand" in foreign
    Path("cache/keras.h5").unlink()
    removed = json.loads(featx("cache", "rm", "-y", "cache/split--lenet5.h5", "--json").stdout)
    assert removed["removed"] == ["cache/split--lenet5.h5"]
    assert removed["bytes"] > 0
    assert list(Path("cache").iterdir()) == []
    assert featx("cache").stdout == "there is no feature file in cache\n"
    assert (
        "there is no folder nowhere; featx extract makes one" in featx("cache", "--cache", "nowhere", status=1).stderr
    )


def test_verify_extracts_rows_again_when_asked(fitted: Path, split_photos: Path) -> None:
    text = featx("verify", "cache/split--lenet5.h5", "--recompute", 5).stdout
    assert re.fullmatch(
        r"cache/split--lenet5\.h5: 48 rows, 0 bad, all is well\n"
        r"  5 rows extracted again; the largest difference is \S+ of the row's length \(relative L2\)\n",
        text,
    )
    (split_photos / "val" / "dark" / "00.png").unlink()
    found = json.loads(featx("verify", "cache/split--lenet5.h5", "--recompute", 100, "--json").stdout)
    assert (found["ok"], found["recomputed"], found["changed"]) == (True, 47, 1)
    assert found["largest_difference"] < 1e-5


def test_info_describes_every_kind_of_file(fitted: Path) -> None:
    featx("promote")
    for file, kind in (
        ("cache/split--lenet5.h5", "feature file"),
        (fitted, "head"),
        ("models/split--lenet5--logreg--promoted.safetensors", "promoted model"),
    ):
        assert json.loads(featx("info", file, "--json").stdout)["kind"] == kind
        page = featx("info", file).stdout
        assert page.startswith(f"{file}: {kind}, ")
        assert not re.search(r"None|[{}\[\]]", page), "nothing that is not set, and no raw values"
        assert len(page.splitlines()) < 40
        assert page.endswith(f"\nfeatx info {file} --json prints everything that the file states.\n")


def test_the_page_about_a_head_shows_its_choice_and_results(fitted: Path) -> None:
    lines = [re.sub(" {2,}", "  ", line) for line in featx("info", fitted).stdout.splitlines()]
    facts = json.loads(featx("info", fitted, "--json").stdout)
    C, count = facts["parameters"]["C"], len(facts["search"])
    assert f"model  logreg, C = {C:g}, chosen from {count} values by cross-validation" in lines
    assert "classes  dark, light" in lines
    low, high = facts["report"]["interval"]
    held_out = facts["held_out"]["interval"]
    assert (
        f"accuracy  {facts['report']['accuracy']:.4f} ({low:.4f} to {high:.4f})  "
        f"{facts['held_out']['accuracy']:.4f} ({held_out[0]:.4f} to {held_out[1]:.4f})"
    ) in lines
    assert len(facts["search"]) > 5, "all of them are in the JSON"


def test_the_page_about_a_fine_tuned_model_shows_the_evidence_and_the_epochs(fitted: Path) -> None:
    featx("promote", "--finetune", "--epochs", "2", "--repeats", "0")
    model = "models/split--lenet5--logreg--promoted--epochs2--repeats0.safetensors"
    facts, page = json.loads(featx("info", model, "--json").stdout), featx("info", model).stdout
    assert f"verdict      {facts['verdict']}: {facts['why']}" in page
    assert f"p = {facts['paired']['p_value']:.4f}" in page
    assert (
        f"epoch  training loss  log loss  accuracy\n0                  -    {facts['log'][0]['log_loss']:.4f}" in page
    )
    assert "None" not in page


def test_a_page_escapes_what_a_strangers_file_states(capsys: pytest.CaptureFixture[str]) -> None:
    report = {"accuracy": "\x1b[2J", "interval": [None, {}], "n": None, "split": "\u202e", "log_loss": 1}
    parameters = {"C": None, "calibrate": None, "group": "a\nb"}
    facts = {
        "kind": "head", "bytes": 10, "model": "knn", "parameters": parameters, "task": "classification",
        "classes": ["a\x07", "b"], "n_train": 3, "seconds": 1.0, "dataset": {"name": ["x"], "root": "\x1b"}, "backbone": {},
        "layer": "penultimate", "report": report, "held_out": None, "notes": ["\x9b"],
    }  # fmt: skip
    show_info(facts, "h")
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_a_page_of_a_head_on_several_backbones_has_a_line_for_each(tmp_path: Path) -> None:
    joined = FeatureSet.join([part(), part("two", layer="layer3")])
    page = featx("info", Head("ridge", C=1.0).fit(joined).save(tmp_path / "joint.safetensors")).stdout
    assert re.search(r"^backbone 1 +one, default weights: penultimate, 6 columns, scale [\d.]+$", page, re.MULTILINE)
    assert re.search(r"^backbone 2 +two, default weights: layer3, 10 columns, scale [\d.]+$", page, re.MULTILINE)
    assert list_heads(tmp_path).entries[0].layer == "penultimate+layer3"


def test_a_bare_info_describes_the_newest_file(fitted: Path) -> None:
    os.utime(fitted, (2e9, 2e9))
    assert featx("info").stdout == featx("info", fitted).stdout
    os.utime("cache/split--lenet5.h5", (3e9, 3e9))
    assert featx("info").stdout == featx("info", "cache/split--lenet5.h5").stdout
    fitted.unlink()
    Path("cache/split--lenet5.h5").unlink()
    assert "there is no file in cache or models; run featx extract first" in featx("info", status=1).stderr


def test_verify_exits_with_1_when_a_bit_has_flipped(fitted: Path) -> None:
    file = Path("cache/split--lenet5.h5")
    assert json.loads(featx("verify", file, "--json").stdout) == {
        "ok": True, "rows": 48, "bad_rows": 0, "duplicates": 0, "problems": [],
    }  # fmt: skip

    offset = FeatureFile(file).layers["penultimate"].offset + 84 * 4 * 5
    with file.open("r+b") as handle:
        handle.seek(offset)
        byte = handle.read(1)[0]
        handle.seek(offset)
        handle.write(bytes([byte ^ 1]))
    found = json.loads(featx("verify", file, "--json", status=1).stdout)
    assert (found["ok"], found["bad_rows"]) == (False, 1)
    assert "does not match its checksum" in featx("fit-head", status=1).stderr


@pytest.mark.parametrize("command", sorted(main.commands["cache"].commands))
def test_every_command_of_cache_has_help_with_examples(command: str) -> None:
    text = featx("cache", command, "-h").stdout
    assert text.startswith("Usage: ")
    assert "\nExamples:\n  featx cache " in text
