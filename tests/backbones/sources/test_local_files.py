"""What a file of one's own imports and reads beside itself is part of the identity."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import stored

from featx.backbones.backbone import Backbone, load_backbone
from featx.backbones.restored import restore_backbone
from featx.errors import BackboneError, StaleCacheError

HELPER = "import torch\n\n\ndef act(x):\n    return torch.relu(x) * {factor}\n"
MINE = """
import torch
from torch import nn
{imports}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.transform = __import__("featx").Transform(resize=8, crop=8)
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)
        {init}

    def forward(self, images):
        return self.fc({act}(self.conv(images)).mean((2, 3)))


def make():
    {lazy}
    return Net()
"""


def write(folder: Path, imports: str = "", init: str = "", act: str = "torch.relu", lazy: str = "pass") -> str:
    """A file with a factory; the backbone's name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.py").write_text(MINE.format(imports=imports, init=init, act=act, lazy=lazy))
    return f"{folder}/mine.py:make"


def put(file: Path, text: str) -> None:
    """Change a file without changing its size or time, so that a compiled copy of it would still be trusted."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (1_700_000_000, 1_700_000_000))


def load(name: str) -> Backbone:
    return load_backbone(name, weights="default", device="cpu")


def row(backbone: Backbone) -> np.ndarray:
    return backbone.encode(np.full((1, 3, 8, 8), 99, np.uint8))["penultimate"]


FORMS = {
    "a module": ({"imports": "from helper import act", "act": "act"}, "helper.py"),
    "a package with relative imports": ({"imports": "from net.top import act", "act": "act"}, "net/deep/layers.py"),
    "a folder without __init__.py": ({"imports": "import parts.acts as acts", "act": "acts.act"}, "parts/acts.py"),
    "in the factory": ({"lazy": "global act; from helper import act", "act": "act"}, "helper.py"),
    "in the constructor": ({"init": "import helper; self.act = helper.act", "act": "self.act"}, "helper.py"),
    "in the forward pass": ({"act": '__import__("helper").act'}, "helper.py"),
    "through another module": ({"imports": "from middle import act", "act": "act"}, "helper.py"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_module_beside_the_file_is_part_of_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    parts, changed = FORMS[form]
    name = write(tmp_path, **parts)
    put(tmp_path / "middle.py", "from helper import act\n")
    put(tmp_path / "net" / "__init__.py", "")
    put(tmp_path / "net" / "top.py", "from .deep.layers import act\n")
    put(tmp_path / "net" / "deep" / "__init__.py", "from . import layers\n")
    put(tmp_path / changed, HELPER.format(factor=1))
    first = load(name)
    features = row(first)
    put(tmp_path / changed, HELPER.format(factor=3))
    second = load(name)
    np.testing.assert_allclose(row(second), 3 * features, rtol=1e-5)
    assert second.identity != first.identity
    with pytest.raises(StaleCacheError, match=r"architecture: .*sources_sha256"):
        restore_backbone(stored(first), layers=first.identities, name=name, device="cpu")
    put(tmp_path / changed, HELPER.format(factor=1))
    third = load(name)
    assert third.identity == first.identity
    np.testing.assert_array_equal(row(third), features)


def test_a_file_in_a_package_may_import_relatively(tmp_path: Path) -> None:
    put(tmp_path / "project" / "__init__.py", "SCALE = 2\n")
    put(tmp_path / "project" / "nets" / "__init__.py", "")
    put(tmp_path / "project" / "layers.py", HELPER.format(factor=1))
    name = write(
        tmp_path / "project" / "nets", imports="from ..layers import act\nfrom project import SCALE", act="act"
    )
    first = load(name)
    put(tmp_path / "project" / "layers.py", HELPER.format(factor=3))
    second = load(name)
    assert second.identity != first.identity
    np.testing.assert_allclose(row(second), 3 * row(first), rtol=1e-5)


def test_a_file_that_brings_in_nothing_of_its_folder_has_the_identity_of_its_code_alone(tmp_path: Path) -> None:
    name = write(tmp_path / "a", lazy="import colorsys, torchvision; open(__file__).close()")
    put(tmp_path / "a" / "helper.py", "raise SystemExit\n")
    put(tmp_path / "a" / "torch.py", "raise SystemExit\n")
    put(tmp_path / "a" / "colorsys.py", "raise SystemExit\n")
    backbone = load(name)
    assert backbone.describe()["architecture"].keys() == {"source", "name", "code_sha256"}
    put(tmp_path / "a" / "helper.py", "changed = True\n")
    assert load(name).identity == backbone.identity


def test_settings_that_the_factory_reads_are_part_of_the_identity_and_tensors_are_so_anyway(tmp_path: Path) -> None:
    read = "import json, pathlib; here = pathlib.Path(__file__).parent; global factor; "
    name = write(
        tmp_path, lazy=read + "factor = json.loads((here / 'net.json').read_text())", act="factor * torch.relu"
    )
    put(tmp_path / "net.json", "1")
    first = load(name)
    put(tmp_path / "net.json", "3")
    second = load(name)
    np.testing.assert_allclose(row(second), 3 * row(first), rtol=1e-5)
    assert second.identity != first.identity
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    weights = write(tmp_path, lazy="import pathlib; torch.load(open(pathlib.Path(__file__).parent / 'w.pth', 'rb'))")
    assert "sources_sha256" not in load(weights).describe()["architecture"]
    logs = write(tmp_path, lazy="import pathlib; open(pathlib.Path(__file__).parent / 'log.txt', 'a').write('run')")
    assert load(logs).identity == load(logs).identity


def test_the_identity_does_not_change_with_the_place_of_the_folder(tmp_path: Path) -> None:
    name = write(tmp_path / "here", imports="from helper import act", act="act")
    put(tmp_path / "here" / "helper.py", HELPER.format(factor=1))
    first = load(name)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert load(f"{tmp_path}/there/mine.py:make").identity == first.identity


def test_two_folders_have_modules_of_the_same_name_and_so_may_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, factor in (("a", 1), ("b", 3)):
        write(tmp_path / folder, imports="from helper import act", act="act")
        put(tmp_path / folder / "helper.py", HELPER.format(factor=factor))
    put(tmp_path / "callers" / "helper.py", "mine = True\n")
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "callers"))
    import helper  # type: ignore[import-not-found]

    a, b = (load(f"{tmp_path}/{folder}/mine.py:make") for folder in ("a", "b"))
    np.testing.assert_allclose(row(b), 3 * row(a), rtol=1e-5)
    assert a.identity != b.identity
    assert sys.modules["helper"] is helper
    monkeypatch.delitem(sys.modules, "helper")


def test_an_import_that_fails_leaves_imports_and_files_as_they_were(tmp_path: Path) -> None:
    finders, real = list(sys.meta_path), open
    name = write(tmp_path, imports="import helper")
    with pytest.raises(BackboneError, match=r"mine\.py:make failed: ModuleNotFoundError: No module named 'helper'"):
        load(name)
    put(tmp_path / "helper.py", "raise LookupError('gone')\n")
    with pytest.raises(BackboneError, match=r"mine\.py:make failed: LookupError: gone"):
        load(name)
    assert sys.meta_path == finders
    assert open is real
