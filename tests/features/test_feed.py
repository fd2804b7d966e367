"""Whole runs with a trunk: whatever the cache holds, the same weights; and what is said of it."""

from __future__ import annotations

import re
import shutil
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune import hookimpl
from finetune.data.loader import Loader
from finetune.errors import Interrupted
from finetune.model import modelfolder
from finetune.recipe.models import InferenceSection
from finetune.training import frozen_stages
from tests.features import tiny
from tests.features.tiny import At, Made, run, shards

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.run import Run

pytestmark = [pytest.mark.usefixtures("graph_mode"), pytest.mark.once]

recipe = partial(tiny.recipe, runner={"mode": "pynative"})  # nothing to compile

OFF: dict[str, Any] = {"features": "off"}
PLAIN: dict[str, Any] = {"engine": "mindspore", "precision": "fp32"}
TRAIN, VALID = 24, 6
SCHEDULE = {"use": "gradual", "schedule": {1: "head", 2: "neck", 4: "body"}}  # three phases in 4 epochs


def never() -> None:
    """Be no reason to stop."""


@pytest.fixture(scope="module")
def cold(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Path]:
    """Return a run that found an empty cache, and that cache."""
    top = tmp_path_factory.mktemp("cold")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HOME", str(top / "home"))
        return run(recipe(photos, top)), top / "home"


@pytest.fixture
def warm(cold: tuple[Made, Path], home: Path) -> Path:
    """Start with a copy of the cache that the run has left."""
    shutil.copytree(cold[1], home)
    return home


def test_a_first_run_computes_every_view_once(cold: tuple[Made, Path]) -> None:
    made, home = cold
    assert made.features["computed"] == 2 * TRAIN + VALID
    assert made.features["reused"] == 0
    assert made.features["saved_seconds"] == 0
    photos = f"{TRAIN} training images in 2 views, {VALID} validation images"
    assert made.told(f"features after neck: {photos} computed once and cached, by ")
    assert len(shards(home)) == len(tiny.about(home)) == 3


def test_a_warm_cache_ends_in_the_same_weights(
    cold: tuple[Made, Path], warm: Path, photos: Path, tmp_path: Path
) -> None:
    made = run(recipe(photos, tmp_path))
    assert made.weights == cold[0].weights
    assert made.lines == cold[0].lines
    assert (made.features["computed"], made.features["reused"]) == (0, 2 * TRAIN + VALID)


def test_another_learning_rate_reuses_all_and_says_so(
    warm: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_stages, "LEAST", 0.0)
    made = run(recipe(photos, tmp_path, optimizer={"lr": 1e-2}))
    assert (made.features["computed"], made.features["seconds"]) == (0, 0)
    assert made.features["saved_seconds"] > 0
    (message,) = made.told("reused")
    photos = f"{TRAIN} training images in 2 views, {VALID} validation images"
    assert message.startswith(f"features after neck: {photos} reused, computed earlier by ")
    assert " s saved" in message
    assert not made.told("computed once")


def test_a_longer_run_reuses_the_views_there_are(warm: Path, photos: Path, tmp_path: Path) -> None:
    made = run(recipe(photos, tmp_path, train={"epochs": 3}, cache={"views": 3}))
    assert (made.features["computed"], made.features["reused"]) == (TRAIN, 2 * TRAIN + VALID)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [{}, OFF], ids=["kept", "streamed"])
def test_the_number_of_workers_changes_no_bit(
    workers: int,
    cache: dict[str, Any],
    cold: tuple[Made, Path],
    home: Path,
    photos: Path,
    tmp_path: Path,
    streamed: Made,
) -> None:
    made = run(recipe(photos, tmp_path, runner={"mode": "pynative", "workers": workers}, cache=cache))
    expected = streamed if cache else cold[0]
    assert made.weights == expected.weights
    assert made.lines == expected.lines


@pytest.fixture(scope="module")
def streamed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return run(recipe(photos, tmp_path_factory.mktemp("streamed"), cache=OFF))


def test_two_streaming_runs_are_equal_and_keep_nothing(
    streamed: Made, home: Path, photos: Path, tmp_path: Path
) -> None:
    made = run(recipe(photos, tmp_path, cache=OFF))
    assert made.weights == streamed.weights
    assert made.lines == streamed.lines
    assert (made.features["computed"], made.features["reused"]) == (0, 0)
    assert not [line for line in made.told("features") if "no effect" not in line]
    assert not shards(home)


