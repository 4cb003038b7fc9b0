"""``extract``: a data set through a backbone into one feature file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from featx.backbones.backbone import Backbone, load_backbone
from featx.backbones.restored import restore_backbone
from featx.constants import CACHE
from featx.data.decode import MAX_PIXELS
from featx.data.image_set import ImageSet
from featx.data.places import is_remote
from featx.data.retries import repeated_requests
from featx.data.scan import scan_images
from featx.data.shard import Shard
from featx.data.urls import public
from featx.devices import pick_devices
from featx.errors import DatasetError, OutputError, system_errors
from featx.extraction.autotune import AUTO
from featx.extraction.clock import Clock
from featx.extraction.cluster.connection import Connection
from featx.extraction.cluster.settings import RaySettings
from featx.extraction.execute import Outcome
from featx.extraction.inventory import count_unversioned, unversioned
from featx.extraction.one_file import run
from featx.extraction.request import Request
from featx.extraction.result import Extraction
from featx.extraction.reuse import count_removed
from featx.extraction.split_rows import extract_set
from featx.features.feature_file import DONE
from featx.features.manifest import SETS, require_split_rows
from featx.features.remote_folder import RemoteFolder
from featx.features.speeds import LEAST_IMAGES, keep_speed
from featx.layer_spec import views_name
from featx.progress import shows_progress
from featx.reporter import SILENT, Reporter
from featx.system import cores
from featx.text import counted, portable


@system_errors()
@shows_progress("extract", "images")
def extract(
    data: ImageSet | str | os.PathLike[str],
    backbone: Backbone | str = "resnet50",
    *,
    cache: str | os.PathLike[str] = CACHE,
    out: str | os.PathLike[str] | None = None,
    compute: str = AUTO,
    batch_size: int | str | None = None,
    workers: int | None = None,
    rehash: bool = False,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    devices: str | Sequence[str | int] | None = None,
    shard: Shard | str | None = None,
    split_rows: int | None = None,
    ray: str | None = None,
    ray_actors: int | None = None,
    ray_gpus: float | None = None,
    wait: bool = False,
    progress: bool = False,  # noqa: ARG001 - read by shows_progress
    reporter: Reporter = SILENT,
) -> Extraction:
    """Run a frozen backbone once over a data set and store its embeddings in one HDF5 file.

    Images whose features are in any file of the folder, made in the same way, are not computed again; neither are those that
    an interrupted run has done. An unchanged data set costs no forward pass and opens no image.

    Args:
        data: an image set, or a path as ``scan_images`` takes it.
        backbone: a backbone, or the name of one, which is loaded with its default weights.
        cache: the folder of feature files; or its URL, to which finished files are copied, and from which those of the same
            data set and backbone are fetched first, see ``featx.features.remote_folder``.
        out: the feature file to write, instead of one named after data set and backbone in ``cache``.
        compute: the engine that runs the network: "eager" (torch), "compile" (torch.compile), "openvino" or "onnxruntime",
            where they are installed. "auto" takes the fastest one, which is measured once per machine and backbone, by a run
            that is long enough to pay for it. All engines give the same features, to 1e-4 of a row's norm; this is verified
            on the first images.
        batch_size: images per forward pass. The default is what suits the engine: 1 or 4 on the CPU, 64 elsewhere. "auto"
            measures it on a GPU. The same size gives the same bits; another size may change the last bits of a feature.
        workers: threads that read and decode, and on the CPU run the network too, each on one core; one per core by default.
        rehash: trust neither the times of files nor stored features: read every image and check every row.
        strict: stop at the first image that fails. Rows that are done stay in the file.
        max_pixels: an image with more pixels (width x height) fails.
        devices: devices of this machine that compute together: "all" for all CUDA GPUs, "0,1", ["cuda:0", "cuda:1"], or
            ["cpu", "cpu"]. Each gets a process of its own, which loads the backbone. The file is that of a run on one of
            them. If a process dies, the others take its images.
        shard: extract one part of the data set only, such as "3/16", the third of 16, on one of several machines that share the
            folder ``cache``. It goes to a file of its own, in a folder that ends in ``.shards``; ``merge_shards`` makes the
            feature file of the data set of them; with ``split_rows``, the set of files.
        split_rows: keep the data set in several feature files of at most as many images each, in a folder that ends in
            ``.set``, which every function takes as one. Files whose images have not changed stay as they are.
        ray: read, decode and run the network on a cluster of Ray (``pip install 'featx[ray]'``): "auto" for the one that this
            machine belongs to, HOST:PORT of its head, or "local" for processes of this machine. This process plans and writes.
        ray_actors: processes of the cluster that run the network; by default one for each GPU, or for most of the cores.
        ray_gpus: GPUs of each of them, or a fraction; by default 1 where the cluster has GPUs.
        wait: wait while another process writes the same file, rather than raise.
        progress: show the progress on stderr: a bar on a terminal or in a notebook, lines elsewhere.
        reporter: gets the progress, in images, with the stage that limits the speed as its detail; and a note before the run
            waits for another process, and before it measures engines.

    Returns:
        The feature file, with counts and notes of what was done.

    Raises:
        DatasetError: there are no images, or none that can be decoded; with ``strict``, one image failed.
        BackboneError: the backbone cannot be built.
        EngineError: the engine is not installed, cannot run the network, or does not fit on the device; no one of several
            devices is left; or the cluster cannot be reached, lacks what is asked for, or has another featx.
        StaleCacheError: ``out`` holds features of another identity.
        CorruptFileError: ``out`` is no readable feature file; it is not overwritten.
        CacheLockedError: another process is writing the same file.
        OutputError: the file cannot be written.

    Example:

        result = featx.extract("pets/", "resnet50", cache="cache")
        print(result.computed, result.reused, result.file)
        features = result.load()  # a FeatureSet: features.features is (N, 2048) float32
        head = featx.Head("logreg").fit(features)
    """
    started = time.perf_counter()
    cluster = Connection(RaySettings(ray, ray_actors, ray_gpus)) if ray is not None else None
    _require_place(shard, split_rows, out=out, cache=cache)
    copies = _remote_copies(cache, out)
    several = pick_devices(devices) if devices is not None else ()
    request = Request(
        images=data if isinstance(data, ImageSet) else scan_images(data),
        backbone=_on_first(backbone, several),
        cache=copies.folder if copies else Path(cache),
        out=Path(out) if out is not None else None,
        compute=compute,
        batch_size=batch_size,
        workers=cores() if workers is None else workers,
        rehash=rehash,
        strict=strict,
        max_pixels=max_pixels,
        devices=several,
        ray=cluster,
    )
    if shard is not None:
        request = _part_of(request, Shard.parse(shard), split_rows)
    clock = Clock(reporter)
    with cluster or contextlib.nullcontext():
        result = _extracted(request, copies, split_rows, started, wait=wait, reporter=clock)
    if result.computed >= LEAST_IMAGES and not result.reused and cluster is None:
        described = {"name": request.backbone.name, "parts": request.backbone.describe()}
        keep_speed(described, views=len(request.backbone.views), images_per_second=clock.speed)
    return result


def _extracted(
    request: Request,
    copies: RemoteFolder | None,
    split_rows: int | None,
    started: float,
    *,
    wait: bool,
    reporter: Reporter,
) -> Extraction:
    """Carry out a request, and say what was done."""
    if split_rows is not None and request.shard is None:
        done = extract_set(request, split_rows, wait=wait, reporter=reporter)
        notes = unversioned(done.unversioned)
        return _summary(request, done.folder, done.outcomes, done.removed, notes, time.perf_counter() - started)
    request = (_fetched(request, copies, reporter) if copies else request).as_stored()
    inventory, outcome = run(request, wait=wait, reporter=reporter)
    removed = count_removed(inventory.earlier.keys, outcome.file.keys) if inventory.earlier else 0
    notes = unversioned(count_unversioned(inventory, outcome.file))
    result = _summary(inventory.request, inventory.path, [outcome], removed, notes, time.perf_counter() - started)
    if copies:
        copies.copy_back(result.file, reporter)
        result = dataclasses.replace(result, notes=(*result.notes, *copies.notes))
    return result


def _require_place(
    shard: Shard | str | None,
    split_rows: int | None,
    *,
    out: str | os.PathLike[str] | None,
    cache: str | os.PathLike[str],
) -> None:
    """Refuse a place that shards, or several files, cannot go to.

    Raises:
        OutputError, SettingsError: as of ``extract``.
    """
    if shard is not None and (out is not None or is_remote(cache)):
        raise OutputError("shards go to a folder that all machines share; expected a folder as --cache, and no -o")
    if split_rows is not None:
        require_split_rows(split_rows)
        _require_set(out=out, cache=cache)


def _fetched(request: Request, copies: RemoteFolder, reporter: Reporter) -> Request:
    """The request whose file is a copy of that on a server, if there is one of the same data set and backbone."""
    images, network = request.images, request.backbone
    target = copies.fetch_alike(images.name, portable(images.root), network.name, network.identities, reporter)
    return dataclasses.replace(request, out=target)


def _on_first(backbone: Backbone | str, devices: Sequence[torch.device]) -> Backbone:
    """A backbone, on the first of several devices if there are any."""
    if not isinstance(backbone, Backbone):
        return load_backbone(backbone, device=str(devices[0]) if devices else "auto")
    if not devices or (backbone.device.type, backbone.device.index or 0) == (devices[0].type, devices[0].index or 0):
        return backbone
    described = {"name": backbone.name, "weights": backbone.weights, "parts": backbone.describe()}
    return restore_backbone(described, layers=backbone.identities, name=backbone.name, device=str(devices[0]))


def _part_of(request: Request, shard: Shard, split_rows: int | None) -> Request:
    """The request for one shard of its images.

    Raises:
        DatasetError: there are fewer images than shards.
    """
    whole, part = request.images, shard.of_images(request.images)
    if not len(part):
        raise DatasetError(f"shard {shard} has no images: the data set has {len(whole)}")
    note = f"shard {shard} has {len(part):,} of the {counted(len(whole), 'image')}; featx cache merge joins the shards"
    part = dataclasses.replace(part, notes=(*part.notes, note))
    return dataclasses.replace(request, images=part, shard=(shard, shard.described(whole, split_rows)))


def _remote_copies(cache: str | os.PathLike[str], out: str | os.PathLike[str] | None) -> RemoteFolder | None:
    """The folder of finished files on a server, if ``cache`` is one.

    Raises:
        OutputError: the server takes no files; ``out`` is a URL, or names a file besides.
    """
    if out is not None and is_remote(out):
        raise OutputError(f"{public(os.fspath(out))} is a URL; -o names a file of this machine, --cache may be a URL")
    if not is_remote(cache):
        return None
    if out is not None:
        raise OutputError(
            f"-o {os.fspath(out)} names a file of this machine, and --cache a folder on a server; give one"
        )
    return RemoteFolder(os.fspath(cache))


def _require_set(*, out: str | os.PathLike[str] | None, cache: str | os.PathLike[str]) -> None:
    """Check that several files can go to a place.

    Raises:
        OutputError: they cannot.
    """
    if is_remote(cache):
        raise OutputError(f"{public(os.fspath(cache))} takes single files; a set of files goes to a folder as --cache")
    if out is not None and Path(out).suffix != SETS:
        raise OutputError(
            f"{os.fspath(out)} is to hold several files; expected the name of a folder that ends in {SETS}"
        )
    if out is not None and os.path.lexists(out) and not Path(out).is_dir():
        raise OutputError(f"{os.fspath(out)} is a file; expected the name of a folder for the set of feature files")


def _summary(
    request: Request, path: Path, outcomes: Sequence[Outcome], removed: int, notes: Iterable[str], seconds: float
) -> Extraction:
    """What a run did, from the outcome of each of its files."""
    files, backbone = [outcome.file for outcome in outcomes], request.backbone
    failures = [
        (os.fsdecode(file.images.paths[row]), file.error(row))
        for file in files
        for row in np.flatnonzero(file.status != DONE).tolist()
    ]
    return Extraction(
        file=path,
        images=sum(map(len, files)),
        computed=sum(outcome.computed for outcome in outcomes),
        reused=sum(outcome.reused for outcome in outcomes),
        failed=len(failures),
        removed=removed,
        seconds=seconds,
        layers=backbone.layer_widths,
        views=views_name(backbone.views),
        identity=files[0].identity,
        dataset=request.images.name,
        backbone=f"{backbone.name}, {backbone.weights} weights",
        engine=next((outcome.engine for outcome in outcomes if outcome.engine), ""),
        failures=tuple(failures),
        stages=next((outcome.stages for outcome in reversed(outcomes) if outcome.stages), {}),
        notes=(
            *backbone.notes,
            *dict.fromkeys(note for outcome in outcomes for note in outcome.notes),
            *notes,
            *repeated_requests(),
        ),
    )
