"""Weight files, read without running pickled code: of safetensors and torch, whole or in shards. All others are named."""

from __future__ import annotations

import mmap
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from featx.errors import BackboneError
from featx.io.strict_json import strict_json
from featx.system import FOLDER, MISSING, why_unreadable
from featx.text import brief, counted, form, listed, printable

WEIGHT_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
"""The names under which transformers, Accelerate, timm and open_clip store weights in a folder, the preferred ones first."""

_INDEX = ".index.json"
_MOST_INDEX = 2**26
"""The most bytes of an index of shards that are read."""

_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""The number with which torch's form of before 2020 begins, as a pickle has it."""

_BLOCKED = re.compile(
    r"(?:os|posix|nt|sys|subprocess|socket|shutil|runpy|pty|importlib|ctypes|webbrowser|pickle|_pickle|torch\.hub)\..*"
    r"|(?:builtins|__builtin__)\.(?:eval|exec|compile|getattr|open|__import__|input|breakpoint|bytearray)"
)
"""What no pickle of weights needs, and what programs that do harm call."""

_NO_TENSOR = "featx."
"""How the names of the arrays begin that a promoted model holds besides the tensors of its network."""

_ADVICE = re.compile(r"^Weights only load failed.*?(?:WeightsUnpickler error:|\n\n)", re.DOTALL)
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TENSORS_ALONE = (
    "keep = lambda v: v if torch.is_tensor(v) else v.state_dict() if isinstance(v, torch.nn.Module) else "
    "torch.tensor(v) if type(v).__name__ == 'ndarray' and v.dtype.kind in 'fiub' else "
    "[keep(x) for x in v] if type(v) in (list, tuple) else "
    "{k: t for k, t in ((k, keep(x)) for k, x in v.items()) if t is not None} if isinstance(v, dict) else None"
)
"""Python that keeps a checkpoint's tensors, arrays and the state of its networks, and the dictionaries around them."""

_PLAIN_REASONS = ("its parts are compressed", "its parts overlap", "it calls bytearray")
"""How the reasons of ``_require_plain`` begin."""

_STATE = "save the network's state_dict with torch.save in the program that made it, and name that file"
_OTHER_FORMATS = (
    (rb"version https://git-lfs", "a Git LFS pointer and not the file itself: run git lfs pull in its repository"),
    (rb"\x89HDF\r\n", f"an HDF5 file, as Keras writes: its layers have other names and layouts; {_STATE}"),
    (
        rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!",
        "compressed: unpack it, and name the weights file in it",
    ),
    (rb"GGUF", f"a GGUF file, whose weights are quantized; {_STATE}"),
    (rb"....TFL3", f"a TensorFlow Lite model; {_STATE}"),
    (
        rb"\s*<",
        "a page or XML, not weights: perhaps the download failed; OpenVINO's .bin has its names in the XML beside it",
    ),
    (rb"\x93NUMPY", f"one NumPy array, without the names of tensors; {_STATE}"),
)
"""How files of other formats begin, and what to say about them."""


