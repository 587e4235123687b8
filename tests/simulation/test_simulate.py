"""A simulated run: the versions of the real rounds, its history, its clients."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import shoal
from shoal import LocalPlan, RoundPlan
from shoal.core.errors import ConfigurationError, DataError, NoRows, NotFinite, NotTraceable, TaskError
from shoal.core.task import OptimizerSpec
from shoal.simulation.clients import loaded
from shoal.simulation.run import SimulatedRun
from shoal.testing.in_process import run_in_process
from shoal.train.data import client_data
from shoal.train.evaluate import evaluate
from shoal.train.loop import LoopTrainer
from shoal.train.task import compile_task
from tests.simulation.cohorts import mlp, regression_clients, regression_task

PLAN = LocalPlan(epochs=2, batch_size=4, optimizer=shoal.sgd(0.05))
CLIENTS = {client.name: client for client in regression_clients()}


def digests(run: SimulatedRun) -> list[str]:
    return [version.digest for version in run.versions]


@pytest.mark.parametrize("strategy", [shoal.fedavg(), shoal.fedadam(), shoal.fedprox(mu=0.1)], ids=lambda s: s.name)
def test_with_all_clients_the_versions_are_those_of_the_rounds_in_process(strategy: shoal.Strategy):
    task = regression_task(PLAN, strategy=strategy)
    task = replace(task, example=(CLIENTS["c0"].arrays["x"], CLIENTS["c0"].arrays["y"]))
    compiled = compile_task(task, rounds=3, plan=RoundPlan(goal=len(CLIENTS)), seed=7)
    wanted = run_in_process(compiled, CLIENTS, LoopTrainer(task))
    run = shoal.simulate(task, CLIENTS, rounds=3, seed=7, trainer="loop")
    assert digests(run) == [version.digest for version, _ in wanted]


@pytest.mark.slow
def test_trainers_agree_and_a_repeat_gives_the_same_bits():
    task, clients = regression_task(PLAN), regression_clients((8,) * 6)

    def run(trainer: str, seed: int = 1) -> SimulatedRun:
        return shoal.simulate(task, clients, rounds=3, cohort=4, seed=seed, trainer=trainer)

    loop, graph = run("loop"), run("graph")
    for other in (graph, run("vmapped")):
        for name, array in loop.params.items():
            np.testing.assert_allclose(other.params[name], array, atol=1e-6)
    assert digests(run("graph")) == digests(graph)
    assert digests(run("loop", seed=2)) != digests(loop)


def test_the_history_is_a_table_of_rounds():
    test = (CLIENTS["c4"].arrays["x"], CLIENTS["c4"].arrays["y"])
    task = regression_task(PLAN, metrics={"mae": functional.l1_loss}, test=test)
    run = shoal.simulate(task, CLIENTS, rounds=4, cohort=3, trainer="loop")
    assert [row.round for row in run.history] == run.history.column("round") == [1, 2, 3, 4]
    assert [row.digest for row in run.history[1:]] == digests(run)[2:]
    assert run.history[-1].measures == {
        f"test_{name}": value for name, value in evaluate(task, run.params, client_data("test", test)).items()
    }
    assert all(row.reports == 3 and row.failed == 0 and row.trainer == "loop" for row in run.history)
    html = run.history._repr_html_()
    assert html.count("<tr>") == 5
    assert "<th>test_mae</th>" in html
    with pytest.raises(ConfigurationError, match="no column 'accuracy'"):
        run.history.column("accuracy")


@pytest.mark.slow
def test_the_history_as_a_data_frame_and_as_a_drawing():
    test = (CLIENTS["c4"].arrays["x"], CLIENTS["c4"].arrays["y"])
    history = shoal.simulate(regression_task(PLAN, test=test), CLIENTS, rounds=3, trainer="loop").history
    assert history.to_polars().to_dicts() == history.rows()
    assert history.to_pandas().to_dict("records") == history.rows()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # matplotlib's own
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

        axes = history.plot()
        pyplot.close("all")
    assert [line.get_label() for line in axes.lines] == ["loss", "test_loss"]
    assert axes.lines[1].get_ydata().tolist() == history.column("test_loss")


def test_the_model_of_a_run_has_its_params():
    run = shoal.simulate(regression_task(PLAN), CLIENTS, rounds=1, trainer="loop")
    model = run.model()
    assert not model.training
    np.testing.assert_array_equal(model.get_parameter("0.weight").detach().numpy(), run.params["0.weight"])


def test_clients_of_a_list_are_called_by_their_numbers():
    pairs = [(client.arrays["x"], client.arrays["y"]) for client in CLIENTS.values()]
    named = {str(i): pair for i, pair in enumerate(pairs)}
    task = regression_task(PLAN)
    listed = shoal.simulate(task, pairs, rounds=2, trainer="loop")
    assert digests(listed) == digests(shoal.simulate(task, named, rounds=2, trainer="loop"))


class Lazy:
    """Clients that are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.names = [f"n{i}" for i in range(count)]
        self.loaded: list[str] = []

    def many(self, names: Sequence[str]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for name in names:
            self.loaded.append(name)
            rng = np.random.default_rng(int(name[1:]))
            yield rng.standard_normal((6, 4), np.float32), rng.standard_normal((6, 1), np.float32)


def test_a_lazy_source_loads_only_who_takes_part():
    source = Lazy(100_000)
    run = shoal.simulate(regression_task(PLAN), source, rounds=3, cohort=10, trainer="vmapped")
    assert run.history[-1].reports == 10
    assert len(source.loaded) == 1 + 3 * 10
    assert len(set(source.loaded)) > 20
    kept = {name: given for name in set(source.loaded) for given in source.many([name])}
    assert len(kept) < 40


@given(st.lists(st.integers(1, 9), min_size=1), st.integers(1, 200))
def test_no_more_rows_are_in_memory_than_their_bound_and_the_cut_is_that_of_the_clients(sizes: list[int], most: int):
    read: list[str] = []

    class Source:
        names = tuple(str(i) for i in range(len(sizes)))

        def many(self, names: Sequence[str]) -> Iterable[dict[str, np.ndarray]]:
            for name in names:
                read.append(name)
                yield {"x": np.zeros((sizes[int(name)], 1), np.float32)}

    jobs = [(name, f"assignment {name}", 7) for name in Source.names]
    seen: list[str] = []
    for clients in loaded(Source(), jobs, most):
        seen += [client.name for client in clients]
        assert len(clients) == 1 or sum(4 * client.rows for client in clients) <= most
        assert len(read) <= len(seen) + 1
    assert seen == list(Source.names)


def test_auto_says_what_it_chose_and_why():
    many = regression_clients((8,) * 40)
    run = shoal.simulate(regression_task(PLAN), many, rounds=2)
    assert (run.choice.trainer, run.history[0].trainer) == ("vmapped", "vmapped")
    assert "tracing would not repay" in run.choice.reason
    alone = shoal.simulate(regression_task(PLAN), many[:1], rounds=1)
    assert alone.choice.trainer == "loop"


def test_auto_falls_back_with_a_visible_reason():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: object) -> object:
            y = self.net(x)
            return y if y.mean() > 100 else y * 2

    run = shoal.simulate(regression_task(PLAN, Branching()), CLIENTS, rounds=1)
    assert run.choice.trainer == "loop"
    assert "vmapped cannot train this model" in run.choice.reason


