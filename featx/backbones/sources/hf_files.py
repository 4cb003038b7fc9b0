"""The files of a model of transformers: a local folder, or a repository of the Hugging Face hub in its own cache."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from featx.backbones.sources.source import absolute_path
from featx.backbones.weight_reader import read_file
from featx.data.sources.hub_network import offline_without_network
from featx.errors import BackboneError
from featx.text import brief, did_you_mean, printable

_HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?(?:@[\w./-]+)?")
"""``repo`` or ``organisation/repo``, perhaps with ``@revision``."""

_FOLDER_STARTS = ("/", "./", "../", "~", ".\\", "..\\")

_DESCRIPTIONS = ["*.json", "*.txt", "*.model"]
"""The configuration of a model, its image processor and its tokenizer, with vocabularies."""

_SAFETENSORS = ["model.safetensors", "model-*-of-*.safetensors"]
_TORCH = ["pytorch_model.bin", "pytorch_model-*-of-*.bin"]


def is_folder_name(short: str) -> bool:
    """Whether the name of a model is a local folder: it begins as a path does, or with a drive of Windows."""
    return short in (".", "..") or short.startswith(_FOLDER_STARTS) or re.match(r"[A-Za-z]:[\\/]", short) is not None


def folder_of(short: str, *, with_weights: bool) -> Path:
    """The local folder of a model. A repository of the hub is downloaded into the hub's cache, unless it is there.

    Args:
        short: a folder, as ``is_folder_name`` defines it, or ``organisation/repo``, perhaps with ``@revision``.
        with_weights: whether the weights are needed, or only the configuration.

    Raises:
        BackboneError: there is no such folder or repository, or it cannot be downloaded.
    """
    if is_folder_name(short):
        path = absolute_path(str(Path(short).expanduser()))
        if not path.is_dir():
            raise BackboneError(
                f"hf/{short} names the folder {path}, which does not exist; expected one with a config.json"
            )
        return path
    if not _HUB_NAME.fullmatch(short):
        raise BackboneError(
            f"{printable(repr(short))} is neither a repository of the Hugging Face hub, as in hf/google/vit-base-patch16-224, "
            "nor a folder, as in hf/./my-model"
        )
    return _snapshot(short, with_weights=with_weights)


def _snapshot(short: str, *, with_weights: bool) -> Path:
    """The folder of a repository's files in the hub's cache."""
    from huggingface_hub import snapshot_download

    repo, _, revision = short.partition("@")

    def fetch(patterns: list[str]) -> Path:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=patterns))

    try:
        with offline_without_network():
            folder = fetch(_DESCRIPTIONS + _SAFETENSORS * with_weights)
            if with_weights and not _weight_files(folder):
                folder = fetch(_DESCRIPTIONS + _TORCH)
    except Exception as error:  # the hub's client passes on those of HTTP, the file system and its own
        beside = f"; for the folder {short}, name hf/./{short}" if Path(short).is_dir() else ""
        raise BackboneError(
            f"the repository {short} of the Hugging Face hub cannot be had ({brief(error)}){beside}. Without a network, it "
            "must be in the hub's cache (HF_HOME), or be a local folder, as in hf/./my-model"
        ) from error
    return folder


def read_config(folder: Path, short: str) -> dict[str, Any]:
    """The config.json of a model.

    Raises:
        BackboneError: there is none, or it is not a JSON object with a ``model_type``.
    """
    file = folder / "config.json"
    if not file.is_file():
        other = ""
        if (folder / "open_clip_config.json").is_file():
            other = " It holds a model of open_clip, which open_clip/<arch> with --weights FILE reads."
        elif (folder / "adapter_config.json").is_file():
            other = (
                " It holds an adapter of PEFT: merge it into its model (merge_and_unload), and name the folder that "
                "the model's save_pretrained writes."
            )
        raise BackboneError(f"hf/{short} has no config.json in {folder}, which every model of transformers has.{other}")
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BackboneError(f"{file} cannot be read as JSON: {brief(error)}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise BackboneError(f"{file} does not name its model_type, which transformers needs to build the model")
    return config


def require_no_code(config: Mapping[str, Any], known: Any, short: str) -> None:
    """Check that transformers itself has a model, because the code in a repository is never run.

    Raises:
        BackboneError: the model needs code of its repository, or an older or newer transformers.
    """
    model_type = config["model_type"]
    if model_type in known:
        return
    if config.get("auto_map"):
        raise BackboneError(
            f"hf/{short} needs Python code from its repository (auto_map in its config.json), and featx never runs that. Write "
            "a function that returns the network, and name it as file.py:factory"
        )
    hint = did_you_mean(model_type, list(known)) or "."
    raise BackboneError(
        f"the installed transformers has no model type {printable(repr(model_type))}, which hf/{short} is{hint}"
    )


def _weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights: safetensors if there are any, otherwise those of torch; each part of a divided file."""
    for whole, parts in (
        ("model.safetensors", "model-*-of-*.safetensors"),
        ("pytorch_model.bin", "pytorch_model-*-of-*.bin"),
    ):
        for file in (
            folder / whole,
            folder / f"{whole}.index.json",
        ):  # an index, because it tells which part is missing
            if file.exists():
                return [file]
        if found := sorted(folder.glob(parts)):
            return found
    return []


def read_weights(folder: Path, short: str) -> dict[str, Tensor]:
    """The tensors of a model by the names in its files. Nothing in them is executed.

    Raises:
        BackboneError: there are no weights, or a file cannot be read without running code.
    """
    files = _weight_files(folder)
    if not files:
        raise BackboneError(
            f"hf/{short} has no model.safetensors and no pytorch_model.bin in {folder}; name a file with --weights FILE, or "
            "--weights random"
        )
    state: dict[str, Tensor] = {}
    for file in files:
        found = read_file(file)
        if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
            raise BackboneError(f"{file} does not hold tensors by name; name a checkpoint with --weights {file}")
        state |= {str(name): tensor for name, tensor in found.items()}
    return state


def cached_repositories(known: Any) -> list[str]:
    """The repositories of the hub in its local cache whose model type is known, by name."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    names = []
    for repository in repositories:
        for revision in repository.revisions:
            config = next((file.file_path for file in revision.files if file.file_name == "config.json"), None)
            if config is not None and _model_type(config) in known:
                names.append(repository.repo_id)
                break
    return sorted(names)


def _model_type(config: Path) -> Any:
    try:
        return read_config(config.parent, config.parent.name)["model_type"]
    except BackboneError:
        return None
