"""Published ResNeXt weights: addresses, preprocessing, accuracies and sources."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from finetune import Layout, Weights, hub_card
from finetune_model.layouts import HUB, MINDCV, TORCHVISION

FRACTALS = Path(__file__).with_name("weights") / "resnext_nano-fractals.safetensors"
LABELS = Path(__file__).with_name("imagenet.txt")
CARDS = Path(__file__).with_name("cards")
XIE = "Xie et al. 2017, Aggregated Residual Transformations for Deep Neural Networks, arXiv:1611.05431"
KATAOKA = "Kataoka et al. 2020, Pre-training without Natural Images, arXiv:2101.08515"
WIGHTMAN = "Wightman et al. 2021, ResNet strikes back: An improved training procedure in timm, arXiv:2110.00476"


def read_hub_record(version: str, layout: Layout) -> Weights:
    """Return the record of a MindSpore Hub file from its card, which has its address, hash and other facts."""
    card = hub_card(CARDS / f"hub-{version}.md")
    return replace(card, layout=layout.name, options=layout.options, labels=LABELS)


def make_imagenet_record(
    url: str,
    sha256: str,
    layout: Layout,
    *,
    accuracy: float,
    resize: int,
    licence: str,
    source: str,
    citation: str = XIE,
) -> Weights:
    """Return the record of a file trained on ImageNet-1k; its evaluation keeps the aspect and crops 224 pixels."""
    return Weights(
        url=url,
        sha256=sha256,
        layout=layout.name,
        options=layout.options,
        accuracy=accuracy,
        size=224,
        resize=resize,
        labels=LABELS,
        licence=licence,
        source=f"{source}, trained on ImageNet-1k",
        citation=citation,
    )


# The card next to the file says how they were trained and how good they are.
RESNEXT_NANO_WEIGHTS = {
    "fractals": Weights(
        url=FRACTALS.as_uri(),
        sha256="909806b890d2d13a2667c86dadcbb4aa9144537ca69821d2d5bed861315a3bd1",
        layout="finetune",
        options={"stem_pool": "symmetric"},
        size=64,
        resize=64,
        classes=0,
        licence="Apache-2.0",
        source="this project, trained on fractals (examples/finetune-fractals)",
        citation=KATAOKA,
    ),
}

# Accuracies are top-1 on the validation images of ImageNet-1k, as the publishers report them.
RESNEXT50_WEIGHTS = {
    # Made by MindCV 0.5.0 on Ascend 910B: its configuration resnext50_32x4d_ascend resizes the shorter side to
    # 224 / 0.875, bilinearly, and shows the middle 224 pixels; its ResNet pads the first max-pool with mode "same".
    "hub-v2.5": read_hub_record("v2.5", MINDCV),
    "hub-v1.1": read_hub_record("v1.1", HUB),
    "hub-v1.2": read_hub_record("v1.2", HUB),
    # Neither MindCV nor the Hub documents the 8 digits in the name of this file, so they are not used as a hash.
    "mindcv": make_imagenet_record(
        "https://download.mindspore.cn/toolkits/mindcv/resnext/resnext50_32x4d-af8aba16.ckpt",
        "",
        MINDCV,
        accuracy=0.7853,
        resize=256,
        licence="Apache-2.0",
        source="MindCV resnext50_32x4d",
    ),
    # torch.hub names files with the first 8 digits of their sha256.
    "torchvision-v1": make_imagenet_record(
        "https://download.pytorch.org/models/resnext50_32x4d-7cdf4587.pth",
        "7cdf4587",
        TORCHVISION,
        accuracy=0.77618,
        resize=256,
        licence="BSD-3-Clause",
        source="torchvision ResNeXt50_32X4D_Weights.IMAGENET1K_V1",
    ),
    "torchvision-v2": make_imagenet_record(
        "https://download.pytorch.org/models/resnext50_32x4d-1a0047aa.pth",
        "1a0047aa",
        TORCHVISION,
        accuracy=0.81198,
        resize=232,
        licence="BSD-3-Clause",
        source="torchvision ResNeXt50_32X4D_Weights.IMAGENET1K_V2",
    ),
    # At 288 pixels without a crop its publisher reports 0.8203; crop_pct 0.95 of 224 pixels is a resize to 235.
    "timm-a1h": make_imagenet_record(
        "https://huggingface.co/timm/resnext50_32x4d.a1h_in1k/resolve/"
        "8af8dd95e2a7538fad74714fc76507d9de9de33c/model.safetensors",
        "b952952a7b3e856b16ebf82fb44d2aa8c502e73ec678976c9e3b970fcd530bd5",
        TORCHVISION,
        accuracy=0.811,
        resize=235,
        licence="Apache-2.0",
        source="timm resnext50_32x4d.a1h_in1k",
        citation=f"{XIE}; {WIGHTMAN}",
    ),
}
