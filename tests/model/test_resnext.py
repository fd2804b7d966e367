"""The ResNeXt networks: size, names, numbers in both modes, training, and ONNX."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import ValidationError

import finetune_model
from finetune.model.exporting import find_runtime

if TYPE_CHECKING:
    from pathlib import Path

BACKBONES = {backbone.name: backbone for backbone in finetune_model.finetune_backbones()}
NANO, RESNEXT50 = BACKBONES["resnext_nano"], BACKBONES["resnext50"]


def arrays(cell: Any) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy() for p in cell.get_parameters()}


def test_the_plugin_imports_neither_mindspore_nor_numpy() -> None:
    code = "import finetune_model, sys; list(finetune_model.finetune_backbones());"
    code += "print([m for m in ('mindspore', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_unknown_options_and_paddings_are_refused() -> None:
    with pytest.raises(ValidationError, match="stem_pool"):
        NANO.options(stem_pool="valid")
    with pytest.raises(ValidationError, match="width"):
        NANO.options(width=2)


def test_resnext50_is_the_published_network(chain: Any, images: Any) -> None:
    network = chain(RESNEXT50)
    head = 1000 * (RESNEXT50.features + 1)
    assert sum(p.size for p in network.trainable_params()) + head == 25_028_904  # table 1: 25.0 million
    shapes = {name: array.shape for name, array in arrays(network).items()}
    assert len(shapes) == 265  # 53 convolutions, and four vectors of each BatchNorm
    assert shapes["stem.conv.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.conv2.weight"] == (128, 4, 3, 3)  # 32 groups of width 4
    assert shapes["layer3.5.conv3.weight"] == (1024, 512, 1, 1)
    assert shapes["layer4.0.down_sample.conv.weight"] == (2048, 1024, 1, 1)
    assert network.stages[2][0].conv2.stride == (2, 2)
    assert network.stages[2][0].conv1.stride == (1, 1)
    assert network(images(1, 64)).shape == (1, 2048, 2, 2)


def test_nano_has_under_a_million_parameters_and_the_names_of_the_large_one(chain: Any) -> None:
    network = chain(NANO)
    assert sum(p.size for p in network.trainable_params()) < 1_000_000
    assert {p.name.replace("layer3.1", "layer3.0") for p in network.get_parameters()} <= set(arrays(chain(RESNEXT50)))


def test_stages_come_in_order_with_halved_sides(images: Any) -> None:
    stages = NANO.build(NANO.options())
    assert tuple(stages) == NANO.stages == ("stem", "layer1", "layer2", "layer3", "layer4")
    maps, shapes = images(2, 64), []
    for stage in stages.values():
        maps = stage.set_train(False)(maps)
        shapes.append(maps.shape)
    assert shapes == [(2, 32, 16, 16), (2, 64, 16, 16), (2, 128, 8, 8), (2, 256, 4, 4), (2, NANO.features, 2, 2)]


def test_parameter_names_of_a_stage_do_not_repeat_the_stage() -> None:
    names = {p.name for p in NANO.build(NANO.options())["layer1"].get_parameters()}
    assert {"0.conv1.weight", "0.bn1.gamma", "0.bn3.moving_variance", "0.down_sample.bn.beta"} <= names


def test_the_seed_alone_decides_the_weights(chain: Any) -> None:
    first, again, other = arrays(chain(NANO, 7)), arrays(chain(NANO, 7)), arrays(chain(NANO, 8))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["stem.conv.weight"], other["stem.conv.weight"])


def test_convolutions_start_he_normal(chain: Any) -> None:
    weight = arrays(chain(NANO))["layer4.0.conv3.weight"]
    assert abs(weight.mean()) < 1e-3
    assert weight.std() == pytest.approx(np.sqrt(2 / 256), rel=0.02)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("side", [16, 17])
def test_stem_pools_equal_their_definition(padding: str, side: int) -> None:
    from mindspore import Tensor

    from finetune_model.resnext import POOLS

    maps = np.random.default_rng(0).random((1, 2, side, side), np.float32)
    total = max((-(-side // 2) - 1) * 2 + 3 - side, 0)
    before, after = (1, 1) if padding == "symmetric" else (total // 2, total - total // 2)
    padded = np.pad(maps, ((0, 0), (0, 0), (before, after), (before, after)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    assert np.array_equal(POOLS[padding]()(Tensor(maps)).asnumpy(), windows.max((4, 5)))


def test_the_paddings_differ_and_auto_is_symmetric(chain: Any, images: Any) -> None:
    batch = images(1, 64)
    same, symmetric, auto = (chain(NANO, stem_pool=p)(batch).asnumpy() for p in ("same", "symmetric", "auto"))
    assert np.array_equal(auto, symmetric)
    assert not np.allclose(same, symmetric)


def test_graph_and_pynative_agree(chain: Any, images: Any) -> None:
    from finetune.machine import device
    from finetune.machine.kind import Settings

    network, batch = chain(NANO), images(2, 64)
    graph = network(batch).asnumpy()
    device.set_up(device="cpu", settings=Settings(mode="pynative"))
    np.testing.assert_allclose(chain(NANO)(batch).asnumpy(), graph, rtol=1e-4, atol=1e-5)


def test_a_random_start_learns(chain: Any, images: Any) -> None:
    import mindspore as ms
    from mindspore import Tensor, nn

    network = nn.SequentialCell(chain(NANO), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dense(NANO.features, 2))
    batch, labels = images(8, 32), Tensor(np.arange(8) % 2, ms.int32)
    optimizer = nn.Momentum(network.trainable_params(), 0.05, 0.9)
    step = nn.TrainOneStepCell(nn.WithLossCell(network, nn.CrossEntropyLoss()), optimizer).set_train()
    losses = [float(step(batch, labels).asnumpy()) for _ in range(8)]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_onnx_export_gives_the_same_numbers(chain: Any, images: Any, tmp_path: Path, padding: str) -> None:
    import mindspore as ms

    network, batch = chain(NANO, stem_pool=padding), images(2, 65)
    ms.export(network, batch, file_name=str(tmp_path / "nano"), file_format="ONNX")
    assert (tmp_path / "nano.onnx").stat().st_size > 2_000_000
    runtime, reason = find_runtime("onnx")
    assert runtime, reason
    found = runtime.run(tmp_path / "nano.onnx", batch.asnumpy())
    np.testing.assert_allclose(found, network(batch).asnumpy(), rtol=1e-3, atol=1e-4)
