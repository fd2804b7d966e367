"""Fine-tune on a folder of photos, then evaluate, predict, embed and export, all in Python.

    python examples/python_api.py photos/
    python examples/python_api.py photos/ --backbone resnext_nano --weights none     # needs no download

The folder contains one folder of photos for each class. The results are written to ``runs/`` and ``photos.onnx``.
"""

from argparse import ArgumentParser
from pathlib import Path

from finetune import Finetuner

parser = ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("photos", type=Path)
parser.add_argument("--backbone", default="resnext50")
parser.add_argument("--weights", default="auto", help="a name, a file, or none for a random start")
parser.add_argument("--epochs", type=int, help="by default chosen from the photos; 0 if only the head is fitted")
given = parser.parse_args()

ft = Finetuner(given.backbone, weights=given.weights, freeze="none" if given.weights == "none" else "head")
run = ft.fit(given.photos, epochs=given.epochs)
print(f"epochs trained: {ft.history[-1]['epoch']}, into {run.folder}")

report = ft.evaluate()  # on held-back photos; without any, the out-of-fold estimate
print(f"accuracy {report['accuracy']:.1%} on {report['images']} photos ({report['part']})")
evaluated = [each for each in report["per_class"] if each["images"]]
hardest = min(evaluated, key=lambda each: each["recall"])
print(f"the hardest class is {hardest['class']}: {hardest['recall']:.1%} found")

photos = sorted(given.photos.rglob("*.jpg"))[:3]
for prediction in ft.predict(photos, top=2):
    print(prediction)

features = ft.embed(photos)  # one row for each photo, for search or clustering
print(f"features: {features.shape[0]} x {features.shape[1]} {features.dtype}")

print("exported:", ft.export("photos.onnx")["file"])
print("loaded again:", Finetuner.load(run.folder).predict(photos[:1])[0])
