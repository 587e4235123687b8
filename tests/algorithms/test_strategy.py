"""What strategies are made of, and how a version moves to the next by the roles of its arrays."""

import numpy as np
import pytest

from shoal.algorithms.fedavg import fedavg
from shoal.algorithms.fedavgm import fedavgm
from shoal.algorithms.fedopt import fedadagrad, fedadam, fedyogi
from shoal.algorithms.fedprox import fedprox
from shoal.algorithms.local import adam, adamw, sgd
from shoal.algorithms.mean import ExactMean
from shoal.algorithms.optimizer import SGD, Adagrad, Adam, Momentum, Yogi
from shoal.algorithms.strategy import Strategy, advance, trainable
from shoal.core.errors import NotFinite
from shoal.core.roles import Role
from shoal.core.task import ArraySpec, OptimizerSpec
from shoal.core.tree import digest

ARRAYS = {
    "w": ArraySpec((5, 3), "float32"),
    "bias": ArraySpec((), "float32"),
    "variance": ArraySpec((4,), "float32", Role.BUFFER),
    "seen": ArraySpec((), "int64", Role.COUNTER),
}
SERVERS = [SGD(0.7), Momentum(), Adagrad(), Adam(), Yogi()]


def params():
    draw = np.random.default_rng(1)
    return {
        "w": draw.normal(size=(5, 3)).astype(np.float32),
        "bias": np.array(0.5, np.float32),
        "variance": np.full(4, 0.25, np.float32),
        "seen": np.array(7),
    }


def delta(seed: int):
    draw = np.random.default_rng(seed)
    return {
        "w": draw.normal(size=(5, 3)),
        "bias": np.array(draw.normal()),
        "variance": np.full(4, -0.125),
        "seen": np.array(3),
    }


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (fedavg(), Strategy("fedavg", ExactMean(), SGD(1.0))),
        (fedavg(lr=0.5), Strategy("fedavg", ExactMean(), SGD(0.5))),
        (fedavgm(lr=0.5, beta=0.8), Strategy("fedavgm", ExactMean(), Momentum(0.5, 0.8))),
        (fedprox(mu=0.1), Strategy("fedprox", ExactMean(), SGD(1.0), proximal=0.1)),
        (fedadagrad(lr=0.2, tau=0.1), Strategy("fedadagrad", ExactMean(), Adagrad(0.2, 0.0, 0.1))),
        (fedadam(), Strategy("fedadam", ExactMean(), Adam(0.1, 0.9, 1e-3, 0.99))),
        (fedyogi(beta2=0.5), Strategy("fedyogi", ExactMean(), Yogi(0.1, 0.9, 1e-3, 0.5))),
    ],
    ids=lambda each: each.name,
)
def test_strategies_compose_what_their_papers_say(strategy, expected):
    assert strategy == expected


def test_only_fedprox_asks_something_of_local_training():
    others = [fedavg(), fedavgm(), fedadagrad(), fedadam(), fedyogi()]
    assert [strategy.proximal for strategy in others] == [None] * 5


def test_local_optimizers_are_plain_data():
    momentum = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
    assert sgd(0.1, momentum=0.9) == OptimizerSpec("sgd", momentum)
    betas = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    assert adam() == OptimizerSpec("adam", betas | {"weight_decay": 0.0})
    assert adamw() == OptimizerSpec("adamw", betas | {"weight_decay": 1e-2})


def test_only_trainable_arrays_reach_the_server_optimizer():
    assert sorted(trainable(ARRAYS, params())) == ["bias", "w"]
    _, state = advance(ARRAYS, params(), delta(2), Momentum(), Momentum().init(trainable(ARRAYS, params())))
    assert sorted(state) == ["m/bias", "m/w"]


@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_buffers_and_counters_move_by_their_delta_whatever_the_server_optimizer(server):
    moved, _ = advance(ARRAYS, params(), delta(2), server, server.init(trainable(ARRAYS, params())))
    assert moved["variance"].tolist() == [0.125] * 4
    assert moved["seen"].tolist() == 10
    assert moved.keys() == ARRAYS.keys()
    for name, array in moved.items():
        assert isinstance(array, np.ndarray)
        assert (array.dtype.name, array.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)


def blockwise(server, tree, change, state, size):
    """Advance flattened arrays a slice at a time, as a driver with little memory does."""
    moved = {name: np.empty(array.size, array.dtype) for name, array in tree.items()}
    kept = {name: np.empty(array.size, array.dtype) for name, array in state.items()}
    for name, array in tree.items():
        mine = [key for key in state if key[2:] == name]
        for start in range(0, array.size, size):
            cut = slice(start, start + size)
            flat = {key: state[key].reshape(-1)[cut] for key in mine}
            new, after = advance(
                ARRAYS, {name: array.reshape(-1)[cut]}, {name: change[name].reshape(-1)[cut]}, server, flat
            )
            moved[name][cut] = new[name]
            for key in mine:
                kept[key][cut] = after[key]
    shaped = {name: array.reshape(tree[name].shape) for name, array in moved.items()}
    return shaped, {name: array.reshape(state[name].shape) for name, array in kept.items()}


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.name)
def test_blockwise_equals_whole_bit_for_bit(server, size):
    whole = blocks = params()
    state = pieces = server.init(trainable(ARRAYS, whole))
    for step in range(3):
        whole, state = advance(ARRAYS, whole, delta(step), server, state)
        blocks, pieces = blockwise(server, blocks, delta(step), pieces, size)
    assert digest(blocks) == digest(whole)
    assert digest(pieces) == digest(state)


@pytest.mark.parametrize("change", [1e39, np.inf, np.nan])
@pytest.mark.parametrize("name", ["w", "variance"])
def test_a_version_that_is_not_finite_is_refused_by_name(name, change):
    bad = delta(1) | {name: np.full(ARRAYS[name].shape, change)}
    with pytest.raises(NotFinite, match=f"array '{name}'"):
        advance(ARRAYS, params(), bad, SGD(), {})


@pytest.mark.parametrize(
    ("dtype", "start", "step", "end"),
    [
        ("int64", 7, 2**63 - 1, 2**63 - 1),
        ("int64", -5, 6, 1),
        ("int32", 2**31 - 2, 5, 2**31 - 1),
        ("int8", 100, 27, 127),
        ("int8", 100, 100, 127),
    ],
)
def test_a_counter_stops_at_its_largest_value(dtype, start, step, end):
    arrays = {"seen": ArraySpec((), dtype, Role.COUNTER)}
    moved, _ = advance(arrays, {"seen": np.array(start, dtype)}, {"seen": np.array(step)}, SGD(), {})
    assert moved["seen"].tolist() == end
    assert moved["seen"].dtype == dtype
