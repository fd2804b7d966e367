"""The TensorBoard callback, read back with TensorBoard's own reader."""

from __future__ import annotations

import io
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finetune.errors import PluginError
from finetune.run import Best, Predicted, Run
from finetune_plugins import tensorboard
from tests.clocks import LONGEST, wait_for

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

MakeRun = Callable[..., Run]
Fire = Callable[..., None]
FireOn = Callable[[object], Fire]

PHASES = {1: (1, ("head",)), 2: (1, ("head",)), 3: (2, ("layer2", "head")), 4: (2, ("layer2", "head"))}


def callback(**options: Any) -> object:
    """Build the callback from the options of a recipe."""
    component = next(iter(tensorboard.finetune_callbacks()))
    built: object = component.build(component.options.model_validate(options))
    return built


def pixels(seed: int) -> np.ndarray[Any, Any]:
    """Return a picture of noise."""
    return np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)


def with_pictures(run: Run) -> Run:
    """Give a run what the engine gives it."""
    run._augmented = lambda count: [pixels(i) for i in range(count)]
    run._predictions = lambda count: [
        Predicted(pixels=pixels(i), label="star", predicted=("star", "circle")[i % 2], probability=0.9)
        for i in range(count)
    ]
    return run


def epochs(run: Run, fire: Fire, numbers: Iterable[int], *, every: int = 1) -> None:
    """Fire the events of epochs as the engine does, three steps each."""
    for epoch in numbers:
        run.epoch = epoch
        run.phase, run.trainable = PHASES[epoch]
        fire("finetune_epoch_start", run=run, epoch=epoch)
        for _ in range(run.steps_per_epoch):
            run.step += 1
            run.learning_rates = {stage: 0.1 / run.step for stage in run.trainable}
            fire("finetune_step_end", run=run, step=run.step, loss=1 / run.step)
        line: dict[str, Any] = {
            "epoch": epoch,
            "phase": run.phase,
            "trainable": list(run.trainable),
            "train_loss": 0.5,
            "lr": 0.1,
            "seconds": 1.5,
        }
        if epoch % every == 0:
            line |= {"val_loss": 0.4, "val_accuracy": epoch / 10}
            run.confusion = np.diag([3, 2, 1]) + epoch
            run.best = Best(epoch=epoch, value=epoch / 10)
        run.history.append(line)
        fire("finetune_epoch_end", run=run, epoch=epoch, metrics=line)


def play(run: Run, fire: Fire, numbers: Iterable[int] = range(1, 5), *, every: int = 1) -> Run:
    """Fire all events of a run."""
    fire("finetune_run_start", run=run)
    epochs(run, fire, numbers, every=every)
    fire("finetune_run_end", run=run)
    return run


def read(run: Run) -> Any:
    """Return what TensorBoard would show of a run."""
    sizes = {kind: 0 for kind in accumulators.DEFAULT_SIZE_GUIDANCE}
    return accumulators.EventAccumulator(str(run.folder / "tensorboard"), sizes).Reload()


def logged(run: Run, tag: str) -> list[int]:
    """Return the steps of a curve, none if there is no such yet."""
    folder = run.folder / "tensorboard"
    shown = read(run) if folder.is_dir() else None
    return steps(shown.Scalars(tag)) if shown and tag in shown.Tags()["scalars"] else []


def steps(events: Iterable[Any]) -> list[int]:
    """Return the steps of events."""
    return [event.step for event in events]


def said(run: Run) -> list[str]:
    """Return what the callback told the user."""
    return [message for message in run.messages if message.startswith("tensorboard: ")]


def test_logs_every_step(new_run: MakeRun, fire_on: FireOn) -> None:
    run = play(new_run(), fire_on(callback()))
    shown = read(run)
    assert [(e.step, e.value) for e in shown.Scalars("step/loss")] == [(s, pytest.approx(1 / s)) for s in range(1, 13)]
    assert steps(shown.Scalars("step/images_per_second")) == list(range(1, 13))
    assert all(0 < e.value < math.inf for e in shown.Scalars("step/images_per_second"))
    assert steps(shown.Scalars("learning_rate/head")) == list(range(1, 13))
    assert steps(shown.Scalars("learning_rate/layer2")) == list(range(7, 13))
    assert said(run) == []


def test_logs_every_metric_of_an_epoch(new_run: MakeRun, fire_on: FireOn) -> None:
    shown = read(play(new_run(), fire_on(callback()), every=2))
    assert steps(shown.Scalars("train/loss")) == [3, 6, 9, 12]
    assert [(e.step, e.value) for e in shown.Scalars("val/accuracy")] == [
        (6, pytest.approx(0.2)),
        (12, pytest.approx(0.4)),
    ]
    assert {"val/loss", "epoch/epoch", "epoch/phase", "epoch/lr", "epoch/seconds"} < set(shown.Tags()["scalars"])
    assert not any("trainable" in name for name in shown.Tags()["scalars"])


