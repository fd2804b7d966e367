"""Model card: the README.md of a model folder."""

from __future__ import annotations

from typing import Any

CARD = """# {name}

{backbone} fine-tuned on {count} classes with `finetune`.

| | |
| --- | --- |
| classes | {classes} |
| input | {size} x {size} pixels, RGB, resized to {resize}, mean {mean}, std {std} |
{weights}
{metrics}

## Use

```
finetune predict {folder} photo.jpg
```

```python
from finetune import Finetuner

model = Finetuner.load("{folder}")
print(model.predict(["photo.jpg"]))
```

`weights.safetensors` holds the weights, `model.json` labels and preprocessing. Neither can run code.

## Limits

Accuracy was measured on photos similar to the training photos; on different photos it may be lower. The network always
predicts one of its classes, even for a photo that shows none of them.
"""


def format_card(about: dict[str, Any]) -> str:
    """Write the text of a model's card from its ``model.json``."""
    image, classes = about["image"], about["classes"]
    shown = ", ".join(map(escape_cell, classes[:20])) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    return CARD.format(
        name=about["name"],
        backbone=about["backbone"]["use"],
        count=len(classes),
        classes=shown,
        size=image["size"],
        resize=image["resize"],
        mean=list(image["mean"]),
        std=list(image["std"]),
        weights=format_weights(about["weights"]),
        metrics="\n".join(f"| {key} | {value:.4f} |" for key, value in about["metrics"].items()),
        folder="FOLDER",
    )


def format_weights(about: dict[str, Any]) -> str:
    """Format the table rows about the pretrained weights; unknown values are left out."""
    titles = {
        "source": "pretrained weights",
        "origin": "their source",
        "licence": "their licence",
        "citation": "their citation",
        "sha256": "their sha256",
        "layout": "their layout",
    }
    known = {"source": "none (random start)"} | {key: value for key, value in about.items() if value}
    return "\n".join(f"| {title} | {escape_cell(str(known[key]))} |" for key, title in titles.items() if key in known)


def escape_cell(value: str) -> str:
    """Escape a text so that it stays within a table cell."""
    return value.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")
