"""Components enough for any recipe of the tests of plans, and plans of recipes in the current folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, PositiveInt, field_validator

from finetune.catalogue import Catalogue
from finetune.components import Augmentation, Backbone, Callback, Dataset, Freezer, Options, Weights
from finetune.errors import RecipeError
from finetune.hookspecs import hookimpl
from finetune.plugins import Origin, Plugins
from finetune.recipe.plan import Plan, load_plan

FOLDER = "dataset: {use: folder, root: photos}\n"


class Files(Options):
    root: Path
    valid: Path | None = None
    index: Path | Literal["auto"] = "auto"
    more: tuple[Path, ...] = ()
    named: dict[str, Path] | None = None


class Flowers(Options):
    root: Path = Path("~/flowers")


class Crop(Options):
    use: Literal["crop"]
    size: Annotated[int, Field(ge=1)]
    scale: tuple[float, float] = (0.5, 1.0)


class Flip(Options):
    use: Literal["flip"]
    p: Annotated[float, Field(ge=0, le=1)] = 0.5


class Images(Options):
    preset: Literal["light", "standard", "heavy"] = "standard"
    ops: tuple[Annotated[Crop | Flip, Field(discriminator="use")], ...] = ()
    either: Crop | Flip | None = None


class Gradual(Options):
    schedule: dict[PositiveInt, str | tuple[str, ...]]

    @field_validator("schedule")
    @classmethod
    def _from_one(cls, schedule: dict[int, Any]) -> dict[int, Any]:
        if 1 not in schedule:
            raise ValueError("No stage trains in epoch 1; begin with '1: head'.")
        return schedule


class Patience(Options):
    patience: PositiveInt = 5


class Clash(Options):
    split: str = "random"


class Failing(Options):
    x: int = 0

    @field_validator("x")
    @classmethod
    def _fail(cls, x: int) -> int:
        raise KeyError(x)


WEIGHTS = Weights(url="https://example.org/w.ckpt", sha256="0" * 64, layout="hub")


class Some:
    """Components enough for any recipe here."""

    @hookimpl
    def finetune_backbones(self) -> list[Backbone]:
        weights = {"hub-v1.1": WEIGHTS, "hub-v1.2": WEIGHTS}
        return [Backbone(name="resnext50", build=dict, stages=("stem", "layer1"), features=8, weights=weights)]

    @hookimpl
    def finetune_datasets(self) -> list[Dataset]:
        named: dict[str, type[Options]] = {"folder": Files, "flowers102": Flowers, "clash": Clash, "failing": Failing}
        return [Dataset(name=name, options=options, build=_nothing) for name, options in named.items()]

    @hookimpl
    def finetune_augmentations(self) -> list[Augmentation]:
        return [Augmentation(name="albumentations", options=Images, build=_nothing)]

    @hookimpl
    def finetune_freezers(self) -> list[Freezer]:
        named: dict[str, type[Options]] = {"head": Options, "gradual": Gradual}
        return [Freezer(name=name, options=options, build=_nothing) for name, options in named.items()]

    @hookimpl
    def finetune_callbacks(self) -> list[Callback]:
        named: dict[str, type[Options]] = {"tensorboard": Options, "checkpoint": Options, "early_stopping": Patience}
        return [Callback(name=name, options=options, build=_nothing) for name, options in named.items()]


def _nothing(*_: object) -> Any:
    return None


def build_catalogue() -> Catalogue:
    """Return the catalogue of these components."""
    plugins = Plugins()
    plugins.register(Some(), Origin(name="some", distribution="tests", version="1"))
    return Catalogue(plugins)


def planned(catalogue: Catalogue, text: str, *overrides: str) -> Plan:
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    return load_plan(Path("recipe.yaml"), overrides, catalogue)


def refused(catalogue: Catalogue, text: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as error:
        planned(catalogue, text, *overrides)
    assert error.value.exit_code == 2
    return error.value.mistakes


def mistakes_of(catalogue: Catalogue, source: Path | dict[str, Any], *overrides: str) -> tuple[str, ...]:
    """Return what is wrong, at least one thing unless there is a plan."""
    try:
        load_plan(source, overrides, catalogue)
        return ()
    except RecipeError as error:
        mistakes = error.mistakes
    assert mistakes
    return mistakes
