"""Published ResNeXt weights: where they are, how their files name the parameters, what images they expect."""

from __future__ import annotations

from finetune import Layout, Weights

# What MindSpore's training cells save beside the network.
TRAINING_STATE = (
    r"(?:.*\.)?(?:moments|accum|moment1|moment2|moving_avg)\..*",
    r"(?:.*\.)?(?:learning_rate|momentum|weight_decay|global_step|beta1_power|beta2_power)",
    r"(?:.*\.)?(?:epoch_num|step_num|loss_scale|scale_sense|current_iterator_step|last_overflow_iterator_step)",
)
BLOCK = r"(layer\d+\.\d+\.)"
NETWORK = r"(?:network\.)?"
NORM = r"(gamma|beta|moving_mean|moving_variance)"
TORCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}

HUB = Layout(
    name="mindspore-hub",
    rules=(
        (rf"{NETWORK}backbone\.((?:layer\d+\.\d+\.)(?:conv[123]|bn[123]|down_sample\.(?:conv|bn))\.\w+)", r"\1"),
        (rf"{NETWORK}backbone\.((?:conv|bn)\.\w+)", r"stem.\1"),
        (rf"{NETWORK}head\.fc\.(weight|bias)", r"head.fc.\1"),
    ),
    ignore=TRAINING_STATE,
    options={"stem_pool": "same"},
)
MINDCV = Layout(
    name="mindcv",
    rules=(
        (r"conv1\.weight", "stem.conv.weight"),
        (rf"bn1\.{NORM}", r"stem.bn.\1"),
        (rf"{BLOCK}(conv[123]\.weight)", r"\1\2"),
        (rf"{BLOCK}(bn[123])\.{NORM}", r"\1\2.\3"),
        (rf"{BLOCK}down_sample\.0\.weight", r"\1down_sample.conv.weight"),
        (rf"{BLOCK}down_sample\.1\.{NORM}", r"\1down_sample.bn.\2"),
        (r"classifier\.(weight|bias)", r"head.fc.\1"),
    ),
    ignore=TRAINING_STATE,
    options={"stem_pool": "same"},
)
TORCHVISION = Layout(
    name="torchvision",
    rules=(
        (r"conv1\.weight", "stem.conv.weight"),
        (rf"{BLOCK}(conv[123]\.weight)", r"\1\2"),
        (rf"{BLOCK}downsample\.0\.weight", r"\1down_sample.conv.weight"),
        *((rf"bn1\.{theirs}", f"stem.bn.{ours}") for theirs, ours in TORCH_NORM.items()),
        *((rf"{BLOCK}(bn[123])\.{theirs}", rf"\1\2.{ours}") for theirs, ours in TORCH_NORM.items()),
        *((rf"{BLOCK}downsample\.1\.{theirs}", rf"\1down_sample.bn.{ours}") for theirs, ours in TORCH_NORM.items()),
        (r"fc\.(weight|bias)", r"head.fc.\1"),
    ),
    ignore=(r".*\.num_batches_tracked",),
    options={"stem_pool": "symmetric"},
)
LAYOUTS = (HUB, MINDCV, TORCHVISION)


def hub(url: str, sha256: str, size: int) -> Weights:
    """Return the record of a MindSpore Hub file; its evaluation stretches images to 256x256 before the crop."""
    return Weights(
        url=f"https://download.mindspore.cn/model_zoo/{url}",
        sha256=sha256,
        layout=HUB.name,
        size=size,
        resize=256,
        keep_aspect=False,
        source="MindSpore Hub resnext50, trained on ImageNet-1k",
        options=HUB.options,
    )


RESNEXT50_WEIGHTS = {
    # Top-1 78.16 %, top-5 93.88 % on ImageNet, by its card.
    "hub-v1.1": hub(
        "r1.1/resnext50_ascend_v111_imagenet2012_offical_cv_bs128_acc78/"
        "resnext50_ascend_v111_imagenet2012_offical_cv_bs128_acc78.ckpt",
        "581d3e7a97d408d4f690ef5f362e5435d853348f1f0f18c351931ab77e8f3e45",
        224,
    ),
    # Top-1 78 % on ImageNet with images of 227x227, by its card.
    "hub-v1.2": hub(
        "r1.2/resnext50_ascend_v120_imagenet2012_official_cv_bs128_acc78/"
        "resnext50_ascend_v120_imagenet2012_official_cv_bs128_acc78.ckpt",
        "b2f0b3b4d0c94dad8cc7be45b7c9b17ce824e5f2f7ed2d7f7befceb130bc1c24",
        227,
    ),
}
