"""What a run does, told to MLflow, Weights & Biases, TensorBoard or your own class. The public names load on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "mlflow_tracker": ["MLflowTracker"],
        "tensorboard_tracker": ["TensorBoardTracker"],
        "tracker": ["TrackedRun", "Tracker"],
        "wandb_tracker": ["WandbTracker"],
    },
)

if TYPE_CHECKING:
    from featx.tracking.mlflow_tracker import MLflowTracker as MLflowTracker
    from featx.tracking.tensorboard_tracker import TensorBoardTracker as TensorBoardTracker
    from featx.tracking.tracker import TrackedRun as TrackedRun
    from featx.tracking.tracker import Tracker as Tracker
    from featx.tracking.wandb_tracker import WandbTracker as WandbTracker
