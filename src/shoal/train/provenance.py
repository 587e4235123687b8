"""What a training depends on beside its data: versions, and the source of model, loss and metrics."""

import functools
import hashlib
import inspect
import platform
import threading
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shoal.core.origin import Environment

if TYPE_CHECKING:
    from shoal.train.task import Task


def environment() -> Environment:
    """Return the versions of this process."""
    return Environment(
        shoal=version("shoal"),
        python=platform.python_version(),
        numpy=np.__version__,
        torch=str(torch.__version__),
        platform=f"{platform.system()} {platform.machine()}",
    )


# Python 3.11's parser counts its depth once for all threads, and fails when two agents of one process read at a time
_PARSING = threading.Lock()


def code_digest(task: "Task") -> str:
    """Return the SHA-256 over the source of a task's modules, loss and metrics, by qualified name.

    What has no source here (builtins, code typed into an interpreter) counts by its name, what came with torch by its
    name too: the environment tells torch's version.
    """
    digest = hashlib.sha256()
    for name, source in sorted(set(_sources(task))):
        digest.update(f"{name}\0{source}\0".encode())
    return digest.hexdigest()


def _sources(task: "Task") -> Iterator[tuple[str, str]]:
    parts = [*(type(module) for module in task.model.modules()), task.loss, *task.metrics.values()]
    for part in parts:
        given: Any = part.func if isinstance(part, functools.partial) else part
        written = inspect.unwrap(given)
        code = written if inspect.isclass(written) or inspect.isroutine(written) else type(written)
        # a file is loaded under a name of its own, which says nothing about what is in it
        yield code.__qualname__, "" if code.__module__.startswith("torch.") else _source(code)


def _source(code: Any) -> str:
    try:
        with _PARSING:
            return inspect.getsource(code)
    except (OSError, TypeError):
        return ""
