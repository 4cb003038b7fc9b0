"""The house: which folder may import which, and what no module may do."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import featx

FOLDER = Path(featx.__file__).parent

ORDER = (
    {"base"},
    {"io", "metrics", "tracking"},
    {"data"},
    {"backbones", "features"},
    {"extraction", "heads"},
    {"report"},
    {"promotion", "advice"},
    {"inspection"},
    {"workflows", "inference"},
    {"retrieval", "deployment", "sklearn", "streaming"},
    {"serving"},
    {"cli"},
)
"""A folder may import those of the lines above it, and no folder of its own line. "base" are the modules beside the folders,
"inference" is one module."""

MAY_IMPORT = {folder: set().union(*ORDER[:line]) for line, folders in enumerate(ORDER) for folder in folders}

ONLY_IN = {
    "PIL": {"data/decode", "data/deep", "data/pillow", "data/plugins", "data/pixel_facts", "data/samples", "data/tiff"},
    "h5py": {"features/writer", "features/exchange"},
    "pandas": {"features/exchange/frame"},
    "torch": {
        "backbones",
        "deployment",
        "extraction",
        "promotion",
        "devices",
        "features/exchange/read_arrays",
        "heads/estimators/minibatches",
        "heads/estimators/mlp",
        "heads/gloo",
        "heads/solver/on_device",
        "data/nvjpeg",
        "data/transform",
        "tracking/tensorboard_tracker",
    },
    "torchvision": {"backbones", "promotion", "data/nvjpeg"},
    "accelerate": {"promotion/distributed"},
    "timm": {"backbones", "deployment/timm_network"},
    "transformers": {"backbones"},
    "open_clip": {"backbones"},
    "onnxruntime": {"deployment", "extraction"},
    "openvino": {"deployment", "extraction"},
    "simplejpeg": {"data/turbo"},
    "pydicom": {"data/dicom"},
    "pyarrow": {"data/sources", "data/arrow_table", "extraction/cluster", "features/exchange", "io/tables"},
    "ray": {"extraction/cluster"},
    "safetensors": {"backbones/weight_reader", "deployment/tensors", "io", "promotion"},
    "matplotlib": {"report/plots"},
    "jinja2": {"report/html"},
    "markupsafe": {"report/html"},
    "fastapi": {"serving"},
    "starlette": {"serving/app"},
    "uvicorn": {"serving/server"},
    "prometheus_client": {"serving/metrics"},
    "python_multipart": {"serving/body"},
    "faiss": {"retrieval/faiss_index"},
    "click": {"cli"},
    "mlflow": {"tracking/mlflow_tracker"},
    "wandb": {"tracking/wandb_tracker"},
    "tensorboard": {"tracking/tensorboard_tracker"},
    "tqdm": {"progress"},
    "openTSNE": {"inspection/coordinates"},
    "fsspec": {"data/remote", "data/web"},
    "datasets": {"data/sources/hub"},
    "huggingface_hub": {"data/sources/hub", "data/sources/hub_network", "backbones"},
}
"""Package: the only folders and modules that may import it."""

MODULES = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in sorted(FOLDER.rglob("*.py"))}
ROOMS = [name for name in MODULES if name not in ("__init__", "__main__")]


def folder_of(module: str) -> str:
    """The key of ``MAY_IMPORT`` that a module, as ``heads/search`` or ``featx.heads.search``, belongs to."""
    parts = module.removeprefix("featx.").replace(".", "/").split("/")
    return parts[0] if parts[0] in MAY_IMPORT else "base"


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(), module)


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Every module that a module imports anywhere, in functions and for types too, with the line."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}.py:{node.lineno}: a relative import"
            dotted = str(node.module)
            for alias in node.names:
                inner = f"{dotted}.{alias.name}"
                is_module = inner.removeprefix("featx.").replace(".", "/") in MODULES
                yield (inner if is_module or dotted == "featx" else dotted), node.lineno


def calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a module whose function is a dotted name."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield ast.unparse(node.func), node


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_folder_imports_only_those_it_may() -> None:
    wrong = [
        f"{module}.py:{line} imports {name}"
        for module in ROOMS
        for name, line in imports(module)
        if name.startswith("featx.") and folder_of(name) not in {folder_of(module), *MAY_IMPORT[folder_of(module)]}
    ]
    assert wrong == []


def test_no_module_imports_in_a_circle() -> None:
    arrows = {
        module: {
            inner
            for name, _ in imports(module)
            if (inner := name.removeprefix("featx.").replace(".", "/")) in MODULES and inner != module
        }
        for module in ROOMS
    }
    while free := {module for module, to in arrows.items() if not to & arrows.keys()}:
        arrows = {module: to for module, to in arrows.items() if module not in free}
    assert sorted(arrows) == []


def test_no_module_imports_the_package_itself() -> None:
    assert [f"{module}.py:{line}" for module in ROOMS for name, line in imports(module) if name == "featx"] == []


LONGEST_MODULE, LONGEST_CLASS, LONGEST_FUNCTION = 520, 250, 60
"""Lines; a function's docstring does not count. What is longer needs a reason here."""

