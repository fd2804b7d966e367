"""What a Finetuner refuses, and what it says to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune import Dataset, Finetuner, Options
from finetune.errors import DataError, RecipeError, ResourceError, UsageError
from tests.finetuner.small import grey, tiny_finetuner


def test_nothing_works_before_fit_but_embed(photos: Path, tmp_path: Path) -> None:
    ft = tiny_finetuner(tmp_path, freeze="head")
    uses = (
        lambda: ft.predict(["a.jpg"]),
        lambda: ft.evaluate(photos),
        lambda: ft.save(tmp_path / "model"),
        lambda: ft.export(tmp_path / "a.onnx"),
    )
    for use in uses:
        with pytest.raises(UsageError, match=r"nothing has been fitted yet; call fit, or open a model with .*load"):
            use()
    assert ft.history == []
    assert ft.embed([]).shape == (0, 12)


@pytest.mark.parametrize(
    ("use", "error", "text"),
    [
        (lambda ft: ft.predict("a.jpg"), UsageError, r"images must be a list; for a single str write \[image\]"),
        (lambda ft: ft.predict(np.zeros((8, 8, 3), np.uint8)), UsageError, "for a single ndarray write"),
        (lambda ft: ft.predict(["none.jpg"]), DataError, r"'none\.jpg' does not exist"),
        (lambda ft: ft.predict([np.zeros((8, 8), np.uint8)]), DataError, r"shape 8x8 .* pass \(height, width, 3\)"),
        (
            lambda ft: ft.predict([Image.new("F", (8, 8), 2.0)]),
            DataError,
            r"images\[0\] holds real numbers from 2 to 2",
        ),
        (lambda ft: ft.predict(["a.jpg"], top=0), UsageError, "top=0 must be at least 1"),
        (lambda ft: ft.embed(np.zeros((1, 3, 8, 8))), UsageError, "and type float64 cannot be embedded"),
        (lambda ft: ft.embed(np.zeros((8, 8, 3), np.float32)), UsageError, r"pass preprocessed \(N, 3, H, W\) float32"),
        (lambda ft: ft.evaluate("nowhere"), DataError, "no data at nowhere; name a folder of class folders"),
        (lambda ft: ft.evaluate(["a.jpg"]), UsageError, "unsupported data of type list; pass a path"),
        (lambda ft: ft.evaluate((["a.jpg"],)), UsageError, r"data is a tuple of length 1; pass \(images, labels\)"),
        (lambda ft: ft.evaluate(([], [])), DataError, "no image can be used"),
        (lambda ft: ft.evaluate((["a.jpg"], [])), DataError, "1 images but 0 labels; give one label for each"),
        (lambda ft: ft.evaluate(([grey()], [7])), DataError, "label 0 is 7, but there are 3 classes"),
        (lambda ft: ft.evaluate(([grey()], ["yellow"])), DataError, "'yellow': is not a class of the model"),
        (
            lambda ft: ft.fit(([grey()], [-1])),
            DataError,
            "label 0 is -1; use names, or whole numbers from 0, as labels",
        ),
        (lambda ft: ft.fit(([grey()], [np.eye(3)[0]])), DataError, r"label 0 is array\(\[1., 0., 0.\]\); use names"),
        (lambda ft: ft.fit(([], [])), DataError, "the training split has no images"),
        (lambda ft: ft.fit("nowhere"), DataError, "no data at nowhere"),
        (lambda ft: ft.fit("nowhere.yaml"), RecipeError, r"nowhere\.yaml: no such file"),
        (lambda ft: ft.fit(__file__), UsageError, "neither a folder nor a .csv file; for other data name a recipe"),
        (lambda ft: ft.fit("tests", epochs=-1), RecipeError, r"train\.epochs: must be at least 0, got -1"),
        (lambda ft: ft.fit("tests", optimiser="sgd"), RecipeError, "unknown key 'optimiser'; did you mean 'optimizer'"),
        (lambda ft: ft.fit("tests", freeze="haed"), RecipeError, "no freezer named 'haed'; did you mean 'head'"),
        (
            lambda ft: ft.fit("tests", dataset={"use": "csv"}),
            UsageError,
            'dataset={"use": "csv"} conflicts with the data argument',
        ),
        (lambda ft: ft.export("a.pb"), UsageError, r"cannot export to 'a\.pb'; end the file's name with \.onnx or"),
        (lambda ft: ft.export("a.bin", "onnx"), UsageError, r"a\.bin does not end with \.onnx; name the file a\.onnx"),
        (lambda ft: ft.export("a.mindir", "onnx"), UsageError, r"name the file a\.onnx, or choose the format mindir"),
        (lambda ft: ft.save(Path(__file__).parent), UsageError, "is not empty; choose a new folder"),
        (lambda ft: ft.save(__file__), ResourceError, "cannot write .* a part of this path is a file"),
        (lambda ft: Finetuner.load("nowhere"), UsageError, "no model in nowhere; give a run folder"),
        (lambda ft: Finetuner(weights="nosuch", backbone="resnext_nano").embed([]), RecipeError, "no weights named"),
        (
            lambda ft: Finetuner(weights="tests", backbone="resnext_nano").embed([]),
            RecipeError,
            r"write '\./tests' for",
        ),
        (lambda ft: ft.fit("tests", resume="auto"), UsageError, "resume='auto' is an option of the command line"),
        (lambda ft: Finetuner("resnext5").embed([]), RecipeError, "no backbone named 'resnext5'; did you mean"),
    ],
)
def test_errors_say_what_to_do(
    fitted: Finetuner, repo: Path, monkeypatch: pytest.MonkeyPatch, use: Any, error: type[Exception], text: str
) -> None:
    monkeypatch.chdir(repo)
    with pytest.raises(error, match=text):
        use(fitted)


def test_a_component_that_needs_options_says_so(fitted: Finetuner) -> None:
    class Needy(Options):
        root: Path

    with pytest.raises(UsageError, match=r"dataset 'needy' needs options \(root\)"):
        fitted.evaluate(Dataset(name="needy", options=Needy, build=lambda options, split: None))
    with pytest.raises(DataError, match="dataset 'empty' returned no images; `build` must return Samples"):
        fitted.evaluate(Dataset(name="empty", build=lambda options, split: None))
