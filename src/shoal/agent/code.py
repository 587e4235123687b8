"""Loading the owner's own code: "FILE.py" or "FILE.py:attribute"."""

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from shoal.agent.data import ArrayData
from shoal.algorithms.registry import nearest
from shoal.core.errors import ConfigurationError
from shoal.train.data import client_data
from shoal.train.task import Task


def load_task(location: str, features: int) -> Task:
    """Return the Task at "FILE.py:attribute" (by default the attribute `task`).

    A function there is called, with the number of feature columns if it takes `features`. The file is the owner's
    own and runs with the owner's rights. Raises ConfigurationError when there is no such file, attribute or task.
    """
    path, attribute = _split(location)
    found = _attribute(_load(path), attribute, path)
    if inspect.isfunction(found):
        takes = "features" in inspect.signature(found).parameters
        found = found(features=features) if takes else found()
    if not isinstance(found, Task):
        raise ConfigurationError(
            f"{attribute!r} in {path} is a {type(found).__name__}", "let it be a shoal.Task or a function returning one"
        )
    return found


def load_data(location: str) -> ArrayData:
    """Return what the function `data` of a code file gives: an (x, y) pair, a dict of arrays, or a torch Dataset."""
    path, _ = _split(location)
    make = _attribute(_load(path), "data", path)
    if not callable(make):
        raise ConfigurationError(
            f"'data' in {path} is a {type(make).__name__}", "let it be a function without arguments"
        )
    return ArrayData(client_data(path.name, make()).arrays)


def _split(location: str) -> tuple[Path, str]:
    file, colon, attribute = location.rpartition(":")
    if colon and attribute.isidentifier():
        return Path(file), attribute
    return Path(location), "task"


def _load(path: Path) -> ModuleType:
    name = f"shoal_owner_code_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigurationError(f"no Python file {path}", 'give the owner\'s code as "FILE.py" or "FILE.py:attribute"')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is being made
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise ConfigurationError(
            f"{path} cannot be imported: {error}", "correct it, or install what it needs"
        ) from error
    return module


def _attribute(module: ModuleType, name: str, path: Path) -> Any:
    names = [known for known in vars(module) if not known.startswith("_")]
    if name not in names:
        raise ConfigurationError(
            f"{path} has no {name!r}", f"it has {', '.join(names) or 'no public names'}{nearest(name, names)}"
        )
    return vars(module)[name]
