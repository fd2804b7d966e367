"""Model folders: everything needed to predict — weights, labels, preprocessing — in two files and a card."""

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
from finetune.model import card
from finetune.normalisation import find_image_fault
from finetune.recipe.models import LinearHead, MlpHead, TrunkSection
from finetune.weights.formats import tensorfile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from finetune.catalogue import Catalogue
    from finetune.model.model import Model
    from finetune.network.network import Network

VERSION = 1
WEIGHTS = ("source", "origin", "licence", "citation", "sha256", "layout")  # what is kept of the pretrained ones
HEADS: TypeAdapter[LinearHead | MlpHead] = TypeAdapter(LinearHead | MlpHead)


def distinct(names: list[str]) -> list[str]:
    """Return names of which there are at least two, none twice; ``ValueError`` otherwise."""
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError("should be a list of different names")
    return names


class BackboneRecord(BaseModel):
    """Which backbone, with which options."""

    use: str
    options: dict[str, Any]


class ImageRecord(BaseModel):
    """What an ``ImageSpec`` takes."""

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
        """Refuse a mean or std that is not of pixels in 0..1."""
        if fault := find_image_fault({"mean": self.mean, "std": self.std}):
            raise ValueError(fault)
        return self


class Record(BaseModel):
    """What ``model.json`` has to say, so that a model can be built from it."""

    name: str
    backbone: BackboneRecord
    head: LinearHead | MlpHead
    features: PositiveInt
    classes: Annotated[list[str], AfterValidator(distinct)]
    image: ImageRecord
    metrics: dict[str, float | None]
    recipe: dict[str, Any]


def write(folder: Path, about: Mapping[str, Any], network: Network) -> None:
    """Write a model folder; ``model.json`` comes last, so that a folder that has one is complete.

    ``about`` is what ``Record`` needs, and where the model comes from: its stages, dataset and pretrained weights.
    """
    from finetune.network.network import values

    about = {"version": VERSION, **about, "weights": {key: about["weights"].get(key) for key in WEIGHTS}}
    metadata = {key: json.dumps(about[key]) for key in ("image", "classes", "backbone")}
    tensorfile.write(folder / "weights.safetensors", values(network.get_parameters()), metadata)
    atomic.write_text(folder / "README.md", card.text(about))
    atomic.write_json(folder / "model.json", about)


def image_record(image: ImageSpec) -> dict[str, Any]:
    """Return the preprocessing as JSON."""
    return {name: getattr(image, name) for name in ImageSpec.__slots__}


def image_spec(record: dict[str, Any]) -> ImageSpec:
    """Return the preprocessing from JSON."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in completed_image(record).items()}
    return ImageSpec(**values)


def completed_image(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of preprocessing with the key that older versions, which read no colour profiles, left out."""
    return {"color": "ignore", **record}


def locate(path: Path) -> Path:
    """Return the model folder that a run folder or a model folder names."""
    for folder in (path, path / "model"):
        if os.path.isfile(folder / "model.json"):
            return folder
    if os.path.isdir(path / "checkpoints"):
        raise UsageError(f"the run in {path} is not finished; finish it with: finetune run --resume {path}")
    raise UsageError(f"no model in {path}: name a run folder or a folder that holds model.json")


def open_model(
    path: Path,
    catalogue: Catalogue,
    *,
    trunk: TrunkSection | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> Model:
    """Return the model of a run folder or model folder, on the device that is set up.

    ``trunk`` says what computes it, else the run's recipe does; ``say`` is told what its user should know. Raises
    ``UsageError`` where there is none and ``WeightsError`` where its files do not fit each other.
    """
    from finetune.model.model import Model
    from finetune.network.network import Network, assign, build_stages, product_form

    folder = locate(path)
    about = read(folder)
    backbone = catalogue.get(Backbone, about["backbone"]["use"])
    from finetune.network import heads

    try:
        options = backbone.options.model_validate_json(json.dumps(about["backbone"]["options"]))
        trunk = trunk or TrunkSection.model_validate(about["recipe"].get("trunk", {}))
    except ValidationError as error:
        raise damaged(folder / "model.json", error) from error
    if not os.path.isfile(folder / "weights.safetensors"):
        raise WeightsError(f"{folder} lacks weights.safetensors; copy the model folder anew")
    head = HEADS.validate_json(json.dumps(about["head"]))
    network = Network(build_stages(backbone, options), heads.build(head, about["features"], len(about["classes"]), 0))
    tensors = tensorfile.read(folder / "weights.safetensors").tensors
    expected = {p.name: tuple(p.shape) for p in network.get_parameters()}
    if {name: array.shape for name, array in tensors.items()} != expected:
        raise WeightsError(f"{folder}: weights.safetensors does not belong to model.json; copy the whole folder anew")
    assign(network.get_parameters(), tensors)
    return Model(
        network=network,
        about=about,
        image=image_spec(about["image"]),
        catalogue=catalogue,
        folder=folder,
        products=product_form(backbone, network, Forms(uncapped=bool(is_uncapped()))),
        trunk=trunk,
        device=device,
        say=say,
    )


def read(folder: Path) -> dict[str, Any]:
    """Return a model folder's ``model.json``."""
    path = folder / "model.json"
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = about.get("version") if isinstance(about, dict) else None
        if isinstance(version, int) and version > VERSION:
            remedy = f"this program reads version {VERSION}; install a newer one"
            raise WeightsError(f"{path} has version {version}, and {remedy}")
        Record.model_validate(about)
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    return about


def damaged(path: Path, error: Exception) -> WeightsError:
    """Return the error that says what is wrong with a ``model.json``."""
    why = str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
    return WeightsError(f"{path} is damaged ({why[:200]}); copy the model folder anew")
