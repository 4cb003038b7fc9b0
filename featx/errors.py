"""The exceptions of featx. Standard library only.

Each has a second, built-in parent, so that ``except ValueError`` or ``except OSError`` in foreign code still works.
A message names what was found, what was expected, and the option or call that mends it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence


class FeatxError(Exception):
    """The base of every error that featx raises on purpose."""


class DatasetError(FeatxError, ValueError):
    """A data set that cannot be used: no images, a missing column, contradictory rows."""


class ImageError(FeatxError, ValueError):
    """One image that cannot be decoded. Extraction records it and goes on."""


class MachineError(ImageError):
    """An image that this machine cannot decode now, although the file may be sound: too little memory, a missing plug-in.

    Extraction reports it and goes on, but does not keep it: the next run tries the image again.
    """


class BackboneError(FeatxError, ValueError):
    """A backbone that cannot be built, loaded or downloaded, or that lacks a requested layer."""


class EngineError(FeatxError, RuntimeError):
    """An engine that is not installed, cannot run a network, or gives other features than the network itself."""


class CacheMissError(FeatxError, FileNotFoundError):
    """A feature file that is not there."""


class ModelNotFoundError(FeatxError, FileNotFoundError):
    """A head or promoted model that is not there, or cannot be opened."""


class StaleCacheError(FeatxError, ValueError):
    """Features of another identity than the expected one, such as those of another backbone."""


class CorruptFileError(FeatxError, OSError):
    """A file that violates its format."""


class UnknownVersionError(CorruptFileError):
    """A file of a version of its format that this featx does not know; it may be intact."""


class UnreadableFileError(FeatxError, OSError):
    """A file that the system cannot read now; it may be intact."""


class CacheLockedError(FeatxError, BlockingIOError):
    """A feature file that another process is writing."""


class OutputError(FeatxError, OSError):
    """A file that cannot be written."""


class FileError(FeatxError, OSError):
    """A file that the operating system failed to read or write, as ``system_errors`` raises it.

    Attributes:
        errno: the number of the system's error.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number


class RemoteError(FeatxError, ConnectionError):
    """A server that does not answer any more, so that nothing of what it holds can be read now."""


class OutOfMemoryError(FeatxError, MemoryError):
    """Memory that the operating system did not give."""


class HeadError(FeatxError, ValueError):
    """A head that cannot be fitted, judged or saved."""


class FoldError(FeatxError, ValueError):
    """Rows that cannot be split into folds or few-shot draws."""


class MetricError(FeatxError, ValueError):
    """Predictions and targets that no report can be made of."""


class SettingsError(FeatxError, ValueError):
    """A setting of fine-tuning that is out of range, or settings that exclude one another."""


class PromotionError(FeatxError, ValueError):
    """A head that cannot be moved onto its backbone, or a network that cannot be fine-tuned."""


class ExportError(FeatxError, RuntimeError):
    """A model that cannot be exported, or an exported one that does not predict what featx predicts."""


class AdviceError(FeatxError, ValueError):
    """Data that backbones or layers cannot be compared on."""


class RecipeError(FeatxError, ValueError):
    """A recipe with faults; all of them, not the first alone.

    Attributes:
        faults: one sentence each.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *(f"  - {fault}" for fault in faults)]))
        self.faults = tuple(faults)


@contextlib.contextmanager
def system_errors(path: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Turn an error of the operating system into a FeatxError that names the file and the cause.

    It is a context manager and a decorator. An error that is a FeatxError already passes unchanged, and so does a closed pipe,
    whose reader wants no more.

    Args:
        path: the file that the block reads or writes, for errors that name none, such as those of an open file.

    Raises:
        FileError: in the place of an OSError.
        OutOfMemoryError: in the place of a MemoryError.

    Examples:
        >>> with system_errors():
        ...     open("nowhere")
        Traceback (most recent call last):
        featx.errors.FileError: nowhere: No such file or directory
        >>> with system_errors("photos.h5"):
        ...     raise OSError(5, "Input/output error")
        Traceback (most recent call last):
        featx.errors.FileError: photos.h5: Input/output error
    """
    try:
        yield
    except (FeatxError, BrokenPipeError):
        raise
    except OSError as error:
        raise FileError(_described(error, path), error.errno) from error
    except MemoryError as error:
        what = f": {error}" if str(error) else ""
        where = f"{os.fspath(path)}: " if path is not None else ""
        raise OutOfMemoryError(f"{where}there is not enough memory{what}") from error


def _described(error: OSError, path: str | os.PathLike[str] | None) -> str:
    """The files and the cause of an error of the system."""
    named = [name for name in (error.filename, error.filename2) if name is not None and not isinstance(name, int)]
    files = [os.fsdecode(name) for name in named or ([path] if path is not None else [])]
    cause = error.strerror or str(error) or type(error).__name__
    return f"{' -> '.join(files)}: {cause}" if files else cause