def test_a_view_for_every_epoch_is_streaming_but_for_rounding(home: Path, photos: Path, tmp_path: Path) -> None:
    said = {"trunk": PLAIN, "freeze": SCHEDULE, "train": {"epochs": 4}}
    kept = run(recipe(photos, tmp_path, **said, cache={"views": 9}))
    plain = run(recipe(photos, tmp_path, **said, cache=OFF))
    for one, other in zip(arrays(kept), arrays(plain), strict=True):
        assert np.allclose(one, other, atol=2e-3)
    assert [line["train_loss"] for line in kept.lines] == pytest.approx(
        [line["train_loss"] for line in plain.lines], abs=2e-3
    )


def arrays(made: Made) -> list[np.ndarray]:
    tensors = tiny.tensorfile.read_tensors(made.run.folder / "model" / "weights.safetensors").tensors
    return [tensors[name] for name in sorted(tensors)]


@pytest.mark.parametrize(("views", "epochs"), [(1, 2), (2, 5), (9, 2)])
def test_epochs_take_the_views_in_turn(views: int, epochs: int, home: Path, photos: Path) -> None:
    from mindspore import Tensor

    from finetune.network.network import Trunk

    ready = tiny.prepared(recipe(photos, "runs", inference=PLAIN, train={"epochs": epochs}, cache={"views": views}))
    phase_data, cell = tiny.phase_data(ready, 2), Trunk(ready.network, 2)
    spec = {"batch_size": 8, "workers": 0, "seed": 42, "transforms": ready.transforms, "train": True}
    loader = Loader(ready.data.train, ready.image, **spec)
    cell.set_train(False)
    for epoch in range(1, epochs + 1):
        view = (epoch - 1) % min(views, epochs) + 1
        by_hand = list(loader.epoch(epoch, view=view))
        found = list(phase_data.iterate_training(epoch, 0, never))
        assert [list(each.indices) for each in found] == [list(each.indices) for each in by_hand]
        for one, other in zip(found, by_hand, strict=True):
            assert np.allclose(one.images, cell(Tensor(other.images)).asnumpy(), atol=2e-3)
            assert one.targets is not None
    phase_data.close()
    assert len({tuple(each.name for each in shards(home) if each.parent == p.parent) for p in shards(home)}) == 1
    assert len(tiny.about(home)) == min(views, epochs)


def test_without_augmentation_one_view_serves_every_epoch(home: Path, photos: Path, tmp_path: Path) -> None:
    made = run(recipe(photos, tmp_path, augment=[], cache={"views": 9}, train={"epochs": 3}))
    assert made.features["computed"] == TRAIN + VALID


@pytest.fixture(scope="module")
def phases(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Path]:
    top = tmp_path_factory.mktemp("phases")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_HOME", str(top / "home"))
        return run(recipe(photos, top, freeze=SCHEDULE, train={"epochs": 4})), top / "home"


def test_every_phase_has_features_of_its_own(phases: tuple[Made, Path]) -> None:
    made, _ = phases
    assert [stage for stage in tiny.STAGES if made.told(f"features after {stage}: ")] == list(tiny.STAGES)
    assert made.run.result is not None
    assert made.run.result["frozen_unchanged"] is True


def test_what_is_said_to_be_computed_is_computed(phases: tuple[Made, Path]) -> None:
    """Phase 1 has one epoch only, so that it needs no second view."""
    made, _ = phases
    said = 0
    for message in made.told("computed once"):
        counted = re.findall(r"(\d+) \w+ images(?: in (\d+) views?)?", message)
        said += sum(int(photos) * int(views or 1) for photos, views in counted)
    assert said == made.features["computed"]


