"""Defaults that depend on the data: how the head starts, how the run is validated, and how long it trains.

Values that a recipe leaves ``auto`` are chosen in this order: ``settle_start`` before the dataset is read,
``settle_length`` once its images are counted, and the learning rate and ``loss.class_weights`` once features are
available to measure them. Each choice is reported with its reason and written into the run's recipe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finetune.data import audit
from finetune.errors import UsageError
from finetune.fitting.fit import ONE_FOLD
from finetune.recipe.models import LinearHead

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from finetune.data.loading import Data
    from finetune.recipe.models import Recipe
    from finetune.recipe.plan import Plan
    from finetune.training.phases import Phase

    Say = Callable[[str], None]

HORIZON = 1000  # epochs to ask the freezing policy for while their number is not chosen
FOLDS = 5
VIEWS = ((300, 4), (2_000, 2), (10_000, 1))  # the most images, and the augmented views to fit the head to
HEAD_STEPS, TAIL_STEPS = 1000, 400  # optimizer steps that are enough for the head alone, and for more than the head
HEAD_EPOCHS, TAIL_EPOCHS = (10, 200), (6, 60)  # fewest and most
MOST_STEPS, LEAST_EPOCHS = 3000, 2  # limits if more than the head trains on many images, whose epochs take long
STEPS_PER_EPOCH = 16  # the least number of steps when the batch size is chosen
BATCH_SIZES = (8, 64)  # smallest and largest automatic batch size
RATES = {"adamw": 1e-3, "sgd": 1e-2}  # used unless the rate is measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why the head does not start fitted; ``final`` if a recipe that asks for it is an error."""

    reason: str
    final: bool


def trains_head_only(planned: Sequence[Phase]) -> bool:
    """Return whether every phase trains only the head."""
    return all(phase.trainable == ("head",) for phase in planned)


def find_obstacle(plan: Plan, planned: Sequence[Phase]) -> Obstacle | None:
    """Return what prevents a fitted start of the head; None if nothing does."""
    recipe = plan.recipe
    if not isinstance(recipe.head, LinearHead):
        return Obstacle(reason=f"head.use={recipe.head.use} has a hidden layer", final=True)
    if recipe.head.keep_pretrained:
        return Obstacle(reason="head.keep_pretrained keeps the classifier of the weights", final=True)
    if recipe.cache.features == "off":
        return Obstacle(reason="cache.features=off caches no features to fit the head to", final=True)
    if trains_head_only(planned) and (recipe.train.mixup or recipe.train.cutmix):
        return Obstacle(reason="train.mixup and train.cutmix change the images in every epoch", final=False)
    if recipe.backbone.weights == "none":
        return Obstacle(reason="backbone.weights=none has no pretrained features", final=False)
    return None


def settle_start(plan: Plan, planned: Sequence[Phase], say: Say, *, resumed: bool = False) -> Plan:
    """Choose how the head starts and, if that decides it, whether the run is validated by folds.

    A ``resumed`` run keeps its folds and so its images, even if it is extended by epochs of training. Raises
    ``UsageError`` for a fitted start or for folds that the rest of the recipe makes impossible.
    """
    recipe, obstacle = plan.recipe, find_obstacle(plan, planned)
    if isinstance(recipe.head, LinearHead) and recipe.head.start == "auto":
        start = "random" if obstacle else "fitted"
        why = obstacle.reason if obstacle else "the backbone is pretrained and its features are cached"
        if recipe.backbone.weights != "none":
            say(f"head.start=auto chose {start}: {why}")
        plan = replace_values(plan, "head", start=start)
    elif isinstance(recipe.head, LinearHead) and recipe.head.start == "fitted" and obstacle and obstacle.final:
        raise UsageError(f"head.start=fitted is not possible: {obstacle.reason}; set head.start=random")
    if is_fitted(plan.recipe) and trains_head_only(planned):
        plan = suit_head(plan)
    if plan.recipe.freeze.batch_norm == "auto":
        frozen = is_fitted(plan.recipe) and not trains_head_only(planned) and not recipe.train.sync_batch_norm
        plan = replace_values(plan, "freeze", batch_norm="frozen" if frozen else "train")
        if frozen:
            say("freeze.batch_norm=auto chose frozen: the head is fitted to features with the pretrained statistics")
    return plan if resumed and is_folded(plan.recipe) else _settle_folds(plan, planned, say)


def is_folded(recipe: Recipe) -> bool:
    """Return whether a recipe sets the number of folds."""
    return recipe.validate.folds not in ("auto", "off")


