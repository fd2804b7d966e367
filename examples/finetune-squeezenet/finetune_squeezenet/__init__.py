"""SqueezeNet 1.1 as a backbone for ``finetune``.

A backbone is a name, its stages in order, the width of its features, and a function that builds the stages; layouts
say how weight files made elsewhere name the same parameters. This module is imported whenever plugins are listed, so
that MindSpore is only imported when the network is built.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from finetune import Backbone, Layout, NoOptions, hookimpl

if TYPE_CHECKING:
    from mindspore.nn import Cell

# Number of a fire module in torchvision's ``features``, and what it is called here.
FIRES = {
    3: "fire23.0",
    4: "fire23.1",
    6: "fire45.0",
    7: "fire45.1",
    9: "fire67.0",
    10: "fire67.1",
    11: "fire89.0",
    12: "fire89.1",
}

TORCHVISION = Layout(
    name="torchvision",
    rules=(
        (r"features\.0\.(weight|bias)", r"stem.conv.\1"),
        *((rf"features\.{number}\.(\w+)\.(weight|bias)", rf"{name}.\1.\2") for number, name in FIRES.items()),
    ),
    # A convolution with a ReLU before the mean over positions: no linear head can stand for it.
    ignore=(r"classifier\.1\.(weight|bias)",),
)


def build(options: NoOptions) -> Mapping[str, "Cell"]:
    """Return the network as stages."""
    from finetune_squeezenet import network

    return network.stages()


@hookimpl
def finetune_backbones() -> Iterator[Backbone]:
    """Offer the network as ``backbone: {use: squeezenet1_1}``."""
    yield Backbone(
        name="squeezenet1_1",
        build=build,
        stages=("stem", "fire23", "fire45", "fire67", "fire89"),
        features=512,
        layouts=(TORCHVISION,),
    )
