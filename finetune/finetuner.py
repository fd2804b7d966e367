"""The Python API: the same engine as the command line."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finetune.components import Dataset
from finetune.errors import Interrupted, UsageError
from finetune.hookspecs import hookimpl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from finetune.catalogue import Catalogue
    from finetune.components import Pixels
    from finetune.model.model import Model
    from finetune.model.prediction import Prediction
    from finetune.recipe.plan import Plan
    from finetune.run import Run

    Data = str | Path | Dataset | tuple[Sequence[Any], Sequence[Any]]
    Images = Sequence[str | Path | Pixels]


class Finetuner:
    """Fine-tunes a pretrained network, then predicts, evaluates, embeds and exports with it.

    >>> ft = Finetuner(backbone="resnext50", freeze="head")
    >>> run = ft.fit("photos/", epochs=5)
    >>> ft.predict(["photo.jpg"])

    ``backbone``, ``weights``, ``freeze`` and every further keyword are what a recipe says in its section of that
    name: a string stands for ``{"use": string}``. Every ``fit`` starts from ``weights``, so that it can be repeated.
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any] = "resnext50",
        *,
        weights: str | Path = "auto",
        freeze: str | Mapping[str, Any] = "head",
        device: str = "auto",
        seed: int = 42,
        output: str | Path = "runs",
        progress: bool = True,
        plugins: Sequence[object] = (),
        **sections: Any,
    ) -> None:
        self.sections: dict[str, Any] = {
            "backbone": {**used(backbone), "weights": str(weights)},
            "freeze": used(freeze),
            "seed": seed,
            "output": str(output),
            **sections,
        }
        self.sections["runner"] = {"device": device, **sections.get("runner", {})}
        self.progress = progress
        self.plugins = tuple(plugins)
        self.run: Run | None = None
        self.model: Model | None = None
        self._pretrained: Model | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """Return one dictionary per epoch of the last fit, as in ``metrics.jsonl``."""
        return self.run.history if self.run else []

    def fit(self, data: Data, *, epochs: int | None = None, **sections: Any) -> Run:
        """Fine-tune on a folder, CSV file, recipe file, dataset component or ``(images, labels)``; return the run.

        ``sections`` replace keys of the recipe's sections for this fit: ``optimizer={"lr": 1e-3}``. An interrupt is
        raised again once the state is saved.
        """
        plan, catalogue = self._plan(data, epochs, sections)
        return self._run(plan, catalogue)

    def fine_tune(
        self, data: Data, *, epochs: int = 8, base_lr: float = 2e-3, freeze_epochs: int = 1, **sections: Any
    ) -> Run:
        """Train the head for ``freeze_epochs``, then everything for ``epochs``, lower stages more gently."""
        schedule = {1: "head", freeze_epochs + 1: "all"} if freeze_epochs else {1: "all"}
        two_step = {
            "freeze": {"use": "gradual", "schedule": schedule},
            "optimizer": {"use": "adamw", "lr": base_lr, "layer_decay": 0.5},
        }
        return self.fit(data, epochs=freeze_epochs + epochs, **{**two_step, **sections})

    def _run(self, plan: Plan, catalogue: Catalogue) -> Run:
        from finetune.display import progress
        from finetune.model import modelfolder
        from finetune.training import engine

        display = progress.Progress() if self.progress else None
        watchers = [self, display] if display else [self]
        try:
            self.run = engine.fine_tune(plan, catalogue, watchers=watchers, say=display.say if display else silent)
        except Interrupted as error:
            if error.signum == signal.SIGINT:
                raise KeyboardInterrupt(str(error)) from None
            raise
        self.model = modelfolder.open_model(self.run.folder, catalogue)
        return self.run

    @hookimpl
    def finetune_run_start(self, run: Run) -> None:
        """Keep the run from its start, so that an interrupt leaves its history."""
        self.run = run

    def _plan(self, data: Data, epochs: int | None, sections: Mapping[str, Any]) -> tuple[Plan, Catalogue]:
        from finetune.data import sources
        from finetune.recipe import plan as plans

        catalogue = self._catalogue(data)
        if isinstance(data, str | Path) and Path(data).suffix in sources.RECIPES:
            changed = {"train": {"epochs": epochs}} if epochs else {}
            overrides = [f"{key}={value}" for key, value in flat({**changed, **sections})]
            return plans.load(Path(data), overrides, catalogue), catalogue
        if isinstance(data, Dataset):
            dataset: dict[str, Any] = {"use": data.name}
        elif isinstance(data, tuple):
            dataset = {"use": "arrays"}
        else:
            dataset = sources.section(Path(data).expanduser())
        recipe = merged(self.sections, {"dataset": dataset, **sections})
        if epochs is not None:
            recipe = merged(recipe, {"train": {"epochs": epochs}})
        return plans.load(recipe, [], catalogue), catalogue

    def _catalogue(self, data: Data = ".") -> Catalogue:
        from finetune import plugins
        from finetune.catalogue import Catalogue
        from finetune.data import sources

        loaded = plugins.load()
        own = plugins.Origin(name="python", distribution="this process", version="-")
        for plugin in self.plugins:
            loaded.register(plugin, own)
        component = sources.array_dataset(*data) if isinstance(data, tuple) else data
        if isinstance(component, Dataset):
            loaded.register(Offer(component), own)
        return Catalogue(loaded)

    def predict(self, images: Images, *, top: int = 5) -> list[Prediction]:
        """Return a prediction for each image: paths or HWC uint8 RGB arrays."""
        return self._fitted().predict(images, top=top)

    def evaluate(self, data: object) -> dict[str, Any]:
        """Return metrics on labelled data: a folder, CSV file, recipe file or ``(images, labels)``."""
        return self._fitted().evaluate(data)

    def embed(self, images: Images | NDArray[np.float32]) -> NDArray[np.float32]:
        """Return pooled features (N, width) float32, of the fitted network or else of the pretrained one.

        Takes paths, HWC uint8 RGB arrays, or ready (N, 3, H, W) float32 images.
        """
        return (self.model or self._backbone()).embed(images)

    def save(self, folder: str | Path) -> Path:
        """Copy the model folder to a new folder and return it."""
        import shutil

        model = self._fitted()
        target = Path(folder)
        if target.exists() and any(target.iterdir()):
            raise UsageError(f"{target} is not empty; name a new folder")
        assert model.folder is not None
        shutil.copytree(model.folder, target, dirs_exist_ok=True)
        return target

    def export(self, path: str | Path, format: Literal["onnx", "mindir"] | None = None) -> dict[str, Any]:
        """Write the fitted network as ONNX or MindIR, by the file's ending; return what was checked."""
        file = Path(path)
        ending: Any = format or file.suffix.removeprefix(".")
        if ending not in ("onnx", "mindir"):
            raise UsageError(f"cannot export to '{file.name}'; end the file's name with .onnx or .mindir")
        return self._fitted().export(file, ending)

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> Finetuner:
        """Return a fitted ``Finetuner`` from a run folder or model folder; its ``fit`` starts from these weights."""
        from finetune.machine import device as devices
        from finetune.model import modelfolder

        folder = modelfolder.locate(Path(path))
        about = modelfolder.read(folder)
        backbone = {"use": about["backbone"]["use"], **about["backbone"]["options"]}
        ft = cls(backbone=backbone, weights=folder / "weights.safetensors", device=device)
        devices.setup(device=device)
        ft.model = modelfolder.open_model(folder, ft._catalogue())
        return ft

    def _fitted(self) -> Model:
        if self.model is None:
            raise UsageError("nothing has been fitted yet; call fit, or open a model with Finetuner.load")
        return self.model

    def _backbone(self) -> Model:
        if self._pretrained is None:
            from finetune.training.prepare import pretrained

            plan, catalogue = self._plan(([], []), None, {})
            self._pretrained = pretrained(plan, catalogue)
        return self._pretrained


class Offer:
    """A plugin that offers one dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @hookimpl
    def finetune_datasets(self) -> list[Dataset]:
        """Return the dataset."""
        return [self.dataset]


def used(section: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a section from its short form."""
    return {"use": section} if isinstance(section, str) else dict(section)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the keys of ``over``, section by section; another ``use`` replaces its section."""
    result = dict(base)
    for key, value in over.items():
        before = result.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and value.get("use") in (None, before.get("use")):
            result[key] = {**before, **value}
        else:
            result[key] = value
    return result


def flat(sections: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Return dotted keys and YAML values of nested sections."""
    import json

    found = []
    for key, value in sections.items():
        if isinstance(value, Mapping) and value and all(isinstance(k, str) for k in value):
            found += flat(value, f"{path}{key}.")
        else:
            found.append((f"{path}{key}", json.dumps(value, default=str)))
    return found


def silent(message: str) -> None:
    """Show nothing."""
