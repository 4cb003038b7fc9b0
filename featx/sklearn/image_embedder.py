"""``ImageEmbedder``: images to features, as a transformer of scikit-learn that never computes a feature twice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from featx.arguments import path_of
from featx.constants import CACHE, POOLINGS
from featx.data.inputs import ImageInput
from featx.errors import BackboneError, CorruptFileError, ImageError, OutputError, SettingsError, system_errors
from featx.extraction.kept_features import ImageFeatures, embed_images
from featx.features.remote_folder import folder_here
from featx.layer_spec import PENULTIMATE
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter
from featx.sklearn.checks import check_names
from featx.sklearn.image_column import column_of, inputs_of, is_frame
from featx.sklearn.networks import Embedding, embedding_of
from featx.text import described, printable

_FITTED = ("n_features_in_", "n_features_out_", "feature_names_in_")
"""The attributes that ``fit`` sets."""


class StoredCode(str):
    """The name of a network that is Python code, as a file gave it. Such code runs only if the user names it."""

    __slots__ = ()


class ImageEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn images into the features of a pretrained network, once for each image.

    Features are kept in the folder ``cache`` under the hash of the image's bytes. The next call, clones in a search, folds of
    a cross-validation, other processes and ``featx extract`` find them there; so does this transformer find what they have
    computed. There is nothing to fit: ``fit`` checks the parameters and loads the network.

    Args:
        backbone: the network, as ``featx.load_backbone`` takes it.
        layer: the layer or layers, such as "layer4:gem" or "layer3,penultimate"; see ``LayerSpec.parse``.
        pooling: the pooling of layers that name none: one of "avg", "max", "gem", "cls", "avg+cls", "flatten", or
            cells such as "grid2" and "tokens:16".
        views: "plain", "flip" or "10crop": views of each image, whose features are averaged.
        weights: as in ``load_backbone``; None: the default ones.
        options: further arguments of ``load_backbone``, such as ``{"size": 448, "precision": "float16"}``.
        column: the column of a data frame that holds the images; None: X is one column.
        root: the folder that relative paths start from; None: the working folder.
        cache: the folder of feature files; None: nothing is looked up or kept.
        errors: "raise": an image that cannot be read or decoded is an error, which names its row. "nan": its features are NaN,
            with a warning.
        device: as in ``load_backbone``.
        batch_size: images per forward pass; None leaves it to the engine.
        workers: threads that read and decode; None: one per core.
        progress: show the progress on stderr.

    Attributes:
        n_features_out_: D, the width of the features.
        n_features_in_, feature_names_in_: of a data frame: its columns.

    Examples:
        >>> import numpy as np
        >>> from featx.sklearn import ImageEmbedder
        >>> images = np.zeros((3, 28, 28), dtype=np.uint8)  # or paths, bytes, images of Pillow, a column of a data frame
        >>> embedder = ImageEmbedder("lenet5", cache=None, device="cpu")
        >>> embedder.fit_transform(images).shape
        (3, 84)
    """

    def __init__(
        self,
        backbone: str = "resnet50",
        *,
        layer: str = PENULTIMATE,
        pooling: str = POOLINGS[0],
        views: str = "plain",
        weights: str | os.PathLike[str] | None = None,
        options: Mapping[str, Any] | None = None,
        column: str | int | None = None,
        root: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = CACHE,
        errors: str = "raise",
        device: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
        progress: bool = False,
    ) -> None:
        self.backbone = backbone
        self.layer = layer
        self.pooling = pooling
        self.views = views
        self.weights = weights
        self.options = options
        self.column = column
        self.root = root
        self.cache = cache
        self.errors = errors
        self.device = device
        self.batch_size = batch_size
        self.workers = workers
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - as scikit-learn calls it
        """Check the parameters and X, and load the network. No image is opened.

        Args:
            X: N images: a list, an array, a Series or a data frame, as ``transform`` takes them.
            y: ignored.

        Raises:
            BackboneError: the network cannot be loaded.
            DatasetError: X is no column of images.
            SettingsError: a parameter has an unknown value.
        """
        self._check_parameters()
        column_of(X, self.column)
        for name in _FITTED:
            self.__dict__.pop(name, None)
        if is_frame(X):
            check_names(self, X, reset=True)
        self.n_features_out_ = self.embedding().width
        return self

    @system_errors()
    def transform(self, X: Any) -> np.ndarray:
        """Find or compute the features of images.

        Args:
            X: N images. Each is a path, a URL, the bytes of an image file, an image of Pillow, an array (H, W) or (H, W, C), or
                an open file. X is a list, a Series, an array (N,) or (N, 1) of these, an array (N, H, W) or (N, H, W, C) of
                pixels, or a data frame.

        Returns:
            (N, D) float32, in order; with several views, their mean.

        Raises:
            ImageError: an image cannot be read or decoded, and ``errors`` is "raise".
            DatasetError: X is no column of images.
            BackboneError: the network cannot be loaded.
        """
        self._check_parameters()
        items = column_of(X, self.column)
        if is_frame(X) and "feature_names_in_" in vars(self) and self.column is None:
            check_names(self, X, reset=False)
        images = inputs_of(items, self.root)
        found = _embed(self, images, progress=bool(self.progress))
        self._report(images, found.errors)
        values = found.values
        return values if values.ndim == 2 else values.mean(axis=1, dtype=np.float64).astype(np.float32)

    def embedding(self) -> Embedding:
        """The network and the layers that are read from it. It is loaded once in a process, and is no part of a pickle.

        Raises:
            BackboneError: it cannot be loaded; or it is Python code that a file names, which is not run.
        """
        if isinstance(self.backbone, StoredCode):
            raise BackboneError(
                f"the network is the Python code {self.backbone}, and code that a file names is never run; "
                f"set_params(backbone={str(self.backbone)!r}) says that it may"
            )
        return embedding_of(
            self.backbone,
            layer=self.layer,
            pooling=self.pooling,
            views=self.views,
            weights=self.weights,
            device=self.device,
            options=self.options,
        )

    @property
    def _n_features_out(self) -> int:
        """The number of names that ``get_feature_names_out`` gives."""
        return self.embedding().width

    def __sklearn_is_fitted__(self) -> bool:
        """There is nothing to fit."""
        return True

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's tools ask: X is a column of images, which scikit-learn does not check."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.requires_fit, tags.no_validation = False, True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _more_tags(self) -> dict[str, Any]:
        """The same for scikit-learn 1.5."""
        return {"X_types": ["1dlabels", "string"], "requires_fit": False, "no_validation": True, "preserves_dtype": []}

    def _check_parameters(self) -> None:
        if self.errors not in ("raise", "nan"):
            raise SettingsError(f"errors is {described(self.errors)}; expected 'raise' or 'nan'")
        for name in ("root", "cache"):
            if getattr(self, name) is not None:
                path_of(getattr(self, name), name)
        for name, value in (("batch_size", self.batch_size), ("workers", self.workers)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
                raise SettingsError(f"{name} is {described(value)}; expected a whole number above 0, or None")

    def _report(self, images: Sequence[ImageInput], errors: Sequence[str]) -> None:
        """Raise or warn if images have failed."""
        failed = [row for row, error in enumerate(errors) if error]
        if not failed:
            return
        shown = [f"row {row} ({printable(images[row].name)}): {printable(errors[row])}" for row in failed[:3]]
        count = f"{len(failed)} of {len(images)} images cannot be embedded: " if len(images) > 1 else ""
        more = f"; and {len(failed) - len(shown)} more" if len(failed) > len(shown) else ""
        message = f"{count}{'; '.join(shown)}{more}"
        if self.errors == "raise":
            raise ImageError(f"{message}. ImageEmbedder(errors='nan') gives NaN for such rows")
        warnings.warn(f"{message}. Their features are NaN", UserWarning, stacklevel=5)

    # Files

    def __reduce__(self) -> tuple[Any, ...]:
        """How pickle and ``copy`` do it. skops uses ``__getstate__`` and ``__setstate__``."""
        return _rebuilt, (type(self), vars(self).copy())

    def __getstate__(self) -> dict[str, Any]:
        """The attributes for skops: plain values, so that paths are text."""
        state = dict(super().__getstate__())
        return {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in state.items()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take the attributes from a file of skops, whose content may be anybody's.

        Raises:
            CorruptFileError: there are no attributes.
        """
        if not isinstance(state, Mapping):
            raise CorruptFileError(f"the state of an ImageEmbedder is {described(state)}; expected its parameters")
        self.__dict__.update(state)
        if isinstance(name := state.get("backbone"), str) and ".py:" in name:
            self.backbone = StoredCode(name)


def _rebuilt(cls: type[ImageEmbedder], state: Mapping[str, Any]) -> ImageEmbedder:
    embedder = cls.__new__(cls)
    embedder.__dict__.update(state)
    return embedder


@shows_progress("embed", "images")
def _embed(
    embedder: ImageEmbedder,
    images: Sequence[ImageInput],
    *,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> ImageFeatures:
    """The features of images; without a cache, and with a warning, where its folder cannot be written."""
    network, cache = embedder.embedding(), embedder.cache
    backbone, layer, batch_size, workers = network.backbone, network.layer, embedder.batch_size, embedder.workers

    def embed(folder: Any) -> ImageFeatures:
        return embed_images(
            backbone, layer, images, cache=folder, batch_size=batch_size, workers=workers, reporter=reporter
        )

    if cache is None:
        return embed(None)
    try:
        return embed(folder_here(cache))
    except OutputError as error:
        warnings.warn(
            f"the features are not kept, since {error}. ImageEmbedder(cache=FOLDER) names another folder, and cache=None none",
            UserWarning,
            stacklevel=6,
        )
        return embed(None)
