"""Layouts: parameter names in published ResNeXt files."""

from __future__ import annotations

from finetune import Layout

# Entries that MindSpore's training cells save in addition to the network.
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
    # Convolutions for Ascend have no groups, so each group is a tensor of its own.
    pieces=(r"(.*)\.convs\.(\d+)\.weight", r"\1.weight"),
    writes=(
        (r"stem\.(.*)", r"backbone.\1"),
        (r"(layer\d+\..*)", r"backbone.\1"),
        (r"(head\.fc\.(?:weight|bias))", r"\1"),
    ),
    format="ckpt",
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
    writes=(
        (r"stem\.conv\.weight", "conv1.weight"),
        (rf"stem\.bn\.{NORM}", r"bn1.\1"),
        (rf"{BLOCK}down_sample\.conv\.weight", r"\1down_sample.0.weight"),
        (rf"{BLOCK}down_sample\.bn\.{NORM}", r"\1down_sample.1.\2"),
        (r"head\.fc\.(weight|bias)", r"classifier.\1"),
        (rf"({BLOCK}(?:conv|bn)[123]\..*)", r"\1"),
    ),
    format="ckpt",
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
    writes=(
        (r"stem\.conv\.weight", "conv1.weight"),
        (rf"{BLOCK}(conv[123]\.weight)", r"\1\2"),
        (rf"{BLOCK}down_sample\.conv\.weight", r"\1downsample.0.weight"),
        *((rf"stem\.bn\.{ours}", f"bn1.{theirs}") for theirs, ours in TORCH_NORM.items()),
        *((rf"{BLOCK}(bn[123])\.{ours}", rf"\1\2.{theirs}") for theirs, ours in TORCH_NORM.items()),
        *((rf"{BLOCK}down_sample\.bn\.{ours}", rf"\1downsample.1.{theirs}") for theirs, ours in TORCH_NORM.items()),
        (r"head\.fc\.(weight|bias)", r"fc.\1"),
    ),
)
LAYOUTS = (HUB, MINDCV, TORCHVISION)
