"""Python: a finished fit that is extended, and evaluated on what it held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from finetune import Finetuner, UsageError
from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path


def test_a_fit_is_extended_and_evaluated(tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", each=5, size=20)
    said = {"weights": "none", "augment": [], "image": {"size": 16, "resize": 16}, "train": {"epochs": 1}}
    said |= {"evaluate": {"metric": "accuracy"}}
    ft = Finetuner("resnext_nano", device="cpu", progress=False, output=tmp_path / "runs", **said)
    first = ft.fit(photos)
    assert ft.evaluate() == ft.evaluate(photos)
    assert (ft.evaluate()["part"], ft.evaluate()["images"], ft.evaluate()["trained_on"]) == ("valid", 3, 0)
    with pytest.raises(UsageError, match=r"optimizer\.lr: 0\.001 → 0\.5"):
        ft.fit(photos, resume=first.folder, optimizer={"lr": 0.5})
    for wrong in ({"extend": 1}, {"extend": 0, "resume": first.folder}):
        with pytest.raises(UsageError, match=r"extend=\d needs at least 1 epoch and a finished run"):
            ft.fit(photos, **wrong)
    again = ft.fit(photos, resume=first.folder, extend=2)
    assert again.folder == first.folder
    assert [line["epoch"] for line in ft.history] == [1, 2, 3]
    assert again.result is not None
    assert again.result["epochs"] == 3
    assert ft.evaluate()["accuracy"] == again.best.value  # type: ignore[union-attr]
