"""Server optimizers against algorithm 2 of Reddi et al. 2021, written out in three lines each, and one step by hand."""

import math

import numpy as np
import pytest

from shoal.algorithms.optimizer import SGD, Adagrad, Adam, Momentum, Yogi

LR, B1, B2, TAU = 0.3, 0.8, 0.95, 1e-2
SECOND_MOMENTS = {
    "adagrad": lambda v, d: v + d**2,
    "adam": lambda v, d: B2 * v + (1 - B2) * d**2,
    "yogi": lambda v, d: v - (1 - B2) * d**2 * np.sign(v - d**2),
}
ADAPTIVE = {
    "adagrad": Adagrad(lr=LR, beta1=B1, tau=TAU),
    "adam": Adam(lr=LR, beta1=B1, beta2=B2, tau=TAU),
    "yogi": Yogi(lr=LR, beta1=B1, beta2=B2, tau=TAU),
}
EVERY = [SGD(0.5), Momentum(0.5, 0.9), *ADAPTIVE.values()]
IDS = [server.name for server in EVERY]


def directions(steps: int, shape=(4,)):
    return np.random.default_rng(0).normal(size=(steps, *shape))


def run(server, x, ds):
    params, state = {"w": x}, server.init({"w": x})
    for d in ds:
        params, state = server.step(params, {"w": d}, state)
    return params["w"], state


@pytest.mark.parametrize("name", ADAPTIVE)
def test_several_steps_equal_algorithm_2(name):
    x, m, v = np.ones(4), np.zeros(4), np.full(4, TAU**2)
    for d in directions(6):
        m = B1 * m + (1 - B1) * d
        v = SECOND_MOMENTS[name](v, d)
        x = x + LR * m / (np.sqrt(v) + TAU)
    moved, state = run(ADAPTIVE[name], np.ones(4), directions(6))
    np.testing.assert_allclose(moved, x, rtol=1e-13)
    np.testing.assert_allclose(state["m/w"], m, rtol=1e-13)
    np.testing.assert_allclose(state["v/w"], v, rtol=1e-13)


@pytest.mark.parametrize(
    ("server", "v"),
    [
        (Adagrad(lr=0.1, tau=0.5), 0.25 + 4.0),
        (Adam(lr=0.1, beta1=0.0, beta2=0.75, tau=0.5), 0.75 * 0.25 + 0.25 * 4.0),
        (Yogi(lr=0.1, beta1=0.0, beta2=0.75, tau=0.5), 0.25 + 0.25 * 4.0),
    ],
    ids=["adagrad", "adam", "yogi"],
)
def test_one_step_by_hand(server, v):
    moved, state = run(server, np.array([1.0]), [np.array([2.0])])
    assert state["v/w"].tolist() == [v]
    assert moved[0] == pytest.approx(1.0 + 0.1 * 2.0 / (math.sqrt(v) + 0.5), rel=1e-15)


def test_yogi_lets_a_large_second_moment_fall_slowly():
    _, state = run(Yogi(tau=2.0, beta2=0.75), np.array([0.0]), [np.array([1.0])])
    assert state["v/w"].tolist() == [4.0 - 0.25 * 1.0]


def test_momentum_by_hand():
    moved, state = run(Momentum(lr=0.5, beta=0.5), np.array([1.0]), [np.array([2.0]), np.array([4.0])])
    assert state["m/w"].tolist() == [0.5 * 2.0 + 4.0]
    assert moved.tolist() == [1.0 + 0.5 * 2.0 + 0.5 * 5.0]


def test_sgd_with_rate_one_lands_on_the_average_of_the_models():
    x, models = np.array([3.0, -1.0]), np.array([[4.0, 0.0], [8.0, -2.0]])
    moved, state = run(SGD(), x, [np.mean(models - x, axis=0)])
    assert moved.tolist() == [6.0, -1.0]
    assert state == {}


def test_adagrad_has_no_momentum_unless_asked():
    assert Adagrad().beta1 == 0.0


@pytest.mark.parametrize("server", EVERY, ids=IDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (2, 3), (0,)])
def test_dtypes_and_shapes_are_kept_and_arguments_are_not_touched(server, dtype, shape):
    params = {"w": np.ones(shape, dtype)}
    state = server.init(params)
    before = {name: array.copy() for name, array in state.items()}
    moved, kept = server.step(params, {"w": np.full(shape, 0.25)}, state)
    assert kept.keys() == before.keys()
    for array in [*moved.values(), *kept.values(), *state.values()]:
        assert isinstance(array, np.ndarray)
        assert (array.dtype, array.shape) == (np.dtype(dtype), shape)
    assert (params["w"] == 1).all()
    assert all(np.array_equal(state[name], before[name]) for name in before)


@pytest.mark.parametrize("server", EVERY, ids=IDS)
def test_zero_direction_at_the_start_does_not_move(server):
    moved, _ = run(server, np.array([1.5, -2.0]), [np.zeros(2)])
    assert moved.tolist() == [1.5, -2.0]
