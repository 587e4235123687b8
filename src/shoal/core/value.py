"""Values that are made for every event."""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make a class a dataclass that type checkers hold to be frozen.

    The interpreter would take four times as long to make one that it holds frozen itself.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
