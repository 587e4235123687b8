"""`shoal.strategies()`: every strategy with its paper, its equation, where it is valid and what it keeps where.

Papers and equations are written here; where a strategy is valid and what it keeps is read off the strategy itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, TypeAlias, overload

import numpy as np

from shoal.algorithms.buffered import fedasync, fedbuff
from shoal.algorithms.ditto import ditto
from shoal.algorithms.fedavg import fedavg
from shoal.algorithms.fedavgm import fedavgm
from shoal.algorithms.fedbn import fedbn
from shoal.algorithms.feddyn import feddyn
from shoal.algorithms.fednova import fednova
from shoal.algorithms.fedopt import fedadagrad, fedadam, fedyogi
from shoal.algorithms.fedper import fedper
from shoal.algorithms.fedprox import fedprox
from shoal.algorithms.fedrep import fedrep
from shoal.algorithms.qfedavg import qfedavg
from shoal.algorithms.registry import nearest
from shoal.algorithms.rule import by_plan
from shoal.algorithms.scaffold import scaffold
from shoal.algorithms.strategy import Strategy
from shoal.core.errors import ConfigurationError
from shoal.core.task import LocalPlan

Place: TypeAlias = Literal["simulation", "server", "plan"]
"""In `shoal.simulate`; on real devices with the task's code and torch; on those that train by an exported plan."""


@dataclass(frozen=True, slots=True)
class Described:
    """One strategy. `call` is an example; `clients`, `shared` and `server` name what is kept where from round to round.

    `clients` stays with each client, `shared` goes to clients with the version, `server` stays at the coordinator.
    """

    name: str
    call: str
    paper: str
    equation: str
    valid: tuple[Place, ...]
    clients: tuple[str, ...]
    shared: tuple[str, ...]
    server: tuple[str, ...]

    @property
    def short(self) -> str:
        """Authors, year and number of the paper."""
        return f"{self.paper.partition(',')[0]}, {self.paper.rpartition('(')[2].removesuffix(')')}"

    @property
    def page(self) -> str:
        """The page of the documentation about it."""
        return f"docs/algorithms/{self.name}.md"


class Strategies(Sequence[Described]):
    """All strategies; a notebook shows them as a table, `strategies()["fedavg"]` is one of them."""

    def __init__(self, rows: Sequence[Described]) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int | str) -> Described: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Described, ...]: ...
    def __getitem__(self, index: int | str | slice) -> Described | tuple[Described, ...]:
        """Return a strategy by name or position. Raises ConfigurationError for a name that there is not."""
        if not isinstance(index, str):
            return self._rows[index]
        found = next((row for row in self._rows if row.name == index), None)
        if found is None:
            names = [row.name for row in self._rows]
            raise ConfigurationError(f"no strategy {index!r}", f"use one of {', '.join(names)}{nearest(index, names)}")
        return found

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Described]:
        return iter(self._rows)

    def cells(self) -> list[tuple[str, ...]]:
        """Return name, paper, equation, where valid and what is kept of each, as a person reads them."""
        return [(row.name, row.paper, row.equation, ", ".join(row.valid), kept(row)) for row in self._rows]

    def __repr__(self) -> str:
        width = max(len(row.name) for row in self._rows)
        return "\n".join(f"{row.name:{width}}  {row.paper}" for row in self._rows)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.cells())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


COLUMNS = ("name", "paper", "equation", "valid in", "kept from round to round")


def kept(row: Described) -> str:
    """Return in words what a strategy keeps."""
    parts = (("clients", row.clients), ("shared", row.shared), ("server", row.server))
    return "; ".join(f"{where}: {', '.join(names)}" for where, names in parts if names) or "nothing"


def strategies() -> Strategies:
    """Return every strategy that comes with Shoal: paper, equation, where it is valid, what it keeps where."""
    return Strategies([_described(*given) for given in _WRITTEN])


def _described(call: str, make: Callable[[], Strategy], paper: str, equation: str) -> Described:
    strategy = make()
    rule = strategy.rule
    slots = strategy.server.init({"w": np.zeros(1)})
    staying = [f"arrays that match {', '.join(strategy.staying)}"] if strategy.staying else []
    companion = rule is not None and rule.companion(LocalPlan()) is not None
    return Described(
        name=strategy.name,
        call=call,
        paper=paper,
        equation=equation,
        valid=_valid(strategy),
        clients=(*(() if rule is None else rule.keeps), *(["a model of its own"] if companion else []), *staying),
        shared=() if rule is None else rule.shares,
        server=tuple(sorted({name.partition("/")[0] for name in slots})),
    )


def _valid(strategy: Strategy) -> tuple[Place, ...]:
    rule = strategy.rule
    if rule is None or (rule.on_devices and by_plan(rule, LocalPlan())):
        return ("simulation", "server", "plan")
    return ("simulation", "server") if rule.on_devices else ("simulation",)


