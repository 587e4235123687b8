"""What an owner lets leave of the data sets at a worker: `policy.toml`, read into plain data. Unknown keys are errors.

[[grant]]
person = "carol"          # a name that has a token, or "*"
data = "boston"           # a data set, or "*"
mock = true               # made-up rows in its layout
epsilon = 1.0             # what noisy aggregates may spend, for each of its data sets

[[grant.program]]         # what this program gives, run on whole arrays with these very parameters
digest = "5f3a..."
times = 10

[[grant.model]]           # what this training program made of arrays that the client sent
digest = "81bc..."
rows = 200                # of each data set, at least
steps = 100
clip = 1.0                # each array's change is shortened to this norm
times = 5
state = true              # also gradients, moments and running statistics, which may show the last batch
"""

from collections.abc import Collection
from pathlib import Path

import msgspec

from shoal.core.errors import ConfigurationError

ANY = "*"
FIX = "use [[grant]] with person, data, mock, epsilon, [[grant.program]] and [[grant.model]] as docs/remote.md shows"


class ProgramGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program whose results may leave so many times; `digest` is that of the program with its parameters."""

    digest: str
    times: int = 1

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times is {self.times}, it has to be at least 1")


class ModelGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A training program whose arrays may leave after `steps` steps over `rows` rows, each change of norm `clip`.

    With `state`, not only weights: also what it writes before it reads it.
    """

    digest: str
    rows: int
    steps: int
    clip: float
    times: int = 1
    state: bool = False

    def __post_init__(self) -> None:
        if self.rows < 2 or self.steps < 2 or self.times < 1 or not 0 < self.clip < float("inf"):
            raise ValueError("rows and steps have to be at least 2, times at least 1, clip above 0 and finite")


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one person may have of one data set."""

    person: str
    data: str
    mock: bool = False
    epsilon: float = 0.0
    program: tuple[ProgramGrant, ...] = ()
    model: tuple[ModelGrant, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < float("inf"):
            raise ValueError(f"epsilon is {self.epsilon}, it has to be finite and not negative")

    def covers(self, person: str, data: str) -> bool:
        """Whether this is about a person and a data set."""
        return self.person in (ANY, person) and self.data in (ANY, data)


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that an owner grants; without a grant nothing leaves. `failures` is how many errors on private data a person
    may cause, each of which ends a session; `largest` how many bytes one tensor may have that a person brings.
    """

    grant: tuple[Grant, ...] = ()
    failures: int = 20
    largest: int | None = None

    def of(self, person: str, data: str) -> list[Grant]:
        """Return the grants about a person and a data set."""
        return [grant for grant in self.grant if grant.covers(person, data)]

    def mock(self, person: str, data: str) -> bool:
        """Whether a person may have made-up rows."""
        return any(grant.mock for grant in self.of(person, data))

    def check(self, people: Collection[str], data: Collection[str]) -> None:
        """Raise ConfigurationError for a grant to somebody who has no token, or of a data set that is not here."""
        for grant in self.grant:
            for what, name, known in (("person", grant.person, people), ("data", grant.data, data)):
                if name != ANY and name not in known:
                    raise ConfigurationError(
                        f"a grant for {what} {name!r}, which this worker does not have",
                        f"use one of {', '.join(sorted(known)) or 'none: there is no --data'}, or {ANY!r} for all",
                    )

    def epsilon(self, person: str, data: str) -> float:
        """Return what noisy aggregates may spend for a person and a data set, in all."""
        return max((grant.epsilon for grant in self.of(person, data)), default=0.0)


def read_policy(path: Path) -> Policy:
    """Read a policy file. Raises ConfigurationError, naming the key that is wrong."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Policy)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}", "give the path of a policy.toml") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}", FIX) from error
