"""What a recipe may say: every section with its keys, bounds and defaults."""

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
    """A section that selects a component; the component's own options stand beside ``use``."""

    model_config = ConfigDict(extra="allow")

    use: str

    @property
    def given(self) -> dict[str, Any]:
        """Return the keys that belong to the component."""
        return dict(self.model_extra or {})


class BackboneSection(Section):
    """Which network, and the weights it starts from."""

    use: str = "resnext50"
    weights: str = "auto"
    """A name that the backbone offers, a file, URL#sha256=HEX, `none` for a random start, or `auto`: its first."""


class DatasetSection(Section):
    """Which photos."""

    split: Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["auto"] = "auto"
    """Average share of each class that is held back, where the dataset has no validation split of its own; `auto` is a
    fifth where the run is not judged by folds."""
    groups: str | None = None
    """Regular expression whose part in parentheses says which photos belong together, searched in their paths:
    `patient(\\d+)`. Those of a group are on one side of a split and in one fold."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What an image that cannot be read does: end the run before training, or be left out and listed."""

    @property
    def share(self) -> float:
        """Return the share to hold back where some is."""
        return SHARE if self.split == "auto" else self.split

    @field_validator("groups")
    @classmethod
    def usable_pattern(cls, groups: str | None) -> str | None:
        """Refuse what is not a valid regular expression with one group."""
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
    """One change of the training images."""


class FreezeSection(Section):
    """Which stages train in which epoch."""

    use: str = "head"
    batch_norm: Literal["auto", "train", "frozen"] = "auto"
    """Whether BatchNorm of stages that train updates its statistics, or stays as pretrained; `auto` is `frozen` where
    a fitted head trains on, since it was fitted to features by those statistics, else `train`."""


class CallbackSection(Section):
    """One watcher of the run."""


class LinearHead(Options):
    """One fully connected layer."""

    use: Literal["linear"] = "linear"
    dropout: Fraction = 0.0
    """Share of the features that is put to zero in each step."""
    keep_pretrained: bool = False
    """Keep the classifier and the classes that came with the weights."""
    start: Literal["auto", "fitted", "random"] = "auto"
    """`fitted` starts at the optimum of a logistic regression on the features of the frozen network; `auto` does so
    where the backbone is pretrained and the features are kept."""
    views: Annotated[int, Field(ge=0, le=100)] | Literal["auto"] = "auto"
    """Augmented versions of each photo that a head is fitted to, besides the plain one; `auto` is 4 with up to 300
    photos, 2 with up to 2,000, 1 with up to 10,000, then none."""


class MlpHead(Options):
    """A hidden layer with ReLU, then a fully connected layer."""

    use: Literal["mlp"]
    hidden: PositiveInt = 512
    """Width of the hidden layer."""
    dropout: Fraction = 0.0
    """Share of the features that is put to zero in each step."""


class CrossEntropy(Options):
    """Cross-entropy between the labels and the softmax of the logits."""

    use: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Fraction = 0.0
    """Share of each label that is spread over all classes."""
    class_weights: Literal["measured", "none", "sqrt", "auto"] | dict[str, PositiveFloat] = "measured"
    """`auto` weighs each class by the inverse of its share, so that all classes count the same, `sqrt` by the square
    root of that; `measured` is `sqrt` where the classes are unbalanced, unless `none` is better out of fold."""


class Optimizer(Options):
    """What all optimizers share."""

    use: Literal["adamw", "sgd"]
    lr: PositiveFloat | Literal["auto"] = "auto"
    """Highest learning rate of the head; `auto` measures it by a range test where a fitted head or pretrained stages
    train, and is 1e-3 for AdamW and 1e-2 for SGD elsewhere."""

    @property
    def rate(self) -> float:
        """Return the learning rate, which is a number once a run has measured it."""
        assert self.lr != "auto"
        return self.lr


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    use: Literal["adamw"] = "adamw"
    weight_decay: NonNegativeFloat = 1e-4
    """Applies to weights only, never to biases and BatchNorm."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Each stage below the head learns this much slower than the one above it."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the running means of the gradients and of their squares."""
    eps: PositiveFloat = 1e-8
    """Keeps what divides each step from 0."""


class Sgd(Optimizer):
    """Stochastic gradient descent with momentum."""

    use: Literal["sgd"]
    momentum: Fraction = 0.9
    """Share of the last step that goes into the next."""
    weight_decay: NonNegativeFloat = 1e-4
    """Applies to weights only, never to biases and BatchNorm."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Each stage below the head learns this much slower than the one above it."""


