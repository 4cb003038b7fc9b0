"""What a model computes for the parts of the data, block by block.

Where a block ends depends on its images alone. So a run that goes on after a block makes the same blocks, and with them the
same numbers, as one that was never interrupted.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np

from featx.backbones.backbone import split_views
from featx.backbones.joint import Partly, per_view
from featx.data.inputs import ImageInput
from featx.errors import EngineError, HeadError
from featx.extraction.autotune import AUTO, choose_engine
from featx.extraction.engines import Engine, JointEngine, is_engine
from featx.extraction.lookup import ImageValues, Network, iter_batches
from featx.features.feature_set import FeatureSet
from featx.heads.head import Head
from featx.heads.on_features import notes_on_labels, rows_and_failures
from featx.heads.own_features import Named
from featx.identity import features_at
from featx.inference import NOT_FINITE, HeadOnBackbone, known_features
from featx.promotion.model import PromotedModel
from featx.reporter import Reporter
from featx.streaming.inputs import Entry, ListedImages, StreamedImages, mark_of_row
from featx.streaming.layout import Block
from featx.system import cores

_KNOWN_AT_ONCE, _STREAMED_AT_ONCE, _ROWS_AT_ONCE = 256, 32, 4096
"""Images of a block where features are known, of a list or one after the other; and rows of a feature file."""


class HeadEngine:
    """Computes the features that a head needs, by the engine that is fastest on this machine, as ``featx extract`` does.

    Args:
        model: the head with its backbone.
        images: how many images there are, as far as it is known; a short run does not measure engines.
        workers: threads that decode and, on the CPU, run the network.
        begun_by: the engine that computed the rows which are there already; "" if there are none.
        reporter: gets a note before engines are measured.

    Attributes:
        name: of the engine; that of ``begun_by`` until an image needs one.
        notes: sentences for the user.
    """

    def __init__(self, model: HeadOnBackbone, *, images: int, workers: int, begun_by: str, reporter: Reporter) -> None:
        self.name, self.notes = begun_by, list[str]()
        self._model, self._images, self._reporter = model, images, reporter
        self._lanes = workers if model.backbone.device.type == "cpu" else 1
        self._engine: Engine | None = None

    def prepare(self, pixels: np.ndarray) -> None:
        """Open the engine, if that has not been done.

        Args:
            pixels: (B, V, 3, H, W) uint8, the first images.
        """
        if self._engine:
            return
        sample, images = pixels.reshape(-1, *pixels.shape[2:]), self._images * pixels.shape[1]

        def choose(name: str) -> None:
            chosen = choose_engine(
                name, self._model.backbone, sample, images=images, lanes=self._lanes, reporter=self._reporter
            )
            self._engine, self.name = chosen.engine, chosen.engine.name
            self.notes += [chosen.note] if chosen.note else []

        before = self.name
        try:
            choose(before if is_engine(before) else AUTO)
        except EngineError:
            if not is_engine(before):
                raise
            choose(AUTO)
            self.notes.append(f"{before}, which computed the first rows, cannot be opened now; {self.name} goes on")

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Compute features: (B, V, 3, H, W) uint8 to (B, D), or (B, V, D) of several views."""
        assert self._engine
        return self._joined(self._engine(pixels.reshape(-1, *pixels.shape[2:])))

    def rest(self, pixels: np.ndarray, known: Partly) -> np.ndarray:
        """Compute features of several backbones side by side where those of some are known; see ``Network.compute_rest``."""
        assert isinstance(self._engine, JointEngine)
        rows = pixels.reshape(-1, *pixels.shape[2:])
        return self._joined(self._engine.rest(rows, per_view(known, pixels.shape[1])))

    def _joined(self, rows: dict[str, np.ndarray]) -> np.ndarray:
        return features_at(split_views(rows, self._model.backbone.views), self._model.head.layer_)


Outputs = Callable[[Sequence[np.ndarray]], np.ndarray]
"""From the values of B images, which a network gave, to their (B, C) outputs."""


def image_blocks(
    part: ListedImages | StreamedImages,
    model: HeadOnBackbone | PromotedModel,
    further: Sequence[str],
    start: int,
    *,
    engine: HeadEngine | None,
    cache: str | os.PathLike[str] | None,
    workers: int | None,
) -> Generator[Block]:
    """Predict images.

    Args:
        part: the images.
        model: what predicts.
        further: the names of the further columns.
        start: the images of the part that are predicted already.
        engine: computes the features of a head.
        cache: the folder of feature files in which a head finds features; None: nothing is looked up.
        workers: threads that read and decode.
    """
    network, outputs = _network(model, engine)
    waiting = deque[Entry]()

    def inputs() -> Iterator[ImageInput]:
        for entry in part.entries(further, start):
            waiting.append(entry)
            yield entry.image

    known = known_features(model, cache)
    most = _STREAMED_AT_ONCE if isinstance(part, StreamedImages) else _KNOWN_AT_ONCE
    for batch in iter_batches(network, inputs(), known=known, workers=workers, most=most):
        entries = [waiting.popleft() for _ in batch]
        yield _block(batch, entries, outputs, len(model.classes))