def suit_head(plan: Plan) -> Plan:
    """Return a plan whose augmentations use the defaults for a fitted head where the recipe does not set them."""
    chosen = tuple(
        each if each.component.for_head is None else replace(each, options=each.component.for_head(each.options))
        for each in plan.augment
    )
    pairs = zip(plan.recipe.augment, chosen, strict=True)
    sections = tuple(
        type(section).model_validate({"use": section.use, **each.options.model_dump(mode="json", by_alias=True)})
        for section, each in pairs
    )
    return replace(plan, augment=chosen, recipe=plan.recipe.model_copy(update={"augment": sections}))


def _settle_folds(plan: Plan, planned: Sequence[Phase], say: Say) -> Plan:
    """Return a plan whose ``validate.folds`` stays ``auto`` only if it depends on nothing but the number of images."""
    recipe, folds = plan.recipe, plan.recipe.validate.folds
    fits_only = is_fitted(recipe) and trains_head_only(planned) and recipe.train.epochs in ("auto", 0)
    if folds == "off" or fits_only:
        return plan
    why = _explain_no_folds(recipe, planned)
    if folds == "auto":
        if recipe.backbone.weights != "none":
            say(f"validate.folds=auto chose off: {why}")
        return replace_values(plan, "validate", folds="off")
    what = "folds need a fitted head and no other training"
    raise UsageError(f"validate.folds={folds}: {what}, but {why}; set validate.folds=off")


def _explain_no_folds(recipe: Recipe, planned: Sequence[Phase]) -> str:
    """Return why a run cannot be validated by folds."""
    if not is_fitted(recipe):
        return "this head starts at random"
    more = next((phase.trainable[0] for phase in planned if phase.trainable != ("head",)), None)
    return f"this recipe trains {more}" if more else f"this recipe trains for {recipe.train.epochs} epochs"


def is_fitted(recipe: Recipe) -> bool:
    """Return whether the head starts fitted, once ``settle_start`` has chosen that."""
    return isinstance(recipe.head, LinearHead) and recipe.head.start == "fitted"


def choose_folds(recipe: Recipe, images: int) -> int:
    """Return the number of folds for this number of training images; 0 to hold some back instead.

    With ``auto``, folds are preferred unless the recipe sets ``dataset.split``, since every image is used for training.
    """
    folds = recipe.validate.folds
    if folds == "auto":
        folds = FOLDS if recipe.dataset.split == "auto" else "off"
    return 0 if folds == "off" else max(2, min(folds, images))


def settle_length(plan: Plan, planned: Sequence[Phase], data: Data, processes: int, say: Say) -> Plan:
    """Choose the number of epochs, the batch size and the metric, given the images."""
    plan = settle_judge(plan, data, say)
    recipe = plan.recipe
    if isinstance(recipe.head, LinearHead) and recipe.head.views == "auto":
        count = choose_views(len(data.train)) if is_fitted(recipe) and plan.augment else 0
        plan = replace_values(plan, "head", views=count)
        if count:
            say(f"head.views=auto chose {count}: augmented views help a head most when there are few images")
    if recipe.train.batch_size == "auto":  # memory may limit it further, once the network is built
        plan = replace_values(plan, "train", batch_size=choose_batch_size(len(data.train), processes))
    if recipe.train.epochs == "auto":
        epochs, why = choose_epochs(plan.recipe, planned, len(data.train))
        say(f"train.epochs=auto chose {epochs}: {why}")
        plan = replace_values(plan, "train", epochs=epochs)
        _check_warmup(recipe, epochs)
    if plan.recipe.train.epochs == 0:
        if not is_fitted(plan.recipe):
            raise UsageError("train.epochs=0 trains nothing, because the head starts at random; set it to 1 or more")
        _report_unused(plan.recipe, say)
    rate = None if measures_rate(plan.recipe, planned) else RATES[recipe.optimizer.use]
    return replace_values(plan, "optimizer", lr=rate) if recipe.optimizer.lr == "auto" and rate else plan


def _report_unused(recipe: Recipe, say: Say) -> None:
    """Report the keys that have no effect because no training follows the fitted head."""
    usual = {"epochs", "batch_size", "use"}
    changes = [
        f"{name}.{key}"
        for name in ("optimizer", "schedule", "train")
        for key, value in getattr(recipe, name)
        if key not in usual and value != type(getattr(recipe, name)).model_fields[key].default
    ]
    if recipe.optimizer.lr == RATES[recipe.optimizer.use]:  # chosen by an earlier run
        changes.remove("optimizer.lr")
    if getattr(recipe.head, "dropout", 0.0):
        changes.append("head.dropout")
    if changes:
        why = "no effect, because nothing trains after the head is fitted"
        say(f"{', '.join(changes)}: {why}; set train.epochs, or remove them")