class Schedule(Options):
    """What all schedules share."""

    use: Literal["cosine", "step", "constant"]
    warmup_epochs: NonNegativeFloat = 0.0
    """Epochs over which the learning rate rises from near 0."""
    phase_warmup: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Share of the steps of each phase over which its learning rate rises from near 0, where more than the head trains:
    a new phase has a new optimizer, whose first steps are rough."""


class Cosine(Schedule):
    """Half a cosine from the learning rate down to ``final`` times it."""

    use: Literal["cosine"] = "cosine"
    final: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of the learning rate that is left at the end."""


class StepDecay(Schedule):
    """Multiply by ``gamma`` after every ``every`` epochs."""

    use: Literal["step"]
    every: PositiveInt = 10
    """Epochs between two drops."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Share of the learning rate that a drop leaves."""


class Constant(Schedule):
    """The learning rate as given."""

    use: Literal["constant"]


class ImageSection(Options):
    """How images reach the network; `auto` takes what the weights expect."""

    size: Annotated[int, Field(ge=16, le=2048)] | Literal["auto"] = "auto"
    """Side in pixels of the square that the network sees."""
    resize: Annotated[int, Field(ge=16, le=4096)] | Literal["auto"] = "auto"
    """Length of the shorter side before the centre crop of evaluation."""
    keep_aspect: bool | Literal["auto"] = "auto"
    """False stretches both sides to `resize`."""
    mean: Triple | Literal["auto"] = "auto"
    """Mean of red, green and blue, in 0..1, that is taken from each image."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | Literal["auto"] = "auto"
    """Standard deviation of red, green and blue, in 0..1, by which each image is divided."""
    background: tuple[Byte, Byte, Byte] = (255, 255, 255)
    """What shows through transparent pixels, RGB in 0..255."""
    color: Literal["convert", "ignore"] = "convert"
    """`convert` converts colours to sRGB by the profile in an image's file; `ignore` takes the values as they are."""

    @field_validator("mean", "std", mode="before")
    @classmethod
    def for_each_channel(cls, value: Any) -> Any:
        """Refuse one number for all channels, and say what to write."""
        fault = normalisation.mean_fault(value) if isinstance(value, int | float) else None
        if fault and not isinstance(value, bool):
            raise ValueError(fault)
        return tuple(value) if isinstance(value, list) else value  # of JSON; the strict model takes tuples

    @field_validator("mean")
    @classmethod
    def possible_mean(cls, mean: Triple | Literal["auto"]) -> Triple | Literal["auto"]:
        """Refuse means that are not of pixels in 0..1."""
        if mean != "auto" and (fault := normalisation.mean_fault(mean)):
            raise ValueError(fault)
        return mean

    @field_validator("std")
    @classmethod
    def possible_std(cls, std: Triple | Literal["auto"]) -> Triple | Literal["auto"]:
        """Refuse deviations that are not of pixels in 0..1."""
        if std != "auto" and (fault := normalisation.std_fault(std)):
            raise ValueError(fault)
        return std