def test_counts_the_images_of_the_short_last_step(new_run: MakeRun) -> None:
    run = new_run({"train": {"batch_size": 4, "accumulate": 2}})
    assert [tensorboard.count_images(run, step) for step in range(1, 7)] == [8, 8, 4, 8, 8, 4]


def test_shows_augmented_images_at_the_start_of_each_phase(new_run: MakeRun, fire_on: FireOn) -> None:
    shown = read(play(with_pictures(new_run()), fire_on(callback(images=5))))
    assert steps(shown.Images("images/augmented")) == [1, 7]
    picture = Image.open(io.BytesIO(shown.Images("images/augmented")[0].encoded_image_string))
    picture.load()
    assert picture.size == (3 * 200 + 8, 2 * 200 + 8)


def test_shows_predictions_and_confusion_at_each_evaluation(new_run: MakeRun, fire_on: FireOn) -> None:
    shown = read(play(with_pictures(new_run()), fire_on(callback()), every=2))
    assert steps(shown.Images("images/predictions")) == [6, 12]
    assert steps(shown.Images("confusion")) == [6, 12]
    for name in ("images/predictions", "confusion"):
        event = shown.Images(name)[0]
        picture = Image.open(io.BytesIO(event.encoded_image_string))
        picture.load()
        assert picture.size == (event.width, event.height)


def test_shows_no_photos_when_told_so(new_run: MakeRun, fire_on: FireOn) -> None:
    shown = read(play(with_pictures(new_run()), fire_on(callback(images=0))))
    assert shown.Tags()["images"] == ["confusion"]