def _network(model: HeadOnBackbone | PromotedModel, engine: HeadEngine | None) -> tuple[Network, Outputs]:
    """What computes the values of images, and what makes outputs of these."""
    kind = model.device.type
    if isinstance(model, HeadOnBackbone):
        assert engine
        head = model.head
        network = Network(
            model.transform, model.views, kind, engine, engine.rest, lanes=kind == "cpu", prepare=engine.prepare
        )
        return network, lambda values: head.predict_values(np.stack(values))
    in_threads = model.for_threads() if kind == "cpu" else None
    compute = in_threads or model.predict_values
    return Network(model.transform, model.views, kind, compute, lanes=in_threads is not None), np.stack


def _block(batch: Sequence[ImageValues], entries: Sequence[Entry], outputs: Outputs, width: int) -> Block:
    made = np.full((len(batch), width), np.nan)
    rows = [row for row, image in enumerate(batch) if image.values is not None]
    if rows:
        made[rows] = outputs([image.values for image in batch if image.values is not None])
    finite = np.isfinite(made).all(axis=1)
    return Block(
        names=[image.name for image in batch],
        keys=[image.key for image in batch],
        outputs=made,
        errors=[image.error or ("" if ok else NOT_FINITE) for image, ok in zip(batch, finite.tolist(), strict=True)],
        known=[image.known for image in batch],
        cells=[entry.cells for entry in entries],
        marks=[entry.mark for entry in entries],
    )


class FeatureBlocks:
    """The rows of a feature file, or of a feature set, as a part of the data.

    Args:
        features: the file or the set; of several backbones the files.
        head: a fitted head.

    Attributes:
        columns: the names of the further columns: ``label`` and ``split`` where there are any, and those of the data set.
        root: the name of the file, for messages.
        notes: ``notes_on_labels``.

    Raises:
        CacheMissError, CorruptFileError, StaleCacheError: as of ``values_of_features``.
        HeadError: a promoted model was given.
    """

    def __init__(self, features: FeatureSet | Named, head: Head | PromotedModel) -> None:
        if isinstance(head, PromotedModel):
            raise HeadError("a promoted model predicts images, not features; give it the images")
        self._head = head
        self._features, self._failed = rows_and_failures(head, features)
        self.notes = notes_on_labels(head, self._features)
        has_labels, has_splits = bool((self._features.labels >= 0).any()), any(self._features.splits)
        self.columns = [*["label"] * has_labels, *["split"] * has_splits, *self._features.columns]

    def __len__(self) -> int:
        return len(self._features) + len(self._failed)

    def marks(self, further: Sequence[str]) -> Iterator[bytes]:
        """The marks of all images, in order."""
        for block in self._blocks(further, 0, predict=False):
            yield from block.marks

    def blocks(self, further: Sequence[str], start: int) -> Generator[Block]:
        """Predict the rows from one on, at which a block begins; as ``image_blocks``."""
        return self._blocks(further, start, predict=True)

    def _blocks(self, further: Sequence[str], start: int, *, predict: bool) -> Generator[Block]:
        features, width = self._features, len(self._head.names_)
        for at in range(start, len(features), _ROWS_AT_ONCE):
            rows = np.arange(at, min(at + _ROWS_AT_ONCE, len(features)))
            made = self._head.predict_rows(features, rows) if predict else np.full((len(rows), width), np.nan)
            names, keys = [str(path) for path in features.paths[rows]], [key.tobytes() for key in features.keys[rows]]
            cells = list(zip(*(self._column(name, rows) for name in further), strict=True)) or [()] * len(rows)
            finite = np.isfinite(made).all(axis=1).tolist()
            errors = ["" if ok else NOT_FINITE for ok in finite]
            marks = [mark_of_row(*each) for each in zip(names, cells, keys, strict=True)]
            yield Block(names, keys, made, errors, [True] * len(rows), cells, marks)
        left = self._failed[max(0, start - len(features)) :]
        if left:
            empty = ("",) * len(further)
            marks = [mark_of_row(name, empty, why.encode("utf-8", "replace")) for name, why in left]
            yield Block(
                [name for name, _ in left], [bytes(16)] * len(left), np.full((len(left), width), np.nan),
                [why for _, why in left], [False] * len(left), [empty] * len(left), marks,
            )  # fmt: skip

    def _column(self, name: str, rows: np.ndarray) -> list[str]:
        features = self._features
        if name not in self.columns:
            return [""] * len(rows)
        if name in features.columns:
            return [str(cell) for cell in features.columns[name][rows]]
        if name == "label":
            return [str(label) for label in np.array([*features.classes, ""], dtype=object)[features.labels[rows]]]
        return [str(split) for split in features.splits[rows]]


def threads(workers: int | None) -> int:
    """The number of threads that read and decode."""
    return cores() if workers is None else workers
