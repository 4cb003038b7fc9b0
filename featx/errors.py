"""Every exception of featx, and how a message shows things. Standard library only.

Each has a second, built-in parent, so that ``except ValueError`` or ``except OSError`` in foreign code still works.
A message says what was found, what was expected, and the option or call that mends it.
"""

from __future__ import annotations

from collections.abc import Sequence


class FeatxError(Exception):
    """Base of every error that featx raises on purpose."""


class DatasetError(FeatxError, ValueError):
    """A data set that cannot be read as one: no images, a missing column, contradictory rows."""


class ImageError(FeatxError, ValueError):
    """One image that cannot be decoded. Extraction records it and goes on."""


class BackboneError(FeatxError, ValueError):
    """A backbone that cannot be built, loaded, fetched or tapped."""


class EngineError(FeatxError, RuntimeError):
    """An engine that is not installed, cannot run a network, or gives other features than the network itself."""


class CacheMissError(FeatxError, FileNotFoundError):
    """A feature file, head or model that is not there."""


class StaleCacheError(FeatxError, ValueError):
    """Features that were made by another backbone than the one at hand."""


class CorruptFileError(FeatxError, OSError):
    """A file that is not what its format promises."""


class CacheLockedError(FeatxError, BlockingIOError):
    """A feature file that another process is writing."""


class OutputError(FeatxError, OSError):
    """A file that cannot be written."""


class HeadError(FeatxError, ValueError):
    """A head that cannot be fitted, loaded or promoted."""


class RecipeError(FeatxError, ValueError):
    """A recipe with faults; all of them, not the first alone.

    Attributes:
        faults: one sentence each.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *(f"  - {fault}" for fault in faults)]))
        self.faults = tuple(faults)
