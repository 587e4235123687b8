"""What failed at a worker, and the same typed error where the client asks for the result."""

from dataclasses import dataclass

from shoal.core.errors import RemoteFailure, ShoalError, from_code

KERNEL_ERRORS = (RuntimeError, IndexError, ValueError, TypeError, ArithmeticError, MemoryError, AssertionError)
"""What operators of torch raise."""


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

    def error(self) -> ShoalError:
        """Return it as an exception to raise."""
        if self.code == RemoteFailure.code:
            return _KINDS.get(self.kind, RemoteFailure)(self.problem, self.fix)
        return from_code(self.code, self.problem, self.fix)


def of(error: ShoalError) -> Failure:
    """Return one of our errors as it travels."""
    return Failure(error.code, error.problem, error.fix)


def kernel(where: str, error: Exception, *, described: bool) -> Failure:
    """Return an operator's error as it travels; one that may not be described says nothing of its values or place."""
    if not described:
        return Failure(RemoteFailure.code, "an operator failed on data that is not yours", "check shapes and indices")
    kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in _KINDS), "RuntimeError")
    said = str(error).strip().splitlines()
    return Failure(RemoteFailure.code, f"{where}: {said[0] if said else kind}", "correct its arguments", kind)
