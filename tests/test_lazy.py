"""Every package lists its public names, and loads each on first use."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import featx

PACKAGES = ["featx", *(found.name for found in pkgutil.walk_packages(featx.__path__, "featx.") if found.ispkg)]
LISTED = [name for name in PACKAGES if hasattr(importlib.import_module(name), "__all__")]
NAMES = [(package, name) for package in LISTED for name in importlib.import_module(package).__all__]


def test_every_package_but_the_sources_and_the_commands_lists_public_names() -> None:
    assert {*PACKAGES} - {*LISTED} == {"featx.backbones.sources", "featx.cli", "featx.data.sources"}


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_every_public_name_is_defined_in_a_module_of_its_package(package: str, name: str) -> None:
    module = importlib.import_module(package)
    value = getattr(module, name)
    assert value is getattr(module, name) is not None
    assert not isinstance(value, ModuleType)
    if callable(value):
        assert value.__module__.startswith(f"{package}.")
        assert value.__name__ == name
    assert name in dir(module)


@pytest.mark.parametrize("package", LISTED)
def test_a_package_tells_type_checkers_the_names_that_it_lists(package: str) -> None:
    module = importlib.import_module(package)
    assert dir(module) == sorted(module.__all__)
    body = ast.parse(Path(str(module.__file__)).read_text()).body
    block = next(node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imported = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        imported |= {alias.name: importlib.import_module(str(node.module)) for alias in node.names}
    assert sorted(imported) == sorted({*module.__all__} - {"__version__"})
    assert all(getattr(module, name) is getattr(home, name) for name, home in imported.items())


@pytest.mark.parametrize("package", LISTED)
def test_an_unknown_name_of_a_package_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=rf"module '{package}' has no attribute 'Unknown'"):
        _ = importlib.import_module(package).Unknown


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    heavy = {"torch", "torchvision", "sklearn", "scipy", "numpy", "h5py", "PIL", "matplotlib", "tqdm"}
    code = f"import sys, {package}; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


HEAVY = ("numpy", "scipy", "sklearn", "h5py", "PIL", "torch", "torchvision", "timm", "matplotlib", "pandas")


def imported(*arguments: str, folder: Path, first_line: str = "") -> set[str]:
    """The large libraries that a command has imported when it ends, or when it prints a line that begins so on stderr."""
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "featx", *arguments], capture_output=True, text=True, cwd=folder
    )
    lines = found.stderr.splitlines()
    if first_line:
        lines = lines[: next(at for at, line in enumerate(lines) if line.startswith(first_line))]
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")} & {*HEAVY}


@pytest.mark.parametrize("arguments", [("--help",), ("extract", "--help"), ("fit-head", "--help"), ("info", "--help")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert imported(*arguments, folder=tmp_path) == set()


def test_extract_shows_a_line_before_anything_heavy_is_imported_and_looks_for_images_before_torch_is(
    tmp_path: Path,
) -> None:
    assert imported("extract", "nowhere", folder=tmp_path, first_line="extract: looking for images") == set()
    assert imported("extract", "nowhere", folder=tmp_path) <= {"numpy"}


def test_a_head_is_fitted_without_torch() -> None:
    code = (
        "import sys, numpy as np\n"
        "import featx.workflows.fit\n"
        "from featx import FeatureSet, Head\n"
        "X = np.arange(40.0).reshape(20, 2)\n"
        "Head('logreg').fit(FeatureSet.from_arrays(X, np.arange(20) % 2))\n"
        "print(sorted({'torch', 'torchvision', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("arguments", [("heads", "models"), ("info", "features.h5")])
def test_what_files_are_is_told_without_torch_scikit_learn_and_scipy(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    shutil.copy(Path(__file__).parent / "golden" / "features-v2.h5", tmp_path / "features.h5")
    assert imported(*arguments, folder=tmp_path) <= {"numpy", "h5py"}
