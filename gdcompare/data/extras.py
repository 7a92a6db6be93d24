"""What an extra brings, as `pip install 'gdcompare[data]'`, imported where it is needed."""

from __future__ import annotations

import importlib
from typing import Any


def optional(module: str, package: str, purpose: str, extra: str = "data") -> Any:
    """Return a module of an extra; an ImportError that says how to install it if it is not there."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise ImportError(f"{purpose} needs {package!r}: pip install 'gdcompare[{extra}]'", name=error.name) from error
