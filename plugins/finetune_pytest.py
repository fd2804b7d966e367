"""What pytest has wherever ``finetune`` is installed: fixtures for the tests of plugins.

A module of its own, not part of ``finetune``, since pytest imports it in every project: it costs next to nothing, and
nothing else is imported before a test asks for a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def finetune_photos(tmp_path: Path) -> Path:
    """Return a folder of twelve small photos drawn by code: ``red/red_0.jpg``, and so on for blue, green and red."""
    from finetune.testing import draw_photos

    return draw_photos(tmp_path / "finetune-photos")
