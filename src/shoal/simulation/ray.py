"""Training a round on a Ray cluster, or on a laptop's own Ray: the model goes out once, one sum comes back from each.

Ray pickles the task and the source of the clients and runs them on its nodes: it is for machines of one's own, which
trust each other. Each actor trains whole chunks, the longest first, whoever is free taking the next; sums are exact,
so that it does not matter who took which.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from shoal.algorithms import registry
from shoal.core.errors import ConfigurationError, ShoalError, TaskError
from shoal.core.optional import installed
from shoal.core.task import LocalPlan, TaskSpec
from shoal.core.tree import Tree
from shoal.simulation.crew import Alone, Chunk, Part, merged

PATIENCE = 120.0
"""Seconds after which an actor that has not started, or a chunk that nobody has finished, counts as lost."""


class Rays:
    """A crew of Ray actors, one a processor of the cluster, each with a crew of its own made by `hire`.

    Uses the Ray that the process is connected to, or connects to `address`, or starts one on this machine; what it
    started it ends. Raises ConfigurationError without ray, or when the cluster cannot be reached or has no processor.
    """

    def __init__(self, hire: Callable[[], Alone], spec: TaskSpec, address: str | None = None) -> None:
        self._ray = installed("ray")
        self._aggregator = registry.aggregator(spec.aggregator)
        self._spec = spec
        self._started = not self._ray.is_initialized()
        if self._started:
            self._connect(address)
        count = int(self._ray.cluster_resources().get("CPU", 0))
        if count == 0:
            raise ConfigurationError(f"a Ray cluster at {address!r} without processors", "start its nodes")
        given = self._ray.put(hire)
        actor = self._ray.remote(num_cpus=1)(_Actor)
        self._actors = [actor.remote(given) for _ in range(count)]
        self._answers([actor.ready.remote() for actor in self._actors])

    def train(
        self, params: Tree, plan: LocalPlan, chunks: Sequence[Chunk], personal: Mapping[str, Tree], round: int
    ) -> Part:
        """Hand out the chunks and merge the sums. Raises what an actor raised."""
        given = self._ray.put((dict(params), plan, round))
        waiting = list(reversed(chunks))
        busy: dict[Any, Any] = {}

        def hand_out(actor: Any) -> None:
            if waiting:
                chunk = waiting.pop()
                own = {name: personal[name] for name, _, _ in chunk if name in personal}
                busy[actor.add.remote(given, chunk, own)] = actor

        for actor in self._actors:
            hand_out(actor)
        while busy:
            done, _ = self._ray.wait(list(busy), num_returns=1, timeout=PATIENCE)
            if not done:
                raise TaskError(f"round {round}: no chunk came back in {PATIENCE:g} s", "see the cluster's own logs")
            self._answers(done)
            hand_out(busy.pop(done[0]))
        return merged(self._aggregator, self._spec, self._answers([actor.take.remote() for actor in self._actors]))

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()

    def _connect(self, address: str | None) -> None:
        try:
            # without an address Ray would look for clusters that run on this machine
            self._ray.init(address=address or "local", include_dashboard=False if address is None else None)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigurationError(f"no Ray at {address!r}: {error}", "give the address of its head node") from error

    def _answers(self, references: Sequence[Any]) -> list[Any]:
        failed = self._ray.exceptions
        try:
            answers: list[Any] = self._ray.get(list(references), timeout=PATIENCE)
        except failed.RayTaskError as error:
            if isinstance(error.cause, ShoalError):
                raise error.cause from None
            raise TaskError(
                f"a Ray actor failed: {error.cause!r}", 'run with workers=1 and trainer="loop" to see where'
            ) from error
        except (failed.RayActorError, failed.GetTimeoutError) as error:
            raise TaskError(f"a Ray actor is lost: {error}", "give it more memory, or see Ray's logs") from error
        return answers


class _Actor:
    """One processor's part of every round."""

    def __init__(self, hire: Callable[[], Alone]) -> None:
        torch.set_num_threads(1)
        self._crew = hire()
        self._total: Part | None = None

    def ready(self) -> None:
        """Answer once everything is loaded."""

    def add(self, given: tuple[Tree, LocalPlan, int], chunk: Chunk, personal: Mapping[str, Tree]) -> None:
        """Train a chunk and count it in."""
        params, plan, round = given
        self._total = self._crew.add(self._total, params, plan, [chunk], personal, round)

    def take(self) -> Part | None:
        """Hand over the sum of the round."""
        total, self._total = self._total, None
        return total
