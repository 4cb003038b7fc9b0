"""The packages of estimators and of the solver list their public names, and load them on first use."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from featx.heads import estimators, solver

PACKAGES = pytest.mark.parametrize("package", ["featx.heads.estimators", "featx.heads.solver"])


@pytest.mark.parametrize(
    ("package", "name"),
    [(package.__name__, name) for package in (estimators, solver) for name in package.__all__],
)
def test_every_public_name_of_a_package_is_defined_in_its_module(package: str, name: str) -> None:
    module = importlib.import_module(package)
    value = getattr(module, name)
    assert value.__module__.startswith(f"{package}.")
    assert value.__name__ == name
    assert name in dir(module)


@PACKAGES
def test_an_unknown_name_of_a_package_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=rf"module '{package}' has no attribute 'Unknown'"):
        _ = importlib.import_module(package).Unknown


@PACKAGES
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    code = f"import sys, {package}; print(sorted({{'numpy', 'scipy', 'sklearn', 'torch'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
