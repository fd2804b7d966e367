"""Methods of a fitted network: predict, evaluate, explain, embed, save, export."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from finetune.errors import UsageError
from finetune.files.atomic import expand_home

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from finetune.catalogue import Catalogue
    from finetune.components import Dataset, Pixels
    from finetune.data.imagefile import BadImage
    from finetune.explain.explanation import Explanation
    from finetune.model.inputs import Predictions
    from finetune.model.model import Model
    from finetune.recipe.plan import Plan
    from finetune.run import Run

    Data = str | Path | Dataset | Mapping[str, Any] | tuple[Sequence[Any], Sequence[Any]]
    Images = Sequence[str | Path | Pixels]

NOTHING: tuple[Sequence[Any], Sequence[Any]] = ((), ())

P = ParamSpec("P")
R = TypeVar("R")


def translate_method_errors(method: Callable[P, R]) -> Callable[P, R]:
    """Wrap a method so that the remedies in its errors are for Python, not for the command line."""

    @wraps(method)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        from finetune.recipe.keywords import translate_errors

        with translate_errors():
            return method(*arguments, **keywords)

    return call


def ignore_message(message: str) -> None:
    """Discard a message."""


class FittedNetwork:
    """What can be done with a network once it is fitted, or pretrained with its own head."""

    sections: dict[str, Any]
    progress: bool
    run: Run | None
    model: Model | None
    _pretrained: Model | None
    _pretrained_head: bool

    def _plan(self, data: Data, merged: Mapping[str, Any]) -> tuple[Plan, Catalogue]:
        raise NotImplementedError

    @translate_method_errors
    def predict(
        self,
        images: Images | str | Path,
        *,
        top: int = 5,
        unknown: float | None = None,
        coverage: float | None = None,
    ) -> Predictions:
        """Return a prediction for each image: paths, Pillow images or HWC uint8 RGB arrays.

        A folder, alone or in the list, means all images below it. Images in folders that cannot be used are left out
        and listed in ``skipped`` of the result; any other image that cannot be used raises ``DataError``. Before a fit,
        ``head={"keep_pretrained": True}`` predicts with the classifier of the pretrained weights.

        ``unknown=0.05`` sets ``unknown`` of images of none of the classes, with 5 % false alarms; ``coverage=0.95``
        sets ``labels`` to the smallest set that has the true label in 95 % of the images. Both hold for images like
        those that the run held back.
        """
        from finetune.machine import interrupts
        from finetune.model import inputs
        from finetune.model.inputs import Predictions

        model = self._backbone(head=True) if self._keeps_head() else self._fitted()
        with interrupts.keep_keyboard_interrupt():
            given = inputs.gather_asked(images)
            if given is None:
                wanted: Any = images
                return Predictions(model.predict(wanted, top=top, unknown=unknown, coverage=coverage))
            refused: dict[int, BadImage] = {}
            skips = refused if given.listed else None
            found = model.predict(given.images, top=top, refused=skips, unknown=unknown, coverage=coverage)
        missing = inputs.list_unlabelled(given, refused)
        say = print if self.progress else ignore_message
        if missing:
            say(f"{len(missing)} photos could not be labelled; see `skipped` of the predictions")
        return Predictions(found, missing)

    @translate_method_errors
    def explain(self, images: Images | str | Path, *, label: str | None = None) -> list[Explanation]:
        """Return the heat map of each image: where the network sees ``label``, by default the most likely class.

        Takes images as ``predict`` does. Each result has ``map``, ``pixels`` and ``overlay()``, and ``save(path)``
        writes the overlay as a picture.
        """
        from finetune.explain.explain import explain_images
        from finetune.machine import interrupts
        from finetune.model import inputs

        model = self._backbone(head=True) if self._keeps_head() else self._fitted()
        with interrupts.keep_keyboard_interrupt():
            given = inputs.gather_asked(images)
            if given is None:
                return explain_images(model, images, label=label)  # type: ignore[arg-type]
            refused: dict[int, BadImage] = {}
            found = explain_images(model, given.images, label=label, refused=refused if given.listed else None)
        inputs.list_unlabelled(given, refused)
        return found

    @translate_method_errors
    def evaluate(self, data: Data | None = None) -> dict[str, Any]:
        """Return metrics on labelled data, in any form that ``fit`` takes: on its test split if it has one.

        Without ``data``, or with the data of the run, the images that the run held back are evaluated. ``trained_on``
        in the result is the number of evaluated images that were in training; it is None if the folder does not record
        that, as in runs of earlier versions and in copied model folders.
        """
        from finetune.machine import interrupts

        model = self._fitted()
        with interrupts.keep_keyboard_interrupt():
            return model.evaluate(data)

    @translate_method_errors
    def embed(self, images: Images | NDArray[np.float32]) -> NDArray[np.float32]:
        """Return pooled features (N, width) float32 of the fitted network, or of the pretrained one before a fit.

        Takes paths, Pillow images, HWC uint8 RGB arrays, or preprocessed (N, 3, H, W) float32 images.
        """
        from finetune.machine import interrupts

        model = self._backbone() if self.run is None and self.model is None else self._fitted()
        with interrupts.keep_keyboard_interrupt():
            return model.embed(images)

    @translate_method_errors
    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Copy the model folder to another folder and return it.

        Raises ``UsageError`` for a folder that is not empty, unless it is an unchanged copy that ``save`` wrote, or
        ``force`` overwrites the files of a model in it.
        """
        from finetune.model import exporting

        model, target = self._fitted(), expand_home(folder)
        assert model.folder is not None
        return exporting.copy_model(model.folder, target, force=force)

    @translate_method_errors
    def export(
        self, path: str | Path, format: Literal["onnx", "mindir"] | None = None, *, force: bool = False
    ) -> dict[str, Any]:
        """Write the fitted network as ONNX or MindIR, by the file's ending, and return the results of its comparison.

        Raises ``UsageError`` for an existing file, unless it is an unchanged file of an earlier export, or ``force``
        overwrites it.
        """
        from finetune.machine import interrupts

        file, model = expand_home(path), self._fitted()
        ending: Any = format or file.suffix.removeprefix(".")
        if ending not in ("onnx", "mindir"):
            raise UsageError(f"cannot export to '{file.name}'; end the file's name with .onnx or .mindir")
        with interrupts.keep_keyboard_interrupt():
            return model.export(file, ending, force=force)

    def _fitted(self) -> Model:
        if self.model is not None:
            return self.model
        if self.run is not None:
            raise UsageError(f"the last fit was not finished; resume it with fit(…, resume='{self.run.folder}')")
        raise UsageError("nothing has been fitted yet; call fit, or open a model with Finetuner.load")

    def _keeps_head(self) -> bool:
        unfitted = self.run is None and self.model is None
        return unfitted and self.sections.get("head", {}).get("keep_pretrained") is True

    def _backbone(self, *, head: bool = False) -> Model:
        """Return the pretrained network; once it was loaded with its head, the same network is used for both."""
        if self._pretrained is None or (head and not self._pretrained_head):
            from finetune.recipe.keywords import translate_lines
            from finetune.training.pretrained import load_pretrained

            say = translate_lines(print) if self.progress else ignore_message
            self._pretrained = load_pretrained(*self._plan(NOTHING, self.sections), head=head, say=say)
            self._pretrained_head = head
        return self._pretrained
