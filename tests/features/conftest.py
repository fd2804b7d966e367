"""Photos for runs of a second, shared by the tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="package")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 30 photos, 24 of which train."""
    return folder(tmp_path_factory.mktemp("photos"), each=10, size=24)