_FEDOPT = 'Reddi et al. 2021, "Adaptive Federated Optimization" (arXiv:2003.00295)'

_WRITTEN: tuple[tuple[str, Callable[[], Strategy], str, str], ...] = (
    (
        "shoal.fedavg()",
        fedavg,
        'McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data" '
        "(arXiv:1602.05629)",
        "x <- x + lr * sum_k p_k (y_k - x)",
    ),
    (
        "shoal.fedavgm(beta=0.9)",
        fedavgm,
        'Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual '
        'Classification" (arXiv:1909.06335)',
        "m <- beta * m + D,  x <- x + lr * m",
    ),
    (
        "shoal.fedadagrad(lr=0.1)",
        fedadagrad,
        _FEDOPT,
        "v <- v + D^2,  x <- x + lr * D / (sqrt(v) + tau)",
    ),
    (
        "shoal.fedadam(lr=0.1)",
        fedadam,
        _FEDOPT,
        "m <- b1 m + (1 - b1) D,  v <- b2 v + (1 - b2) D^2,  x <- x + lr * m / (sqrt(v) + tau)",
    ),
    (
        "shoal.fedyogi(lr=0.1)",
        fedyogi,
        _FEDOPT,
        "m <- b1 m + (1 - b1) D,  v <- v - (1 - b2) D^2 sign(v - D^2),  x <- x + lr * m / (sqrt(v) + tau)",
    ),
    (
        "shoal.fedprox(mu=0.01)",
        lambda: fedprox(mu=0.01),
        'Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (arXiv:1812.06127)',
        "y <- y - lr * (g(y) + mu (y - x))",
    ),
    (
        "shoal.scaffold()",
        scaffold,
        'Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning" '
        "(arXiv:1910.06378)",
        "y <- y - lr * (g(y) - c_i + c),  c_i+ = c_i - c + (x - y) / (K lr),  c <- c + |S|/N mean(c_i+ - c_i)",
    ),
    (
        "shoal.fednova()",
        fednova,
        'Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization" '
        "(arXiv:2007.07481)",
        "x <- x + lr * (sum_k p_k tau_k) * sum_k p_k (y_k - x) / tau_k",
    ),
    (
        "shoal.feddyn(alpha=0.1)",
        feddyn,
        'Acar et al. 2021, "Federated Learning Based on Dynamic Regularization" (arXiv:2111.04263)',
        "y_k = argmin L_k(y) - <g_k, y> + alpha/2 |y - x|^2,  g_k <- g_k - alpha (y_k - x),  "
        "x <- mean(y_k) - h / alpha",
    ),
    (
        "shoal.qfedavg(q=1.0)",
        qfedavg,
        'Li et al. 2020, "Fair Resource Allocation in Federated Learning" (arXiv:1905.10497)',
        "x <- x + sum_k F_k^q L (y_k - x) / sum_k (q F_k^(q-1) |L (y_k - x)|^2 + L F_k^q),  L = 1 / lr",
    ),
    (
        "shoal.fedbuff(size=10)",
        fedbuff,
        'Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation" (arXiv:2106.06639)',
        "x <- x + lr * sum_k w_k (y_k - x_k) / sqrt(1 + tau_k) / sum_k w_k",
    ),
    (
        "shoal.fedasync(alpha=0.6)",
        fedasync,
        'Xie et al. 2019, "Asynchronous Federated Optimization" (arXiv:1903.03934)',
        "x <- (1 - a) x + a y_k,  a = alpha / sqrt(1 + tau_k)",
    ),
    (
        "shoal.ditto(lam=0.1)",
        ditto,
        'Li et al. 2021, "Ditto: Fair and Robust Federated Learning Through Personalization" (arXiv:2012.04221)',
        "v_k <- v_k - lr * (g_k(v_k) + lam (v_k - x))",
    ),
    (
        "shoal.fedbn()",
        fedbn,
        'Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization" '
        "(arXiv:2102.07623)",
        "x <- sum_k p_k y_k for all arrays but those of normalising layers",
    ),
    (
        'shoal.fedper("head.*")',
        lambda: fedper("head.*"),
        'Arivazhagan et al. 2019, "Federated Learning with Personalization Layers" (arXiv:1912.00818)',
        "x <- sum_k p_k y_k for the base layers; the personal ones stay with their clients",
    ),
    (
        'shoal.fedrep("head.*")',
        lambda: fedrep("head.*"),
        'Collins et al. 2021, "Exploiting Shared Representations for Personalized Federated Learning" '
        "(arXiv:2102.07089)",
        "h_k <- h_k - lr * g_h(h_k, x), then y_k <- y_k - lr * g_x(h_k, y_k),  x <- sum_k p_k y_k",
    ),
)
