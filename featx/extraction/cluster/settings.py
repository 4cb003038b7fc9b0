"""What the user says about the cluster of Ray that an extraction uses. Standard library only."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from featx.errors import EngineError, SettingsError

AUTO, LOCAL = "auto", "local"


@dataclass(frozen=True)
class RaySettings:
    """The cluster to use, and what of it.

    Attributes:
        address: "auto" for the cluster that this machine belongs to, "local" for processes of this machine, or HOST:PORT of
            the cluster's head.
        actors: processes that run the network; by default one for each GPU, or for most of the cores where there is none.
        gpus: GPUs of each of them; a fraction lets several share one. By default 1 where the cluster has GPUs, else 0.

    Raises:
        SettingsError: a value is out of range, or the address is not of this kind.
        EngineError: Ray is not installed.

    Examples:
        >>> RaySettings("10.0.0.7:6379", actors=8).address  # doctest: +SKIP
        '10.0.0.7:6379'
    """

    address: str
    actors: int | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if self.address not in (AUTO, LOCAL) and (not host or "/" in host or not port.isdecimal()):
            raise SettingsError(
                f"ray is {self.address!r}; expected auto, local, or HOST:PORT of the head of a cluster that has this machine"
            )
        if self.actors is not None and self.actors < 1:
            raise SettingsError(f"ray_actors is {self.actors}; expected a number of processes above 0")
        if self.gpus is not None and not (0 <= self.gpus < 1 or self.gpus == int(self.gpus) > 0):
            raise SettingsError(f"ray_gpus is {self.gpus:g}; expected a whole number, or a fraction below 1")
        if not importlib.util.find_spec("ray"):
            raise EngineError("a cluster needs Ray: pip install 'featx[ray]', on all of its machines")
