"""Photos, a run that nothing happened to, and MindSpore as others expect it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.drawn import folder
from tests.faults.small import recipe

if TYPE_CHECKING:
    from pathlib import Path

    from tests.features.tiny import Made


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"), each=10, size=20)


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    from tests.features.tiny import run

    return run(recipe(photos, tmp_path_factory.mktemp("plain")))
