"""The connection to a cluster of Ray: which machines it has, and whether they can do the work."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from featx._version import __version__
from featx.data.urls import secrets
from featx.errors import DatasetError, EngineError
from featx.extraction.cluster.settings import AUTO, LOCAL, RaySettings
from featx.system import cores
from featx.text import brief, counted, listed

_CONNECT = 60.0
"""Seconds in which a cluster must answer."""

_LOOK = 180.0
"""Seconds in which every machine must have started a worker and imported featx."""

_SPARE = 2
"""Cores without a process that runs the network: this one needs one, and Ray Data has stalled where all were taken."""

_OBJECTS = 1 << 30
"""Bytes of the object store of a local cluster."""

_PROBE = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
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


@contextlib.contextmanager
def connected(settings: RaySettings) -> Iterator[Cluster]:
    """Connect to a cluster, or start a local one; a connection that the process has already is used and kept.

    Raises:
        EngineError: there is no cluster at the address, or it lacks what is asked for.
    """
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_BACKEND_LOG_LEVEL", "fatal")):
        os.environ.setdefault(name, value)  # nothing is sent to Ray's makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.data

    own = not ray.is_initialized()
    if own:
        _connect(settings.address)
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL + 1)
    try:
        yield _sized(settings, _nodes())
    finally:
        if own:
            ray.shutdown()


def _connect(address: str) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address == LOCAL:
            cpus = cores() + _SPARE
            with _stderr_closed():
                ray.init("local", num_cpus=cpus, include_dashboard=False, object_store_memory=_OBJECTS, **quiet)
        else:
            _require_answer(address)
            with _stderr_closed():
                ray.init(address, **quiet)
    except EngineError:
        raise
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
        lines = [line for line in probe.stderr.splitlines() if line.strip()] or ["it ended without a message"]
        raise EngineError(f"cannot connect to Ray at {where}: {_last_error(lines)}; {advice}")


def _last_error(lines: list[str]) -> str:
    """The message of the exception at the end of a traceback, without its advice."""
    errors = [line for line in lines if not line.startswith((" ", "["))]
    message = (errors or lines)[-1].partition(": ")[2] or lines[-1]
    return brief(Exception(message.partition(". Please ")[0].rstrip(".")))


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
    have = f"the cluster has {counted(len(nodes), 'machine')} with {sum(cpus):g} CPUs and {sum(gpus):g} GPUs"
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


def require_alike(location: str, samples: tuple[tuple[bytes, int], ...]) -> None:
    """Ask each machine whether it has the same featx and sees the same images, before anything runs.

    Args:
        location: of the store of the images.
        samples: the path and size of some of them.

    Raises:
        EngineError: a machine lacks featx, or has another version.
        DatasetError: a machine does not see the images.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from featx.extraction.cluster.workers import SHARED, look_around

    look = ray.remote(num_cpus=0, max_retries=0)(look_around())
    asked = {}
    for node in _nodes():
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[node["NodeManagerAddress"], node["NodeID"]] = look.options(scheduling_strategy=there).remote(
            __version__, location, samples, secrets()
        )
    faults = dict[str, str]()
    for (machine, _), answer in asked.items():
        try:
            if fault := ray.get(answer, timeout=_LOOK):
                faults[machine] = fault
        except ray.exceptions.GetTimeoutError:
            faults[machine] = f"has not started a worker in {_LOOK:.0f} s"
        except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
            continue  # it has left the cluster meanwhile
        except Exception as error:  # whatever a broken installation raises
            faults[machine] = f"cannot run featx: {brief(error)}"
    if faults:
        text = listed([f"the machine {machine} {fault}" for machine, fault in faults.items()], most=1)
        raise (DatasetError if SHARED in text else EngineError)(text)
