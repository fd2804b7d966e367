"""Imports of libraries that would also import torch if it is installed, although they work without it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def block_torch() -> Iterator[None]:
    """Prevent the imports in a block from importing torch, which takes over a second and is not used here."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]
