"""Model folders: weights, labels, preprocessing and reference scores, with a model card."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from finetune.components import Backbone, ImageSpec
from finetune.errors import UsageError, WeightsError
from finetune.files import atomic
from finetune.machine.cpu import is_uncapped
from finetune.machine.forms import Forms
from finetune.model.decisions import write_reference
from finetune.normalisation import find_image_fault
from finetune.recipe.document import rename_values
from finetune.recipe.models import InferenceSection, LinearHead, MlpHead
from finetune.weights.formats import tensorfile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from finetune.catalogue import Catalogue
    from finetune.confidence.reference import Reference
    from finetune.model.model import Model
    from finetune.network.network import Network


VERSION = 1
WEIGHTS = ("source", "origin", "licence", "citation", "sha256", "layout")  # recorded about the pretrained weights
HEADS: TypeAdapter[LinearHead | MlpHead] = TypeAdapter(LinearHead | MlpHead)


def check_distinct(names: list[str]) -> list[str]:
    """Return the names if there are at least two and no duplicates; raises ``ValueError`` otherwise."""
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError("should be a list of different names")
    return names


class BackboneRecord(BaseModel):
    """The backbone and its options."""

    use: str
    options: dict[str, Any]


class ImageRecord(BaseModel):
    """The fields of an ``ImageSpec``."""

    model_config = ConfigDict(extra="forbid")

    size: PositiveInt
    resize: PositiveInt
    keep_aspect: bool
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    background: tuple[int, int, int]
    color: Literal["convert", "ignore"] = "ignore"

    @model_validator(mode="after")
    def in_0_to_1(self) -> ImageRecord:
        """Refuse a mean or std that is not for pixels in 0..1."""
        if fault := find_image_fault({"mean": self.mean, "std": self.std}):
            raise ValueError(fault)
        return self


class CalibrationRecord(BaseModel):
    """The divisor of the logits, and what it was measured on."""

    temperature: PositiveFloat = 1.0
    method: Literal["none", "validation", "out of fold"] = "none"


class Record(BaseModel):
    """The content of ``model.json`` that is required to build a model."""

    name: str
    backbone: BackboneRecord
    head: LinearHead | MlpHead
    features: PositiveInt
    classes: Annotated[list[str], AfterValidator(check_distinct)]
    image: ImageRecord
    metrics: dict[str, float | None]
    recipe: dict[str, Any]
    calibration: CalibrationRecord = CalibrationRecord()


def write_folder(folder: Path, about: Mapping[str, Any], network: Network, reference: Reference | None = None) -> None:
    """Write a model folder; ``model.json`` is written last, so that a folder that has one is complete.

    ``about`` has the fields of ``Record``, and the origin of the model: its stages, dataset and pretrained weights.
    ``reference`` are the scores that thresholds follow from.
    """
    from finetune.network.network import read_values

    about = {"version": VERSION, **about, "weights": {key: about["weights"].get(key) for key in WEIGHTS}}
    metadata = {key: json.dumps(about[key]) for key in ("image", "classes", "backbone")}
    tensorfile.write_tensors(folder / "weights.safetensors", read_values(network.get_parameters()), metadata)
    if reference is not None:
        write_reference(folder, reference)
    atomic.write_text(folder / "README.md", format_card(about))
    atomic.write_json(folder / "model.json", about)


def record_image(image: ImageSpec) -> dict[str, Any]:
    """Convert the preprocessing to JSON."""
    return {name: getattr(image, name) for name in ImageSpec.__slots__}


def load_image_spec(record: dict[str, Any]) -> ImageSpec:
    """Create the preprocessing from JSON."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in complete_image(record).items()}
    return ImageSpec(**values)


def complete_image(record: Mapping[str, Any]) -> dict[str, Any]:
    """Add the key that is missing in records of older versions, which ignored colour profiles."""
    return {"color": "ignore", **record}


def locate_folder(path: Path) -> Path:
    """Return the model folder in a run folder, or the folder itself if it is a model folder."""
    for folder in (path, path / "model"):
        if os.path.isfile(folder / "model.json"):
            return folder
    if os.path.isdir(path / "checkpoints"):
        raise UsageError(f"the run in {path} is not finished; finish it with: finetune run --resume {path}")
    raise UsageError(f"no model in {path}; give a run folder or a folder with model.json")


def open_model(
    path: Path,
    catalogue: Catalogue,
    *,
    inference: InferenceSection | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> Model:
    """Load the model of a run folder or model folder, on the device that is set up.

    ``inference`` selects the inference engine, by default as in the run's recipe; ``say`` is called with messages for
    the user. Raises ``UsageError`` if there is no model and ``WeightsError`` if its files do not match.
    """
    from finetune.model.model import Model
    from finetune.network.network import Network, assign_values, build_matmul_form, build_stages

    folder = locate_folder(path)
    about = read_record(folder)
    backbone = catalogue.get(Backbone, about["backbone"]["use"])
    from finetune.network import heads

    try:
        options = backbone.options.model_validate_json(json.dumps(about["backbone"]["options"]))
        inference = inference or InferenceSection.model_validate(rename_values(about["recipe"]).get("inference", {}))
    except ValidationError as error:
        raise build_damage_error(folder / "model.json", error) from error
    if not os.path.isfile(folder / "weights.safetensors"):
        raise WeightsError(f"{folder}: weights.safetensors is missing; copy the model folder again")
    head = HEADS.validate_json(json.dumps(about["head"]))
    network = Network(
        build_stages(backbone, options), heads.build_head(head, about["features"], len(about["classes"]), 0)
    )
    tensors = tensorfile.read_tensors(folder / "weights.safetensors").tensors
    expected = {p.name: tuple(p.shape) for p in network.get_parameters()}
    if {name: array.shape for name, array in tensors.items()} != expected:
        raise WeightsError(f"{folder}: weights.safetensors does not match model.json; copy the complete folder again")
    assign_values(network.get_parameters(), tensors)
    return Model(
        network=network,
        about=about,
        image=load_image_spec(about["image"]),
        catalogue=catalogue,
        folder=folder,
        matmul_form=build_matmul_form(backbone, network, Forms(uncapped=bool(is_uncapped()))),
        inference=inference,
        device=device,
        say=say,
    )


def read_record(folder: Path) -> dict[str, Any]:
    """Read a model folder's ``model.json``."""
    path = folder / "model.json"
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = about.get("version") if isinstance(about, dict) else None
        if isinstance(version, int) and version > VERSION:
            remedy = f"this release reads version {VERSION}; install a newer finetune"
            raise WeightsError(f"{path} has version {version}, but {remedy}")
        Record.model_validate(about)
    except (OSError, ValueError, RecursionError) as error:
        raise build_damage_error(path, error) from error
    return about


def build_damage_error(path: Path, error: Exception) -> WeightsError:
    """Return the error for an invalid ``model.json``."""
    why = str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
    return WeightsError(f"{path} is damaged ({why[:200]}); copy the model folder again")


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
predicts one of its classes, even for a photo that shows none of them. `finetune predict --unknown 0.05` marks such
photos.
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
