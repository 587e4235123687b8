"""Training a round in several processes, which share memory: the model goes out once, one sum comes back from each.

Workers are forked, so that models and data of a notebook need not be imported or copied anew. Each trains whole
chunks, the longest first, whoever is free taking the next; sums are exact, so that it does not matter who took which.
"""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import torch

from shoal.algorithms import registry
from shoal.core.errors import ConfigurationError, ShoalError, TaskError
from shoal.core.task import LocalPlan, TaskSpec
from shoal.core.tree import Array, Tree
from shoal.simulation.crew import Alone, Chunk, Part, merged

END_SECONDS = 10.0
"""How long a worker that is to end may take for the chunk that it trains."""


class Processes:
    """A crew of `count` forked processes, each with a crew of its own made by `hire`."""

    def __init__(self, count: int, hire: Callable[[], Alone], spec: TaskSpec, layout: Tree) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise ConfigurationError(f"workers={count} on a system that cannot fork", "use workers=1")
        self._aggregator = registry.aggregator(spec.aggregator)
        self._spec = spec
        self._memory = SharedMemory(create=True, size=max(1, sum(array.nbytes for array in layout.values())))
        self._params = _views(self._memory, layout)
        context = multiprocessing.get_context("fork")
        self._pipes: list[Connection] = []
        self._processes: list[ForkProcess] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            self._pipes.append(ours)
            inherited = list(self._pipes)
            process = context.Process(target=_work, args=(theirs, inherited, hire, self._params), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)

    def train(
        self, params: Tree, plan: LocalPlan, chunks: Sequence[Chunk], personal: Mapping[str, Tree], round: int
    ) -> Part:
        """Hand out the chunks and merge the sums. Raises what a worker raised."""
        for name, array in self._params.items():
            array[...] = params[name]
        waiting = list(reversed(chunks))
        busy = [pipe for pipe in self._pipes if _hand_out(pipe, waiting, plan, personal, round)]
        while busy:
            for pipe in _ready(busy):
                _received(pipe)
                if not _hand_out(pipe, waiting, plan, personal, round):
                    busy.remove(pipe)
        for pipe in self._pipes:
            pipe.send(None)
        return merged(self._aggregator, self._spec, [_received(pipe) for pipe in self._pipes])

    def close(self) -> None:
        """End the processes and give the memory back."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(END_SECONDS)
            process.kill()
            process.join()
        self._params = {}
        self._memory.close()
        self._memory.unlink()


def _hand_out(
    pipe: Connection, waiting: list[Chunk], plan: LocalPlan, personal: Mapping[str, Tree], round: int
) -> bool:
    if not waiting:
        return False
    chunk = waiting.pop()
    own = {name: personal[name] for name, _, _ in chunk if name in personal}
    pipe.send((chunk, plan, own, round))
    return True


def _ready(pipes: Sequence[Connection]) -> list[Connection]:
    return [pipe for pipe in wait(pipes) if isinstance(pipe, Connection)]


def _received(pipe: Connection) -> Part | None:
    try:
        answer = pipe.recv()
    except EOFError:
        raise TaskError("a worker process died", "give it more memory, or use fewer workers") from None
    if isinstance(answer, ShoalError):
        raise answer
    if isinstance(answer, str):
        raise TaskError(f"a worker failed: {answer}", 'run with workers=1 and trainer="loop" to see where')
    part: Part | None = answer
    return part


def _work(pipe: Connection, inherited: Sequence[Connection], hire: Callable[[], Alone], params: Tree) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the whole group's; who started this one ends it
    for end in inherited:  # a pipe ends when its last holder closes it
        end.close()
    torch.set_num_threads(1)  # a forked process must not use the threads of its parent
    crew, broken = hire(), _broken()
    total: Part | None = None
    answer: Part | ShoalError | str | None
    while True:
        try:
            asked = pipe.recv()
        except (EOFError, OSError):
            return
        if broken is not None:
            answer = broken
        elif asked is None:
            answer, total = total, None
        else:
            answer, total = _trained(crew, params, asked, total)
        try:
            pipe.send(answer)
        except OSError:  # the run ended by the error of another worker
            return


def _broken() -> ConfigurationError | None:
    # torch refuses gradients after a fork where its engine runs threads: for devices beside the processor
    try:
        torch.ones(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return ConfigurationError(
            f"processes forked where torch's autograd has threads: {str(error).splitlines()[0]}",
            'use workers=1 or "ray" beside a GPU or remote tensors, or simulate in a process of its own',
        )
    return None


def _trained(crew: Alone, params: Tree, asked: Any, total: Part | None) -> tuple[ShoalError | str | None, Part | None]:
    """Count a chunk into the total; return what went wrong, if anything, and the total."""
    chunk, plan, personal, round = asked
    try:
        return None, crew.add(total, params, plan, [chunk], personal, round)
    except ShoalError as error:
        return error, total
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, MemoryError):
        return traceback.format_exc(limit=3), total


def _views(memory: SharedMemory, layout: Tree) -> dict[str, Array]:
    views: dict[str, Array] = {}
    offset = 0
    for name, array in sorted(layout.items(), key=lambda item: -item[1].dtype.itemsize):
        views[name] = np.ndarray(array.shape, array.dtype, memory.buf, offset)
        offset += array.nbytes
    return views
