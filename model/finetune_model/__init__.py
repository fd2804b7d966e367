"""ResNeXt backbones and where their pretrained weights come from, as a plugin of ``finetune``.

There are two networks: ``resnext50``, the 50-layer ResNeXt with 32 groups of width 4, and ``resnext_nano``, which
learns small images (64 to 96 pixels) from random weights on a laptop. MindSpore is imported when a network is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from finetune import Backbone, Options, hookimpl
from finetune_model import design
from finetune_model.layouts import LAYOUTS
from finetune_model.pretrained import RESNEXT50_WEIGHTS, RESNEXT_NANO_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mindspore.nn import Cell

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


class ResNeXtOptions(Options):
    """ResNeXt: residual blocks of grouped convolutions (Xie et al. 2017)."""

    stem_pool: Literal["auto", "same", "symmetric"] = "auto"
    """Padding of the first max-pool: `same` pads at the end, `symmetric` on all sides, and `auto` as the weights need
    it."""


def build_resnext50(options: ResNeXtOptions) -> dict[str, Cell]:
    """Return ResNeXt-50 (32x4d) as stages."""
    from finetune_model import resnext

    return resnext.build(design.RESNEXT50, choose_padding(options))


def build_matmul_form(stages: Mapping[str, Cell]) -> dict[str, Cell]:
    """Return the stages in matmul form, with matrix products in place of convolutions."""
    from finetune_model import matmul_form

    return matmul_form.build_matmul_form(stages)


def build_resnext_nano(options: ResNeXtOptions) -> dict[str, Cell]:
    """Return the small ResNeXt as stages."""
    from finetune_model import resnext

    return resnext.build(design.NANO, choose_padding(options))


def choose_padding(options: ResNeXtOptions) -> Literal["same", "symmetric"]:
    """Return the padding of the first max-pool; the engine has replaced ``auto`` by the padding of the weights."""
    return "symmetric" if options.stem_pool == "auto" else options.stem_pool


def make_shapes(numbers: design.Design) -> Callable[[ResNeXtOptions], dict[str, tuple[int, ...]]]:
    """Return a function that lists the shapes of the parameters, which do not depend on the options."""
    return lambda options: design.list_shapes(numbers)


def make_activations(numbers: design.Design) -> Callable[[ResNeXtOptions, int], dict[str, int]]:
    """Return a function that counts the numbers that each stage returns for an image, whatever the options."""
    return lambda options, side: design.count_activations(numbers, side)


@hookimpl
def finetune_backbones() -> Iterator[Backbone]:
    """Return both networks."""
    yield Backbone(
        name="resnext50",
        options=ResNeXtOptions,
        build=build_resnext50,
        stages=STAGES,
        features=2048,
        weights=RESNEXT50_WEIGHTS,
        layouts=LAYOUTS,
        shapes=make_shapes(design.RESNEXT50),
        matmul_form=build_matmul_form,
        aliases=("resnext50_32x4d",),
        matmul_form_avx2=("layer3", "layer4"),
        activations=make_activations(design.RESNEXT50),
    )
    yield Backbone(
        name="resnext_nano",
        options=ResNeXtOptions,
        build=build_resnext_nano,
        stages=STAGES,
        features=512,
        weights=RESNEXT_NANO_WEIGHTS,
        layouts=LAYOUTS,
        shapes=make_shapes(design.NANO),
    )
