"""Images of a feature file that are like other images: exact search by the cosine of their features."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.arguments import names_of
from featx.data.cells import BETWEEN_LABELS
from featx.data.image_set import UNLABELLED, ImageSet
from featx.data.inputs import ImageInput, image_inputs, items_of
from featx.data.loader import batched
from featx.errors import DatasetError, HeadError, SettingsError, system_errors
from featx.extraction.lookup import ImageValues, Network, SetFeatures, iter_values
from featx.features.feature_file import DONE
from featx.features.feature_set import FeatureSet
from featx.features.file_set import open_features
from featx.features.image_store import joint_transform
from featx.heads.training_data import Rows
from featx.layer_spec import PENULTIMATE, LayerSpec
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter, stage_of_import
from featx.retrieval.cosine_index import CosineIndex
from featx.text import counted, did_you_mean, listed, native, printable

if TYPE_CHECKING:
    from featx.backbones.backbone import Backbone


@dataclass(frozen=True)
class Hit:
    """An image that is like a query.

    Attributes:
        path: relative to the data set's root.
        label: its label; "" for an image without one.
        split: its split.
        similarity: the cosine of the features.
        row: its row of the feature file, from 0.
    """

    path: str
    label: str
    split: str
    similarity: float
    row: int


@dataclass(frozen=True)
class SearchResult:
    """The images that are most like a query.

    Attributes:
        query: the path of the query, as it was given or is stored.
        hits: the most similar first.
        error: why the query failed, otherwise "".
        row: the row of the feature file with the same image, from 0; None where there is none.
        is_text: whether the query is a sentence.

    Examples:
        >>> SearchResult("new.jpg", (Hit("a.jpg", "ant", "train", 0.75, 3),)).as_dict()["hits"][0]["similarity"]
        0.75
    """

    query: str
    hits: tuple[Hit, ...] = ()
    error: str = ""
    row: int | None = None
    is_text: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the result as ``featx search --json`` prints it."""
        if self.error:
            return {"query": self.query, "error": self.error}
        return {"query": self.query, "row": self.row, "hits": [dataclasses.asdict(hit) for hit in self.hits]}


