"""What the packages of backbones and features offer, loaded on first use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import featx.backbones
import featx.features

PACKAGES = (featx.backbones, featx.features)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_is_there_and_none_is_a_module(package: ModuleType) -> None:
    assert dir(package) == package.__all__ == sorted(package.__all__)
    assert not any(isinstance(getattr(package, name), ModuleType) for name in package.__all__)
    modules = {path.stem for path in Path(package.__path__[0]).iterdir()}
    assert not modules & set(package.__all__)
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        _ = package.nothing


def test_importing_the_packages_loads_nothing_heavy() -> None:
    code = "import sys, featx.backbones, featx.features; print({'torch', 'numpy', 'h5py'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
