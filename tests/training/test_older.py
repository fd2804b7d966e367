"""Runs and models of a version that read no colour profiles: they go on without, new ones obey them."""

from __future__ import annotations

import io
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.errors import Interrupted, UsageError
from finetune.model import modelfolder
from finetune.training import saving
from tests.data import icc
from tests.drawn import folder
from tests.features import tiny
from tests.features.tiny import At, run

pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]
recipe = partial(tiny.recipe, runner={"mode": "pynative"}, callbacks=[{"use": "checkpoint"}])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return photos with a profile that changes their colours much."""
    root = folder(tmp_path_factory.mktemp("photos"), each=8, size=20)
    for path in root.rglob("*.jpg"):
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.save(path, quality=95, icc_profile=icc.rgb(icc.ADOBE, 1.0))
    return root


def made_older(found: Path) -> None:
    """Take out of a run's folder what older versions did not write."""
    text = (found / "recipe.yaml").read_text()
    shorter = re.sub(r"^ +color: .*\n", "", text, flags=re.MULTILINE)
    assert shorter != text
    (found / "recipe.yaml").write_text(shorter)
    for path in saving.list_checkpoints(found / "checkpoints"):
        saved = saving.load_checkpoint(path)
        del saved.state["recipe"]["image"]["color"]
        del saved.state["start"]["image"]["color"]
        saving.save_checkpoint(path.parent, saved.arrays, saved.state, best=False, keep=9)


def stopped(what: dict[str, Any]) -> Path:
    with pytest.raises(Interrupted):
        run(what, watchers=[At(tiny.terminate, step=2)])
    (found,) = Path(what["output"]).iterdir()
    return found


def test_an_older_run_goes_on_without_profiles(photos: Path, tmp_path: Path) -> None:
    plain = run(recipe(photos, tmp_path / "plain", image={"color": "ignore"}))
    converted = run(recipe(photos, tmp_path / "converted"))
    assert plain.weights != converted.weights
    found = stopped(recipe(photos, tmp_path / "older", image={"color": "ignore"}))
    made_older(found)
    made = run(recipe(photos, tmp_path / "older"), resume=found)
    assert made.weights == plain.weights
    assert json.loads((found / "model" / "model.json").read_text())["image"]["color"] == "ignore"


def test_an_older_run_says_so_if_the_recipe_asks_for_profiles(photos: Path, tmp_path: Path) -> None:
    found = stopped(recipe(photos, tmp_path, image={"color": "ignore"}))
    made_older(found)
    with pytest.raises(UsageError, match=r"image\.color: 'ignore' → 'convert'"):
        run(recipe(photos, tmp_path, image={"color": "convert"}), resume=found)


def test_a_new_run_keeps_the_conversion(photos: Path, tmp_path: Path) -> None:
    plain = run(recipe(photos, tmp_path / "plain"))
    what = recipe(photos, tmp_path / "resumed")
    assert run(what, resume=stopped(what)).weights == plain.weights


def test_an_older_model_answers_as_before(photos: Path, tmp_path: Path) -> None:
    made = run(recipe(photos, tmp_path, train={"epochs": 1}))
    about = made.run.folder / "model" / "model.json"
    said = json.loads(about.read_text())
    assert said["image"]["color"] == "convert"
    path = next(photos.rglob("*.jpg"))
    with Image.open(path) as image:
        raw = np.array(image)
    say: Any = lambda message: None  # noqa: E731
    new = modelfolder.open_model(made.run.folder, tiny.catalogue(), say=say)
    features = new.embed([path, raw])
    assert not np.allclose(features[0], features[1])
    with Image.open(path) as image:
        image.load()
        np.testing.assert_array_equal(new.embed([image]), features[:1])
    del said["image"]["color"]
    about.write_text(json.dumps(said))
    old = modelfolder.open_model(made.run.folder, tiny.catalogue(), say=say)
    assert old.image.color == "ignore"
    features = old.embed([path, raw])
    np.testing.assert_array_equal(features[0], features[1])


def test_findings_count_profiles_once(photos: Path, tmp_path: Path) -> None:
    made = run(recipe(photos, tmp_path, train={"epochs": 1}))
    found = [
        each
        for each in json.loads((made.run.folder / "data.json").read_text())["findings"]
        if each["kind"] == "profile"
    ]
    assert [(each["severity"], each["subject"]) for each in found] == [("note", "24 images")]
    assert found[0]["text"].startswith(
        "have the colour profile 'made by hand'; their colours are converted to sRGB (first: "
    )
