"""What an error must say."""

from __future__ import annotations

import re
from typing import Any

import pytest


def refusal(error: type[Exception], message: str) -> Any:
    """Expect an error with exactly this message."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")
