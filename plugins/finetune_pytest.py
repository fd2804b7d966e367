"""Pytest fixtures for tests of plugins, available wherever ``finetune`` is installed.

This is not part of ``finetune``, because pytest imports it in every project: it is cheap, and imports nothing else
before a test uses a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def finetune_photos(tmp_path: Path) -> Path:
    """Return a folder of twelve small photos drawn by code, such as ``red/red_0.jpg``, for blue, green and red."""
    from finetune.testing import draw_photos

    return draw_photos(tmp_path / "finetune-photos")