def test_shows_recipe_and_stages_as_text(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run(recipe_text="name: 玫瑰\nseed: 42\n```\n<script>\n")
    shown = read(play(run, fire_on(callback())))
    (recipe,) = shown.Tensors("recipe/text_summary")
    assert recipe.tensor_proto.string_val[0].decode() == "    name: 玫瑰\n    seed: 42\n    ```\n    <script>"
    first, second = shown.Tensors("stages/text_summary")
    assert (first.step, second.step) == (1, 7)
    text = second.tensor_proto.string_val[0].decode()
    assert text == "phase 2, from epoch 3 on\n\n* training: layer2, head\n* frozen: stem, layer1"


def test_shows_hyperparameters_with_the_metrics_of_the_best_epoch(new_run: MakeRun, fire_on: FireOn) -> None:
    run, fire = new_run({"optimizer": {"use": "sgd", "lr": 0.5}}), fire_on(callback())
    fire("finetune_run_start", run=run)
    epochs(run, fire, range(1, 5))
    run.best = Best(epoch=2, value=0.2)
    run.result = {"run": "x", "test_accuracy": 0.75}
    fire("finetune_run_end", run=run)
    shown = read(run)
    assert shown.Scalars("final/val_accuracy")[0].value == pytest.approx(0.2)
    assert shown.Scalars("final/test_accuracy")[0].value == pytest.approx(0.75)
    start = hyperparameters(shown)
    assert start["optimizer.lr"].number_value == 0.5
    assert start["optimizer.use"].string_value == "sgd"
    assert start["evaluate.restore_best"].bool_value is True
    assert '"albumentations"' in start["augment"].string_value
    assert not {"name", "output"} & set(start)


def hyperparameters(shown: Any) -> dict[str, Any]:
    """Return what the comparison of runs would show as the recipe's values."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = shown.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    return dict(plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams)


def test_a_run_that_failed_has_no_final_metrics(new_run: MakeRun, fire_on: FireOn) -> None:
    run, fire = new_run(), fire_on(callback())
    fire("finetune_run_start", run=run)
    epochs(run, fire, [1, 2])
    fire("finetune_run_error", run=run, error=KeyboardInterrupt())
    fire("finetune_run_end", run=run)
    names = read(run).Tags()["scalars"]
    assert "val/accuracy" in names
    assert not any(name.startswith("final/") for name in names)


def test_a_resumed_run_has_no_step_twice(new_run: MakeRun, fire_on: FireOn) -> None:
    killed, fire = with_pictures(new_run()), fire_on(callback())
    fire("finetune_run_start", run=killed)
    epochs(killed, fire, [1, 2, 3])
    wait_for(lambda: logged(killed, "train/loss") == [3, 6, 9])

    resumed = with_pictures(new_run(resumed=True, step=6, epoch=3, history=killed.history[:2]))
    shown = read(play(resumed, fire_on(callback()), [3, 4]))
    assert steps(shown.Scalars("step/loss")) == list(range(1, 13))
    assert steps(shown.Scalars("train/loss")) == [3, 6, 9, 12]
    assert steps(shown.Images("confusion")) == [3, 6, 9, 12]
    assert steps(shown.Images("images/augmented")) == [1, 7]
    assert len(list((resumed.folder / "tensorboard").iterdir())) == 2


def test_a_resumed_run_has_no_text_twice(new_run: MakeRun, fire_on: FireOn) -> None:
    first = play(new_run(), fire_on(callback()), [1, 2, 3])
    again = new_run(resumed=True, step=6, epoch=3, history=first.history[:2])
    play(again, fire_on(callback()), [3, 4])
    # The older reader takes back curves and images only; this one is what TensorBoard's server uses.
    readers = pytest.importorskip("tensorboard.backend.event_processing.plugin_event_accumulator")
    shown = readers.EventAccumulator(str(again.folder / "tensorboard")).Reload()
    assert steps(shown.Tensors("stages/text_summary")) == [1, 7]
    assert steps(shown.Tensors("recipe/text_summary")) == [0]
    assert steps(shown.Tensors("train/loss")) == [3, 6, 9, 12]


def test_a_run_resumed_within_a_phase_shows_its_start_once(new_run: MakeRun, fire_on: FireOn) -> None:
    first = play(with_pictures(new_run()), fire_on(callback()), [1, 2, 3])
    again = with_pictures(new_run(resumed=True, step=9, epoch=4, history=first.history))
    shown = read(play(again, fire_on(callback()), [4]))
    assert steps(shown.Images("images/augmented")) == [1, 7]


def test_two_writers_in_one_second_do_not_meet(new_run: MakeRun, fire_on: FireOn) -> None:
    run = new_run()
    for _ in range(5):
        play(run, fire_on(callback()), [])
    assert len(list((run.folder / "tensorboard").iterdir())) == 5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_shown_as_such(new_run: MakeRun, fire_on: FireOn, value: float) -> None:
    run, fire = new_run(), fire_on(callback())
    fire("finetune_run_start", run=run)
    fire("finetune_step_end", run=run, step=1, loss=value)
    fire("finetune_run_end", run=run)
    assert read(run).Scalars("step/loss")[0].value == pytest.approx(value, nan_ok=True)
    assert said(run) == []


def test_no_epoch_at_all_is_fine(new_run: MakeRun, fire_on: FireOn) -> None:
    run, fire = new_run(), fire_on(callback())
    fire("finetune_run_end", run=run)
    assert said(run) == []
    assert not run.folder.exists()


def test_odd_class_names_are_drawn(new_run: MakeRun, fire_on: FireOn) -> None:
    names = ("玫瑰", "new\nline", "caf\udce9" + "x" * 5000, "", "\u202eabc", "a\x00b")
    run = new_run(classes=names)
    run._predictions = lambda count: [
        Predicted(pixels=pixels(0), label=name, predicted=names[0], probability=0.5) for name in names
    ]
    fire = fire_on(callback())
    fire("finetune_run_start", run=run)
    run.confusion = np.ones((6, 6), np.int64)
    fire("finetune_epoch_end", run=run, epoch=1, metrics={"val_loss": 1.0})
    fire("finetune_run_end", run=run)
    assert said(run) == []
    assert set(read(run).Tags()["images"]) == {"confusion", "images/predictions"}


# What must not stop a run


def test_a_removed_folder_gives_one_warning(new_run: MakeRun, fire_on: FireOn) -> None:
    run, fire = with_pictures(new_run()), fire_on(callback())
    fire("finetune_run_start", run=run)
    epochs(run, fire, [1])
    wait_for(lambda: logged(run, "train/loss") == [3])
    shutil.rmtree(run.folder)
    epochs(run, fire, [2])
    time.sleep(0.2)
    epochs(run, fire, [3, 4])
    fire("finetune_run_end", run=run)
    warning, end = said(run)
    assert warning.startswith("tensorboard: logging stops at step ")
    assert "training continues" in warning
    assert "was deleted" in warning
    assert end.startswith("tensorboard: logging incomplete (FileNotFoundError: ")
    assert not run.folder.exists()


def test_its_library_is_asked_for_when_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(PluginError, match=r"'tensorboard' needs tensorboardX .*; run: pip install tensorboardX"):
        callback()


def test_the_module_is_cheap_to_import() -> None:
    script = "import sys, finetune_plugins.tensorboard; print({'tensorboardX', 'PIL', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=LONGEST, check=True)
    assert done.stdout == "set()\n"


# Pictures
