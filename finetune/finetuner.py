"""Python API: runs the same engine as the command line."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Literal

from finetune.errors import Interrupted, UsageError
from finetune.files.atomic import expand_home
from finetune.fitted import FittedNetwork, ignore_message, translate_method_errors
from finetune.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from finetune.catalogue import Catalogue
    from finetune.components import Color, Dataset, Pixels
    from finetune.model.model import Model
    from finetune.recipe.plan import Plan
    from finetune.run import Run

    Data = str | Path | Dataset | Mapping[str, Any] | tuple[Sequence[Any], Sequence[Any]]
    Images = Sequence[str | Path | Pixels]
    Section = str | Mapping[str, Any]


class Finetuner(FittedNetwork):
    """Fine-tunes a pretrained network, then predicts, evaluates, embeds and exports with it.

    >>> ft = Finetuner(backbone="resnext50", freeze="head")
    >>> run = ft.fit("photos/", epochs=5)
    >>> ft.predict(["photo.jpg"])

    ``backbone``, ``freeze`` and all further keywords are sections of a recipe; a string is short for
    ``{"use": string}``. Sections that you leave out have the defaults of a recipe: ResNeXt-50 with its pretrained
    weights, of which only the head trains. ``plugins`` are objects or modules with hooks, for this ``Finetuner`` only.
    Every ``fit`` starts from ``weights``, so it can be repeated.
    """

    def __init__(
        self,
        backbone: Section | None = None,
        *,
        weights: str | Path | None = None,
        freeze: Section | None = None,
        device: Literal["auto", "cpu", "gpu", "ascend"] | None = None,
        seed: int | None = None,
        output: str | Path | None = None,
        progress: bool = True,
        plugins: Sequence[object] = (),
        **sections: Any,
    ) -> None:
        from finetune.machine import working_folder
        from finetune.recipe import keywords

        working_folder.check_exists()
        named = {"backbone": backbone, "freeze": freeze, "seed": seed, "output": output}
        given = {key: value for key, value in named.items() if value is not None}
        merged = keywords.expand_short_forms(given | sections)
        if weights is not None:
            own = {**merged.get("backbone", {}), "weights": str(weights)}
            merged = keywords.merge_sections(merged, {"backbone": own})
        if device is not None:
            merged = keywords.merge_sections(merged, {"runner": {"device": device}})
        self.sections = merged
        self.progress = progress
        self.plugins = tuple(plugins)
        self.run: Run | None = None
        self.model: Model | None = None
        self._pretrained: Model | None = None
        self._pretrained_head = False

    def __repr__(self) -> str:
        if self.model is not None:
            about = self.model.about
            scores = [f"{name} {about['metrics'][name]:.4f}" for name in SCORES if name in about["metrics"]]
            merged = [about["backbone"]["use"], f"{len(about['classes'])} classes", *scores, str(self.model.folder)]
            return f"<Finetuner: {', '.join(merged)}>"
        if self.run is not None:
            return f"<Finetuner: interrupted in epoch {self.run.epoch}, {self.run.folder}>"
        return f"<Finetuner: not fitted, {self.sections}>"

    def _repr_html_(self) -> str:
        from finetune.display import html

        if self.model is not None:
            return html.render_fitted(self.model.about, self.model.folder)
        return html.render_new(self.sections) if self.run is None else html.render_interrupted(self.run)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Return one dictionary per epoch of the last fit, as in ``metrics.jsonl``."""
        return self.run.history if self.run else []

    @translate_method_errors
    def fit(
        self,
        data: Data,
        *,
        epochs: int | None = None,
        resume: str | Path | None = None,
        allow_changed: bool = False,
        extend: int | None = None,
        **sections: Any,
    ) -> Run:
        """Fine-tune and return the run.

        ``data`` is a folder, a CSV file, a dataset component, the keys of a recipe's dataset section,
        ``(images, labels)``, or a recipe file, to which all other arguments apply. ``sections`` change single keys for
        this fit: ``optimizer={"lr": 1e-3}``. ``resume`` is the folder of a run to resume with everything else
        unchanged; ``allow_changed`` permits changes and resumes with the state that still fits. If that run is
        finished, ``extend`` trains it for this many more epochs, and ``epochs`` is ignored. An interrupt is raised as
        ``KeyboardInterrupt`` once the state is saved.
        """
        from finetune.recipe import keywords

        merged = keywords.merge_sections(self.sections, keywords.expand_short_forms(sections))
        if epochs is not None:
            merged = keywords.merge_sections(merged, {"train": {"epochs": epochs}})
        if resume == "auto":
            raise UsageError("resume='auto' is an option of the command line; pass the folder of the run")
        folder = None if resume is None else expand_home(resume)
        if extend is not None and (folder is None or extend < 1):
            raise UsageError(f"extend={extend} needs at least 1 epoch and a finished run; pass its folder as `resume`")
        return self._run(*self._plan(data, merged), folder, allow_changed=allow_changed, extend=extend)

    def fine_tune(
        self,
        data: Data,
        *,
        epochs: int | None = None,
        base_lr: float | None = None,
        freeze_epochs: int | None = None,
        **sections: Any,
    ) -> Run:
        """Fit the head, then train the complete network, with lower learning rates for lower stages.

        The head starts at its optimum on the features of the frozen network. If that is not possible, as with a hidden
        layer or random weights, it first trains alone for one epoch. ``freeze_epochs`` is the number of epochs in which
        the head trains alone, ``epochs`` the number of epochs after that in which everything trains, and ``base_lr``
        the learning rate of the head. Arguments that you leave out follow from the data: enough optimizer steps, and a
        learning rate from a range test.
        """
        from finetune.recipe import keywords

        two_step: dict[str, Any] = {"freeze": {"use": "none"}, "optimizer": {"use": "adamw", "layer_decay": 0.5}}
        if base_lr is not None:
            two_step["optimizer"]["lr"] = base_lr
        merged = keywords.merge_sections(two_step, keywords.expand_short_forms(sections))
        if freeze_epochs is None:
            freeze_epochs = 0 if "freeze" in sections or self._fits_head(data, merged) else 1
        if freeze_epochs and "freeze" not in sections:
            merged["freeze"] = {"use": "gradual", "schedule": {1: "head", freeze_epochs + 1: "all"}}
        return self.fit(data, epochs=None if epochs is None else freeze_epochs + epochs, **merged)

    @translate_method_errors
    def _fits_head(self, data: Data, merged: Mapping[str, Any]) -> bool:
        """Return whether a fit with these sections starts from a fitted head."""
        from finetune.recipe import keywords
        from finetune.training import defaults
        from finetune.training.prepare import plan_phases

        plan, _ = self._plan(data, keywords.merge_sections(self.sections, merged))
        planned = plan_phases(plan)
        return defaults.is_fitted(defaults.settle_start(plan, planned, ignore_message).recipe)

    def _run(
        self, plan: Plan, catalogue: Catalogue, resume: Path | None, *, allow_changed: bool, extend: int | None
    ) -> Run:
        from finetune.display import notebook
        from finetune.model import modelfolder
        from finetune.recipe.keywords import translate_lines
        from finetune.training import choosing, engine

        display = notebook.create_progress() if self.progress else None
        watchers = [self, display] if display else [self]
        say = translate_lines(display.say) if display else ignore_message
        try:
            self.run = engine.fine_tune(
                plan, catalogue, resume=resume, allow_changed=allow_changed, extend=extend, watchers=watchers, say=say
            )
        except Interrupted as error:
            if error.signum not in (signal.SIGINT, signal.SIGTERM) or self.run is None:
                raise  # MindSpore turns some SIGINTs into SIGTERM
            text = f"{error}; resume with fit(…, resume='{self.run.folder}')"
            raise KeyboardInterrupt(text) from None
        chosen = choosing.set_up_device(plan.recipe.runner).name
        inference = plan.recipe.inference
        self.model = modelfolder.open_model(self.run.folder, catalogue, inference=inference, device=chosen, say=say)
        return self.run

    @hookimpl
    def finetune_run_start(self, run: Run) -> None:
        """Store the run at its start, so that its history is available after an interrupt."""
        self.run, self.model = run, None

    def _plan(self, data: Data, merged: Mapping[str, Any]) -> tuple[Plan, Catalogue]:
        from finetune.data import sources
        from finetune.recipe import keywords
        from finetune.recipe import plan as plans

        color = merged.get("image", {}).get("color", "convert")
        catalogue = self._catalogue(data, "ignore" if color == "ignore" else "convert")
        if sources.is_recipe(data):
            file = expand_home(str(data))
            return plans.load_plan(file, keywords.make_overrides(merged), catalogue), catalogue
        if "use" in merged.get("dataset", {}):
            raise UsageError(f"dataset.use={merged['dataset']['use']} conflicts with the data argument; pass only one")
        return plans.load_plan(
            keywords.merge_sections({"dataset": sources.build_section(data, catalogue)}, merged), [], catalogue
        ), catalogue

    def _catalogue(self, data: object = None, color: Color = "convert") -> Catalogue:
        from finetune import plugins
        from finetune.catalogue import Catalogue
        from finetune.data import sources

        loaded = plugins.load_plugins()
        own = plugins.Origin(name="python", distribution=plugins.HERE, version="-")
        dataset = sources.build_own_dataset(data, color)
        for plugin in (*self.plugins, *([plugins.DatasetPlugin(dataset)] if dataset else [])):
            loaded.register(plugin, own)
        return Catalogue(loaded)

    @translate_method_errors
    def audit(self, data: Data, *, output: str | Path | None = None) -> dict[str, Any]:
        """Find wrong labels, duplicates and poor images in data, by the features of the frozen backbone.

        Writes ``images.csv``, ``corrections.csv`` and ``audit.json`` into a new folder ``audit-NNN`` in ``output``, by
        default the folder of the runs. Returns the contents of ``audit.json``, ``folder`` and the number ``proposed``.
        """
        from finetune.audit.run import audit_plan
        from finetune.machine import interrupts

        plan, catalogue = self._plan(data, self.sections)
        say = print if self.progress else ignore_message
        with interrupts.keep_keyboard_interrupt():
            return audit_plan(plan, catalogue, folder=None if output is None else expand_home(output), say=say)

    @classmethod
    @translate_method_errors
    def load(cls, path: str | Path, **more: Any) -> Finetuner:
        """Return a fitted ``Finetuner`` from a run folder or model folder; ``more`` are arguments of the constructor.

        Its ``fit`` starts from these weights, with a new head; ``head={"keep_pretrained": True}`` keeps the head for
        images of the same classes.
        """
        from finetune.machine import device
        from finetune.model import modelfolder
        from finetune.recipe.keywords import translate_lines
        from finetune.recipe.models import InferenceSection

        folder = modelfolder.locate_folder(expand_home(path))
        about = modelfolder.read_record(folder)
        backbone = {"use": about["backbone"]["use"], **about["backbone"]["options"]}
        head = {key: value for key, value in about["head"].items() if key != "keep_pretrained"}
        ft = cls(**{"backbone": backbone, "weights": folder / "weights.safetensors", "head": head, **more})
        chosen = device.set_up(device=ft.sections.get("runner", {}).get("device", "auto")).name
        given = ft.sections.get("inference")
        inference = None if given is None else InferenceSection.model_validate(given)
        say = translate_lines(print) if ft.progress else ignore_message
        ft.model = modelfolder.open_model(folder, ft._catalogue(), inference=inference, device=chosen, say=say)
        return ft


SCORES = ("val_accuracy", "test_accuracy")
