"""The recipe's data model: every section with its keys, bounds and defaults."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from finetune import normalisation
from finetune.components import Options
from finetune.recipe.runners import AutoRunner, Runner

MOST_EPOCHS = 100_000
SHARE = 0.2  # of the images, held back for validation
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Byte = Annotated[int, Field(ge=0, le=255)]
Triple = tuple[float, float, float]


class Section(Options):
    """A section that selects a component; the component's own options are next to ``use``."""

    model_config = ConfigDict(extra="allow")

    use: str

    @property
    def given(self) -> dict[str, Any]:
        """Return the keys that belong to the component."""
        return dict(self.model_extra or {})


class BackboneSection(Section):
    """The network, and the weights that it starts from."""

    use: str = "resnext50"
    weights: str = "auto"
    """A name that the backbone offers, a file, URL#sha256=HEX, `none` for a random start, or `auto` for the first
    weights that the backbone offers."""


class DatasetSection(Section):
    """The images to train and evaluate on."""

    split: Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["auto"] = "auto"
    """Average share of each class that is held back if the dataset has no validation split; `auto` is a fifth, or
    nothing if the accuracy is estimated out of folds."""
    groups: str | None = None
    """Regular expression that is searched in the path of each image; its part in parentheses names the group, as in
    `patient(\\d+)`. The images of a group are on one side of a split and in one fold."""
    on_bad_image: Literal["error", "skip"] = "error"
    """If an image cannot be read, `error` ends the run before training; `skip` leaves the image out and lists it."""
    corrections: Path | None = None
    """File that excludes images or changes their labels, with the columns `path`, `action` and `label`, as
    `finetune audit photos/` writes it. The images themselves stay as they are."""

    @property
    def share(self) -> float:
        """The share to hold back, if images are held back."""
        return SHARE if self.split == "auto" else self.split

    @field_validator("groups")
    @classmethod
    def usable_pattern(cls, groups: str | None) -> str | None:
        """Reject anything but a valid regular expression with one group."""
        if groups is None:
            return None
        try:
            count = re.compile(groups).groups
        except re.error as error:
            raise ValueError(f"'{groups}' is not a valid regular expression ({error})") from error
        if count != 1:
            remedy = r"put what the photos share into one, such as 'patient(\d+)'"
            raise ValueError(f"'{groups}' has {count} parts in parentheses; {remedy}")
        return groups


class AugmentSection(Section):
    """One augmentation of the training images."""


class FreezeSection(Section):
    """Which stages train in each epoch."""

    use: str = "head"
    batch_norm: Literal["auto", "train", "frozen"] = "auto"
    """`train` updates the BatchNorm statistics of stages that train; `frozen` keeps the pretrained ones. `auto` is
    `frozen` if training continues from a fitted head, which depends on these statistics, and otherwise `train`."""


class CallbackSection(Section):
    """One callback of the run."""


class AuditSection(Section):
    """One more check of an audit."""


class LinearHead(Options):
    """One fully connected layer."""

    use: Literal["linear"] = "linear"
    dropout: Fraction = 0.0
    """Share of the features that is set to zero in each step."""
    keep_pretrained: bool = False
    """Keep the classifier and the class names of the pretrained weights."""
    start: Literal["auto", "fitted", "random"] = "auto"
    """`fitted` starts at the optimum of a logistic regression on the features of the frozen network, `random` from
    random weights; `auto` is `fitted` if the backbone is pretrained and the features are cached."""
    views: Annotated[int, Field(ge=0, le=100)] | Literal["auto"] = "auto"
    """Augmented versions of each image that the head is fitted to, in addition to the plain image; `auto` is 4 for up
    to 300 images, 2 for up to 2,000, 1 for up to 10,000, and 0 for more."""


class MlpHead(Options):
    """A hidden layer with ReLU, then a fully connected layer."""

    use: Literal["mlp"]
    hidden: PositiveInt = 512
    """Width of the hidden layer."""
    dropout: Fraction = 0.0
    """Share of the features that is set to zero in each step."""


class CrossEntropy(Options):
    """Cross-entropy between the labels and the softmax of the logits."""

    use: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Fraction = 0.0
    """Share of each label that is spread evenly over all classes."""
    class_weights: Literal["measured", "none", "sqrt", "auto"] | dict[str, PositiveFloat] = "measured"
    """`auto` weights each class by the inverse of its share, so that all classes count the same, and `sqrt` by the
    square root of that. `measured` is `sqrt` if the classes are unbalanced, unless `none` is better out of fold. A
    mapping sets the weights by class name."""


