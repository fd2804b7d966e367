"""Export: writes ONNX and MindIR files with labels and preprocessing, and compares them with the network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from finetune.errors import FinetuneError, UsageError
from finetune.files import atomic, outputs
from finetune.files.outputs import API_REMEDY, CLI_REMEDY, Output
from finetune.text import escape_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from finetune.model.model import Model
    from finetune.network.network import Network

    Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A library that runs exported files; ``run`` maps a file and a batch of images to the output of the graph."""

    module: str
    run: Callable[[Path, Array], Array]

    def __str__(self) -> str:
        release = str(getattr(import_module(self.module), "__version__", ""))
        return f"{self.module} {release.partition('-')[0]}".strip()


def run_onnxruntime(file: Path, images: Array) -> Array:
    """Run an ONNX file with onnxruntime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {session.get_inputs()[0].name: images})[0]
    return result


def run_openvino(file: Path, images: Array) -> Array:
    """Run an ONNX file with OpenVINO on the CPU, in float32 even if shorter types are faster."""
    from finetune.network.openvino_graph import load_core

    hints = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    compiled = load_core().compile_model(load_core().read_model(file.read_bytes()), "CPU", hints)
    result: Array = compiled([images])[0]
    return result


def run_mindspore(file: Path, images: Array) -> Array:
    """Load a MindIR file and run it."""
    import mindspore as ms

    result: Array = ms.nn.GraphCell(ms.load(str(file)))(ms.Tensor(images)).asnumpy()
    return result


# Runtimes by format; the one that users most likely run the file with comes first.
RUNTIMES = {
    "onnx": (
        Runtime(module="onnxruntime", run=run_onnxruntime),
        Runtime(module="openvino", run=run_openvino),
    ),
    "mindir": (Runtime(module="mindspore", run=run_mindspore),),
}


def find_runtime(format: str) -> tuple[Runtime | None, str]:
    """Return the first runtime for a format that can be imported, or None and the reason."""
    reasons = []
    for runtime in RUNTIMES[format]:
        reason = find_problem(runtime.module)
        if not reason:
            return runtime, ""
        reasons.append(reason)
    return None, f"{'; '.join(reasons)}; to compare, run: pip install {RUNTIMES[format][0].module}"


def find_problem(module: str) -> str:
    """Return why a library cannot be imported, or an empty string."""
    if find_spec(module) is None:
        return f"{module} is not installed"
    try:
        import_module(module)
    except Exception as error:  # an incompatible library can fail in many ways
        return f"{module} cannot be imported ({find_first_line(error)})"
    return ""


def find_first_line(error: Exception) -> str:
    """Return the first meaningful line of an error's message; OpenVINO's messages start with source locations."""
    lines = [line.strip().removesuffix(".") for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("Exception from ")), type(error).__name__)


FORMATS = ("onnx", "mindir")
MODEL_FILES = ("model.json", "weights.safetensors", "reference.safetensors", "README.md")
RUN_FILES = (
    *("recipe.yaml", "environment.json", "data.json", "weights.json", "split.csv"),
    *("metrics.jsonl", "result.json", "log.txt", "predictions.csv", "report.html"),
)


def list_own_files(folder: Path) -> list[Path]:
    """Return the files of a model folder and of its run, which an export must not overwrite."""
    own, run = [folder / name for name in MODEL_FILES], folder.parent
    if folder.name == "model" and (run / "recipe.yaml").is_file():
        own += [*(run / name for name in RUN_FILES), *(run / "checkpoints").glob("*")]
    return own


def plan_outputs(
    path: Path, format: str, folder: Path | None, *, force: bool, remedy: str = CLI_REMEDY
) -> tuple[Output, Output]:
    """Return the two files that an export of the model in ``folder`` writes, after checking their paths.

    Raises ``UsageError`` for a name with a different ending, and for existing files unless ``force`` replaces them.
    """
    if not path.name or os.path.isdir(path):
        raise UsageError(
            f"'{escape_line(str(path))}' is a folder; give the name of a file in it that ends with .{format}"
        )
    if path.suffix != f".{format}":
        renamed = path.with_suffix(f".{format}")
        other = f", or choose the format {path.suffix[1:]}" if path.suffix[1:] in FORMATS else ""
        raise UsageError(f"{path} does not end with .{format}; name the file {renamed}{other}")
    inputs = list_own_files(folder) if folder else []
    graph = Output(path=path, command="export", force=force, inputs=inputs, remedy=remedy)
    beside = path.with_name(f"{path.name}.json")
    about = Output(path=beside, command="export", force=force, inputs=inputs, remedy=remedy)
    outputs.check_all([graph, about])
    return graph, about


def copy_model(source: Path, target: Path, *, force: bool) -> Path:
    """Copy a model folder, ``model.json`` last, and return the copy.

    Raises ``UsageError`` for a folder with different content, unless ``force`` overwrites the model's files in it.
    """
    files = sorted((path for path in source.iterdir() if path.is_file()), key=lambda path: path.name == "model.json")
    copies = [
        Output(path=target / file.name, command="save", force=force, inputs=files, remedy=API_REMEDY) for file in files
    ]
    with atomic.translate_disk_errors(target):
        others = {path.name for path in target.iterdir()} - {file.name for file in files} if target.is_dir() else set()
        if others and not force:
            raise UsageError(f"{target} is not empty; choose a new folder or pass force=True")
        outputs.check_all(copies)
        for file, copy in zip(files, copies, strict=True):
            copy.write(file.read_bytes())
    return target


TOLERANCE = 1e-4  # of probabilities; runtimes add up in different orders
REMEDY = "nothing was written; use another format, or report this to the author of the backbone"


class Exported(nn.Cell):
    """The network from images in 0..1 to probabilities, including normalisation."""

    def __init__(
        self, network: Network, mean: tuple[float, ...], std: tuple[float, ...], temperature: float = 1.0
    ) -> None:
        super().__init__(auto_prefix=False)
        self.temperature = temperature
        self.network = network
        self.mean = Tensor(np.array(mean, np.float32)[None, :, None, None])
        self.scale = Tensor(1.0 / np.array(std, np.float32)[None, :, None, None])
        self.ones = Tensor(np.ones((1, 1), np.float32))

    def construct(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) RGB in 0..1 to (N, classes) probabilities."""
        logits = self.network((images - self.mean) * self.scale, self.ones)
        return ops.softmax(logits.astype(ms.float32) / self.temperature, -1)


