"""The connection to a cluster of Ray: which machines it has, and whether they can do the work."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from featx import errors
from featx.data.urls import secrets
from featx.errors import EngineError, FeatxError
from featx.extraction.cluster.settings import AUTO, LOCAL, RaySettings
from featx.system import cores
from featx.text import brief, counted, form, listed

if TYPE_CHECKING:
    from featx.extraction.cluster.workers import Samples

_CONNECT = 60.0
"""Seconds in which a cluster must answer."""

_LOOK = 300.0
"""Seconds in which all machines must have started a worker, imported featx and loaded the network."""

_SPARE = 2
"""Cores without a process that runs the network: this one needs one, and Ray Data has stalled where all were taken."""

_OBJECTS = 1 << 30
"""Bytes of the object store of a local cluster."""

_PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
except Exception as error:
    sys.exit("cannot connect: " + " ".join(str(error).split()))
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster, and what an extraction uses of it.

    Attributes:
        machines: how many it has.
        decoders: cores that read and decode: those that are left, or without GPUs those of the actors.
        actors: processes that run the network.
        gpus: GPUs of each of them.
    """

    machines: int
    decoders: int
    actors: int
    gpus: float

    @property
    def device(self) -> str:
        """The device of torch on which the network runs."""
        return "cuda" if self.gpus else "cpu"


class Connection:
    """The connection to the cluster that is asked for, made when it is first needed. It serves all files of a set.

    A connection that the process has already is used, and kept.
    """

    def __init__(self, settings: RaySettings) -> None:
        self._settings = settings
        self._answered = False
        self._cluster: Cluster | None = None
        self._alike: set[str] = set()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._cluster = None
        self._alike.clear()

    def require_answer(self) -> None:
        """Refuse an address where no cluster answers. Nothing is started on the cluster.

        Raises:
            EngineError: there is none, or it has another version of Ray or Python.
        """
        if not self._answered and self._settings.address != LOCAL and not _is_connected():
            _require_answer(self._settings.address)
        self._answered = True

    def cluster(self) -> Cluster:
        """Connect to the cluster, or start a local one.

        Raises:
            EngineError: there is no cluster at the address, or it lacks what is asked for.
        """
        if self._cluster is None:
            self.require_answer()
            self._open.enter_context(_connected(self._settings.address))
            self._cluster = _sized(self._settings, _nodes())
        return self._cluster

    def require_alike(self, network: Mapping[str, Any], location: str, samples: Samples) -> None:
        """Ask each machine once, before anything runs, whether it makes the same features of the same images.

        Args:
            network: the arguments of ``workers.network_fault``.
            location: of the store of the images.
            samples: some of them.

        Raises:
            EngineError: a machine lacks featx, or has another version of it or of what it uses.
            DatasetError: a machine does not see the images.
            BackboneError, StaleCacheError: a machine cannot build the network, or has other weights.
        """
        if (question := repr((network, location))) not in self._alike:
            _require_alike(network, location, samples)
            self._alike.add(question)


def _is_connected() -> bool:
    """Whether this process has a connection."""
    if "ray" not in sys.modules:
        return False
    import ray

    return bool(ray.is_initialized())


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_BACKEND_LOG_LEVEL", "fatal")):
        os.environ.setdefault(name, value)  # nothing is sent to Ray's makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data

    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL + 1)
    if ray.is_initialized():
        yield
        return
    _connect(address)
    try:
        with _prints_dropped():
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _prints_dropped() -> Iterator[None]:
    """Drop what Ray prints on stdout when a process or a machine is lost, for which it has no setting."""
    import ray

    module: Any = getattr(ray, "_private", None)
    worker: Any = getattr(module, "worker", None)
    prints = getattr(worker, "print_to_stdstream", None)
    if prints is None:
        yield
        return
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = prints