def read_file(path: Path) -> Any:
    """Read what a file of safetensors or torch holds: tensors by name, perhaps in containers. Nothing in it is executed.

    Args:
        path: of a file, of the index of its shards (``model.safetensors.index.json``), or of a folder that has one of
            ``WEIGHT_NAMES``.

    Raises:
        BackboneError: there is no such file, it is of another format, it holds other objects than tensors, numbers and text,
            or reading it would run code or unpack a few bytes into gigabytes.
    """
    if why_unreadable(path) == FOLDER:
        path = _weights_of_folder(path)
    _require_readable(path)
    if path.name.endswith(_INDEX):
        return _read_shards(path)
    try:
        with path.open("rb") as file:
            beginning = file.read(1 << 10)
            other = _other_format(path, beginning, file)
        by_name = path.suffix == ".safetensors" and beginning[:1] not in (b"P", b"\x80")
        if not other and (by_name or beginning[8:9] == b"{"):
            return {name: tensor for name, tensor in load_file(path).items() if not name.startswith(_NO_TENSOR)}
    except SafetensorError as error:
        raise BackboneError(
            f"{path} is not a safetensors file: {error}. If it was one, it is damaged or cut off; copy or download it again"
        ) from error
    except OSError as error:
        raise BackboneError(f"{path} cannot be read as a weights file: {error.strerror or error}") from error
    if other:
        raise BackboneError(f"{path} cannot be read as a file of tensors: it is {other}")
    if beginning[:1] == b"\x80" and len(beginning) > 32 and _MAGIC not in beginning[:32]:
        raise _other_pickle(path)
    try:
        _require_plain(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load passes on the errors of zipfile, pickle and struct
        raise _unreadable(path, error) from error


def _require_readable(path: Path) -> None:
    why = why_unreadable(path)
    if why == MISSING:
        raise BackboneError(
            f"there is no weights file {path}; expected a .safetensors or .pth file, 'default' or 'random'"
        )
    if why:
        raise BackboneError(f"{path} cannot be read as a weights file: {why}")


def _weights_of_folder(folder: Path) -> Path:
    """The weights file of a folder that a library saved.

    Raises:
        BackboneError: it has none, or those of DeepSpeed or of torch's distributed checkpoints, which are in pieces.
    """
    for name in WEIGHT_NAMES:
        if (folder / name).is_file():
            return folder / name
    begins = f"{folder} cannot be read as a weights file: it is a folder"
    if (folder / ".metadata").is_file():
        raise BackboneError(f"{begins} of torch.distributed.checkpoint. {_of_distributed(folder)}")
    if (folder / "zero_to_fp32.py").is_file():
        raise BackboneError(f"{begins} of DeepSpeed. Run its zero_to_fp32.py, and name the file that it makes")
    inside = sorted(
        p.name for p in folder.iterdir() if p.suffix in (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar")
    )
    named = f". Name one of its files: {listed([printable(name) for name in inside], most=6)}" if inside else ""
    if not inside:
        found = sorted(p.parent.name for name in WEIGHT_NAMES for p in folder.glob(f"*/{name}"))
        named = f". Name one of its folders: {listed([printable(name) for name in found], most=6)}" if found else ""
    raise BackboneError(f"{begins}{named or f' without {WEIGHT_NAMES[0]} or {WEIGHT_NAMES[4]}'}")


def _of_distributed(folder: Path) -> str:
    return (
        "Make one file of it, and name that:\n    python -m "
        f"torch.distributed.checkpoint.format_utils dcp_to_torch {str(folder)!r} {folder.name + '.pth'!r}"
    )


def _read_shards(index: Path) -> dict[str, Any]:
    """The tensors of all shards that an index lists; they lie in its folder.

    Raises:
        BackboneError: it is no index, a shard is missing or cannot be read, or lacks tensors that the index promises.
    """
    try:
        with index.open("rb") as file:
            found = strict_json(file.read(_MOST_INDEX).decode())
        places = found["weight_map"]
        shards = sorted(set(places.values()))
        if any(Path(shard).name != shard or shard in ("", ".", "..") for shard in shards):
            raise ValueError("a shard lies outside its folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BackboneError(
            f"{index} is not an index of shards, with a weight_map of names to files: {brief(error)}"
        ) from error
    state: dict[str, Any] = {}
    for shard in shards:
        part = read_file(index.with_name(shard))
        if not isinstance(part, Mapping):
            raise BackboneError(f"{index.with_name(shard)} does not hold tensors by name, as {index.name} promises")
        state |= part
    if lacking := [name for name in places if name not in state]:
        count = f"{len(lacking)} of its {counted(len(places), 'tensor')} {form(len(lacking), 'is', 'are')}"
        raise BackboneError(f"{index}: {count} in none of its shards, such as {printable(lacking[0])}")
    return state


def _other_format(path: Path, beginning: bytes, file: BinaryIO) -> str:
    """What a file is that is not of torch, and what to do; "" for a file of torch, and for what is not recognised."""
    for pattern, what in _OTHER_FORMATS:
        if re.match(pattern, beginning, re.DOTALL):
            return what
    suffix = path.suffix.lower()
    if suffix == ".distcp":
        return f"a part of a checkpoint of torch.distributed.checkpoint. {_of_distributed(path.parent)}"
    if suffix == ".onnx" or (beginning[:1] == b"\x08" and b"pytorch" in beginning[:64]):
        return f"an ONNX model, whose tensors need not have the network's names; {_STATE}"
    if suffix == ".msgpack" or re.search(r"\.(?:index|data-\d+-of-\d+|pb|h5|keras)$", path.name):
        return f"a file of Flax, TensorFlow or Keras, whose layers have other names and layouts; {_STATE}"
    if beginning[257:262] == b"ustar":
        return _of_tar(path, file)
    return _of_zip(path, file) if beginning[:4] == b"PK\x03\x04" else ""


def _of_tar(path: Path, file: BinaryIO) -> str:
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            names = {name for name, _ in zip((member.name for member in archive), range(100), strict=False)}
    except (tarfile.TarError, OSError):
        return "a damaged tar archive"
    if {"pickle", "storages", "tensors"} <= names:
        return (
            "in torch's form of before 2017, which cannot be read without running code. If you trust the file, save it again "
            f"in Python, and name the new file:\n    import torch; found = torch.load({str(path)!r}, map_location='cpu', "
            f"weights_only=False)\n    torch.save(found, {_tensors_name(path)!r})"
        )
    return (
        f"a tar archive: unpack it, and name the weights file in it ({listed(sorted(map(printable, names)), most=4)})"
    )


def _of_zip(path: Path, file: BinaryIO) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return ""  # cut off: torch's own message
    ends = {name.rpartition("/")[2] for name in names}
    if any("/code/" in f"/{name}" for name in names) and "constants.pkl" in ends:
        return (
            "a TorchScript archive, which is a program. If you trust it, save its tensors alone in Python, and name the new "
            f"file:\n    import torch; found = torch.jit.load({str(path)!r}, map_location='cpu')\n"
            f"    torch.save(found.state_dict(), {_tensors_name(path)!r})"
        )
    if "data.pkl" in ends:
        return ""
    if names and all(name.endswith(".npy") for name in names):
        return f"an archive of NumPy arrays (.npz), as JAX and Keras write: its layers have other names and layouts; {_STATE}"
    if "archive_format" in ends or "serialized_exported_program.json" in ends:
        return f"a program of torch.export, not the state_dict of a network; {_STATE}"
    if "model.weights.h5" in ends:
        return f"a Keras model, whose layers have other names and layouts; {_STATE}"
    return (
        f"a ZIP archive: unpack it, and name the weights file in it ({listed(sorted(map(printable, names)), most=4)})"
    )


def _unreadable(path: Path, error: Exception) -> BackboneError:
    """The error for a file that ``torch.load(weights_only=True)`` refuses; it names the classes that the file would make."""
    beginning = f"{path} cannot be read as a file of tensors only (weights_only)"
    reason = _ADVICE.sub("", _ESCAPES.sub("", str(error))).strip()
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    if named and "is blocked" in reason:
        return BackboneError(
            f"{beginning}: it calls {printable(named[1])}, which no weights need, and nothing of it was run"
        )
    if not named:
        return BackboneError(f"{beginning}: {_damage(path, brief(ValueError(reason)) if reason else brief(error))}")
    classes = [printable(name) for name in _refused_classes(path) or [named[1]]]
    return BackboneError(
        f"{beginning}: it also holds objects of {listed(classes)}, and reading such an object can run code. "
        + _tensors_alone(path, "torch", f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)")
    )


def _tensors_alone(path: Path, imports: str, load: str) -> str:
    """The two lines of Python that save the tensors of a file which is trusted, after a sentence."""
    return (
        "If you trust the file, save its tensors alone in Python, and name the new file:\n"
        f"    import {imports}; {_TENSORS_ALONE}\n    torch.save(keep({load}), {_tensors_name(path)!r})"
    )


def _other_pickle(path: Path) -> BackboneError:
    """The error for a pickle that ``torch.save`` did not write, as of Detectron2 or Paddle. It is not unpickled."""
    begins = f"{path} cannot be read as a file of tensors only (weights_only)"
    try:
        with path.open("rb") as file:
            called = _globals_in(file)
    except Exception as error:  # of pickletools: it is cut off, or has arrays between its operations, as joblib's
        return BackboneError(
            f"{begins}: it is a pickle that torch.save did not write, cut off or of a form of its own ({brief(error)}); "
            f"{_STATE}"
        )
    if blocked := next(filter(_BLOCKED.fullmatch, called), ""):
        return BackboneError(
            f"{begins}: it calls {printable(blocked)}, which no weights need, and nothing of it was run"
        )
    of = f" of {listed(sorted(set(map(printable, called))))}" if called else ""
    return BackboneError(
        f"{begins}: it is a pickle{of} that torch.save did not write, and reading it can run code. "
        + _tensors_alone(path, "pickle, torch", f"pickle.load(open({str(path)!r}, 'rb'))")
    )


def _globals_in(file: BinaryIO) -> list[str]:
    """The dotted names of the classes and functions that a pickle names, from its operations alone."""
    found, strings, memo, last = list[str](), list[str](), dict[int, str](), ""
    for operation, value, _ in pickletools.genops(file):
        if operation.name == "GLOBAL":
            found.append(str(value).replace(" ", "."))
        elif operation.name == "STACK_GLOBAL":
            found.append(".".join(strings[-2:]))
        elif operation.name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if value is None else int(value)] = last
            continue
        got = memo.get(value) if isinstance(value, int) and "GET" in operation.name else value
        last = got if isinstance(got, str) else ""
        if last:
            strings = [*strings[-1:], last]
    return found


def _damage(path: Path, reason: str) -> str:
    """Why a file without refused classes cannot be read: it is cut off, damaged, or a pickle of another program."""
    with path.open("rb") as file:
        beginning = file.read(4)
    if reason.startswith(_PLAIN_REASONS):
        return reason
    if beginning[:2] == b"PK" or beginning[:1] == b"\x80":
        return f"it is cut off or damaged ({reason}); copy it again"
    return f"it is not a file of torch.save or safetensors, or it is damaged ({reason})"


def _tensors_name(path: Path) -> str:
    """The name of the file for the tensors of another file alone."""
    return f"{Path(path.name.removesuffix('.tar')).stem}-tensors.pth"


def _refused_classes(path: Path) -> list[str]:
    """The names of all classes because of which a file of torch was refused; empty for torch's older form."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # not of torch's form since 1.6, or damaged
        return []


def _require_plain(path: Path) -> None:
    """Refuse files in which ``torch.load(weights_only=True)`` would unpack a few bytes into gigabytes.

    ``torch.save`` stores its parts uncompressed, and no tensor is built by ``bytearray``, which accepts any length.

    Raises:
        ValueError: the archive is compressed, its parts overlap, or the pickle calls ``bytearray``.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(file) as archive:
                parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise ValueError("its parts are compressed, which torch.save never does")
            if sum(part.file_size for part in parts) > len(data):
                raise ValueError("its parts overlap")
        if data.find(b"\nbytearray\n") >= 0:
            raise ValueError("it calls bytearray, which no tensor needs")
