"""Cards of MindSpore Hub by their fields: one for each kind that the Hub has, written as each of its folders does."""

from __future__ import annotations

from dataclasses import dataclass

HOST, OLD = "https://download-mindspore.osinfra.cn/toolkits/mindcv", "https://download.mindspore.cn"
CURRENT = {
    "module-type": "cv",
    "fine-tunable": "True",
    "model-version": "2.5",
    "train-dataset": "ImageNet2012",
    "author": "MindSpore team",
    "user-id": "MindSpore",
    "mindspore-version": "2.5",
    "license": "Apache2.0",
}
OLDER = {
    "module-type": "cv-classification",
    "input-shape": "[224, 224, 3]",
    "model-version": "1.1",
    "train-dataset": "imagenet2012",
    "license": "Apache2.0",
}
Assets = tuple[tuple[str, str, str], ...]  # file format, address and digits of each


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The fields of a card, its assets, and how those are written: ``dash``, ``alone``, ``deep``, ``flow`` or so."""

    fields: dict[str, str]
    assets: Assets
    style: str = "dash"

    def text(self) -> str:
        """Return the card, with an empty line after every field and a page below."""
        said = "".join(f"{name}: {value}\n\n" for name, value in self.fields.items())
        assets = f"asset:{written(self.assets, self.style)}\n\n" if self.assets else ""
        return f"# A network\n\n---\n\n{said}{assets}summary: a network\n\n---\n\n## Introduction\n\nText.\n"


def written(assets: Assets, style: str) -> str:
    """Return what stands after ``asset:``."""
    rows = [(f"file-format: {kind}", f"asset-link: <{link}>", f"asset-sha256: {sha}") for kind, link, sha in assets]
    if style == "flow":
        return " [" + ", ".join("{" + ", ".join(row) + "}" for row in rows) + "]"
    if style == "rows":  # flow entries over several lines
        return "\n" + "\n".join("- {" + row[0] + ",\n   " + row[1] + ",\n   " + row[2] + "}" for row in rows)
    joints = {"dash": ("\n\n- ", "\n  "), "alone": ("\n\n-\n    ", "\n    "), "deep": ("\n\n    -   ", "\n        ")}
    first, between = joints[style]
    return "".join(first + between.join(row) for row in rows)


RESNEXT50 = {
    **{"model-name": "resnext50_32x4d", "backbone-name": "resnext", **CURRENT},
    "evaluation": "top1acc78.64 | top5acc94.18",
    "repo-link": "<https://github.com/mindspore-lab/mindcv/tree/v0.5.0/configs/resnext>",
}
NEWEST = (("ckpt", f"{HOST}/resnext/resnext50_32x4d-988f75bc-910v2.ckpt", "988f75bc"),)
WHOLE = "0123456789abcdef" * 4
OLD_RESNEXT = {"model-name": "resnext50", "backbone-name": "resnext50", **OLDER, "accuracy": "0.7816"}
OLD_FILE = (("ckpt", f"{OLD}/model_zoo/r1.1/resnext50_ascend_v111.ckpt", WHOLE),)

# Name: the kind, and address, digits, size, resize, whether the aspect is kept, and top-1 that are read.
READ: dict[str, tuple[Kind, tuple[str, str, int, int, bool, float | None]]] = {
    "2.5": (Kind(fields=RESNEXT50, assets=NEWEST), (NEWEST[0][1], "988f75bc", 224, 256, True, 0.7864)),
    "2.3": (
        Kind(fields={**RESNEXT50, "model-version": "2.3"}, assets=NEWEST, style="alone"),
        (NEWEST[0][1], "988f75bc", 224, 256, True, 0.7864),
    ),
    "2.5, deep": (
        Kind(fields=RESNEXT50, assets=NEWEST, style="deep"),
        (NEWEST[0][1], "988f75bc", 224, 256, True, 0.7864),
    ),
    "2.5, flow": (
        Kind(fields=RESNEXT50, assets=NEWEST, style="flow"),
        (NEWEST[0][1], "988f75bc", 224, 256, True, 0.7864),
    ),
    "2.5, flow of several lines": (
        Kind(fields=RESNEXT50, assets=NEWEST, style="rows"),
        (NEWEST[0][1], "988f75bc", 224, 256, True, 0.7864),
    ),
    "1.1": (Kind(fields=OLD_RESNEXT, assets=OLD_FILE, style="alone"), (OLD_FILE[0][1], WHOLE, 224, 256, False, 0.7816)),
    "1.10, 299 pixels": (
        Kind(fields={**OLD_RESNEXT, "input-shape": "[299, 299, 3]", "accuracy": "78"}, assets=OLD_FILE, style="alone"),
        (OLD_FILE[0][1], WHOLE, 299, 342, False, 0.78),
    ),
    "with graphs too": (
        Kind(fields=RESNEXT50, assets=(("mindir", f"{HOST}/a.mindir", "0" * 64), *NEWEST, ("om", f"{HOST}/a.om", "1"))),
        (NEWEST[0][1], "988f75bc", 224, 256, True, 0.7864),
    ),
    "a checkpoint for each device": (
        Kind(
            fields=RESNEXT50,
            assets=(*NEWEST, ("ckpt", f"{HOST}/resnext/resnext50_32x4d-af8aba16.ckpt", "af8aba16")),
        ),
        (NEWEST[0][1], "988f75bc", 224, 256, True, 0.7864),
    ),
    "two networks": (
        Kind(
            fields=RESNEXT50,
            assets=(("ckpt", f"{HOST}/resnext/resnext101_32x4d-3c1e9c51.ckpt", "3c1e9c51"), *NEWEST),
        ),
        (NEWEST[0][1], "988f75bc", 224, 256, True, 0.7864),
    ),
    "safetensors": (
        Kind(fields=RESNEXT50, assets=(("safetensors", f"{HOST}/r.safetensors", "abcdef01"),)),
        (f"{HOST}/r.safetensors", "abcdef01", 224, 256, True, 0.7864),
    ),
}

# Name: the kind, and what is said of it.
REFUSED: dict[str, tuple[Kind, str]] = {
    "without assets": (
        Kind(fields={**RESNEXT50, "license": "MIT"}, assets=()),
        "has no asset of file-format ckpt; c",
    ),
    "graphs alone": (
        Kind(fields=RESNEXT50, assets=(("mindir", f"{HOST}/a.mindir", WHOLE), ("air", f"{HOST}/a.air", WHOLE))),
        "has no asset of file-format ckpt; it has 'air', 'mindir'; correct the card",
    ),
    "an archive as its format": (
        Kind(fields=RESNEXT50, assets=(("zip", f"{HOST}/a.zip", WHOLE),)),
        "has no asset of file-format ckpt; it has 'zip'",
    ),
    "an archive as its checkpoint": (
        Kind(fields=RESNEXT50, assets=(("ckpt", f"{HOST}/a.ckpt.ZIP", WHOLE),)),
        "links an archive as its checkpoint, '.*a.ckpt.ZIP'; unpack it and pass the .ckpt file in it",
    ),
    "seven digits": (
        Kind(fields=RESNEXT50, assets=(("ckpt", NEWEST[0][1], "988f75b"),)),
        "has asset-sha256 '988f75b', which is not a single sha256 of 64 hex digits, or its first 8",
    ),
    "two files of one network": (
        Kind(fields=RESNEXT50, assets=(*NEWEST, ("ckpt", f"{HOST}/resnext50_32x4d_ema-11111111.ckpt", "11111111"))),
        "has 2 checkpoints: ",
    ),
    "generator and discriminator": (
        Kind(
            fields={"model-name": "cyclegan", "backbone-name": "cyclegan", **OLDER},
            assets=(("ckpt", f"{OLD}/GA.ckpt", WHOLE), ("ckpt", f"{OLD}/DA.ckpt", WHOLE[::-1])),
        ),
        "has 2 checkpoints: ",
    ),
    "flow that is never closed": (
        Kind(fields={**RESNEXT50, "asset": "[{file-format: ckpt, asset-link: x"}, assets=()),
        "has no asset of file-format ckpt",
    ),
}

# Fields that a card for resnext50 would not have, and what is said of it.
OTHERS: dict[str, tuple[dict[str, str], str]] = {
    "resnext101": (
        {"model-name": "resnext101_32x4d"},
        "a card of 'resnext101_32x4d' .backbone-name 'resnext'., but the",
    ),
    "resnext50 of wider groups": ({"model-name": "resnext50_64x4d"}, "is a card of 'resnext50_64x4d'"),
    "the name of the backbone": (
        {"model-name": "resnext101", "backbone-name": "resnext50"},
        "is a card of 'resnext101'",
    ),
    "squeeze and excitation": ({"model-name": "seresnext50_32x4d"}, "is a card of 'seresnext50_32x4d'"),
    "seresnet": (
        {"model-name": "seresnet18", "backbone-name": "resnet"},
        "is a card of 'seresnet18' .backbone-name 'res",
    ),
    "a family alone": ({"model-name": ""}, "is a card of 'resnext', but the recipe's backbone is 'resnext50'"),
    "detection": (
        {"model-name": "yolov5s", "backbone-name": "yolov5", "train-dataset": "COCO2017", "evaluation": "mAP37.6"},
        "'yolov5s', which is not for image classification .evaluation: mAP37.6.; use a classification card of 'res",
    ),
    "detection on this backbone": (
        {"model-name": "fasterrcnn", "backbone-name": "resnext50", "module-type": "cv-detection"},
        "'fasterrcnn', which is not for image classification .module-type: cv-detection.",
    ),
    "text and images": (
        {"model-name": "Qwen2-VL", "backbone-name": "transformer", "module-type": "mm"},
        "'Qwen2-VL', which is not for image classification .module-type: mm.",
    ),
    "speech": (
        {"model-name": "conformer", "backbone-name": "conformer", "module-type": "audio"},
        "not for image classification .module-type: audio.",
    ),
}