class TrainSection(Options):
    """How long and in which portions."""

    epochs: Annotated[int, Field(ge=0, le=MOST_EPOCHS)] | Literal["auto"] = "auto"
    """How often each photo is trained on; `auto` makes enough steps however few photos there are, and none where only
    the head trains and is fitted. 0 keeps the fitted head."""
    batch_size: Annotated[int, Field(gt=0, le=100_000)] | Literal["auto"] = "auto"
    """Photos in a step, on all devices together; `auto` chooses by the number of photos and the memory."""
    accumulate: Annotated[int, Field(gt=0, le=100_000)] = 1
    """Batches whose gradients are averaged into one optimizer step."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of all gradients together; longer ones are scaled down."""
    mixup: NonNegativeFloat = 0.0
    """Alpha of the beta distribution that blends pairs of images (Zhang et al. 2018); 0 is off."""
    cutmix: NonNegativeFloat = 0.0
    """Alpha of the beta distribution that pastes rectangles of one image into another (Yun et al. 2019); 0 is off."""
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay of the moving average of the weights that is evaluated and kept."""
    sync_batch_norm: bool = False
    """Whether BatchNorm normalises over the images of all devices, or each over its own."""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """What a loss or a weight that is no finite number does: end the run, or take it back to its newest checkpoint and
    halve the learning rate, three times at most."""

    @property
    def batch(self) -> int:
        """Return the batch size, which is a number once a run is prepared."""
        assert self.batch_size != "auto"
        return self.batch_size

    @property
    def length(self) -> int:
        """Return the number of epochs, which is a number once a run is prepared."""
        assert self.epochs != "auto"
        return self.epochs


class TrunkSection(Options):
    """What computes the frozen part of the network, and all of it where nothing trains."""

    engine: Literal["auto", "mindspore", "openvino"] = "auto"
    """`auto` is OpenVINO on x86 and Arm CPUs, checked against MindSpore, and MindSpore elsewhere."""
    precision: Literal["auto", "fp32"] = "auto"
    """`auto` lets OpenVINO compute in bfloat16 or float16 where the CPU has it; MindSpore computes in fp32."""


class CacheSection(Options):
    """Whether the output of the frozen part is kept, so that it is computed once and not in every epoch."""

    features: Literal["auto", "off"] = "auto"
    """`auto` keeps it where it fits; `off` computes it again in every epoch, from fresh augmentation."""
    views: Annotated[int, Field(ge=1, le=1000)] = 4
    """Augmented versions of each training image that are kept; the epochs take them in turn."""
    max_gb: PositiveFloat = 20.0
    """What all that is kept may take on disk, of all runs; the longest unused makes room."""


class ValidateSection(Options):
    """What the run is judged on where the dataset has no validation split of its own."""

    folds: Annotated[int, Field(ge=2, le=100)] | Literal["auto", "off"] = "auto"
    """Estimate the accuracy out of so many folds of all training photos, for which the head must be fitted and nothing
    else train; `off` holds back `dataset.split` of the photos. `auto` is 5 folds where that is possible and the recipe
    does not say `dataset.split`."""


class EvaluateSection(Options):
    """How the run is judged."""

    metric: Literal["auto", "accuracy", "top5", "macro_f1", "loss"] = "auto"
    """What the best epoch is chosen by, on the validation photos; `auto` is the loss, and `macro_f1` where the rarest
    class has less than a fifth of the photos of the commonest."""
    every: PositiveInt = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    restore_best: bool = True
    """Keep the weights of the best epoch in the model folder, not those of the last."""


with warnings.catch_warnings():
    # The section `validate` hides a method of pydantic's that is deprecated and not used here.
    warnings.filterwarnings("ignore", 'Field name "validate"', UserWarning)

    class Recipe(Options):
        """A complete recipe."""

        name: Annotated[str, Field(pattern=r"^[\w.-]{1,80}$")] = "run"
        """What the run folder is called, with a number; the name of the file if left out."""
        seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
        """Decides all that is random: split, order, augmentation, noise, and the weights of a new head."""
        backbone: BackboneSection = BackboneSection()
        head: Annotated[LinearHead | MlpHead, Field(discriminator="use")] = LinearHead()
        """What turns the features into a logit for each class."""
        dataset: DatasetSection
        image: ImageSection = ImageSection()
        augment: tuple[AugmentSection, ...] = (AugmentSection.model_validate({"use": "albumentations"}),)
        """Changes of the training images, one after the other; `[]` for none."""
        freeze: FreezeSection = FreezeSection()
        loss: CrossEntropy = CrossEntropy()
        optimizer: Annotated[AdamW | Sgd, Field(discriminator="use")] = AdamW()
        """How gradients change the weights."""
        schedule: Annotated[Cosine | StepDecay | Constant, Field(discriminator="use")] = Cosine()
        """How the learning rate goes from epoch to epoch."""
        train: TrainSection = TrainSection()
        trunk: TrunkSection = TrunkSection()
        cache: CacheSection = CacheSection()
        validate: ValidateSection = ValidateSection()  # type: ignore[assignment]
        evaluate: EvaluateSection = EvaluateSection()
        callbacks: tuple[CallbackSection, ...] = (
            CallbackSection(use="tensorboard"),
            CallbackSection(use="checkpoint"),
        )
        """Watchers of the run, in their order; `[]` for none."""
        runner: Annotated[Runner, Field(discriminator="device")] = AutoRunner()
        """What computes, and on how many devices."""
        output: Path = Path("runs")
        """Folder in which run folders are made."""
