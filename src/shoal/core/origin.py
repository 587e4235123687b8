"""Who took part in a computation: code, trainer, data and versions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Environment:
    """The versions that took part in a computation, as their packages spell them; "" where a package is missing."""

    shoal: str = ""
    python: str = ""
    numpy: str = ""
    torch: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """One participant's part: digests of its code and of its data, its trainer and its environment.

    `data` is "" unless the owner's policy lets the digest leave.
    """

    code: str = ""
    trainer: str = ""
    data: str = ""
    environment: Environment = Environment()