@system_errors()
@shows_progress("search", "images")
def search(
    features: FeatureSet | str | os.PathLike[str],
    queries: Any = (),
    *,
    rows: int | Sequence[int] = (),
    text: str | Sequence[str] = (),
    top: int = 20,
    layer: str | None = None,
    split: str | None = None,
    label: str | None = None,
    include_self: bool = False,
    backbone: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> list[SearchResult]:
    """Find the images of a feature file that are most like some images, by the cosine of their features.

    The search is exact, and of equally similar images the first row comes first. A query whose content is in the file takes its
    features from there; only others pass through the file's backbone.

    Args:
        features: a feature set, or a feature file.
        queries: images as ``predict`` takes them, and paths of the data set as the file has them.
        rows: a row of the file, from 0, or several, as queries before those.
        text: a sentence, or several, as queries before all others, where the features are those of the penultimate layer of a
            model that has a text tower.
        top: the number of hits for each query.
        layer: a layer spec; by default the penultimate layer, or the first of the file.
        split: only images of this split are hits.
        label: only images of this class, or with this one of several labels, are hits.
        include_self: let an image of the data set be a hit of itself. A copy of it at another path always may be one.
        backbone: the backbone to use, where the stored name is a Python file.
        weights: the weights of the backbone, where their file has moved.
        device: of torch, for queries that are not in the file.
        workers: threads that read and decode; by default one per core.
        progress: show the progress on stderr.
        reporter: receives the progress, in images.

    Returns:
        One result for each query, in order; one that could not be read has an error.

    Raises:
        CacheMissError, CorruptFileError: there is no such file or layer, or it is damaged.
        DatasetError: a query that is no image, or no image can be a hit.
        SettingsError: there is no such row, split or class.
        StaleCacheError: the backbone, as installed here, gives other features.

    Example:

        for result in featx.search("cache/photos--resnet50.h5", ["new.jpg"], top=5):
            print([(hit.path, hit.similarity) for hit in result.hits])
    """
    return list(
        iter_search(
            features, queries, rows=rows, text=text, top=top, layer=layer, split=split, label=label, include_self=include_self,
            backbone=backbone, weights=weights, device=device, workers=workers, reporter=reporter,
        )
    )  # fmt: skip


def iter_search(
    features: FeatureSet | str | os.PathLike[str],
    queries: Any = (),
    *,
    rows: int | Sequence[int] = (),
    text: str | Sequence[str] = (),
    top: int = 20,
    layer: str | None = None,
    split: str | None = None,
    label: str | None = None,
    include_self: bool = False,
    backbone: str | None = None,
    weights: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    reporter: Reporter = SILENT,
) -> Iterator[SearchResult]:
    """Search as ``search`` does, and yield each result as soon as it is found.

    Yields:
        One result for each query, in order.

    Example:

        for result in iter_search("cache/photos--resnet50.h5", frames):
            print(result.as_dict())
    """
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise SettingsError(f"top is {top!r}; expected a whole number above 0")
    if not isinstance(features, FeatureSet):
        reporter.stage(f"reading {os.fspath(features)}")
    for name, value in (("split", split), ("label", label)):
        if value is not None and not isinstance(value, str):
            raise SettingsError(f"{name} is {value!r}; expected a name")
    rows = [rows] if isinstance(rows, int | np.integer) else rows
    texts = names_of(text, "text")
    images = _Images.of(features, layer)
    index = _Candidates(images, split, label)
    if index.note:
        reporter.note(index.note)
    network = _LazyNetwork(images.features, backbone, weights, device, reporter)
    entries: Iterator[int | ImageInput] = itertools.chain(
        (images.of_row(row) for row in rows), _entries(queries, images)
    )
    if isinstance(queries, str | os.PathLike | list | tuple):  # they can be counted before any is searched
        entries = iter(list(entries))
    found = itertools.chain(
        _text_queries(texts, images, network), _queries(entries, images, network.network, workers, reporter)
    )
    for some in batched(found, index.together):
        yield from index.answer(some, top, include_self)


# The images


@dataclass(frozen=True, eq=False)
class _Images:
    """The images of a data set that have features.

    Attributes:
        features: of N images.
        rows: (N,) int64, their rows of the file.
        count: the number of rows of the file, with images that failed.
        failures: the reason why a row failed, by the row.
    """

    features: FeatureSet
    rows: np.ndarray
    count: int
    failure: Callable[[int], str]

    @classmethod
    def of(cls, features: FeatureSet | str | os.PathLike[str], layer: str | None) -> _Images:
        if isinstance(features, FeatureSet):
            if layer is not None and layer != features.layer:
                raise SettingsError(f"the layer is {layer!r}; the features given are of {features.layer!r}")
            return cls(features, np.arange(len(features)), len(features), lambda _: "")
        file = open_features(features)
        if layer is None:
            layer = PENULTIMATE if PENULTIMATE in file.layers else next(iter(file.layers))
        rows = np.flatnonzero(file.status == DONE)
        return cls(FeatureSet.load(features, layer), rows, len(file), file.error)

    def of_row(self, row: int) -> int:
        """The number among these images of a row of the file.

        Raises:
            SettingsError: there is no such row, or it failed.
        """
        if isinstance(row, bool) or not isinstance(row, int | np.integer) or not 0 <= row < self.count:
            raise SettingsError(f"the row is {row!r}; expected a whole number from 0 to {self.count - 1}")
        at = int(np.searchsorted(self.rows, row))
        if at == len(self.rows) or self.rows[at] != row:
            raise SettingsError(f"row {row} has no features, because its image failed: {self.failure(int(row))}")
        return at

    @property
    def root(self) -> str:
        """The folder of the data set."""
        return native(str(self.features.dataset.get("root", "")))

    def stored(self, path: str) -> int | None:
        """The number of the image with a path, relative to the root as the file has it or absolute; None if there is none."""
        found = self._of_path.get(path)
        if found is None and self.root and os.path.isabs(path):  # noqa: PTH117 - of str
            found = self._of_path.get(os.path.relpath(path, self.root))
        return found

    def is_file(self, number: int, path: Path) -> bool:
        """Whether a path is the file of an image of the data set, links followed."""
        return os.path.realpath(path) == os.path.realpath(Path(self.root, str(self.features.paths[number])))

    @cached_property
    def _of_path(self) -> dict[str, int]:
        return {str(path): number for number, path in enumerate(self.features.paths)}

    @cached_property
    def of_key(self) -> dict[bytes, list[int]]:
        """The numbers of the images by their key."""
        found: dict[bytes, list[int]] = {}
        for number, key in enumerate(self.features.keys):
            if key.any():
                found.setdefault(key.tobytes(), []).append(number)
        return found

    def label(self, number: int) -> str:
        """The label of an image, "" if it has none."""
        label = self.features.labels[number]
        return "" if label == UNLABELLED else self.features.classes[label]


class _Candidates:
    """The images that may be hits.

    Args:
        images: of the data set.
        split: only those of this split; None: of all.
        label: only those with this label; None: with any.

    Attributes:
        together: the number of queries that are answered together.
        note: for the user, or "".

    Raises:
        SettingsError: there is no such split or class.
        DatasetError: no image is left.
    """

    def __init__(self, images: _Images, split: str | None, label: str | None) -> None:
        self._images = images
        chosen = np.ones(len(images.features), dtype=bool)
        if split is not None:
            present = sorted({str(name) for name in images.features.splits})
            if split not in present:
                raise SettingsError(f"no image is in the split {split!r}; found {listed(list(map(repr, present)))}")
            chosen &= images.features.splits == split
        if label is not None:
            chosen &= _has_label(images.features, label)
        features = images.features.plain
        finite = _finite(features, np.flatnonzero(chosen))
        chosen[chosen] = finite
        self._numbers = np.flatnonzero(chosen)
        if not len(self._numbers):
            raise DatasetError(
                "no image of the feature file is left to be found; give other options --split and --label"
            )
        self._index = CosineIndex(Rows(features, self._numbers))
        self.together = self._index.together
        notes = [self._index.note] if self._index.note else []
        if not finite.all():
            lost = counted(int(np.count_nonzero(~finite)), "image")
            notes.insert(0, f"the features of {lost} are NaN or infinite, so these are not found")
        self.note = ". ".join(notes)

    def answer(self, queries: Sequence[_Query], top: int, include_self: bool) -> Iterator[SearchResult]:
        """Find the hits of some queries."""
        sound = [query for query in queries if query.vector is not None]
        found: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
        if sound:
            vectors = np.stack([query.vector for query in sound if query.vector is not None])
            found = zip(*self._index.search(vectors, min(top + 1, len(self._numbers))), strict=True)
        for query in queries:
            if query.vector is None:
                yield SearchResult(query.name, error=query.error)
                continue
            row = None if query.same is None else int(self._images.rows[query.same])
            numbers, cosines = next(found)
            numbers = self._numbers[numbers]
            if query.itself is not None and not include_self:
                other = numbers != query.itself
                numbers, cosines = numbers[other], cosines[other]
            pairs = zip(numbers[:top].tolist(), cosines[:top].tolist(), strict=True)
            hits = tuple(self._hit(*pair) for pair in pairs)
            yield SearchResult(query.name, hits, row=row, is_text=query.is_text)

    def _hit(self, number: int, similarity: float) -> Hit:
        images = self._images
        path, split = str(images.features.paths[number]), str(images.features.splits[number])
        return Hit(path, images.label(number), split, max(-1.0, min(1.0, similarity)), int(images.rows[number]))


def _has_label(features: FeatureSet, label: str) -> np.ndarray:
    """(N,) bool, which images have a label, alone or among several."""
    parts = [{name, *(part.strip() for part in name.split(BETWEEN_LABELS))} for name in features.classes]
    having = [number for number, names in enumerate(parts) if label in names]
    if not having:
        known = sorted({name for names in parts for name in names} - {""})
        raise SettingsError(f"no image has the label {printable(label)!r}{did_you_mean(label, known)}")
    return np.isin(features.labels, having)


def _finite(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n,) bool, which of some rows are finite, read block by block."""
    out = np.empty(len(rows), dtype=bool)
    for which, block in Rows(features, rows).blocks():
        out[which] = np.isfinite(block).all(axis=1)
    return out


# The queries


@dataclass(frozen=True, eq=False)
class _Query:
    """A query with its features.

    Attributes:
        name: its path.
        vector: (D,), or None if it failed.
        error: why it failed.
        itself: the number of the image of the data set that it is; None for another file.
        same: the number of an image of the data set with the same content; None if there is none.
        is_text: whether it is a sentence, and no image.
    """

    name: str
    vector: np.ndarray | None
    error: str = ""
    itself: int | None = None
    same: int | None = None
    is_text: bool = False


def _entries(queries: Any, images: _Images) -> Iterator[int | ImageInput]:
    """The queries as numbers of images of the data set, by their stored path, and as images to read."""
    if isinstance(queries, ImageSet):
        yield from image_inputs(queries)
        return
    for number, item in enumerate(items_of(queries)):
        if isinstance(item, str | os.PathLike):
            path = os.fspath(item)
            known = None if not isinstance(path, str) or os.path.lexists(path) else images.stored(path)
            if known is not None:
                yield known
                continue
        for each in image_inputs([item]):
            yield each if each.name != "image 0" else dataclasses.replace(each, name=f"image {number}")


def _queries(
    entries: Iterator[int | ImageInput], images: _Images, network: Network, workers: int | None, reporter: Reporter
) -> Iterator[_Query]:
    """Give the queries their features, in order: those of the data set, or those that the network computes."""
    waiting: deque[int | ImageInput] = deque()
    plain = images.features.plain

    def of_set(number: int) -> _Query:
        vector = np.asarray(plain[number])
        if not np.isfinite(vector).all():
            return _Query(str(images.features.paths[number]), None, _NOT_FINITE)
        return _Query(str(images.features.paths[number]), vector, itself=number, same=number)

    def read() -> Iterator[ImageInput]:
        for entry in entries:
            waiting.append(entry)
            if isinstance(entry, ImageInput):
                yield entry

    known = SetFeatures(dataclasses.replace(images.features, features=plain))
    for value in iter_values(network, read(), known=known, workers=workers, reporter=reporter):
        while not isinstance(entry := waiting.popleft(), ImageInput):
            yield of_set(entry)
        yield _of_file(value, entry, images)
    yield from (of_set(entry) for entry in waiting if not isinstance(entry, ImageInput))


def _text_queries(texts: Sequence[str], images: _Images, network: _LazyNetwork) -> Iterator[_Query]:
    """Sentences as vectors of the model's text tower.

    Raises:
        HeadError: the features are not of the penultimate layer, beside which the texts lie.
        BackboneError: the backbone has no text tower.
    """
    if texts and LayerSpec.parse(images.features.layer).layers != (PENULTIMATE,):
        raise HeadError(
            f"only features of the penultimate layer can be compared with text, not those of {images.features.layer}"
        )
    if texts:
        for sentence, vector in zip(texts, network.backbone.encode_text(texts), strict=True):
            yield _Query(sentence, vector, is_text=True)


_NOT_FINITE = "its features are NaN or infinite"


def _of_file(value: ImageValues, entry: ImageInput, images: _Images) -> _Query:
    """A query that was read."""
    if value.values is None or not np.isfinite(value.values).all():
        return _Query(value.name, None, value.error or _NOT_FINITE)
    same = images.of_key.get(value.key, [])
    path = entry.source if isinstance(entry.source, Path) else None
    itself = next((number for number in same if path and images.is_file(number, path)), None)
    return _Query(value.name, value.values, itself=itself, same=same[0] if same and itself is None else itself)


class _LazyNetwork:
    """The backbone of a feature set, which is built when the first image needs it.

    Args:
        features: that the backbone must give.
        name: of the backbone, where the stored one is a Python file.
        weights: where their file has moved.
        device: of torch.
        reporter: receives the stage in which it is built.
    """

    def __init__(
        self, features: FeatureSet, name: str | None, weights: str | None, device: str, reporter: Reporter
    ) -> None:
        self._reporter = reporter
        self._features, self._name, self._weights, self._device = features, name, weights, device
        self._layer = LayerSpec.parse(features.layer).layer

    @property
    def network(self) -> Network:
        """What computes the plain features of images."""
        transform = joint_transform(self._features.backbone)
        kind = "cpu" if self._device in ("auto", "cpu") else self._device
        return Network(transform, LayerSpec.parse(self._layer).views, kind, self._compute)

    def _compute(self, pixels: np.ndarray) -> np.ndarray:
        return self.backbone.encode_at(pixels, self._layer)

    @cached_property
    def backbone(self) -> Backbone:
        """The backbone itself."""
        stage_of_import(self._reporter)
        from featx.backbones.restored import restore_backbone  # torch, which images of the data set do not need

        features = self._features
        if not features.backbone:
            raise HeadError("the features were not extracted by featx, so there is no backbone to run images through")
        return restore_backbone(
            features.backbone,
            layers={features.layer: features.identity},
            name=self._name,
            weights=self._weights,
            device=self._device,
        ).with_views(LayerSpec.parse(self._layer).views)
