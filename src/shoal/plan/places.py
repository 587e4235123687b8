"""Where an operator came from: the module's path and the line of the user's code that called it."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

TORCH = os.path.dirname(torch.__file__)
HERE = os.path.dirname(os.path.dirname(__file__))
STEP = os.path.join(os.path.dirname(__file__), "step.py")
UNKNOWN = "of the task"


class Places:
    """Follows a model's forward passes; `here` says where they are. `names` are the paths of modules by identity."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._inside: list[str] = []
        self._first: dict[str, str] = {}
        self.last = UNKNOWN
        """Where the last operator was called."""

    @classmethod
    def of(cls, model: nn.Module) -> "Places":
        """Return one that knows the modules of a model."""
        return cls({id(module): name or type(module).__name__ for name, module in model.named_modules()})

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Follow every forward pass inside."""
        hooks = (
            register_module_forward_pre_hook(self._entered),
            register_module_forward_hook(self._left, always_call=True),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _entered(self, module: nn.Module, _: Any) -> None:
        self._inside.append(self._names.get(id(module), ""))

    def _left(self, *_: Any) -> None:
        if self._inside:
            self._inside.pop()

    def note(self, operator: str) -> None:
        """Note where an operator is called, as `last`; a backward operator's place is its forward one's."""
        place = self.here()
        if place == UNKNOWN:
            place = self._first.get(_forward(operator), UNKNOWN)
        else:
            self._first.setdefault(_forward(operator), place)
        self.last = place

    def here(self) -> str:
        """Return the innermost named module and line of code that is neither torch's nor Shoal's."""
        module = next((name for name in reversed(self._inside) if name), "")
        line = _line(sys._getframe(1))
        return " ".join(part for part in (f"in module {module!r}" if module else "", line) if part) or UNKNOWN


def _forward(operator: str) -> str:
    return operator.split(".")[1].removesuffix("_backward") if "." in operator else operator


def _line(frame: FrameType | None) -> str:
    while frame is not None:
        file = frame.f_code.co_filename
        if file == STEP:
            break  # what lies further out calls for the plan, and is not traced
        if not file.startswith((TORCH, HERE, contextlib.__file__, "<")):
            return f"at {file}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
