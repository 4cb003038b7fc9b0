"""The modules and files beside a user's own Python file that the network is made of: run from their sources, and hashed."""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import importlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

_WEIGHTS = {".pth", ".pt", ".ckpt", ".safetensors", ".bin"}
"""Files of tensors. What a network takes from them is in its own tensors, which the identity holds."""

_CODE = {".py", ".pyc", ".pyi"}
_INSTALLED = {"site-packages", "dist-packages", "__pycache__"}


def package_of(path: Path) -> tuple[Path, str]:
    """The folder that a file's absolute imports start from, and the package that its relative imports start from.

    Returns:
        The file's folder and "", or for a file in a package the folder that holds the outermost package, and the package's
        dotted name.
    """
    root, names = path.parent, list[str]()
    while (root / "__init__.py").is_file() and root.parent != root:
        names.insert(0, root.name)
        root = root.parent
    return root, ".".join(names)


class LocalFiles(MetaPathFinder):
    """What Python code brings in from one folder and the folders below it.

    Within ``recorded``, modules of the folder can be imported, and come before installed ones, as if the code were run by
    ``python file.py``. They are compiled from the bytes that are hashed, whatever a ``__pycache__`` or ``sys.modules`` holds.

    Args:
        root: the folder.

    Examples:
        >>> LocalFiles(Path(".")).digest
        ''
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._digests: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of the paths and contents of all modules and files; "" if there were none."""
        lines = "".join(f"{path}\0{digest}\n" for path, digest in sorted(self._digests.items()))
        return hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest() if lines else ""

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Record what is imported and read. Modules of the folder that were imported before are set aside for that time."""
        aside = {name: module for name, module in sys.modules.items() if self._is_in_the_way(name, module)}
        for name in aside:
            del sys.modules[name]
        importlib.invalidate_caches()  # a module may have been written a moment ago
        sys.meta_path.insert(0, self)
        try:
            with self._files_recorded():
                yield
        finally:
            sys.meta_path.remove(self)
            sys.modules.update({name: module for name, module in aside.items() if not _is_ours(module)})

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of the folder; None for all others, which Python's own finders find."""
        if _is_shared(fullname.partition(".")[0]):
            return None
        spec = PathFinder.find_spec(fullname, [str(self.root)] if path is None else path, target)
        if spec is None or spec.origin is None:  # a folder without __init__.py comes after every other module
            installed = path is None and PathFinder.find_spec(fullname)
            return None if installed and installed.origin else spec
        if not self._is_local(spec.origin):
            return None
        if isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.origin, self)
        else:  # compiled code
            self.record(spec.origin, Path(spec.origin).read_bytes())
        return spec

    def record(self, path: str | Path, data: bytes) -> None:
        """Note the content of a file of the folder."""
        relative = Path(path).resolve().relative_to(self.root).as_posix()
        self._digests[relative] = hashlib.sha256(data).hexdigest()

    def _is_local(self, path: object) -> bool:
        """Whether a path is below the folder, and neither hidden nor in an environment of installed packages."""
        try:
            parts = Path(str(path)).resolve().relative_to(self.root).parts
        except (OSError, RuntimeError, ValueError):
            return False
        return not any(part in _INSTALLED or part.startswith(".") for part in parts)

    def _is_in_the_way(self, name: str, module: Any) -> bool:
        """Whether an import would find a module of an earlier run, or of this folder as it was earlier."""
        top, file = name.partition(".")[0], getattr(module, "__file__", None)
        if _is_shared(top):
            return False
        if _is_ours(module):
            return True
        has_own = (self.root / f"{top}.py").is_file() or (self.root / top).is_dir()
        return has_own and file is not None and (self._is_local(file) or not _INSTALLED & set(Path(file).parts))

    @contextlib.contextmanager
    def _files_recorded(self) -> Iterator[None]:
        """Record files of the folder that are opened for reading, such as a network's settings."""
        real, seen = builtins.open, set[Path]()

        def open_recorded(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if isinstance(file, str | bytes | os.PathLike) and not set(mode) & set("wax+"):
                path = Path(os.fsdecode(file))
                if path.suffix not in _WEIGHTS | _CODE and self._is_local(path):
                    seen.add(path.resolve())
            return real(file, mode, *args, **options)

        builtins.open = io.open = open_recorded
        try:
            yield
        finally:
            builtins.open = io.open = real
        for path in seen:
            with contextlib.suppress(OSError):  # it was not there, or is gone
                self.record(path, path.read_bytes())


class _Loader(SourceFileLoader):
    """Compile a module from the bytes that are recorded, never from a ``__pycache__``."""

    def __init__(self, fullname: str, path: str, files: LocalFiles) -> None:
        super().__init__(fullname, path)
        self._files = files

    def get_code(self, fullname: str) -> CodeType:
        """The compiled source."""
        path = self.get_filename(fullname)
        data = self.get_data(path)
        self._files.record(path, data)
        code: CodeType = self.source_to_code(data, path)
        return code


def _is_shared(top: str) -> bool:
    """Whether a module is one that featx runs on, so that a second copy of it would break both."""
    return top in sys.stdlib_module_names or top in ("__main__", "featx", "torch", "torchvision", "timm", "numpy")


def _is_ours(module: Any) -> bool:
    return isinstance(getattr(getattr(module, "__spec__", None), "loader", None), _Loader)
