"""Shapes that are computed are those of the networks that are built."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import finetune_model

BACKBONES = {backbone.name: backbone for backbone in finetune_model.finetune_backbones()}


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("name", BACKBONES)
def test_shapes_are_those_of_the_network_in_its_order(chain: Any, name: str, padding: str) -> None:
    backbone = BACKBONES[name]
    assert backbone.shapes is not None
    built = {p.name: tuple(p.shape) for p in chain(backbone, stem_pool=padding).get_parameters()}
    assert list(backbone.shapes(backbone.options(stem_pool=padding)).items()) == list(built.items())


def test_shapes_need_neither_mindspore_nor_numpy() -> None:
    code = "import finetune_model, sys;"
    code += "[b.shapes(b.options()) for b in finetune_model.finetune_backbones()];"
    code += "print([m for m in ('mindspore', 'numpy') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"
