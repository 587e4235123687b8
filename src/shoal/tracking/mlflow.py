"""Runs of MLflow (extra `mlflow`)."""

from collections.abc import Mapping
from typing import Any

from shoal.core.optional import installed
from shoal.tracking.tracker import Status, Value

ENDINGS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MLflow:
    """Writes a run into an experiment, which is made when it is not there.

    `uri` says where, as MLflow's own setting does, which counts without it (MLFLOW_TRACKING_URI). `run` is the id of
    the run, once it began. Raises ConfigurationError, when a run begins, without mlflow.
    """

    def __init__(self, experiment: str = "shoal", *, uri: str | None = None) -> None:
        self.run = ""
        self._experiment = experiment
        self._uri = uri
        self._client: Any = None

    def begin(self, name: str, params: Mapping[str, Value]) -> None:
        """Begin a run of MLflow, with what ours is made of as its parameters."""
        self._client = client = installed("mlflow.tracking", "'shoal[mlflow]'").MlflowClient(self._uri)
        found = client.get_experiment_by_name(self._experiment)
        experiment = client.create_experiment(self._experiment) if found is None else found.experiment_id
        self.run = client.create_run(experiment, run_name=name).info.run_id
        for key, value in params.items():
            client.log_param(self.run, key, value)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a round's numbers."""
        for name, value in metrics.items():
            self._client.log_metric(self.run, name, value, step=step)

    def end(self, status: Status) -> None:
        """End the run of MLflow."""
        self._client.set_terminated(self.run, ENDINGS[status])
