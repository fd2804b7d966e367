"""Export to ONNX and MindIR, with labels and preprocessing beside the file, compared with the network itself."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from finetune.errors import FinetuneError, UsageError
from finetune.files import atomic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.model.model import Model
    from finetune.model.network import Network

COMPARED = "yes, with the network itself"
TOLERANCE = 1e-4  # of probabilities; other runtimes add up in another order


class Exported(nn.Cell):
    """The network from images in 0..1 to probabilities, normalisation included."""

    def __init__(self, network: Network, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.mean = Tensor(np.array(mean, np.float32)[None, :, None, None])
        self.scale = Tensor(1.0 / np.array(std, np.float32)[None, :, None, None])
        self.ones = Tensor(np.ones((1, 1), np.float32))

    def construct(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) RGB in 0..1 to (N, classes) probabilities."""
        logits = self.network((images - self.mean) * self.scale, self.ones)
        return ops.softmax(logits.astype(ms.float32), -1)


def export(model: Model, path: Path, format: Literal["onnx", "mindir"]) -> dict[str, Any]:
    """Write ``path`` and ``path`` + ``.json``; return the largest difference of probabilities that was found.

    The graph takes (1, 3, size, size) float32 RGB in 0..1. Raises ``FinetuneError`` if the exported graph answers
    differently, and removes it.
    """
    suffix = f".{format}"
    if path.suffix != suffix:
        raise UsageError(f"{path} does not end with {suffix}; name the file {path.with_suffix(suffix)}")
    atomic.check_place(path)
    cell = Exported(model.network, model.image.mean, model.image.std)
    cell.set_train(False)
    size = model.image.size
    sample = np.random.Generator(np.random.Philox(key=[0, 0])).random((1, 3, size, size), np.float32)
    expected = cell(Tensor(sample)).asnumpy()
    with atomic.atomic_path(path) as temporary:
        written = temporary.with_name(temporary.name + suffix)  # MindSpore appends it
        try:
            write(cell, sample, temporary, format)
            difference = check(RUNTIMES[format](written, sample), expected)
            written.replace(temporary)
        finally:
            written.unlink(missing_ok=True)
    about = {key: model.about[key] for key in ("name", "classes", "image", "metrics")}
    about["image"] = {**about["image"], "color": model.image.color}  # records of older versions do not say it
    report = {
        "file": str(path),
        "input": {"shape": [1, 3, size, size], "values": "RGB in 0..1; mean and std are in the graph"},
        "output": {"shape": [1, len(model.classes)], "values": "probabilities"},
        "largest_difference": difference,
        "compared": COMPARED if difference is not None else "no: onnxruntime is not installed",
    }
    atomic.write_json(path.with_name(path.name + ".json"), about | report)
    return report


def write(cell: nn.Cell, sample: NDArray[np.float32], path: Path, format: str) -> None:
    """Write a network; ``FinetuneError`` where MindSpore cannot say one of its operators in that format."""
    try:
        ms.export(cell, Tensor(sample), file_name=str(path), file_format=format.upper())
    except (RuntimeError, TypeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise FinetuneError(f"MindSpore cannot export this network as {format}: {reason}") from error


def check(found: NDArray[np.float32] | None, expected: NDArray[np.float32]) -> float | None:
    """Return the largest difference; None where there is no runtime to ask."""
    if found is None:
        return None
    difference = float(np.abs(found - expected).max())
    if difference > TOLERANCE:
        raise FinetuneError(f"the exported graph differs by {difference:.2g} in probability; nothing was written")
    return difference


def run_onnx(path: Path, sample: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Run an ONNX file with onnxruntime, if that is installed."""
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: sample})[0]
    return result


def run_mindir(path: Path, sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """Load a MindIR file and run it."""
    result: NDArray[np.float32] = nn.GraphCell(ms.load(str(path)))(Tensor(sample)).asnumpy()
    return result


RUNTIMES: dict[str, Callable[[Path, NDArray[np.float32]], NDArray[np.float32] | None]] = {
    "onnx": run_onnx,
    "mindir": run_mindir,
}
