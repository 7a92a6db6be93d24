"""The `torch.autograd.Function`s that a loss applies, and with what."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parent)
_FUNCTION = str(Path(_TORCH) / "autograd" / "function.py")

Applied = tuple[str, str, Callable[..., Any], dict[str, torch.Tensor]]
"""Its name, the user's line, a function of the tensors that it differentiates, and these."""


def applied(loss: Callable[[], Any]) -> list[Applied]:
    """Return the Functions that the loss applies, in order; not those that are inside others."""
    watch = _Watch()
    with torch.enable_grad(), watch:
        loss()
    return watch.found


@final
class _Watch(TorchDispatchMode):  # type: ignore[misc]  # torch comes without types here
    """Looks out of each operation for the outermost Function around it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Applied] = []
        self._frames: list[FrameType] = []  # alive, so that none is taken for another

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        del types
        outermost = None
        for frame in _outwards():
            if frame.f_code.co_filename == _FUNCTION and frame.f_code.co_name == "apply":
                outermost = frame
        if outermost is not None and all(each is not outermost for each in self._frames):
            self._frames.append(outermost)
            self._note(outermost.f_locals["cls"], outermost.f_locals["args"], outermost.f_back)
        return operation(*arguments, **(options or {}))

    def _note(self, function: Any, arguments: tuple[Any, ...], caller: FrameType | None) -> None:
        at = [i for i, each in enumerate(arguments) if torch.is_tensor(each) and each.requires_grad]
        values = {name: arguments[i].detach().clone() for i, name in zip(at, _names(function, at), strict=True)}
        rest = [None if i in at else _fixed(each) for i, each in enumerate(arguments)]
        self.found.append((function.__name__, _line(caller), partial(_called, function, rest, at), values))


def _called(function: Any, rest: list[Any], at: list[int], *tensors: torch.Tensor) -> Any:
    arguments = list(rest)
    for i, tensor in zip(at, tensors, strict=True):
        arguments[i] = tensor
    return function.apply(*arguments)


def _fixed(value: Any) -> Any:
    return value.detach().clone() if torch.is_tensor(value) else value


def _names(function: Any, at: list[int]) -> list[str]:
    """Return the names of these arguments in its forward; `input 0` where it does not say them."""
    names = list(inspect.signature(function.forward).parameters.values())
    if names and names[0].name in ("ctx", "self"):
        names = names[1:]
    plain = [each.name for each in names if each.kind == each.POSITIONAL_OR_KEYWORD]
    return [plain[i] if i < len(plain) else f"input {i}" for i in at]


def _outwards() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _line(frame: FrameType | None) -> str:
    while frame is not None and frame.f_code.co_filename.startswith((_TORCH, _OURS)):
        frame = frame.f_back
    return "" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