class Optimizer(Options):
    """The options of every optimizer."""

    use: Literal["adamw", "sgd"]
    lr: PositiveFloat | Literal["auto"] = "auto"
    """Peak learning rate of the head; `auto` measures it with a range test if a fitted head or pretrained stages train,
    and is otherwise 1e-3 for AdamW and 1e-2 for SGD."""

    @property
    def rate(self) -> float:
        """The learning rate, once a run has measured it."""
        assert self.lr != "auto"
        return self.lr


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    use: Literal["adamw"] = "adamw"
    weight_decay: NonNegativeFloat = 1e-4
    """Applies to weights only, not to biases or BatchNorm."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor between the learning rates of a stage and of the stage above it; 1 is the same rate for all."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay rates of the moving averages of the gradients and of their squares."""
    eps: PositiveFloat = 1e-8
    """Added to the denominator of each step, so that it is never 0."""


class Sgd(Optimizer):
    """Stochastic gradient descent with momentum."""

    use: Literal["sgd"]
    momentum: Fraction = 0.9
    """Share of the previous step that is added to the next."""
    weight_decay: NonNegativeFloat = 1e-4
    """Applies to weights only, not to biases or BatchNorm."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor between the learning rates of a stage and of the stage above it; 1 is the same rate for all."""


class Schedule(Options):
    """The options of every schedule."""

    use: Literal["cosine", "step", "constant"]
    warmup_epochs: NonNegativeFloat = 0.0
    """Epochs in which the learning rate rises from near 0."""
    phase_warmup: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Share of the steps of each phase in which its learning rate rises from near 0, if more than the head trains. A
    new phase has a new optimizer, whose first steps are unstable."""


class Cosine(Schedule):
    """Decrease from the learning rate to ``final`` times it, along half a cosine."""

    use: Literal["cosine"] = "cosine"
    final: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the learning rate that remains at the end."""


class StepDecay(Schedule):
    """Multiply the learning rate by ``gamma`` every ``every`` epochs."""

    use: Literal["step"]
    every: PositiveInt = 10
    """Epochs between two decreases."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Factor of each decrease."""


class Constant(Schedule):
    """Keep the learning rate constant."""

    use: Literal["constant"]


class ImageSection(Options):
    """Size and normalisation of the images; `auto` takes what the weights expect."""

    size: Annotated[int, Field(ge=16, le=2048)] | Literal["auto"] = "auto"
    """Side of the square image that the network gets, in pixels."""
    resize: Annotated[int, Field(ge=16, le=4096)] | Literal["auto"] = "auto"
    """Length of the shorter side before the centre crop in evaluation, in pixels."""
    keep_aspect: bool | Literal["auto"] = "auto"
    """Whether resizing keeps the proportions; false stretches both sides to `resize`."""
    mean: Triple | Literal["auto"] = "auto"
    """Mean of red, green and blue, in 0..1, that is subtracted from each image."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | Literal["auto"] = "auto"
    """Standard deviation of red, green and blue, in 0..1, by which each image is divided."""
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    """Background colour of transparent pixels, RGB in 0..255."""
    color: Literal["convert", "ignore"] = "convert"
    """`convert` converts colours to sRGB by the profile in the image file; `ignore` takes the values as they are."""

    @field_validator("mean", "std", mode="before")
    @classmethod
    def for_each_channel(cls, value: Any) -> Any:
        """Reject a single number for all channels, and show what to write."""
        fault = normalisation.find_mean_fault(value) if isinstance(value, int | float) else None
        if fault and not isinstance(value, bool):
            raise ValueError(fault)
        return tuple(value) if isinstance(value, list) else value  # of JSON; the strict model takes tuples

    @field_validator("mean")
    @classmethod
    def possible_mean(cls, mean: Triple | Literal["auto"]) -> Triple | Literal["auto"]:
        """Reject means that do not belong to pixels in 0..1."""
        if mean != "auto" and (fault := normalisation.find_mean_fault(mean)):
            raise ValueError(fault)
        return mean

    @field_validator("std")
    @classmethod
    def possible_std(cls, std: Triple | Literal["auto"]) -> Triple | Literal["auto"]:
        """Reject standard deviations that do not belong to pixels in 0..1."""
        if std != "auto" and (fault := normalisation.find_std_fault(std)):
            raise ValueError(fault)
        return std


class TrainSection(Options):
    """How long to train, and how each step is made."""

    epochs: Annotated[int, Field(ge=0, le=MOST_EPOCHS)] | Literal["auto"] = "auto"
    """How often each image is trained on; `auto` makes enough steps even for few images, and is 0 if only the head
    trains and is fitted. 0 keeps the fitted head."""
    batch_size: Annotated[int, Field(gt=0, le=100_000)] | Literal["auto"] = "auto"
    """Images in a batch, on all devices together; `auto` chooses by the number of images and the memory."""
    accumulate: Annotated[int, Field(gt=0, le=100_000)] = 1
    """Batches whose gradients are averaged into one optimizer step."""
    clip_norm: PositiveFloat | None = None
    """Maximum norm of all gradients together; larger gradients are scaled down."""
    mixup: NonNegativeFloat = 0.0
    """Mixup: alpha of the beta distribution for blending pairs of images (Zhang et al. 2018); 0 is off."""
    cutmix: NonNegativeFloat = 0.0
    """CutMix: alpha of the beta distribution for pasting rectangles of one image into another (Yun et al. 2019); 0 is
    off."""
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay of a moving average of the weights, which is then evaluated and saved instead of the weights."""
    sync_batch_norm: bool = False
    """Whether BatchNorm normalises over the images of all devices; otherwise each device normalises over its own."""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """If the loss or a weight is not a finite number, `stop` ends the run; `rollback` returns to the newest checkpoint
    with half the learning rate, at most three times."""

    @property
    def batch(self) -> int:
        """The batch size, once a run has been prepared."""
        assert self.batch_size != "auto"
        return self.batch_size

    @property
    def length(self) -> int:
        """The number of epochs, once a run has been prepared."""
        assert self.epochs != "auto"
        return self.epochs


