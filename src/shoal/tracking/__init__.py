"""Looking at runs: their history, several side by side, and what takes note of them elsewhere."""

from shoal.tracking.mlflow import MLflow as MLflow
from shoal.tracking.tensorboard import TensorBoard as TensorBoard
from shoal.tracking.tracker import Tracker as Tracker

__all__ = ["MLflow", "TensorBoard", "Tracker"]
