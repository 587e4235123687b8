"""What failed at a worker, and the same typed error where the client asks for the result."""

import traceback
from dataclasses import dataclass
from pathlib import PurePath

from shoal.core.errors import RemoteFailure, ShoalError, from_code

KERNEL_ERRORS = (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError, MemoryError, AssertionError)
"""What operators of torch raise."""

DEPTH = 3
LONGEST = 4000


class RemoteIndexError(RemoteFailure, IndexError):
    """An index out of range, at a worker."""


class RemoteValueError(RemoteFailure, ValueError):
    """A value that an operator does not take, at a worker."""


class RemoteTypeError(RemoteFailure, TypeError):
    """A type that an operator does not take, at a worker."""


class RemoteRuntimeError(RemoteFailure, RuntimeError):
    """Any other error of an operator, at a worker."""


_KINDS: dict[str, type[RemoteFailure]] = {
    "IndexError": RemoteIndexError,
    "ValueError": RemoteValueError,
    "TypeError": RemoteTypeError,
    "RuntimeError": RemoteRuntimeError,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it travels: one of ours by its code, one of torch's by its class too."""

    code: str
    problem: str
    fix: str
    kind: str = ""
    trace: str = ""
    """Where it happened at the worker, if its owner lets that be told."""

    def error(self) -> ShoalError:
        """Return it as an exception to raise; what is known of the place stands in a note of it."""
        if self.code == RemoteFailure.code:
            failure = _KINDS.get(self.kind, RemoteFailure)(self.problem, self.fix)
            if self.trace:
                failure.add_note(f"At the worker:\n{self.trace}")
            return failure
        return from_code(self.code, self.problem, self.fix)


def of(error: ShoalError) -> Failure:
    """Return one of our errors as it travels."""
    return Failure(error.code, error.problem, error.fix)


def kernel(where: str, error: Exception, *, described: bool, traced: bool = True) -> Failure:
    """Return an operator's error as it travels; one that may not be described says nothing of its values or place."""
    if not described:
        return Failure(RemoteFailure.code, "an operator failed on data that is not yours", "check shapes and indices")
    kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS), "RuntimeError")
    said = str(error).strip().splitlines()
    problem = f"{where}: {said[0] if said else kind}"
    return Failure(RemoteFailure.code, problem, "correct its arguments", kind, _trace(error, where) if traced else "")


def _trace(error: Exception, where: str) -> str:
    """Return the last calls before an error, with file names that tell nothing of the machine."""
    frames = traceback.extract_tb(error.__traceback__)[-DEPTH:]
    lines = [f"  {_package(frame.filename)}:{frame.lineno} in {frame.name}" for frame in frames]
    return "\n".join([*lines, f"  {where}", f"{type(error).__name__}: {error}"])[:LONGEST]


def _package(file: str) -> str:
    parts = PurePath(file).parts
    first = max((at for at, part in enumerate(parts) if part in ("shoal", "torch")), default=len(parts) - 1)
    return "/".join(parts[first:])