def test_auto_never_takes_a_trainer_that_gives_another_answer():
    class Counting(nn.Module):
        """Counts its calls in Python: once a client in a loop, once for all of them at once."""

        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()
            self.calls = 0

        def forward(self, x: object) -> object:
            self.calls += 1
            return self.net(x) * (1 + self.calls / 50)

    run = shoal.simulate(regression_task(PLAN, Counting()), CLIENTS, rounds=1)
    assert run.choice.trainer == "loop"
    assert "differs from that of loop" in run.choice.reason


class Late(nn.Module):
    """Begins to count its calls in Python only when a choice of trainers is over."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()
        self.calls = 0

    def forward(self, x: object) -> object:
        self.calls += 1
        return self.net(x) * (self.calls if self.calls > 5 else 1)


def test_auto_goes_on_with_vmapped_when_a_step_cannot_be_traced():
    task = regression_task(replace(PLAN, epochs=1), Late())
    clients = regression_clients((24,) * 40)

    def run(trainer: str) -> SimulatedRun:
        stopping = [lambda run: run.history[-1].round == 2]
        return shoal.simulate(task, clients, rounds=10**6, trainer=trainer, callbacks=stopping)

    fallen = run("auto")
    assert [row.trainer for row in fallen.history] == ["graph", "vmapped"]
    assert fallen.choice.trainer == "vmapped"
    assert "graph was chosen" in fallen.choice.reason
    assert "but the traced step differs" in fallen.choice.reason
    with pytest.raises(NotTraceable, match="the traced step differs"):
        run("graph")


def test_auto_takes_dropout_at_once():
    torch_model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))
    run = shoal.simulate(regression_task(PLAN, torch_model), regression_clients((8,) * 40), rounds=1)
    assert run.choice.trainer == "vmapped"


@pytest.mark.parametrize("trainer", ["loop", "vmapped"])
def test_clients_with_bad_numbers_are_kept_out_named_and_counted(trainer: str):
    clients = regression_clients((8, 8, 8))
    clients[1].arrays["x"][3, 2] = np.nan
    task = replace(regression_task(PLAN), example=(clients[0].arrays["x"], clients[0].arrays["y"]))
    run = shoal.simulate(task, clients, rounds=2, trainer=trainer)
    assert [(row.reports, row.failed) for row in run.history] == [(2, 1), (2, 1)]
    assert [(failure.round, failure.client) for failure in run.failures] == [(1, "c1"), (2, "c1")]
    assert run.failures[0].reason == "client 'c1': row 3 of 'x' holds NaN or infinity: mend it or leave it out"
    without = shoal.simulate(task, [clients[0], clients[2]], rounds=2, trainer=trainer)
    for name, array in without.params.items():
        np.testing.assert_allclose(run.params[name], array, atol=1e-6)


def test_an_update_beyond_the_bounds_is_kept_out():
    clients = regression_clients((8, 8))
    clients[1].arrays["y"][:] = 1e3
    task = regression_task(PLAN, bounds=shoal.Bounds(max_abs=4.0))
    run = shoal.simulate(task, clients, rounds=1, trainer="vmapped")
    assert "the task takes values up to 4" in run.failures[0].reason


def test_when_nobody_can_be_trained_the_first_reason_is_given():
    clients = regression_clients((8, 8))
    for client in clients:
        client.arrays["y"][0] = np.inf
    task = regression_task(PLAN, example=(np.ones((2, 4), np.float32), np.ones((2, 1), np.float32)))
    with pytest.raises(NotFinite, match=r"round 1: no client could be trained: client 'c0': row 0 of 'y'"):
        shoal.simulate(task, clients, rounds=1, trainer="loop")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"cohort": 9}, ConfigurationError, "a cohort of 9 of 8 clients"),
        ({"cohort": 0}, ConfigurationError, "a cohort of 0"),
        ({"trainer": "vmaped"}, ConfigurationError, "did you mean 'vmapped'"),
        ({"workers": 0}, ConfigurationError, "workers=0"),
        ({"device": "cud"}, ConfigurationError, "device 'cud' cannot be used"),
        ({"rounds": 0}, TaskError, "rounds=0"),
        ({"clients": []}, NoRows, "there are no clients"),
        ({"clients": 3}, DataError, "clients of type int"),
        ({"clients": [(np.zeros((0, 4), np.float32), np.zeros((0, 1), np.float32))]}, NoRows, "client '0' has no"),
        ({"clients": {"a": "rows"}}, DataError, "client 'a'"),
    ],
)
def test_what_cannot_be_simulated_is_refused_before_the_first_round(
    change: dict[str, object], error: type[Exception], match: str
):
    options: dict[str, object] = {"clients": CLIENTS, "rounds": 1, "trainer": "loop", **change}
    clients = options.pop("clients")
    with pytest.raises(error, match=match):
        shoal.simulate(regression_task(PLAN), clients, **options)  # type: ignore[arg-type]


def test_a_model_that_does_not_take_the_batch_and_a_loss_that_is_no_scalar_are_refused():
    with pytest.raises(TaskError, match="do not run on the example"):
        shoal.simulate(regression_task(PLAN, mlp(inputs=5)), CLIENTS, rounds=1)
    unreduced = replace(regression_task(PLAN), loss=lambda output, target: (output - target) ** 2)
    with pytest.raises(TaskError, match="the loss is no scalar"):
        shoal.simulate(unreduced, CLIENTS, rounds=1)
    strange = replace(PLAN, optimizer=OptimizerSpec("adamm"))
    with pytest.raises(ConfigurationError, match="did you mean 'adam'"):
        shoal.simulate(regression_task(strange), CLIENTS, rounds=1)


def test_clients_keep_their_local_arrays_between_rounds():
    task = regression_task(PLAN, roles={"2.*": shoal.Role.LOCAL})
    run = shoal.simulate(task, CLIENTS, rounds=2, trainer="vmapped")
    assert set(run.params) == {"0.weight", "0.bias"}
    assert set(run.personal) == set(CLIENTS)
    loop = shoal.simulate(task, CLIENTS, rounds=2, trainer="loop")
    for name, tree in loop.personal.items():
        np.testing.assert_allclose(run.personal[name]["2.weight"], tree["2.weight"], atol=1e-5)
