"""Plugins that are given to a Finetuner as objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from finetune import Finetuner, Options, hookimpl
from finetune.components import Backbone
from finetune.errors import FinetuneError, PluginError, UsageError
from tests.finetuner.small import tiny_finetuner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from finetune.run import Run


class Counter:
    """Counts epochs, and offers a backbone."""

    def __init__(self) -> None:
        self.epochs = 0

    @hookimpl
    def finetune_epoch_end(self, run: Run) -> None:
        self.epochs += 1

    @hookimpl
    def finetune_backbones(self) -> Iterator[Backbone]:
        yield Backbone(name="pooled", build=stages, stages=("stem",), features=4)


def stages(options: Options) -> Mapping[str, Any]:
    from mindspore import nn

    # A pool that is padded on all sides has no ONNX export.
    return {"stem": nn.SequentialCell(nn.Conv2d(3, 4, 4, 4), nn.MaxPool2d(3, 2, pad_mode="pad", padding=1))}


def test_plugins_given_are_there_and_what_has_no_export_is_said(
    photos: Path, paths: list[Path], tmp_path: Path
) -> None:
    counter = Counter()
    ft = tiny_finetuner(tmp_path / "runs", backbone="pooled", freeze="none", plugins=[counter])
    run = ft.fit(photos, epochs=2)
    assert counter.epochs == 2
    with pytest.raises(FinetuneError, match="MindSpore cannot export this network as onnx: "):
        ft.export(tmp_path / "a.onnx")
    assert list(tmp_path.glob("*.onnx*")) == list(tmp_path.glob(".*onnx*")) == []
    assert Finetuner.load(run.folder, plugins=[Counter()]).predict(paths) == ft.predict(paths)
    with pytest.raises(UsageError, match="no backbone named 'pooled'"):
        Finetuner.load(run.folder)
    with pytest.raises(PluginError, match="two backbones named 'pooled'"):
        tiny_finetuner(tmp_path, backbone="pooled", plugins=[Counter(), Counter()]).embed(paths)
