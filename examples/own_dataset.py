"""Fine-tune on photos with a dataset of your own, which reads the classes from a JSON file.

    python examples/own_dataset.py labels.json

The file maps each photo to its class: {"a.jpg": "daisy", "b.jpg": "rose"}. Paths start in the folder of the file.
To use such a dataset in recipes, put it into a package, as examples/finetune-zip does.
"""

import json
import sys
from pathlib import Path

from finetune import Dataset, Finetuner, NoOptions, Samples, Split

LABELS = Path(sys.argv[1])


def build(options: NoOptions, split: Split) -> Samples | None:
    """Return all photos as training images; the engine takes the validation images from them."""
    if split != "train":
        return None
    classes_of = json.loads(LABELS.read_text(encoding="utf-8"))
    classes = tuple(sorted(set(classes_of.values())))
    return Samples(
        images=[LABELS.parent / name for name in classes_of],
        labels=[classes.index(name) for name in classes_of.values()],
        classes=classes,
    )


labelled = Dataset(name="labelled", build=build)

ft = Finetuner("resnext_nano", weights="none", freeze="none", image={"size": 64, "resize": 72})
run = ft.fit(labelled, epochs=3, dataset={"split": 0.25})
print(f"{run.images['train']} photos for training, {run.images['valid']} for validation")
print(f"accuracy on the photos held back: {ft.evaluate(labelled)['accuracy']:.1%}")
