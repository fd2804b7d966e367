"""SqueezeNet 1.1 as a backbone for ``finetune``.

A backbone consists of a name, its stages in order, the width of its features, and a function that builds the stages.
Layouts translate the parameter names of weights files from other projects. Every command imports this module, so it
imports MindSpore only when the network is built.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from finetune import Backbone, Layout, NoOptions, hookimpl

if TYPE_CHECKING:
    from mindspore.nn import Cell

# Number of each fire module in torchvision's ``features``, and its name here.
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
    # This convolution has a ReLU before the mean over positions, so a linear head cannot replace it.
    ignore=(r"classifier\.1\.(weight|bias)",),
)


def build(options: NoOptions) -> Mapping[str, "Cell"]:
    """Return the stages of the network."""
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
