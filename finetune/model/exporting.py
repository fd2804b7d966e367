"""Export to ONNX and MindIR, with labels and preprocessing beside the file, compared with the network itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from finetune.errors import FinetuneError
from finetune.files import atomic
from finetune.files.outputs import API_REMEDY
from finetune.model.places import export_outputs
from finetune.model.runtimes import find_runtime, first_line

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.model.model import Model
    from finetune.model.runtimes import Runtime
    from finetune.network.network import Network

TOLERANCE = 1e-4  # of probabilities; other runtimes add up in another order
REMEDY = "nothing was written; use another format, or report this to the author of the backbone"


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


def export(model: Model, path: Path, format: Literal["onnx", "mindir"], *, force: bool = False) -> dict[str, Any]:
    """Write ``path`` and ``path`` + ``.json``; return what was written, and what it was compared with.

    The graph takes (1, 3, size, size) float32 RGB in 0..1. A runtime that is installed runs the written file.
    Raises ``UsageError`` for files that exist unless ``force`` replaces them, and ``FinetuneError`` if the
    probabilities differ from those of the network; then nothing is written.
    """
    graph, beside = export_outputs(path, format, model.folder, force=force, remedy=API_REMEDY)
    suffix = f".{format}"
    cell = Exported(model.network, model.image.mean, model.image.std)
    cell.set_train(False)
    size = model.image.size
    sample = np.random.Generator(np.random.Philox(key=[0, 0])).random((1, 3, size, size), np.float32)
    expected = cell(Tensor(sample)).asnumpy()
    runtime, reason = find_runtime(format)
    with atomic.atomic_path(graph.place) as temporary:
        written = temporary.with_name(temporary.name + suffix)  # MindSpore appends it
        try:
            write(cell, sample, temporary, format)
            difference = compare(runtime, written, sample, expected) if runtime else None
            written.replace(temporary)
        finally:
            written.unlink(missing_ok=True)
    graph.note()
    about = {key: model.about[key] for key in ("name", "classes", "image", "metrics")}
    about["image"] = {**about["image"], "color": model.image.color}  # records of older versions do not say it
    report = {
        "file": str(path),
        "input": {"shape": [1, 3, size, size], "values": "RGB in 0..1; mean and std are in the graph"},
        "output": {"shape": [1, len(model.classes)], "values": "probabilities"},
        "largest_difference": difference,
        "compared": str(runtime) if runtime else f"no: {reason}",
    }
    beside.write(atomic.json_bytes(about | report))
    return report


def write(cell: nn.Cell, sample: NDArray[np.float32], path: Path, format: str) -> None:
    """Write a network; ``FinetuneError`` where MindSpore cannot say one of its operators in that format."""
    try:
        ms.export(cell, Tensor(sample), file_name=str(path), file_format=format.upper())
    except (RuntimeError, TypeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise FinetuneError(f"MindSpore cannot export this network as {format}: {reason}") from error


def compare(runtime: Runtime, file: Path, sample: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference between what a runtime makes of an exported file and what was expected.

    Raises ``FinetuneError`` if that is more than ``TOLERANCE``, or if the runtime cannot run the file.
    """
    try:
        found = runtime.run(file, sample)
    except Exception as error:  # each library raises its own kinds
        raise FinetuneError(f"{runtime} cannot run the exported graph: {first_line(error)}; {REMEDY}") from error
    if found.shape != expected.shape:
        raise FinetuneError(
            f"{runtime} gets shape {found.shape} from the exported graph, not {expected.shape}; {REMEDY}"
        )
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:  # NaN does not agree
        what = f"the exported graph, run with {runtime}, differs from the network by {difference:.2g} in probability"
        raise FinetuneError(f"{what}; {REMEDY}")
    return difference