def _check_warmup(recipe: Recipe, epochs: int) -> None:
    """Raise ``UsageError`` for a warm-up that is longer than the automatic number of epochs."""
    warmup = recipe.schedule.warmup_epochs
    if 0 < epochs < warmup:
        text = f"schedule.warmup_epochs: {warmup:g} is more than train.epochs, for which auto chose {epochs}"
        raise UsageError(f"{text}; lower it, or set train.epochs")


def settle_judge(plan: Plan, data: Data, say: Say) -> Plan:
    """Choose the metric, and set the folds as the data was split."""
    recipe = plan.recipe
    folds = data.report["split"].get("folds", 0)
    _report_folds(recipe, folds, say)
    plan = replace_values(plan, "validate", folds=folds or "off")
    if recipe.validate.folds == "auto" and folds:
        which = "each image" if len(data.train) <= ONE_FOLD else "each image of the first fold"
        say(f"validate.folds=auto chose {folds}: {which} is scored by a head that was fitted without its fold")
    ratio = data.report["imbalance"]  # of all training images, before some were held back
    unbalanced = ratio > audit.IMBALANCED
    if recipe.evaluate.metric == "auto":
        plan = replace_values(plan, "evaluate", metric="macro_f1" if unbalanced else "loss")
        if unbalanced:
            many = f"the most common class has {ratio:.3g} times as many images as the rarest"
            say(f"evaluate.metric=auto chose macro_f1: {many}")
    if recipe.loss.class_weights == "measured" and not (unbalanced and is_fitted(recipe)):
        plan = replace_values(plan, "loss", class_weights="none")
    return plan


def _report_folds(recipe: Recipe, folds: int, say: Say) -> None:
    """Report if the run's validation differs from what the recipe asks for; 0 ``folds`` means held-back images."""
    asked, split = recipe.validate.folds, recipe.dataset.split
    if isinstance(asked, int) and not folds:
        say(f"validate.folds={asked} has no effect: the dataset has a validation split")
    elif isinstance(asked, int) and asked != folds:
        say(f"validate.folds={asked} was reduced to {folds}, the number of images")
    elif asked == "auto" and not folds:
        why = "the dataset has a validation split" if split == "auto" else f"dataset.split={split:g} holds images back"
        say(f"validate.folds=auto chose off: {why}")
    if folds and split != "auto":
        say(f"dataset.split={split:g} has no effect: the run is validated by folds")


def choose_views(images: int) -> int:
    """Return the number of augmented views to fit the head to: the fewer images, the more views help."""
    return next((views for most, views in VIEWS if images <= most), 0)


def choose_batch_size(images: int, processes: int) -> int:
    """Return a batch size, a power of two for each process, with about ``STEPS_PER_EPOCH`` steps per epoch."""
    smallest, largest = BATCH_SIZES
    share = min(largest, max(smallest, images // STEPS_PER_EPOCH)) // processes
    return processes * (1 << (max(1, share).bit_length() - 1))


def choose_epochs(recipe: Recipe, planned: Sequence[Phase], images: int) -> tuple[int, str]:
    """Return the number of epochs with enough optimizer steps for this number of images, and the reason."""
    steps = math.ceil(images / (recipe.train.batch * recipe.train.accumulate))
    head_only = trains_head_only(planned)
    if head_only and is_fitted(recipe):
        return 0, "only the head trains, and it is fitted to its optimum"
    wanted, (fewest, most) = (HEAD_STEPS, HEAD_EPOCHS) if head_only else (TAIL_STEPS, TAIL_EPOCHS)
    count = min(max(math.ceil(wanted / steps), fewest), most)
    if not head_only:
        count = max(min(count, math.ceil(MOST_STEPS / steps)), LEAST_EPOCHS)
    most_stages = max(len(phase.trainable) for phase in planned)
    before = next(phase.first for phase in planned if len(phase.trainable) == most_stages) - 1
    total = before + count
    text = f"{count * steps:,} optimizer steps of {recipe.train.batch * recipe.train.accumulate} images"
    return total, f"{text} are enough" + (f" once all stages train, after {before} epochs" if before else "")


def measures_rate(recipe: Recipe, planned: Sequence[Phase]) -> bool:
    """Return whether a range test measures the learning rate: if a fitted head or pretrained stages train."""
    pretrained = recipe.backbone.weights != "none" and not trains_head_only(planned)
    return recipe.optimizer.lr == "auto" and recipe.train.epochs != 0 and (pretrained or is_fitted(recipe))


def replace_values(plan: Plan, section: str, **values: Any) -> Plan:
    """Return a plan with new values in a section of its recipe."""
    own = getattr(plan.recipe, section).model_copy(update=values)
    return replace(plan, recipe=plan.recipe.model_copy(update={section: own}))
