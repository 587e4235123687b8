"""Loading the owner's own code: "FILE.py" or "FILE.py:attribute"."""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from shoal.agent.data import ArrayData
from shoal.algorithms.registry import nearest
from shoal.core.errors import ConfigurationError, ShoalError
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
        with _located(path):
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
    with _located(path):
        made = make()
    return ArrayData(client_data(path.name, made).arrays)


def load_attribute(location: str) -> Any:
    """Return what stands at "FILE.py:attribute"; a function there is called without arguments.

    Raises ConfigurationError when there is no such file or attribute.
    """
    path, attribute = _split(location)
    found = _attribute(_load(path), attribute, path)
    if inspect.isfunction(found):
        with _located(path):
            found = found()
    return found


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
    with _located(path):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _located(path: Path) -> Iterator[None]:
    """Say in which line of the owner's file an error came up; the frames below it are not the owner's."""
    try:
        yield
    except ShoalError:
        raise
    except SyntaxError as error:
        where = f"{error.filename or path} line {error.lineno}"
        raise ConfigurationError(f"{where}: {error.msg}: {(error.text or '').strip()}", "correct that line") from error
    except Exception as error:  # whatever the owner's code raises
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path} line {lines[-1]}" if lines else str(path)
        fix = "install what it needs" if isinstance(error, ImportError) else "correct it there"
        raise ConfigurationError(f"{where}: {type(error).__name__}: {error}", fix) from error


def _attribute(module: ModuleType, name: str, path: Path) -> Any:
    names = [known for known in vars(module) if not known.startswith("_")]
    if name not in names:
        raise ConfigurationError(
            f"{path} has no {name!r}", f"it has {', '.join(names) or 'no public names'}{nearest(name, names)}"
        )
    return vars(module)[name]
