"""What computes images outside this process: several devices of this machine, or a cluster."""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np

from featx.extraction.committer import Committer
from featx.extraction.computation import Setting
from featx.extraction.plan import Plan, Work
from featx.reporter import Reporter


class Workforce:
    """Processes at work on one plan. They are started when they are first needed, and end with the ``with`` block.

    Args:
        plan: what is to do.
        committer: writes the rows.
        setting: how images are computed in this process.
        reporter: gets the progress, and notes.

    Attributes:
        setting: the same with the engine that was chosen.
        engine: the name of the engine; "" if no image has needed one.
        notes: sentences for the user.
        stages: images per second of each stage, if that is known.
    """

    def __init__(self, plan: Plan, committer: Committer, setting: Setting, reporter: Reporter) -> None:
        self.setting, self.engine = setting, ""
        self.notes: list[str] = []
        self.stages: dict[str, float] = {}
        self._plan, self._committer, self._reporter = plan, committer, reporter

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what was started."""

    def prepare(self, rows: np.ndarray) -> None:
        """Refuse whatever can be refused before the feature file is begun.

        Args:
            rows: (M,) rows that are to be computed.
        """

    def pays(self, work: Work) -> bool:
        """Whether some work is to be done here rather than in this process."""
        raise NotImplementedError

    def run(self, work: Work, engine: str) -> list[int]:
        """Compute the images of some work.

        Args:
            work: as ``pays`` was asked about.
            engine: the engine that this process has chosen already; "" if it has not.

        Returns:
            Rows to compute again, because what was known of them turned out to be damaged.

        Raises:
            FeatxError: whatever ends the work; what has arrived until then is written.
        """
        raise NotImplementedError

    def _choose(self, engine: str) -> None:
        """Compute with this engine from now on."""
        self.setting = dataclasses.replace(self.setting, compute=engine)
