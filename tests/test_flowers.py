"""Real photos through the command line: ResNeXt-50 from a MindSpore file, unfrozen step by step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune import Backbone, plugins
from finetune.catalogue import Catalogue
from finetune.machine import device
from finetune.recipe.models import LinearHead
from tests.cli.calling import answer, call_in_process
from tests.clocks import LONGEST

CLASSES = {"1": "pink primrose", "10": "globe thistle", "16": "globe-flower"}


def finetune(*words: str) -> dict[str, Any]:
    """Run the command line in this process and return the JSON object that it ends with."""
    done = call_in_process(*words, "--json")
    assert done.returncode == 0, done.stderr
    return answer(done)


@pytest.fixture(scope="module")
def three(flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ten training, three validation and three test photos of three flowers."""
    root = tmp_path_factory.mktemp("flowers")
    for split, count in {"train": 10, "valid": 3, "test": 3}.items():
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for photo in sorted((flowers / split / name).iterdir())[:count]:
                shutil.copy(photo, root / split / name)
    shutil.copy(flowers / "cat_to_name.json", root)
    return root


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a ResNeXt-50 with 1000 classes in a .ckpt of MindSpore's own writer, in MindSpore Hub's names."""
    device.set_up(device="cpu")
    import mindspore as ms
    from mindspore import Tensor

    from finetune.network import heads
    from finetune.network.network import Network, build_stages

    backbone = Catalogue(plugins.load_plugins()).get(Backbone, "resnext50")
    ms.set_seed(3)
    network = Network(build_stages(backbone, backbone.options()), heads.build_head(LinearHead(), 2048, 1000, 3))
    named = []
    for p in network.get_parameters():
        value = p.asnumpy()
        if p.name.endswith("bn3.gamma"):
            value = value * 0.2  # untrained residual branches would add up to huge activations
        name = p.name if p.name.startswith("head.") else "backbone." + p.name.removeprefix("stem.")
        named.append({"name": name, "data": Tensor(value)})
    path = tmp_path_factory.mktemp("weights") / "resnext50.ckpt"
    ms.save_checkpoint(named, str(path))
    return path


@pytest.mark.once
def test_resnext50_unfreezes_step_by_step_and_names_flowers(
    three: Path, pretrained: Path, repo: Path, tmp_path: Path
) -> None:
    recipe = shutil.copy(repo / "recipes" / "flowers.yaml", tmp_path)
    result = finetune(
        "run",
        str(recipe),
        f"dataset.root={three}",
        f"backbone.weights={pretrained}",
        f"output={tmp_path}",
        "image={size: 64, resize: 72}",
        "augment[0].preset=none",
        "freeze.schedule={1: head, 4: layer4, 7: all}",
        "head={start: random}",
        "train={epochs: 9, batch_size: 10}",
        "schedule={use: constant}",
        "optimizer={use: adamw, lr: 1e-3, layer_decay: 0.7}",
        "callbacks=[{use: checkpoint}]",
    )
    assert result["frozen_unchanged"] is True
    run = Path(result["run"])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = np.array([line["train_loss"] for line in lines]).reshape(3, 3)
    assert (losses[:, 2] < losses[:, 0]).all(), losses
    assert [line["trainable"] for line in lines[::3]] == [
        ["head"],
        ["layer4", "head"],
        ["stem", "layer1", "layer2", "layer3", "layer4", "head"],
    ]
    weights = json.loads((run / "weights.json").read_text())
    assert weights["layout"] == "mindspore-hub"
    assert not weights["missing"] + weights["unexpected"]
    photos = [photo for name in CLASSES for photo in sorted((three / "train" / name).iterdir())]
    predictions = finetune("predict", str(run), *map(str, photos))["predictions"]
    right = [p["label"] == CLASSES[photo.parent.name] for p, photo in zip(predictions, photos, strict=True)]
    assert sum(right) >= 0.6 * len(right)  # a third would be chance


def test_flowers_without_weights_and_network_says_what_to_do(
    three: Path, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")
    command = [sys.executable, "-m", "finetune", "run", str(repo / "recipes" / "flowers.yaml"), f"dataset.root={three}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LONGEST)
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) <= 24
    for needed in ("hub-v2.5", "https://download-mindspore.osinfra.cn", "988f75bc", "backbone.weights="):
        assert needed in done.stderr.replace("\n", ""), needed
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