def export_model(model: Model, path: Path, format: Literal["onnx", "mindir"], *, force: bool = False) -> dict[str, Any]:
    """Write ``path`` and ``path`` + ``.json``; return a report of the files and the comparison.

    The graph takes (1, 3, size, size) float32 RGB in 0..1. If a runtime is installed, it runs the written file for
    comparison. Raises ``UsageError`` for existing files unless ``force`` replaces them, and ``FinetuneError`` if the
    probabilities differ from those of the network; then nothing is written.
    """
    graph, beside = plan_outputs(path, format, model.folder, force=force, remedy=API_REMEDY)
    suffix = f".{format}"
    cell = Exported(model.network, model.image.mean, model.image.std, model.temperature)
    cell.set_train(False)
    size = model.image.size
    sample = np.random.Generator(np.random.Philox(key=[0, 0])).random((1, 3, size, size), np.float32)
    expected = cell(Tensor(sample)).asnumpy()
    runtime, reason = find_runtime(format)
    with atomic.atomic_path(graph.place) as temporary:
        written = temporary.with_name(temporary.name + suffix)  # MindSpore appends the ending
        try:
            write_graph(cell, sample, temporary, format)
            difference = compare_outputs(runtime, written, sample, expected) if runtime else None
            written.replace(temporary)
        finally:
            written.unlink(missing_ok=True)
    graph.note()
    about = {key: model.about[key] for key in ("name", "classes", "image", "metrics")}
    about["image"] = {**about["image"], "color": model.image.color}  # missing from records of older versions
    report = {
        "file": str(path),
        "input": {"shape": [1, 3, size, size], "values": "RGB in 0..1; mean and std are in the graph"},
        "output": {"shape": [1, len(model.classes)], "values": "probabilities"},
        "temperature": model.temperature,
        "calibrated": model.is_calibrated,
        "largest_difference": difference,
        "compared": str(runtime) if runtime else f"no: {reason}",
    }
    beside.write(atomic.encode_json(about | report))
    return report


def write_graph(cell: nn.Cell, sample: NDArray[np.float32], path: Path, format: str) -> None:
    """Write a network; raises ``FinetuneError`` if MindSpore cannot export one of its operators to the format."""
    try:
        ms.export(cell, Tensor(sample), file_name=str(path), file_format=format.upper())
    except (RuntimeError, TypeError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise FinetuneError(f"MindSpore cannot export this network as {format}: {reason}") from error


def compare_outputs(runtime: Runtime, file: Path, sample: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest difference between the output of an exported file in a runtime and the expected output.

    Raises ``FinetuneError`` if it exceeds ``TOLERANCE``, or if the runtime cannot run the file.
    """
    try:
        found = runtime.run(file, sample)
    except Exception as error:  # each library raises its own exceptions
        raise FinetuneError(f"{runtime} cannot run the exported graph: {find_first_line(error)}; {REMEDY}") from error
    if found.shape != expected.shape:
        raise FinetuneError(
            f"the exported graph returns shape {found.shape} in {runtime}, not {expected.shape}; {REMEDY}"
        )
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:  # also true for NaN
        what = f"the exported graph, run with {runtime}, differs from the network by {difference:.2g} in probability"
        raise FinetuneError(f"{what}; {REMEDY}")
    return difference
