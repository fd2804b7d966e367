"""End of a run: tests the best weights, and writes the model folder and the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.errors import FinetuneError
from finetune.features import identity
from finetune.fitting.scores import compute_wilson
from finetune.machine import environment
from finetune.model import modelfolder
from finetune.model.metrics import choose_best, is_better
from finetune.model.predictions import write_predictions
from finetune.network.network import assign_values
from finetune.training import records, saving
from finetune.training.certainty import measure_certainty
from finetune.training.reporting import write_page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from finetune.model.evaluation import Evaluation
    from finetune.run import Run
    from finetune.training.training_run import Check, TrainingRun


LINES = 4  # the fewest epochs to tell whether the loss still falls
FALLING = 0.05  # the loss still falls if the last quarter of the epochs lowered it by this share
LEAST = 0.01  # and by at least this much, since a loss near 0 is not worth more epochs


def find_warnings(training: TrainingRun) -> Iterator[str]:
    """Yield the warnings of a finished run, each with a remedy."""
    run, data = training.run, training.data
    line = find_kept_line(run.history, run.best.epoch if run.best else run.epoch)
    judged = data.train if data.valid is None else data.valid
    yield from warn_of_guessing(line, np.bincount(judged.labels, minlength=len(data.classes)), data.classes)
    yield from warn_below_fitted(
        run.history, training.recipe.evaluate.metric, restored=training.recipe.evaluate.restore_best
    )
    if training.data.valid is None and run.epoch > 0:
        text = "no images were held back, so the epochs were not compared and the last one is kept"
        yield f"{text}; evaluate it on different images with finetune eval"
    if run.stop_reason is None:
        yield from warn_of_unsettled(run.history)


def find_kept_line(history: Sequence[Mapping[str, Any]], epoch: int) -> Mapping[str, Any]:
    """Return the line of the epoch whose weights are kept, or the last line if it has none."""
    return next((line for line in history if line["epoch"] == epoch), history[-1])


def warn_of_guessing(line: Mapping[str, Any], counts: NDArray[np.int64], classes: Sequence[str]) -> Iterator[str]:
    """Warn if accuracy and macro-F1 are not better than those of always predicting the most common class.

    ``counts`` are the validation images of each class. A network that recognises rare classes may have a lower accuracy
    than that and still be better than guessing.
    """
    accuracy, macro_f1 = line.get("val_accuracy"), line.get("val_macro_f1", 0.0)
    share, name = float(counts.max() / counts.sum()), classes[int(counts.argmax())]
    guessed_f1 = 2 * share / (1 + share) / np.count_nonzero(counts)
    if accuracy is not None and accuracy <= share and macro_f1 <= guessed_f1:
        text = f"the accuracy of {accuracy:.3f} is not better than always predicting '{name}' ({share:.3f})"
        yield f"{text}; check the labels, add more images, or train more stages"


def warn_below_fitted(history: Sequence[Mapping[str, Any]], metric: str, *, restored: bool) -> Iterator[str]:
    """Warn if no epoch is better than the fitted head; ``restored`` tells that the best epoch's weights are kept."""
    key = f"val_{metric}"
    first = history[0]
    trained = [line[key] for line in history[1:] if key in line]
    if first["epoch"] != 0 or key not in first or not trained or (metric != "loss" and first[key] >= 1.0):
        return
    if restored:
        reached, kept = trained[choose_best(metric, trained)], "the fitted head is kept"
    else:
        reached, kept = trained[-1], "the last epoch is kept, since evaluate.restore_best=false"
    if not is_better(metric, reached, first[key]):
        text = f"training did not improve on the fitted head: {key} {reached:.4f}, and {first[key]:.4f} before"
        yield f"{text}; {kept}; lower optimizer.lr, train fewer stages, or set train.epochs=0"