class InferenceSection(Options):
    """What computes the frozen part of the network, and the complete network if nothing trains."""

    engine: Literal["auto", "mindspore", "openvino"] = "auto"
    """`auto` is OpenVINO on x86 and Arm CPUs, after a comparison with MindSpore, and MindSpore on other devices."""
    precision: Literal["auto", "fp32"] = "auto"
    """`auto` lets OpenVINO compute in bfloat16 or float16 if the CPU supports it; MindSpore computes in fp32."""


class CacheSection(Options):
    """Cache of the frozen part's output, so that it is computed once and not in every epoch."""

    features: Literal["auto", "off"] = "auto"
    """`auto` caches the features if they fit; `off` computes them again in every epoch, with new augmentation."""
    views: Annotated[int, Field(ge=1, le=1000)] = 4
    """Augmented versions of each training image in the cache; the epochs use them in turn."""
    max_gb: PositiveFloat = 20.0
    """Maximum size of the cache of all runs on disk, in GB; the least recently used features are removed first."""


class ValidateSection(Options):
    """How the accuracy is estimated if the dataset has no validation split."""

    folds: Annotated[int, Field(ge=2, le=100)] | Literal["auto", "off"] = "auto"
    """Number of folds of all training images, out of which the accuracy is estimated; this requires that the head is
    fitted and nothing else trains. `off` holds back `dataset.split` of the images. `auto` is 5 folds if that is
    possible and the recipe does not set `dataset.split`."""


class EvaluateSection(Options):
    """How and when the run is evaluated."""

    metric: Literal["auto", "accuracy", "top5", "macro_f1", "loss"] = "auto"
    """Metric on the validation images that chooses the best epoch; `auto` is the loss, or `macro_f1` if the rarest
    class has less than a fifth of the images of the commonest."""
    every: PositiveInt = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    restore_best: bool = True
    """Save the weights of the best epoch in the model folder, not those of the last."""


with warnings.catch_warnings():
    # The section `validate` hides a method of pydantic's that is deprecated and not used here.
    warnings.filterwarnings("ignore", 'Field name "validate"', UserWarning)

    class Recipe(Options):
        """A complete recipe."""

        name: Annotated[str, Field(pattern=r"^[\w.-]{1,80}$")] = "run"
        """Name of the run folder, to which a number is added; by default the name of the file."""
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
        """Seed of everything random: split, order, augmentation, noise, and the weights of a new head."""
        backbone: BackboneSection = BackboneSection()
        head: Annotated[LinearHead | MlpHead, Field(discriminator="use")] = LinearHead()
        """The part of the network that turns features into a logit for each class."""
        dataset: DatasetSection
        image: ImageSection = ImageSection()
        augment: tuple[AugmentSection, ...] = (AugmentSection.model_validate({"use": "albumentations"}),)
        """Augmentations of the training images, applied in this order; `[]` for none."""
        freeze: FreezeSection = FreezeSection()
        loss: CrossEntropy = CrossEntropy()
        optimizer: Annotated[AdamW | Sgd, Field(discriminator="use")] = AdamW()
        """How gradients update the weights."""
        schedule: Annotated[Cosine | StepDecay | Constant, Field(discriminator="use")] = Cosine()
        """How the learning rate changes from epoch to epoch."""
        train: TrainSection = TrainSection()
        inference: InferenceSection = InferenceSection()
        cache: CacheSection = CacheSection()
        validate: ValidateSection = ValidateSection()  # type: ignore[assignment]
        evaluate: EvaluateSection = EvaluateSection()
        callbacks: tuple[CallbackSection, ...] = (
            CallbackSection(use="tensorboard"),
            CallbackSection(use="checkpoint"),
        )
        """Callbacks of the run, in this order; `[]` for none."""
        audit: tuple[AuditSection, ...] = ()
        """More checks of an audit, in this order; a run does not use them."""
        runner: Annotated[Runner, Field(discriminator="device")] = AutoRunner()
        """The device to train on, and the number of devices and machines."""
        output: Path = Path("runs")
        """Folder in which run folders are created."""
