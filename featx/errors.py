"""The exceptions of featx. Standard library only.

Each has a second, built-in parent, so that ``except ValueError`` or ``except OSError`` in foreign code still works.
A message names what was found, what was expected, and the option or call that mends it.
"""

from __future__ import annotations

from collections.abc import Sequence


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