def warn_of_unsettled(history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Warn if the loss, that of the validation images if there are any, still fell clearly when training ended."""
    trained = [line for line in history if line["epoch"]]
    judged = [line["val_loss"] for line in trained if "val_loss" in line]
    losses = [line["train_loss"] for line in trained]
    shown = judged if len(judged) >= LINES else losses
    if not is_falling(losses) or not is_falling(shown) or shown[-1] > min(shown):
        return
    before, now = shown[-1 - len(shown) // 4], shown[-1]
    text = f"training ended before the loss had settled: it fell from {before:.3g} to {now:.3g} in the last epochs"
    yield f"{text}; raise train.epochs or optimizer.lr"


def is_falling(losses: Sequence[float]) -> bool:
    """Return whether the mean of the last quarter is clearly below that of the quarter before it."""
    if len(losses) < LINES:
        return False
    quarter = len(losses) // 4
    before, now = float(np.mean(losses[-2 * quarter : -quarter])), float(np.mean(losses[-quarter:]))
    return before - now > max(LEAST, FALLING * before)


def finish(training: TrainingRun, check: Check) -> None:
    """Test the best weights, and write the model folder and ``result.json``."""
    run, world, metric = training.run, training.world, training.recipe.evaluate.metric
    training.check_frozen()
    if run.stop_reason:
        run.say(f"stopped after epoch {run.epoch}: {run.stop_reason}")
    training.saver.join()
    training.tell()
    training.finishing = True
    training.phase_data.finish_training()
    training.trainer.end_sink()
    check_processes(training)
    if world.is_main:
        assign_values(training.network.get_parameters(), load_final_weights(training))
    world.broadcast_parameters(list(training.network.get_parameters()))
    certainty = measure_certainty(training, check)
    training.judge.temperature = world.broadcast(certainty.temperature)
    evaluations = evaluate_final(training, check)
    metrics = collect_metrics(training, evaluations)
    found = list(find_warnings(training))
    for warning in found:
        run.say(f"warning: {warning}")
    run.result = {
        "run": str(run.folder),
        "epochs": run.history[-1]["epoch"],
        "planned_epochs": training.epochs,
        "best": describe_best(run, metric),
        **{name: value for name, value in metrics.items() if name.startswith("test_")},
        "validation": describe_validation(training),
        "calibration": certainty.calibration,
        **({"fitted": training.fitted} if training.fitted else {}),
        "warnings": found,
        "frozen_unchanged": True,
        "frozen_arrays_compared": training.compared,
        "stopped_early": run.stop_reason,
        "features": training.phase_data.cache.counts.report(),
        "seconds": round(training.seconds, 3),
        "peak_rss_mb": environment.read_peak_memory_mb(),
        "devices": world.size,
        **({"sections": run.sections} if run.sections else {}),
    }
    if world.is_main:
        records.write_history(run)
        parts = {name: (getattr(training.data, name), each) for name, each in evaluations.items()}
        write_predictions(run.folder, parts, run.classes)
        about = describe_model(training, metrics) | {"calibration": certainty.calibration}
        modelfolder.write_folder(run.folder / "model", about, training.network, certainty.reference)
        records.write_result(run)
        write_page(training, about)


def describe_model(training: TrainingRun, metrics: dict[str, float]) -> dict[str, Any]:
    """Return the ``model.json`` of a run's model: its network and origin."""
    prepared, plan = training.prepared, training.prepared.plan
    backbone, recipe = plan.backbone.component, records.extract_mathematics(plan)
    return {
        "name": plan.recipe.name,
        "backbone": {"use": backbone.name, "options": prepared.backbone_options.model_dump(mode="json")},
        "head": plan.recipe.head.model_dump(mode="json"),
        "stages": list(training.network.names),
        "features": backbone.features,
        "classes": list(training.run.classes),
        "image": modelfolder.record_image(prepared.image),
        "metrics": metrics,
        "dataset": recipe["dataset"],
        "weights": prepared.weights,
        "recipe": recipe,
    }


def describe_best(run: Run, metric: str) -> dict[str, Any] | None:
    """Return the best epoch with its deciding value and its accuracy, as JSON."""
    if run.best is None:
        return None
    line = next((line for line in run.history if line["epoch"] == run.best.epoch), {})
    accuracy = {name: line[name] for name in ("val_accuracy",) if name in line}
    return {"epoch": run.best.epoch, f"val_{metric}": run.best.value, **accuracy}


def describe_validation(training: TrainingRun) -> dict[str, Any]:
    """Return the method of validation, the number of images, and the accuracy with its 95 % interval, as JSON."""
    split = training.data.report["split"]
    about = {key: split[key] for key in ("method", "folds") if key in split}
    if training.data.valid is None:
        report = (training.fitted or {}) if training.run.epoch == 0 else {}  # it describes the head before training
        keys = ("images", "accuracy", "accuracy_low", "accuracy_high")
        return about | {key: report[key] for key in keys if key in report}
    best = training.run.best
    line = find_kept_line(training.run.history, best.epoch if best else training.run.epoch)
    count = len(training.data.valid)
    about = about | {"images": count}
    if "val_accuracy" not in line:
        return about
    low, high = compute_wilson(round(line["val_accuracy"] * count), count)
    return about | {"accuracy": line["val_accuracy"], "accuracy_low": low, "accuracy_high": high}


def check_processes(training: TrainingRun) -> None:
    """Check that the weights of all processes are equal."""
    weights = ((p.name, p.asnumpy()) for p in training.network.get_parameters())
    if len({*training.world.gather(identity.hash_arrays(weights))}) > 1:
        raise FinetuneError("the weights of the processes differ; please report this bug")


def load_final_weights(training: TrainingRun) -> dict[str, NDArray[np.float32]]:
    """Return the weights of the best epoch, if the recipe wants them and they were saved, else of the last epoch."""
    run = training.run
    best = run.folder / "checkpoints" / saving.BEST
    if not training.recipe.evaluate.restore_best or run.best is None or run.best.epoch == run.epoch:
        return training.trainer.read_weights()
    if not best.exists():
        run.say("the model folder contains the last epoch's weights: no checkpoint of the best epoch was saved")
        return training.trainer.read_weights()
    saved = saving.load_checkpoint(best)
    if saved.state["epoch"] != run.best.epoch:
        run.say(f"the model folder contains the last epoch's weights: {best} is not from the best epoch")
        return training.trainer.read_weights()
    return saved.select("network") | saved.select("average")


def evaluate_final(training: TrainingRun, check: Check) -> dict[str, Evaluation]:
    """Evaluate the final network on validation and test images."""
    parts = [part for part in ("valid", "test") if getattr(training.data, part) is not None]
    return {part: training.judge.evaluate(part, check, training.phase_data, others=True) for part in parts}


def collect_metrics(training: TrainingRun, found: Mapping[str, Evaluation]) -> dict[str, float]:
    """Return the metrics of validation and test images, with prefixes ``val_`` and ``test_``."""
    metrics: dict[str, float] = {}
    if training.data.valid is None and training.run.epoch == 0:
        metrics = {name: value for name, value in training.run.history[-1].items() if name.startswith("val_")}
    for part, evaluation in found.items():
        metrics |= {f"{'val' if part == 'valid' else part}_{k}": v for k, v in evaluation.metrics.items()}
    return metrics
