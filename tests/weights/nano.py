"""``resnext_nano`` with drawn numbers: its own arrays, a file of them, and whether they came back to the last bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import finetune_model
from finetune.weights import fetching, loading
from tests.weights.drawn_files import ascend, checkpoint, drawn

if TYPE_CHECKING:
    from pathlib import Path

    from finetune import Backbone
    from tests.weights.drawn_files import Arrays

BACKBONES = {backbone.name: backbone for backbone in finetune_model.finetune_backbones()}
NANO, RESNEXT50 = BACKBONES["resnext_nano"], BACKBONES["resnext50"]
OWN = drawn(NANO)
# Entries of the optimizer in a training checkpoint: those of layer1, one of them in 8 pieces, and the step.
STATE = sum(8 if name.endswith("conv2.weight") else 1 for name in OWN if name.startswith("layer1")) + 1
HEAD = frozenset({"head.fc.weight", "head.fc.bias"})


def hub_file(path: Path) -> Path:
    """Write a whole training checkpoint as MindSpore Hub has them, its convolutions split."""
    return checkpoint(path, ascend(OWN, 8, prefix="network.", state=True))


def load(path: Path, backbone: Backbone = NANO, own: Arrays = OWN) -> loading.Loaded:
    """Load a file with its head into a network of the shapes of ``own``."""
    expected = {name: array.shape for name, array in own.items()}
    return loading.load(fetching.Source(path=path, name="x"), backbone, expected, HEAD, True)


def entries(home: Path) -> list[Path]:
    """Return the converted files in a cache."""
    return sorted((home / "weights" / "converted").glob("[!.]*"))


def same(found: Any, expected: Any) -> bool:
    """Tell whether arrays have the same names, types, shapes and bits."""
    return found.keys() == expected.keys() and all(
        found[n].dtype == a.dtype and found[n].shape == a.shape and found[n].tobytes() == a.tobytes()
        for n, a in expected.items()
    )
