"""What trackers are told of simulated and published runs, and what the real packages keep of it."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import shoal
from shoal.core.errors import Abandoned, ConfigurationError
from shoal.core.task import LocalPlan
from tests.agent.conftest import federation as federation
from tests.agent.federation import Federation, line_task
from tests.simulation.cohorts import regression_clients, regression_task

PLAN = LocalPlan(batch_size=4, optimizer=shoal.sgd(0.05))


class Told:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.began: list[tuple[str, dict]] = []
        self.rounds: dict[int, dict] = {}
        self.ended: list[str] = []

    def begin(self, name, params):
        self.began.append((name, dict(params)))

    def log(self, step, metrics):
        self.rounds[step] = dict(metrics)

    def end(self, status):
        self.ended.append(status)


def simulated(*callbacks, rounds=3, **options):
    task = regression_task(PLAN)
    return shoal.simulate(
        task, regression_clients(), rounds=rounds, trainer="loop", seed=4, callbacks=callbacks, **options
    )


def test_a_simulated_run_is_tracked():
    told = Told()
    run = simulated(told)
    ((name, params),) = told.began
    assert name == run.spec.name
    assert (params["seed"], params["rounds"], params["local.lr"], params["aggregator"]) == (4, 3, 0.05, "mean")
    assert list(told.rounds) == [1, 2, 3]
    assert told.rounds[2]["loss"] == run.history[1].loss
    assert set(told.rounds[2]) == {"loss", "reports", "failed", "seconds"}
    assert told.ended == ["finished"]


def test_how_a_run_ends_is_told_and_trackers_that_began_are_ended():
    def fail(error):
        def callback(run):
            raise error

        return callback

    for error, status in ((ValueError("no"), "failed"), (KeyboardInterrupt(), "stopped")):
        told = Told()
        with pytest.raises(type(error)):
            simulated(told, fail(error))
        assert told.ended == [status]

    class Full(Told):
        def begin(self, name, params):
            raise OSError("no space left")

    told = Told()
    with pytest.raises(OSError, match="no space"):
        simulated(told, Full())
    assert told.ended == ["failed"]


def test_a_run_that_goes_on_is_tracked_from_there(tmp_path: Path):
    path, told = tmp_path / "run", Told()
    simulated(rounds=4, checkpoint=path, every=2, show=False)

    def cut(run):
        return len(run.history) == 2

    stopped = simulated(cut, rounds=4, checkpoint=path, every=2)
    assert len(stopped.history) == 2
    again = simulated(told, rounds=4, resume=path)
    assert (list(told.rounds), told.ended) == ([r.round for r in again.history][2:], ["finished"])


@pytest.mark.slow
def test_a_published_run_is_tracked_and_its_versions_measured(federation: Federation):
    federation.start("bob")
    test = (np.ones((4, 3), np.float32), np.ones(4, np.float32))
    task, told = line_task(test=test), Told()
    run = federation.researcher.publish(task, rounds=2, goal=1, plan=False)
    history = run.track(told, measure=lambda version: run.evaluate(task, version), show=False)
    assert history.column("round") == [1, 2] == list(told.rounds)
    assert told.rounds[2]["test_loss"] == run.evaluate(task, 2)["loss"]
    assert told.rounds[2]["loss"] == run.version(2).metrics["loss"]
    assert told.ended == ["finished"]
    assert [version.number for version in run.versions] == [0, 1, 2]

    other = federation.researcher.publish(line_task(name="other"), rounds=2, goal=1, plan=False)
    federation.researcher.cancel("other", "not needed")
    cancelled = Told()
    with pytest.raises(Abandoned):
        other.track(cancelled, show=False)
    assert cancelled.ended == ["failed"]


@pytest.mark.slow
def test_tensorboard_reads_what_was_written(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard's own
        run = simulated(shoal.tracking.TensorBoard(tmp_path / "a"), shoal.tracking.TensorBoard(tmp_path / "b"))
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        for folder in ("a", "b"):
            read = EventAccumulator(str(tmp_path / folder)).Reload()
            events = read.Scalars("loss")
            assert [event.step for event in events] == [1, 2, 3]
            assert [event.value for event in events] == pytest.approx(run.history.column("loss"), rel=1e-6)
            (params,) = read.Tensors(f"{run.spec.name}/text_summary")
            assert b"| seed | 4 |" in params.tensor_proto.string_val[0]
            (status,) = read.Tensors("status/text_summary")
            assert status.tensor_proto.string_val[0] == b"finished"


@pytest.mark.slow
def test_mlflow_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlflow's own
        tracker = shoal.tracking.MLflow("digits", uri=uri)
        run = simulated(tracker)
        simulated(shoal.tracking.MLflow("digits", uri=uri), rounds=1)
        from mlflow.tracking import MlflowClient

        client = MlflowClient(uri)
        kept = client.get_run(tracker.run)
        assert (kept.info.run_name, kept.info.status) == (run.spec.name, "FINISHED")
        assert (kept.data.params["seed"], kept.data.params["local.lr"]) == ("4", "0.05")
        logged = {metric.step: metric.value for metric in client.get_metric_history(tracker.run, "loss")}
        assert logged == dict(zip([1, 2, 3], run.history.column("loss"), strict=True))
        experiment = client.get_experiment_by_name("digits")
        assert len(client.search_runs([experiment.experiment_id])) == 2


def test_a_tracker_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    for module, tracker in (
        ("mlflow.tracking", shoal.tracking.MLflow()),
        ("tensorboard", shoal.tracking.TensorBoard("x")),
    ):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(ConfigurationError, match="is not installed") as missing:
            simulated(tracker)
        assert missing.value.fix == f"pip install 'shoal[{'mlflow' if 'mlflow' in module else 'tensorboard'}]'"


def test_a_tracker_of_ones_own_as_the_page_shows(tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "watching.md").read_text()
    code = page.split("<!-- own tracker -->\n```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code, names)
    simulated(names["JsonLines"](tmp_path / "run.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [line.get("step") for line in lines] == [None, 1, 2, 3, None]
    assert lines[-1] == {"status": "finished"}
