"""What federated training is compared with: all rows in one place, every client for itself, and a start for each."""

from dataclasses import replace

import numpy as np

from shoal.algorithms.fedavg import fedavg
from shoal.core.errors import DataError
from shoal.core.seeds import derive
from shoal.core.tree import Tree
from shoal.simulation.clients import Clients, load, source_of
from shoal.simulation.run import SimulatedRun
from shoal.simulation.simulate import simulate
from shoal.train.cohort import LoopCohort
from shoal.train.data import ClientData
from shoal.train.task import Task


def centralised(task: Task, clients: Clients, *, rounds: int, seed: int = 0) -> SimulatedRun:
    """Train on the rows of all clients together, as one client with no other: what pooling would give.

    The optimizer begins anew in every round, as it does for clients. Raises DataError when rows do not fit together.
    """
    everybody = _everybody(clients)
    kinds = {tuple(sorted(client.arrays)) for client in everybody}
    if len(kinds) > 1:
        raise DataError(f"clients with the arrays {sorted(kinds)}", "give every client the same arrays")
    pooled = {name: np.concatenate([client.arrays[name] for client in everybody]) for name in everybody[0].arrays}
    return simulate(replace(task, strategy=fedavg()), {"all": pooled}, rounds=rounds, seed=seed, trainer="loop")


def local_only(task: Task, clients: Clients, *, rounds: int, seed: int = 0) -> dict[str, SimulatedRun]:
    """Train every client on its own rows and nobody else's; return the runs by client."""
    alone = replace(task, strategy=fedavg())
    return {
        client.name: simulate(alone, {client.name: client.arrays}, rounds=rounds, seed=seed, trainer="loop")
        for client in _everybody(clients)
    }


def fine_tuned(task: Task, params: Tree, clients: Clients, *, seed: int = 0) -> dict[str, Tree]:
    """Train every client once more from a common model, by the task's local plan; return each one's own params.

    Clients whose training is not finite are left out.
    """
    everybody = [replace(client, seed=derive(seed, "fine tuning", client.name)) for client in _everybody(clients)]
    trained = LoopCohort(task).train_cohort(params, task.plan, everybody, {}, 1)
    if trained.updates is None:
        return {}
    deltas = trained.updates.delta
    return {
        everybody[position].name: {name: params[name] + deltas[name][row] for name in deltas}
        for row, position in enumerate(trained.positions)
    }


def _everybody(clients: Clients) -> list[ClientData]:
    source = source_of(clients)
    return load(source, [(name, name, 0) for name in source.names])