def test_a_schedule_of_phases_is_the_same_with_a_warm_cache(
    phases: tuple[Made, Path], home: Path, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(phases[1], home)
    made = run(recipe(photos, tmp_path, freeze=SCHEDULE, train={"epochs": 4}))
    assert made.weights == phases[0].weights
    assert made.lines == phases[0].lines
    assert made.features["computed"] == 0


@pytest.mark.parametrize(
    ("at", "gone"), [({"step": 5}, False), ({"step": 5}, True), ({"epoch": 3}, True)], ids=["there", "gone", "between"]
)
def test_an_interrupted_schedule_ends_in_the_same_weights_also_where_the_cache_is_gone(
    at: dict[str, int], gone: bool, phases: tuple[Made, Path], home: Path, photos: Path, tmp_path: Path
) -> None:
    said = recipe(photos, tmp_path, freeze=SCHEDULE, train={"epochs": 4})
    with pytest.raises(Interrupted):
        run(said, watchers=[At(tiny.terminate, **at)])
    if gone:
        shutil.rmtree(home)
    made = run(said, resume=tmp_path / "small-001")
    assert made.weights == phases[0].weights
    assert made.lines == phases[0].lines


def test_stopping_while_features_are_computed(
    cold: tuple[Made, Path], home: Path, photos: Path, tmp_path: Path
) -> None:
    said = recipe(photos, tmp_path)
    with pytest.raises(Interrupted):
        run(said, say=lambda message: tiny.terminate() if "computed once" in message else None)
    assert not (tmp_path / "small-001" / "result.json").exists()
    made = run(said, resume=tmp_path / "small-001")
    assert made.weights == cold[0].weights
    assert made.lines == cold[0].lines


def test_mixed_images_are_streamed_and_still_repeat(home: Path, photos: Path, tmp_path: Path) -> None:
    said = recipe(photos, tmp_path, train={"mixup": 0.4, "cutmix": 1.0})
    one, two = run(said), run(said)
    assert one.features["computed"] == VALID
    assert (two.features["computed"], two.features["reused"]) == (0, VALID)
    assert len(shards(home)) == 1
    assert one.weights == two.weights
    assert one.lines == two.lines


@pytest.mark.parametrize("frozen", [["stem"], ["stem", "body", "neck"], ["body"]], ids="-".join)
def test_any_list_of_frozen_stages(frozen: list[str], home: Path, photos: Path, tmp_path: Path) -> None:
    said = recipe(photos, tmp_path, freeze={"use": "stages", "frozen": frozen}, inference=PLAIN)
    made = run(said)
    plain = run(recipe(photos, tmp_path, freeze={"use": "stages", "frozen": frozen}, inference=PLAIN, cache=OFF))
    assert made.run.result["frozen_unchanged"] is True  # type: ignore[index]
    assert (made.features["computed"] == 0) == ("stem" not in frozen)
    assert made.lines[-1]["train_loss"] == pytest.approx(plain.lines[-1]["train_loss"], abs=2e-3)


BACK = {"use": "gradual", "schedule": {1: "neck", 3: "head"}}
LATER = {"use": "gradual", "schedule": {1: "head", 2: "neck"}}


def settle(epoch: int) -> At:
    """Let an epoch be the best, whatever the others reach."""

    class Settled(At):
        @hookimpl
        def finetune_epoch_end(self, run: Run, epoch: int, metrics: dict[str, float]) -> None:
            if epoch == self.epoch:
                run.best = replace(run.best, value=-1.0)  # type: ignore[type-var]

    return Settled(never, epoch=epoch)


@pytest.mark.parametrize(
    ("schedule", "best", "train", "cache"),
    [
        (LATER, 3, {"ema": 0.9}, {}),
        (BACK, 3, {"ema": 0.9}, OFF),
        (BACK, 3, {"ema": 0.9, "mixup": 0.2}, {}),
        (BACK, 1, {}, {}),
        (BACK, 1, {}, OFF),
        (BACK, 2, {"mixup": 0.2}, {}),
    ],
    ids=["later-ema", "back-ema-streamed", "back-ema-mix", "back-first", "back-first-streamed", "back-second-mix"],
)
def test_what_a_run_says_of_its_weights_is_true_of_the_model_folder(
    schedule: dict[str, Any],
    best: int,
    train: dict[str, Any],
    cache: dict[str, Any],
    home: Path,
    photos: Path,
    tmp_path: Path,
) -> None:
    """A moving average, or the best epoch of an earlier phase, has another trunk than the phase that ends the run."""
    said = recipe(
        photos,
        tmp_path,
        freeze=schedule,
        cache=cache,
        optimizer={"lr": 0.05},
        train={"epochs": 3, **train},
        inference={"precision": "fp32"},
        evaluate={"metric": "loss"},
    )
    made = run(said, watchers=[settle(best)])
    assert made.run.best is not None
    assert made.run.best.epoch == best
    about, found = judged(made, said)
    line = made.lines[best - 1]
    for name in ("loss", "accuracy"):
        assert about[f"val_{name}"] == pytest.approx(found[name], abs=3e-3), name
        assert line[f"val_{name}"] == pytest.approx(found[name], abs=3e-3), name


def judged(made: Made, said: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the metrics that a model folder states, and those that MindSpore alone finds for its weights."""
    model = modelfolder.open_model(made.run.folder, tiny.catalogue(), inference=InferenceSection(engine="mindspore"))
    data = tiny.prepared(said).data.valid
    with closing(Loader(data, model.image, batch_size=8, workers=0, seed=0, train=False)) as loader:
        return model.about["metrics"], model.predictor.evaluate(loader, 3).metrics
