"""Every strategy against a few lines of its paper, on parabolas, and where it ends."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import shoal
from shoal import LocalPlan, Strategy, Task
from shoal.core.errors import TaskError
from shoal.simulation.run import SimulatedRun
from tests.simulation.cohorts import regression_clients, regression_task
from tests.simulation.quadratics import EQUAL_OPTIMUM, LR, OPTIMUM, SHARES, TWO, parabola_task, rows

TRAINERS = ["loop", pytest.param("vmapped", marks=pytest.mark.slow), pytest.param("graph", marks=pytest.mark.slow)]


def run(strategy: Strategy, rounds: int, trainer: str = "loop", **options: object) -> SimulatedRun:
    return shoal.simulate(parabola_task(strategy), rows(), rounds=rounds, trainer=trainer, **options)  # type: ignore[arg-type]


def weight(of: SimulatedRun) -> float:
    return float(of.params["weight"][0, 0])


def mean(values: dict[str, float]) -> float:
    return sum(SHARES[name] * value for name, value in values.items())


def equal(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def fedprox(rounds: int, w: float = 1.0, mu: float = 1.0) -> float:
    for _ in range(rounds):
        w = mean({name: client.descend(w, LR, lambda y, x=w: mu * (y - x)) for name, client in TWO.items()})
    return w


def moved(w: float) -> float:
    return mean({name: client.descend(w, LR) - w for name, client in TWO.items()})


def fedavgm(rounds: int, w: float = 1.0, m: float = 0.0) -> float:
    for _ in range(rounds):
        m = 0.9 * m + moved(w)
        w += m
    return w


def fedopt(rounds: int, second: Callable[[float, float], float], beta: float, w: float = 1.0) -> float:
    m, v = 0.0, 1e-6
    for _ in range(rounds):
        d = moved(w)
        m, v = beta * m + (1 - beta) * d, second(v, d * d)
        w += 0.1 * m / (v**0.5 + 1e-3)
    return w


def scaffold(rounds: int, w: float = 1.0) -> float:
    c, own = 0.0, dict.fromkeys(TWO, 0.0)
    for _ in range(rounds):
        ends = {name: client.descend(w, LR, lambda _, k=c - own[name]: k) for name, client in TWO.items()}
        moved = {name: own[name] - c + (w - ends[name]) / (client.rows * LR) for name, client in TWO.items()}
        w, c, own = equal(ends), c + equal({name: moved[name] - own[name] for name in TWO}), moved
    return w


def fednova(rounds: int, w: float = 1.0) -> float:
    for _ in range(rounds):
        steps = mean({name: client.rows for name, client in TWO.items()})
        w += steps * mean({name: (client.descend(w, LR) - w) / client.rows for name, client in TWO.items()})
    return w


def feddyn(rounds: int, w: float = 1.0, alpha: float = 0.5) -> float:
    h, own = 0.0, dict.fromkeys(TWO, 0.0)
    for _ in range(rounds):
        ends = {n: c.descend(w, LR, lambda y, g=own[n], x=w: alpha * (y - x) - g) for n, c in TWO.items()}
        own = {name: own[name] - alpha * (ends[name] - w) for name in TWO}
        h -= alpha * equal({name: ends[name] - w for name in TWO})
        w = equal(ends) - h / alpha
    return w


def qfedavg(rounds: int, w: float = 1.0, q: float = 2.0) -> float:
    for _ in range(rounds):
        ends, f = {n: c.descend(w, LR) for n, c in TWO.items()}, {n: c.a * (w - c.b) ** 2 for n, c in TWO.items()}
        h = {n: q * f[n] ** (q - 1) * ((w - ends[n]) / LR) ** 2 + f[n] ** q / LR for n in TWO}
        w -= sum(f[n] ** q * (w - ends[n]) / LR for n in TWO) / sum(h.values())
    return w


def ditto(rounds: int, w: float = 1.0, lam: float = 0.5) -> dict[str, float]:
    own = dict.fromkeys(TWO, w)
    for _ in range(rounds):
        own = {n: c.descend(own[n], LR, lambda v, x=w: lam * (v - x)) for n, c in TWO.items()}
        w = mean({name: client.descend(w, LR) for name, client in TWO.items()})
    return own


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(
    ("strategy", "reference"),
    [
        (shoal.fedprox(mu=1.0), fedprox),
        (shoal.scaffold(), scaffold),
        (shoal.fednova(), fednova),
        (shoal.feddyn(alpha=0.5), feddyn),
        (shoal.qfedavg(q=2.0), qfedavg),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_a_few_lines_of_the_paper(strategy, reference, trainer):
    for rounds in (1, 2, 5):
        assert weight(run(strategy, rounds, trainer)) == pytest.approx(reference(rounds), abs=1e-5)


@pytest.mark.parametrize(
    ("strategy", "reference"),
    [
        (shoal.fedavgm(), fedavgm),
        (shoal.fedadagrad(), lambda rounds: fedopt(rounds, lambda v, s: v + s, 0.0)),
        (shoal.fedadam(), lambda rounds: fedopt(rounds, lambda v, s: 0.99 * v + 0.01 * s, 0.9)),
        (shoal.fedyogi(), lambda rounds: fedopt(rounds, lambda v, s: v + 0.01 * s * (1 if s > v else -1), 0.9)),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_a_few_lines_of_the_servers_part(strategy, reference):
    for rounds in (1, 2, 5):
        assert weight(run(strategy, rounds)) == pytest.approx(reference(rounds), abs=1e-5)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_ditto_is_a_few_lines_of_its_paper_beside_fedavg(trainer):
    done = run(shoal.ditto(lam=0.5), 5, trainer)
    assert {name: float(own["weight"][0, 0]) for name, own in done.personal.items()} == pytest.approx(
        ditto(5), abs=1e-5
    )
    assert done.params["weight"] == run(shoal.fedavg(), 5, trainer).params["weight"]


def test_the_first_round_by_hand():
    # "one": 1 - 0.1 * 2 * 1 = 0.8 in one step; "three": 4 - w shrinks by 0.95 a step: 4 - 3 * 0.857375 = 1.427875
    assert weight(run(shoal.fedavg(), 1)) == pytest.approx(0.25 * 0.8 + 0.75 * 1.427875, abs=1e-6)
    # every client counts once
    assert weight(run(shoal.scaffold(), 1)) == pytest.approx(0.5 * 0.8 + 0.5 * 1.427875, abs=1e-6)
    # (0.25 * 1 + 0.75 * 3) * (0.25 * -0.2 / 1 + 0.75 * 0.427875 / 3) = 2.5 * 0.05696875
    assert weight(run(shoal.fednova(), 1)) == pytest.approx(1.142421875, abs=1e-6)

    # "one": 0.8 as before; "three": 1.15, then - 0.1 * (-1.425 + 0.15) = 1.2775, then - 0.1 * (-1.36125 + 0.2775)
    assert weight(run(shoal.fedprox(mu=1.0), 1)) == pytest.approx(0.25 * 0.8 + 0.75 * 1.385875, abs=1e-6)
    # "three": 1.15, then - 0.1 * (-1.425 + 0.5 * 0.15) = 1.285, then - 0.1 * (-1.3575 + 0.1425) = 1.4065; the mean
    # moved by (-0.2 + 0.4065) / 2 = 0.10325, h = -0.5 * 0.10325, x = 1.10325 + 0.10325
    assert weight(run(shoal.feddyn(alpha=0.5), 1)) == pytest.approx(1.2065, abs=1e-6)
    # losses at the start: 1 * (1 - 0)**2 = 1 and 0.25 * (1 - 4)**2 = 2.25; moves -0.2 and 0.427875; L = 10
    # denominators over L: 1 * 10 * 0.2**2 + 1 = 1.4 and 10 * 0.427875**2 + 2.25 = 4.0807702
    assert weight(run(shoal.qfedavg(q=1.0), 1)) == pytest.approx(1 + (-0.2 + 2.25 * 0.427875) / 5.4807702, abs=1e-5)
    # without a power of the loss every client counts once
    assert weight(run(shoal.qfedavg(q=0.0), 1)) == pytest.approx(1 + (-0.2 + 0.427875) / 2, abs=1e-5)


def test_the_second_round_by_hand():
    # c_one = (1 - 0.8) / 0.1 = 2, c_three = (1 - 1.427875) / 0.3 = -1.42625, c = 0.286875, x = 1.1139375
    # "one": 0.8 * x - 0.1 * (0.286875 - 2) = 1.0624625; "three": y <- 0.95 * y + 0.2 - 0.1 * (0.286875 + 1.42625),
    # three times: 1.086928125, 1.06126921875, 1.0368932578125
    assert weight(run(shoal.scaffold(), 2)) == pytest.approx((1.0624625 + 1.0368932578125) / 2, abs=1e-6)
    # the first round moves by 0.27090625 to x = 1.27090625; the second by 0.25 * -0.2 * x + 0.75 * (1 - 0.857375) *
    # (4 - x) = -0.0635453125 + 0.2919278... = 0.2283825 and 0.9 times the first
    second = -0.05 * 1.27090625 + 0.75 * 0.142625 * 2.72909375
    assert weight(run(shoal.fedavgm(), 2)) == pytest.approx(1.27090625 + second + 0.9 * 0.27090625, abs=1e-6)
    # own models after round 1: 0.8 and 1.4065 (as in FedDyn); then "one": 0.8 - 0.1 * (1.6 + 0.5 * (0.8 - 1.27090625))
    own = run(shoal.ditto(lam=0.5), 2).personal["one"]["weight"]
    assert float(own[0, 0]) == pytest.approx(0.6635453125, abs=1e-6)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_fedper_by_hand(trainer):
    # losses (w + b - 0)**2 and (w + b - 4)**2 from w = 1, b = 0 in steps of 0.1: gradients 2 and -6, so that w = 0.8
    # and 1.6, b = -0.2 and 0.6; from w = 1.2 gradients 2 and -4.4, so that w = 1 and 1.64, b = -0.4 and 1.04
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.zero_()
    one = np.ones((1, 1), np.float32)
    task = Task("two", model, mse_loss, local=LocalPlan(optimizer=shoal.sgd(0.1)), strategy=shoal.fedper("bias"))
    done = shoal.simulate(task, {"low": (one, 0 * one), "high": (one, 4 * one)}, rounds=2, trainer=trainer)
    assert weight(done) == pytest.approx(1.32, abs=1e-6)
    own = {name: float(tree["bias"][0]) for name, tree in done.personal.items()}
    assert own == pytest.approx({"low": -0.4, "high": 1.04}, abs=1e-6)


def two_numbers(strategy: Strategy, plan: LocalPlan) -> Task:
    """y = w x + b from w = 1 and b = 0, b being each client's own."""
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.zero_()
    return Task("two", model, mse_loss, local=plan, strategy=strategy)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_fedrep_by_hand(trainer):
    # losses (w + b - 0)**2 and (w + b - 4)**2 in steps of 0.1, two of b and then one of w. From w = 1:
    # "low" b = -0.2, -0.36, w = 1 - 0.2 * 0.64 = 0.872; "high" b = 0.6, 1.08, w = 1 + 0.2 * 1.92 = 1.384
    # from w = 1.128: b = -0.5136, -0.63648, w = 1.029696; b = 1.4384, 1.72512, w = 1.357376
    one = np.ones((1, 1), np.float32)
    task = two_numbers(shoal.fedrep("bias", head_epochs=2), LocalPlan(optimizer=shoal.sgd(0.1)))
    done = shoal.simulate(task, {"low": (one, 0 * one), "high": (one, 4 * one)}, rounds=2, trainer=trainer)
    assert weight(done) == pytest.approx((1.029696 + 1.357376) / 2, abs=1e-6)
    own = {name: float(tree["bias"][0]) for name, tree in done.personal.items()}
    assert own == pytest.approx({"low": -0.63648, "high": 1.72512}, abs=1e-6)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_fedrep_is_two_trainings_of_torch(trainer):
    """With momentum and decay, which would move what has no gradient."""
    clients = {name: (client.data()[0] + 0.5, client.data()[1]) for name, client in TWO.items()}
    optimizer = shoal.sgd(0.02, momentum=0.9, weight_decay=0.1)
    plan = LocalPlan(epochs=2, batch_size=1, optimizer=optimizer)
    task = two_numbers(shoal.fedrep("bias", head_epochs=3), plan)
    done = shoal.simulate(task, clients, rounds=3, trainer=trainer)

    w, own = torch.ones(1), {name: torch.zeros(1) for name in TWO}
    for _ in range(3):
        ends = {}
        for name in TWO:
            x, y = (torch.from_numpy(part)[:1, 0] for part in clients[name])
            numbers = [w, own[name]]
            for epochs, which in ((3, 1), (2, 0)):
                numbers[which] = numbers[which].clone().requires_grad_(True)
                stepper = torch.optim.SGD([numbers[which]], lr=0.02, momentum=0.9, weight_decay=0.1)
                for _ in range(epochs * TWO[name].rows):
                    stepper.zero_grad()
                    ((x * numbers[0] + numbers[1] - y) ** 2).sum().backward()
                    stepper.step()
                numbers[which] = numbers[which].detach()
            ends[name], own[name] = numbers
        w = sum(SHARES[name] * ends[name] for name in TWO)
    assert weight(done) == pytest.approx(float(w), abs=1e-5)
    for name, tree in done.personal.items():
        assert float(tree["bias"][0]) == pytest.approx(float(own[name]), abs=1e-5)