LONGER: dict[str, str] = {}
"""{"folder/module:name": why it is longer}."""


def test_modules_classes_and_functions_are_short() -> None:
    longer = [module for module in ROOMS if len(MODULES[module].read_text().splitlines()) > LONGEST_MODULE]
    for module in ROOMS:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                most = LONGEST_CLASS if isinstance(node, ast.ClassDef) else LONGEST_FUNCTION
                documented = ast.get_docstring(node) is not None and isinstance(node, ast.FunctionDef)
                docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if documented else 0
                if node.end_lineno - node.lineno + 1 - docstring > most:
                    longer.append(f"{module}:{node.name}")
    assert sorted(longer) == sorted(LONGER)


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_where_it_may_be_and_nowhere_else(package: str) -> None:
    modules = {module for module in ROOMS for name, _ in imports(module) if name.split(".")[0] == package}
    allowed = {place: {m for m in modules if m == place or m.startswith(f"{place}/")} for place in ONLY_IN[package]}
    assert modules - set().union(*allowed.values()) == set()
    assert [place for place, inside in allowed.items() if not inside] == []


def test_the_base_needs_the_standard_library_alone() -> None:
    foreign = {
        name
        for module in ROOMS
        if folder_of(module) == "base" and module not in ("devices", "identity", "progress")
        for name, _ in imports(module)
        if name.split(".")[0] not in {"featx", *sys.stdlib_module_names}
    }
    assert foreign == set()


@pytest.mark.parametrize("name", ["featx", "featx.cli.main"])
def test_importing_the_package_or_its_commands_loads_nothing_heavy(name: str) -> None:
    loaded = json.loads(python(f"import json, sys, {name}; print(json.dumps(sorted(sys.modules)))"))
    heavy = {"torch", "torchvision", "sklearn", "scipy", "numpy", "h5py", "PIL", "matplotlib", "tqdm"}
    assert heavy & set(loaded) == set()


def test_heads_and_features_do_without_torch() -> None:
    modules = (
        "data.scan",
        "features.feature_file",
        "features.feature_set",
        "metrics.reports",
        "heads.head",
        "inspection.info",
    )
    imported = ", ".join(f"featx.{module}" for module in modules)
    assert python(f"import sys, {imported}; print('torch' in sys.modules)") == "False\n"


def test_no_module_or_folder_has_the_name_of_something_public_in_its_package() -> None:
    # Importing featx.extract, the module, would put it in the place of featx.extract, the function.
    for package in ["", *sorted({module.rpartition("/")[0] for module in ROOMS} - {""})]:
        loaded = importlib.import_module(".".join(["featx", *package.split("/")]).rstrip("."))
        exported = {
            name for name in getattr(loaded, "__all__", ()) if not isinstance(getattr(loaded, name), ModuleType)
        }
        inside = {path.stem if path.suffix else path.name for path in (FOLDER / package).iterdir()}
        assert exported & inside == set(), package


@pytest.mark.parametrize("module", [module for module in ROOMS if folder_of(module) != "cli"])
def test_the_library_never_prints_exits_or_configures_logging(module: str) -> None:
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
    assert [f"{module}.py:{node.lineno}: {name}" for name, node in calls(module) if name in forbidden] == []
    raised = [node.lineno for node in ast.walk(tree(module)) if isinstance(node, ast.Name) and node.id == "SystemExit"]
    assert raised == []


@pytest.mark.parametrize("module", ROOMS)
def test_no_stored_file_makes_featx_run_code(module: str) -> None:
    runs_code = {"eval", "exec", "torch.hub.load"} - (
        {"exec"} if module == "backbones/sources/file_source" else set()
    )  # file.py:factory, as asked
    unsafe = {"pickle", "cPickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
    assert [f"{module}.py:{line}: {name}" for name, line in imports(module) if name.split(".")[0] in unsafe] == []
    for name, node in calls(module):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in ("torch.load", "torch.hub.load_state_dict_from_url"):
            assert given.get("weights_only") == "True", f"{module}.py:{node.lineno}"
        assert given.get("allow_pickle", "False") == "False", f"{module}.py:{node.lineno}"
        assert name not in runs_code, f"{module}.py:{node.lineno}"


def test_every_option_states_what_it_needs_to_have_an_effect() -> None:
    """A condition of ``featx.cli.needs``, ALWAYS, or CHECKED where the job itself refuses the option."""
    from featx.cli.main import main
    from featx.cli.option_groups import Option

    def options(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        for child in getattr(command, "commands", {}).values():
            yield from options(child, f"{name} {child.name}")
        for param in command.params:
            if isinstance(param, Option):
                yield f"{name} {param.opts[-1]}", param.needs

    silent = [name for name, needs in options(main, "featx") if needs is None]
    assert silent == [], "give option(...) needs=ALWAYS, needs=CHECKED or a condition of featx/cli/needs.py"
