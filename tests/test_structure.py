"""The arrows of the house: who may import whom, and what no room may do."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import featx

FOLDER = Path(featx.__file__).parent

ORDER = (
    "errors",
    "home",
    "settings",
    "meter",
    "views",
    "decode",
    "images",
    "nets",
    "weights",
    "zoo",
    "tensorfile",
    "hdf5",
    "checks",
    "cache",
    "cachewriter",
    "cachefolder",
    "features",
    "targets",
    "groups",
    "reuse",
    "nvjpeg",
    "taps",
    "blocks",
    "backbone",
    "compute",
    "tuning",
    "reading",
    "extraction",
    "modelfile",
    "report",
    "plots",
    "card",
    "rows",
    "nearest",
    "scorers",
    "training",
    "ridge",
    "neighbours",
    "kernel",
    "matrices",
    "ondevice",
    "solver",
    "penalised",
    "folds",
    "calibration",
    "search",
    "minibatch",
    "kinds",
    "head",
    "headcard",
    "depths",
    "fitting",
    "learning",
    "advice",
    "transferability",
    "ranking",
    "advising",
    "truncation",
    "promoted",
    "evidence",
    "checkpoint",
    "prefix",
    "processes",
    "finetuning",
    "epochlog",
    "sources",
    "trials",
    "promotion",
    "prediction",
    "inspection",
    "recipe",
    "cli",
    "__main__",
)
"""Bottom first. A room imports from those before it alone."""

ONLY_IN = {
    "PIL": {"decode"},
    "h5py": {"cachewriter"},
    "torch": {
        "decode",
        "nets",
        "weights",
        "zoo",
        "nvjpeg",
        "taps",
        "backbone",
        "compute",
        "tuning",
        "extraction",
        "ondevice",
        "minibatch",
        "truncation",
        "promoted",
        "blocks",
        "prefix",
        "processes",
        "finetuning",
        "epochlog",
        "sources",
        "trials",
    },
    "accelerate": {"processes"},
    "torchvision": {"zoo", "taps", "nvjpeg", "promoted", "sources"},
    "timm": {"zoo"},
    "onnxruntime": {"compute"},
    "openvino": {"compute"},
    "simplejpeg": {"decode"},
    "safetensors": {"weights", "modelfile", "checkpoint"},
    "matplotlib": {"plots"},
    "click": {"cli"},
    "tqdm": {"cli"},
}
"""Which rooms know a package."""


@cache
def tree(room: str) -> ast.Module:
    return ast.parse((FOLDER / f"{room}.py").read_text(), room)


def imports(room: str) -> Iterator[tuple[str, int]]:
    """Every module that a room imports anywhere, in functions and for types too, with the line."""
    for node in ast.walk(tree(room)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{room}.py:{node.lineno}: a relative import"
            names = [f"featx.{alias.name}" for alias in node.names] if node.module == "featx" else [str(node.module)]
            yield from ((name, node.lineno) for name in names)


def calls(room: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a room whose function is a dotted name."""
    for node in ast.walk(tree(room)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func), node


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_every_room_has_its_place_in_the_order() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*ORDER, "__init__"}


def test_every_arrow_points_down() -> None:
    upward = [
        f"{room}.py:{line} imports {name}"
        for height, room in enumerate(ORDER)
        for name, line in imports(room)
        if name.startswith("featx.") and name != "featx.__version__" and name.split(".")[1] not in ORDER[:height]
    ]
    assert upward == []


def test_no_room_imports_the_package_itself() -> None:
    assert [f"{room}.py:{line}" for room in ORDER for name, line in imports(room) if name == "featx"] == []


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_known_to_its_rooms_alone(package: str) -> None:
    rooms = {room for room in ORDER for name, _ in imports(room) if name.split(".")[0] == package}
    assert rooms == ONLY_IN[package]


def test_errors_home_and_settings_need_the_standard_library_alone() -> None:
    foreign = {
        name
        for room in ("errors", "home", "settings")
        for name, _ in imports(room)
        if name.split(".")[0] not in {"featx", *sys.stdlib_module_names}
    }
    assert foreign == set()


@pytest.mark.parametrize("name", ["featx", "featx.cli"])
def test_importing_the_package_or_its_commands_loads_nothing_heavy(name: str) -> None:
    loaded = json.loads(python(f"import json, sys, {name}; print(json.dumps(sorted(sys.modules)))"))
    heavy = {"torch", "torchvision", "sklearn", "scipy", "numpy", "h5py", "PIL", "matplotlib", "tqdm"}
    assert heavy & set(loaded) == set()


def test_heads_and_features_do_without_torch() -> None:
    rooms = ", ".join(f"featx.{room}" for room in ("images", "cache", "features", "report", "head", "inspection"))
    assert python(f"import sys, {rooms}; print('torch' in sys.modules)") == "False\n"


@pytest.mark.parametrize("name", featx.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(featx, name)
    assert not isinstance(value, ModuleType)
    assert name in dir(featx)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'featx' has no attribute 'extrakt'"):
        _ = featx.extrakt  # type: ignore[attr-defined]


def test_no_room_has_the_name_of_something_public() -> None:
    # Importing featx.extract, the room, would put it in the place of featx.extract, the function.
    assert set(featx.__all__) & set(ORDER) == set()


@pytest.mark.parametrize("room", [room for room in ORDER if room not in ("cli", "__main__")])
def test_the_library_never_prints_exits_or_configures_logging(room: str) -> None:
    forbidden = {
        "print",
        "exit",
        "quit",
        "sys.exit",
        "os._exit",
        "os.abort",
        "logging.basicConfig",
        "input",
        "breakpoint",
    }
    assert [f"{room}.py:{node.lineno}: {name}" for name, node in calls(room) if name in forbidden] == []
    raised = [node.lineno for node in ast.walk(tree(room)) if isinstance(node, ast.Name) and node.id == "SystemExit"]
    assert raised == []


@pytest.mark.parametrize("room", ORDER)
def test_no_stored_file_makes_featx_run_code(room: str) -> None:
    runs_code = {"eval", "exec", "torch.hub.load"} - ({"exec"} if room == "zoo" else set())  # file.py:factory, as asked
    unsafe = {"pickle", "cPickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
    assert [f"{room}.py:{line}: {name}" for name, line in imports(room) if name.split(".")[0] in unsafe] == []
    for name, node in calls(room):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in ("torch.load", "torch.hub.load_state_dict_from_url"):
            assert given.get("weights_only") == "True", f"{room}.py:{node.lineno}"
        assert given.get("allow_pickle", "False") == "False", f"{room}.py:{node.lineno}"
        assert name not in runs_code, f"{room}.py:{node.lineno}"
