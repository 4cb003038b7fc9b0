"""The driver's side: rows go out to the cluster, and features come back and are written as they arrive."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import errors
from featx.data.file_bytes import UNKNOWN
from featx.data.loader import LoadedImage, read_images
from featx.data.urls import secrets
from featx.errors import EngineError, FeatxError
from featx.extraction.autotune import AUTO
from featx.extraction.cluster.connection import Cluster, Connection, machines
from featx.extraction.committer import Committer
from featx.extraction.dark_images import dark_note
from featx.extraction.encode import pixel_reader
from featx.extraction.engine_table import ENGINES
from featx.extraction.plan import Plan, Work
from featx.extraction.workforce import Workforce
from featx.reporter import Reporter
from featx.text import brief, counted

if TYPE_CHECKING:
    from featx.extraction.cluster.workers import Samples

_BATCH_BYTES = 1 << 25
"""Bytes of pixels that are decoded, sent and encoded at once, if a batch of the network is not larger."""

_MOST_BLOCKS = 20_000
"""Tasks of decoding at most; a larger data set has more images in each."""

_SAMPLES = 4
"""Images that each machine must see as the driver does."""

_LOOKED_AT = 8
"""Images that the driver looks at itself."""


class RayComputation(Workforce):
    """The cluster that a request names; ``stages`` are images per second of one worker of each stage."""

    def prepare(self, rows: np.ndarray) -> None:
        """Connect to the cluster, all of whose machines must have the same featx and network, and see the same images."""
        inventory, connection, reporter = self._plan.inventory, self._connection, self._reporter
        reporter.stage("connecting to Ray")
        cluster = connection.cluster()
        reporter.stage(f"waiting for {counted(cluster.machines, 'machine')} of the cluster")
        connection.require_alike(self._network(), inventory.images.root, self._samples(rows))

    def pays(self, work: Work) -> bool:  # noqa: ARG002 - as of all
        """Whether some work goes to the cluster: all of it does, since it is asked for."""
        return True

    def run(self, work: Work, engine: str) -> list[int]:
        """Read the images of some work on the cluster, send them through the network, and write what comes back.

        Raises:
            EngineError: the cluster fails.
            DatasetError: a machine does not see the images; or the run is strict, and one failed.
            BackboneError, StaleCacheError: a worker that came later cannot build the network, or it has other weights there.
        """
        self._look_at(work)
        cluster, before = self._connection.cluster(), machines()
        self.engine = engine or self.engine or self._engine()
        self._choose(self.engine)
        self._committer.record_engine(self.engine)
        arrivals = _Arrivals(self._plan, self._committer, work, cluster, self._reporter)
        self._reporter.stage(f"loading {self._plan.backbone.name} in {counted(cluster.actors, 'process', 'processes')}")
        with contextlib.closing(_batches(self._dataset(work, cluster))) as batches:
            for table in batches:
                arrivals.commit(table)
        arrivals.require_all()
        self.stages = arrivals.rates()
        if not self._plan.inventory.request.in_set:  # a note for each file of a set would be many
            self.notes.append(arrivals.note())
        if lost := len(before - machines()):
            self.notes.append(f"Ray: {counted(lost, 'machine')} left the cluster, and others did the work again")
        return arrivals.damaged

    @property
    def _connection(self) -> Connection:
        connection = self._plan.inventory.request.ray
        assert connection is not None
        return connection

    def _network(self) -> dict[str, Any]:
        """What workers build the network from, as ``Encoding`` has it."""
        backbone = self._plan.backbone
        return {
            "name": backbone.name,
            "described": {"name": backbone.name, "weights": backbone.weights, "parts": backbone.describe()},
            "identities": backbone.identities,
            "folder": os.getcwd(),  # noqa: PTH109 - as text
        }

    def _engine(self) -> str:
        """The engine of all workers: as named, or the one that began the file, or torch itself, which is everywhere."""
        compute, before = self._plan.inventory.request.compute, self._committer.engine
        if compute != AUTO:
            return compute
        return before if before in ENGINES else "eager"

    def _look_at(self, work: Work) -> None:
        """Report that the first images are nearly black, before the network has cost any time."""
        request, backbone = self._plan.inventory.request, self._plan.backbone.with_views(work.views)
        files = [(row, request.images.file(row)) for row in work.rows[:_LOOKED_AT].tolist()]
        reader = pixel_reader(backbone, request.max_pixels)
        sample = [image for image in read_images(files, reader, workers=1) if image.pixels is not None]
        seen = [request.images.file(image.row) for image in sample]
        if note := dark_note(sample, seen, backbone.transform, request.max_pixels):
            self._reporter.note(note)
            self.notes.append(note)

    def _samples(self, rows: np.ndarray) -> Samples:
        """Some images that the driver sees."""
        inventory = self._plan.inventory
        there = rows[inventory.sizes[rows] >= 0]
        some = there[np.unique(np.linspace(0, len(there) - 1, _SAMPLES).astype(int))] if len(there) else there
        asked = (inventory.sizes != 0) | (inventory.marks.ctimes != UNKNOWN)  # see FileFacts.unasked
        return tuple(
            (os.fsencode(inventory.images.paths[row]), int(inventory.sizes[row]) if asked[row] else None)
            for row in some.tolist()
        )

    def _dataset(self, work: Work, cluster: Cluster) -> Any:
        """The plan of Ray Data: rows and paths, then tasks that decode, then actors that run the network.

        Without GPUs the actors decode too: then no pixels travel, and if machines are lost, the cores of the others cannot all
        go to one of two stages.
        """
        import pyarrow as pa
        import ray

        from featx.extraction.cluster.workers import Decoding, Encoder, Encoding, Places, decode

        inventory, backbone = self._plan.inventory, self._plan.backbone
        request, images, known = inventory.request, inventory.images, self._plan.known.keys()
        assert not isinstance(request.batch_size, str)
        decoding = Decoding(
            Places(images.root, self._samples(work.rows)),
            backbone.transform,
            work.views,
            request.max_pixels,
            ray.put(known) if len(known) else None,
            secrets(),
        )
        encoding = Encoding(
            **self._network(), views=work.views, device=cluster.device, engine=self.engine, batch=request.batch_size
        )
        rows = images.order(work.rows)
        size, block = _sizes(len(rows), work, self._plan, cluster)
        pixels = _pixel_bytes(work, self._plan)
        blocks = [
            pa.table(
                {"row": part, "path": pa.array([os.fsencode(images.paths[row]) for row in part.tolist()], pa.binary())}
            )
            for part in np.split(rows, range(block, len(rows), block))
        ]
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars, context.print_on_execution_start = False, False
        context.target_max_block_size = max(1 << 20, size * pixels)
        context.retried_map_errors = False
        with ray.data.DataContext.current(context):
            dataset, task = ray.data.from_arrow(blocks), {"encoding": encoding}
            if cluster.gpus:
                dataset = dataset.map_batches(
                    decode,
                    fn_kwargs={"decoding": decoding},
                    batch_size=size,
                    batch_format="pyarrow",
                    num_cpus=1,
                    memory=4 * size * pixels,
                )
            return dataset.map_batches(
                Encoder,
                fn_constructor_kwargs=task if cluster.gpus else {**task, "decoding": decoding},
                batch_size=size,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=cluster.actors),
                num_cpus=1,
                num_gpus=cluster.gpus or None,
            )


def _pixel_bytes(work: Work, plan: Plan) -> int:
    """Bytes of the pixels of an image."""
    return len(work.views) * int(np.prod(plan.backbone.transform.shape))


def _sizes(images: int, work: Work, plan: Plan, cluster: Cluster) -> tuple[int, int]:
    """How many images are decoded and encoded at once, a multiple of a pass of the network; and how many a task decodes.

    There are several tasks for each worker, if there are enough images.
    """
    default = ENGINES["eager"].cpu_batch if cluster.device == "cpu" else 64
    batch = plan.inventory.request.batch_size or default
    assert not isinstance(batch, str)
    each = max(1, batch // len(work.views))
    few = images // (4 * cluster.actors)
    many = min(_BATCH_BYTES // _pixel_bytes(work, plan), 256)
    size = each * max(1, min(few, many) // each)
    return size, size * max(1, images // (size * _MOST_BLOCKS))


def _batches(dataset: Any) -> Generator[Any, None, None]:
    """The tables that the cluster makes, as they arrive; the cluster stops if they are not wanted any more.

    Raises:
        EngineError: the cluster fails.
    """
    import ray
    from ray.data.exceptions import ExecutionTimeoutError

    go_on = "what is done is kept, and the same command goes on"
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)
    except ExecutionTimeoutError as error:
        seconds = dataset.context.execution_no_progress_timeout_s
        raise EngineError(f"no image has come back from the cluster for {seconds:,.0f} s; {go_on}") from error
    except ray.exceptions.RayError as error:
        raise EngineError(f"Ray ended the run: {brief(error)}; {go_on}") from error


class _Arrivals:
    """Writes the tables that arrive.

    Attributes:
        damaged: rows to compute again.
    """

    def __init__(self, plan: Plan, committer: Committer, work: Work, cluster: Cluster, reporter: Reporter) -> None:
        self.damaged: list[int] = []
        self._plan, self._committer, self._work, self._cluster, self._reporter = (
            plan,
            committer,
            work,
            cluster,
            reporter,
        )
        self._dtype = plan.backbone.dtype
        self._missing = np.zeros(len(plan.keys), dtype=bool)
        self._missing[work.rows] = True
        self._done, self._computed = committer.stored + committer.failed, 0
        self._seconds = {"decode": 0.0, "encode": 0.0, "write": 0.0}
        self._began = 0.0

    def commit(self, table: Any) -> None:
        """Write what one table has: features, reasons of failures, and rows whose images are known."""
        from featx.extraction.cluster.workers import FEATURES, error_text, unpacked

        for text in table["refused"].to_pylist():
            if text:
                kind, _, message = text.partition(":")
                error: type[FeatxError] = getattr(errors, kind, EngineError)
                raise error(message)
        began = time.perf_counter()
        self._began = self._began or began
        self._seconds["decode"] += float(table["decoding"].to_numpy().sum())
        self._seconds["encode"] += float(table["encoding"].to_numpy().sum())
        rows = table["row"].to_numpy()
        new = self._missing[rows]
        self._missing[rows] = False
        keys = unpacked(table["key"], "uint8")
        computed, errors_of = table["computed"].to_numpy() & new, table["error"].to_pylist()
        self._observe(table, rows, keys, np.flatnonzero(new))
        for at in np.flatnonzero(new & ~computed).tolist():
            row = int(rows[at])
            if errors_of[at]:
                self._committer.fail(row, keys[at].tobytes(), error_text(errors_of[at]))
            elif not self._committer.copy_known(rows[at : at + 1]).all():  # damaged, and from now on not known any more
                self.damaged.append(row)
        if computed.any():
            features = {
                name.removeprefix(FEATURES): unpacked(table[name], self._dtype)[computed]
                for name in table.column_names
                if name.startswith(FEATURES)
            }
            self.damaged += self._committer.store(self._work, rows[computed], keys[computed], features)
        self._computed += int(computed.sum())
        self._seconds["write"] += time.perf_counter() - began
        self._done += int(new.sum())
        self._reporter.progress(self._done, len(self._plan.keys), self._limit())

    def _observe(self, table: Any, rows: np.ndarray, keys: np.ndarray, new: np.ndarray) -> None:
        """Record the keys, and the size and times of images that are not what the driver has seen.

        Inode numbers of network file systems may differ between machines, so they count only where something else differs.
        """
        inventory = self._plan.inventory
        size, mtime, ctime, inode = (table[name].to_numpy() for name in ("size", "mtime", "ctime", "inode"))
        differ = (
            (size != inventory.sizes[rows])
            | (mtime != inventory.mtimes[rows])
            | (ctime != inventory.marks.ctimes[rows])
        )
        self._committer.keys[rows[new]] = keys[new]
        for at in new[differ[new]].tolist():
            marks = int(ctime[at]), int(inode[at])
            image = LoadedImage(int(rows[at]), keys[at].tobytes(), None, "", int(size[at]), int(mtime[at]), marks)
            self._committer.observe(image)

    def _limit(self) -> str:
        """The busiest stage, such as "limit: encode 93 %"."""
        elapsed = time.perf_counter() - self._began
        workers = {"decode": self._cluster.decoders, "encode": self._cluster.actors, "write": 1}
        shares = {stage: seconds / (workers[stage] * elapsed) for stage, seconds in self._seconds.items()}
        stage = max(shares, key=lambda name: shares[name])
        return f"limit: {stage} {min(100, round(100 * shares[stage]))} %" if elapsed > 2 else ""

    def require_all(self) -> None:
        """Refuse an end at which images have not come back.

        Raises:
            EngineError: some have not.
        """
        if left := int(self._missing.sum()):
            raise EngineError(
                f"Ray returned without {counted(left, 'image')}; what is done is kept, and the same command goes on"
            )

    def rates(self) -> dict[str, float]:
        """Images per second of one worker of each stage."""
        return {stage: len(self._work.rows) / max(seconds, 1e-9) for stage, seconds in self._seconds.items()}

    def note(self) -> str:
        """What ran where, and how fast."""
        cluster, rates = self._cluster, {stage: f"{rate:,.0f}" for stage, rate in self.rates().items()}
        kind = "GPU" if cluster.gpus else "CPU"
        processes = counted(cluster.actors, f"{kind} process", f"{kind} processes")
        apart = f" on each of {counted(cluster.decoders, 'core')}," if cluster.gpus else " and"
        work = f"reading and decoding {rates['decode']}{apart} the network {rates['encode']} in each of "
        return (
            f"Ray: {counted(cluster.machines, 'machine')}; images per second of each stage alone: {work}{processes}, writing "
            f"{rates['write']}"
        )