def _connect(address: str) -> None:
    """Connect to a cluster that answers, or start a local one."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        with _stderr_closed():
            if address == LOCAL:
                cpus = cores() + _SPARE
                ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=_OBJECTS, **quiet)
            else:
                ray.init(address, **quiet)
    except Exception as error:  # Ray raises errors of any type
        raise EngineError(f"cannot connect to Ray ({address}): {brief(error)}") from error


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    """Drop what Ray's own code, which is not Python, prints when it starts; its errors are exceptions."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _require_answer(address: str) -> None:
    """Refuse an address where no cluster answers. Another process tries it: Ray waits minutes, and then ends its process."""
    where = "this machine" if address == AUTO else address
    advice = "ray start --head starts a cluster, and ray start --address HOST:PORT lets a machine join it"
    if address != AUTO:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else brief(error)
            raise EngineError(f"no cluster of Ray answers at {address}: {why}; {advice}") from error
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, address], capture_output=True, text=True, timeout=_CONNECT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"no cluster of Ray answers at {where} within {_CONNECT:.0f} s; {advice}") from error
    if probe.returncode:
        lines = [line for line in probe.stderr.splitlines() if line.strip()] or ["its client ended without a message"]
        message = lines[-1].removeprefix("cannot connect: ").partition(". Please ")[0].rstrip(".")
        raise EngineError(f"cannot connect to Ray at {where}: {brief(Exception(message))}; {advice}")


def _nodes() -> list[dict[str, Any]]:
    """The machines of the cluster that can run something."""
    import ray

    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]


def _sized(settings: RaySettings, nodes: list[dict[str, Any]]) -> Cluster:
    """Decide how many actors there are.

    Raises:
        EngineError: the cluster has less than asked for.
    """
    cpus = [float(node["Resources"].get("CPU", 0)) for node in nodes]
    gpus = [float(node["Resources"].get("GPU", 0)) for node in nodes]
    each = settings.gpus if settings.gpus is not None else (1.0 if any(gpus) else 0.0)
    units = f"{sum(cpus):g} {form(sum(cpus), 'CPU', 'CPUs')} and {sum(gpus):g} {form(sum(gpus), 'GPU', 'GPUs')}"
    have = f"the cluster has {counted(len(nodes), 'machine')} with {units}"
    total = int(sum(cpus))
    if each:
        most = sum(math.floor(min(gpu / each + 1e-9, cpu)) for gpu, cpu in zip(gpus, cpus, strict=True))
        actors = settings.actors or most
        if actors > most or not most:
            raise EngineError(
                f"the network is to run in {counted(actors or 1, 'process', 'processes')} with {each:g} GPU each, and {have}; "
                "expected --ray-actors and --ray-gpus that fit"
            )
    else:
        actors = settings.actors or max(1, total - _SPARE)
    if actors + bool(each) > total:
        raise EngineError(
            f"{have}, and the network is to run in {counted(actors, 'process', 'processes')}, on a core each, beside those "
            "that decode; expected a smaller --ray-actors"
        )
    return Cluster(len(nodes), total - actors if each else actors, actors, each)


def _require_alike(network: Mapping[str, Any], location: str, samples: Samples) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from featx.extraction.cluster.workers import look_around, versions

    look = ray.remote(num_cpus=0, max_retries=0)(look_around())
    asked = {}
    for node in _nodes():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[node["NodeManagerAddress"], node["NodeID"]] = look.options(scheduling_strategy=there).remote(
            versions(), dict(network), location, samples, secrets()
        )
    faults = dict[str, tuple[str, str]]()
    until = time.monotonic() + _LOOK
    for (machine, _), answer in asked.items():
        try:
            if fault := ray.get(answer, timeout=max(0.0, until - time.monotonic())):
                faults[machine] = fault
        except ray.exceptions.GetTimeoutError:
            faults[machine] = "EngineError", f"has not started a worker and loaded the network in {_LOOK:.0f} s"
        except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
            continue  # it has left the cluster meanwhile
        except Exception as error:  # whatever a broken installation raises
            faults[machine] = "EngineError", f"cannot run featx: {brief(error)}"
    if faults:
        kind: type[FeatxError] = getattr(errors, next(iter(faults.values()))[0], EngineError)
        raise kind(listed([f"the machine {machine} {fault}" for machine, (_, fault) in faults.items()], most=1))


def machines() -> set[str]:
    """The machines that the cluster has now."""
    return {node["NodeID"] for node in _nodes()}
