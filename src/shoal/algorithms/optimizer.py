"""Server optimizers: what the coordinator does with the averaged update.

Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv:2003.00295), algorithm 2. With direction D_t (the
aggregated delta), momentum m and second moment v, both element by element:
    m_t = b1 * m_{t-1} + (1 - b1) * D_t
    adagrad  v_t = v_{t-1} + D_t**2
    adam     v_t = b2 * v_{t-1} + (1 - b2) * D_t**2
    yogi     v_t = v_{t-1} - (1 - b2) * D_t**2 * sign(v_{t-1} - D_t**2)
    x_{t+1} = x_t + lr * m_t / (sqrt(v_t) + tau),     m_0 = 0, v_0 = tau**2
Each is a pure function of (params, direction, state), element by element, so it may be applied in blocks. The state
is a tree whose names are "m/<array>" and "v/<array>", kept with the version it belongs to.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from shoal.core.tree import Array, Tree


class ServerOptimizer(Protocol):
    """Applies one direction to the trainable arrays, once a round, after `Aggregator.finish`."""

    name: ClassVar[str]

    def init(self, params: Tree) -> Tree:
        """Return the state before the first step."""
        ...

    def step(self, params: Tree, direction: Tree, state: Tree) -> tuple[Tree, Tree]:
        """Return the new params, in the dtypes of `params`, and the new state."""
        ...


def _moved(params: Tree, name: str, step: Array) -> Array:
    return _kept(np.add(params[name], step, dtype=np.float64), params[name])


def _kept(values: Array, like: Array) -> Array:
    # numpy turns arrays without dimensions into scalars whenever it computes
    return np.asarray(values, like.dtype)


@dataclass(frozen=True, slots=True)
class SGD:
    """x + lr * D: with lr 1 the global model is the average of the devices' models (FedAvg)."""

    name: ClassVar[str] = "sgd"
    lr: float = 1.0

    def init(self, params: Tree) -> Tree:
        """Return an empty state."""
        del params
        return {}

    def step(self, params: Tree, direction: Tree, state: Tree) -> tuple[Tree, Tree]:
        """Step along the direction."""
        return {name: _moved(params, name, self.lr * direction[name]) for name in params}, state


@dataclass(frozen=True, slots=True)
class Momentum:
    """v = beta * v + D, x + lr * v: server momentum, FedAvgM (Hsu et al. 2019, arXiv:1909.06335)."""

    name: ClassVar[str] = "momentum"
    lr: float = 1.0
    beta: float = 0.9

    def init(self, params: Tree) -> Tree:
        """Return zero momentum."""
        return {f"m/{name}": np.zeros_like(array) for name, array in params.items()}

    def step(self, params: Tree, direction: Tree, state: Tree) -> tuple[Tree, Tree]:
        """Step along the decayed sum of directions."""
        momentum = {name: self.beta * state[f"m/{name}"].astype(np.float64) + direction[name] for name in params}
        kept = {f"m/{name}": _kept(momentum[name], array) for name, array in params.items()}
        return {name: _moved(params, name, self.lr * momentum[name]) for name in params}, kept


@dataclass(frozen=True, slots=True)
class _Adaptive:
    lr: float = 0.1
    beta1: float = 0.9
    tau: float = 1e-3

    def init(self, params: Tree) -> Tree:
        """Return m = 0 and v = tau**2."""
        start = {f"m/{name}": np.zeros_like(array) for name, array in params.items()}
        return start | {f"v/{name}": np.full_like(array, self.tau**2) for name, array in params.items()}

    def step(self, params: Tree, direction: Tree, state: Tree) -> tuple[Tree, Tree]:
        """Step along the momentum, scaled by the root of the second moment."""
        moved: dict[str, Array] = {}
        kept: dict[str, Array] = {}
        for name, array in params.items():
            d = direction[name]
            m = self.beta1 * state[f"m/{name}"].astype(np.float64) + (1 - self.beta1) * d
            v = self._second_moment(state[f"v/{name}"].astype(np.float64), d * d)
            moved[name] = _moved(params, name, self.lr * m / (np.sqrt(v) + self.tau))
            kept[f"m/{name}"], kept[f"v/{name}"] = _kept(m, array), _kept(v, array)
        return moved, kept

    def _second_moment(self, v: Array, squared: Array) -> Array:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Adagrad(_Adaptive):
    """v grows by every squared direction (FedAdagrad); the paper uses no momentum."""

    name: ClassVar[str] = "adagrad"
    beta1: float = 0.0

    def _second_moment(self, v: Array, squared: Array) -> Array:
        grown: Array = v + squared
        return grown


@dataclass(frozen=True, slots=True)
class Adam(_Adaptive):
    """v is a decaying mean of squared directions (FedAdam)."""

    name: ClassVar[str] = "adam"
    beta2: float = 0.99

    def _second_moment(self, v: Array, squared: Array) -> Array:
        decayed: Array = self.beta2 * v + (1 - self.beta2) * squared
        return decayed


@dataclass(frozen=True, slots=True)
class Yogi(_Adaptive):
    """v moves towards the squared direction at a bounded rate (FedYogi)."""

    name: ClassVar[str] = "yogi"
    beta2: float = 0.99

    def _second_moment(self, v: Array, squared: Array) -> Array:
        moved: Array = v - (1 - self.beta2) * squared * np.sign(v - squared)
        return moved
