"""Heat maps of networks that are not ours: stages that pool by themselves, and stages without maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import Backbone, Finetuner, Options, UsageError, hookimpl
from tests.drawn import folder
from tests.finetuner.small import NANO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from mindspore.nn import Cell


class Pooling:
    """A plugin with a network whose last stage returns a pooled vector; ``flat`` has no stage that returns maps."""

    def __init__(self, *, flat: bool = False) -> None:
        self.flat = flat

    @hookimpl
    def finetune_backbones(self) -> Iterator[Backbone]:
        yield Backbone(name="pooling", stages=("body", "neck"), features=12, build=self.build)

    def build(self, options: Options) -> Mapping[str, Cell]:
        from mindspore import nn, ops

        class Neck(nn.Cell):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Conv2d(8, 12, 3)

            def construct(self, x: Any) -> Any:
                return ops.relu(self.layer(x)).mean((2, 3))

        class Flat(nn.Cell):
            def construct(self, x: Any) -> Any:
                return x.mean((2, 3))

        if self.flat:
            return {"body": Flat(), "neck": nn.Dense(3, 12)}
        body = nn.SequentialCell([nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()])
        return {"body": body, "neck": Neck()}


def fit(tmp_path: Path, plugin: Pooling) -> tuple[Finetuner, list[Path]]:
    settings: dict[str, Any] = {**NANO, "backbone": "pooling", "freeze": "none"}
    ft = Finetuner(**settings, output=tmp_path / "runs", plugins=[plugin])
    photos = folder(tmp_path / "photos", each=8)
    ft.fit(photos, epochs=2, validate={"folds": "off"})
    return ft, sorted(photos.rglob("*.jpg"))


def test_the_map_is_that_of_the_last_stage_with_positions(tmp_path: Path) -> None:
    ft, paths = fit(tmp_path, Pooling())
    found = ft.explain(paths[:3])
    assert {each.method for each in found} == {"grad-cam"}
    assert {each.map.shape for each in found} == {(8, 8)}
    assert all(np.ptp(each.map) > 0 for each in found)


def test_the_map_changes_with_the_class(tmp_path: Path) -> None:
    ft, paths = fit(tmp_path, Pooling())
    red, green = (ft.explain(paths[:1], label=label)[0] for label in ("red", "green"))
    assert np.abs(red.map - green.map).max() > 0.1 * np.abs(red.map).max()


def test_a_network_without_maps_is_refused_and_its_run_finishes(tmp_path: Path) -> None:
    ft, paths = fit(tmp_path, Pooling(flat=True))
    assert ft.run is not None
    text = (ft.run.folder / "report.html").read_text()
    assert "No heat maps: explain: no stage of this network returns maps with positions" in text
    with pytest.raises(UsageError, match="no stage of this network returns maps with positions; use another backbone"):
        ft.explain(paths[:1])