def test_fedrep_with_running_statistics_and_ragged_clients_is_the_same_in_every_trainer():
    task = Task("normed", Normed(), mse_loss, local=LocalPlan(batch_size=4), strategy=shoal.fedrep("3.*"))
    clients = regression_clients((12, 8, 10))
    loop, vmapped = (
        shoal.simulate(task, clients, rounds=2, cohort=3, seed=4, trainer=name) for name in ("loop", "vmapped")
    )
    for name, array in loop.params.items():
        np.testing.assert_allclose(vmapped.params[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    for name, tree in loop.personal.items():
        assert set(tree) == {"3.weight", "3.bias"}
        for array in tree:
            np.testing.assert_allclose(vmapped.personal[name][array], tree[array], rtol=1e-4, atol=1e-6)
    # the second training alone moves the statistics: a step a batch and epoch
    assert int(loop.params["1.num_batches_tracked"]) == 3 + 3


@pytest.mark.parametrize("trainer", ["loop", "vmapped"])
def test_a_client_that_cannot_train_its_head_is_named_and_kept_out(trainer):
    one = np.ones((1, 1), np.float32)
    clients = {"low": (one, 0 * one), "huge": (one * 1e20, one), "high": (one, 4 * one)}
    task = two_numbers(shoal.fedrep("bias", head_epochs=3), LocalPlan(optimizer=shoal.sgd(0.1)))
    done = shoal.simulate(task, clients, rounds=1, trainer=trainer)
    assert (done.history[0].reports, done.history[0].failed) == (2, 1)
    assert [(failure.client, "the loss is inf" in failure.reason) for failure in done.failures] == [("huge", True)]
    assert set(done.personal) == {"low", "high"}


def test_fedrep_wants_a_head():
    with pytest.raises(TaskError, match="FedRep without a pattern"):
        shoal.fedrep()
    with pytest.raises(TaskError, match="head_epochs=0"):
        shoal.simulate(two_numbers(shoal.fedrep("bias", head_epochs=0), LocalPlan()), rows(), rounds=1)
    with pytest.raises(TaskError, match="start='personal'"):
        shoal.simulate(two_numbers(shoal.fedrep("bias"), LocalPlan(start="personal")), rows(), rounds=1)


@pytest.mark.slow
def test_a_larger_power_of_the_loss_serves_the_worst_client_better():
    ends = [weight(run(shoal.qfedavg(q=q), 60)) for q in (0.0, 1.0, 5.0)]
    worst = [max(client.a * (w - client.b) ** 2 for client in TWO.values()) for w in ends]
    assert worst[0] > worst[1] > worst[2]


@pytest.mark.slow
def test_unequal_steps_bias_fedavg_and_not_fednova():
    # fixed point of FedAvg: 0.25 * 0.2 * (0 - w) + 0.75 * (1 - 0.95**3) * (4 - w) = 0
    pull = 0.75 * (1 - 0.95**3)
    assert weight(run(shoal.fedavg(), 80)) == pytest.approx(4 * pull / (0.05 + pull), abs=1e-4)
    assert weight(run(shoal.fedavg(), 80)) > OPTIMUM + 0.9
    # FedNova: the same with each pull over its steps, off the optimum only by what steps bend: 0.05 of 0.0475
    pull /= 3
    assert weight(run(shoal.fednova(), 80)) == pytest.approx(4 * pull / (0.05 + pull), abs=1e-4)
    assert abs(weight(run(shoal.fednova(), 80)) - OPTIMUM) < 0.06


@pytest.mark.slow
def test_scaffold_and_feddyn_reach_the_optimum_where_each_client_counts_once():
    for strategy in (shoal.scaffold(), shoal.feddyn(alpha=0.5)):
        assert weight(run(strategy, 100)) == pytest.approx(EQUAL_OPTIMUM, abs=1e-3), strategy.name


@pytest.mark.slow
def test_scaffolds_control_variates_end_at_the_gradients_of_the_optimum():
    done = run(shoal.scaffold(), 80)
    for name, client in TWO.items():
        expected = client.gradient(EQUAL_OPTIMUM)
        assert done.personal[name]["own_control/weight"][0, 0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_a_part_of_the_clients_in_every_round():
    for strategy in (shoal.scaffold(), shoal.feddyn(alpha=0.5)):
        clients = {**rows(), **{f"{name}-too": data for name, data in rows().items()}}
        done = shoal.simulate(parabola_task(strategy), clients, rounds=200, cohort=2, seed=3, trainer="loop")
        assert weight(done) == pytest.approx(EQUAL_OPTIMUM, abs=0.02), strategy.name
        part = done.spec.local.rule if strategy.name == "scaffold" else done.spec.server
        assert part is not None
        assert part.options["participation"] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy",
    [shoal.scaffold(), shoal.feddyn(), shoal.ditto(), shoal.fedrep("2.*", head_epochs=1)],
    ids=lambda each: each.name,
)
def test_what_clients_keep_is_part_of_the_checkpoint(strategy, tmp_path):
    task = regression_task(LocalPlan(batch_size=4), strategy=strategy)
    options = {"rounds": 4, "cohort": 3, "trainer": "loop", "checkpoint": tmp_path / "checkpoint", "every": 2}

    def cut(run: SimulatedRun) -> None:
        if len(run.history) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shoal.simulate(task, regression_clients(), **options, callbacks=[cut])
    again = shoal.simulate(task, regression_clients(), **options, resume=tmp_path / "checkpoint")
    whole = shoal.simulate(task, regression_clients(), **options)
    assert [version.digest for version in again.versions] == [version.digest for version in whole.versions]
    for name, tree in whole.personal.items():
        for array in tree:
            np.testing.assert_array_equal(again.personal[name][array], tree[array])


def test_what_a_paper_does_not_hold_for_is_refused():
    with pytest.raises(TaskError, match=r"SCAFFOLD with momentum 0\.9"):
        shoal.simulate(parabola_task(shoal.scaffold(), optimizer=shoal.sgd(0.1, momentum=0.9)), rows(), rounds=1)
    with pytest.raises(TaskError, match="FedNova with the local optimizer adam"):
        shoal.simulate(parabola_task(shoal.fednova(), optimizer=shoal.adam()), rows(), rounds=1)
    with pytest.raises(TaskError, match="q-FedAvg with q=-1"):
        shoal.simulate(parabola_task(shoal.qfedavg(q=-1.0)), rows(), rounds=1)
    with pytest.raises(TaskError, match=r"participation=1\.5"):
        shoal.simulate(parabola_task(shoal.scaffold(participation=1.5)), rows(), rounds=1)


class Normed(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1))


@pytest.mark.parametrize("trainer", ["loop", "vmapped"])
def test_fedbn_averages_all_but_the_normalising_layers(trainer):
    task = Task("normed", Normed(), mse_loss, local=LocalPlan(batch_size=4), strategy=shoal.fedbn())
    done = shoal.simulate(task, regression_clients((12, 8, 8)), rounds=3, trainer=trainer)
    assert set(done.params) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    own = {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert all(set(tree) == own for tree in done.personal.values())
    means = [tree["1.running_mean"] for tree in done.personal.values()]
    assert np.abs(means[0] - means[1]).max() > 1e-3
    assert [int(tree["1.num_batches_tracked"]) for tree in done.personal.values()] == [9, 6, 6]


def test_fedbn_is_fedper_of_the_normalising_layers():
    plan, clients = LocalPlan(batch_size=4), regression_clients((12, 8, 8))
    model = Normed()
    bn, per = (
        shoal.simulate(
            Task("normed", model, mse_loss, local=plan, strategy=strategy), clients, rounds=2, trainer="loop"
        )
        for strategy in (shoal.fedbn(), shoal.fedper("1.*"))
    )
    assert [version.digest for version in bn.versions] == [version.digest for version in per.versions]


def test_fedbn_wants_a_layer_that_normalises():
    with pytest.raises(TaskError, match="no layer that normalises"):
        shoal.simulate(parabola_task(shoal.fedbn()), rows(), rounds=1)


def test_fedper_keeps_the_layers_that_are_named():
    task = regression_task(LocalPlan(batch_size=4), strategy=shoal.fedper("2.*"))
    done = shoal.simulate(task, regression_clients((4, 4)), rounds=2, trainer="loop")
    assert set(done.params) == {"0.weight", "0.bias"}
    assert all(set(tree) == {"2.weight", "2.bias"} for tree in done.personal.values())
