"""Runtimes for exported files: onnxruntime or OpenVINO for ONNX, MindSpore's own loader for MindIR."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A library that runs exported files; ``run`` maps a file and a batch of images to the output of its graph."""

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
    """Run an ONNX file with OpenVINO on the CPU, in float32 even where shorter numbers are faster."""
    from finetune.network.openvino_graph import core

    hints = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    compiled = core().compile_model(core().read_model(file.read_bytes()), "CPU", hints)
    result: Array = compiled([images])[0]
    return result


def run_mindspore(file: Path, images: Array) -> Array:
    """Load a MindIR file and run it."""
    import mindspore as ms

    result: Array = ms.nn.GraphCell(ms.load(str(file)))(ms.Tensor(images)).asnumpy()
    return result


# By format, the one that users most likely run the file with first.
RUNTIMES = {
    "onnx": (
        Runtime(module="onnxruntime", run=run_onnxruntime),
        Runtime(module="openvino", run=run_openvino),
    ),
    "mindir": (Runtime(module="mindspore", run=run_mindspore),),
}


def find_runtime(format: str) -> tuple[Runtime | None, str]:
    """Return the first runtime for a format that can be imported, or None and why there is none."""
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
    except Exception as error:  # a library that does not fit others fails in many ways
        return f"{module} cannot be imported ({first_line(error)})"
    return ""


def first_line(error: Exception) -> str:
    """Return the first line of a message that says what is wrong; OpenVINO's begins with lines of its source."""
    lines = [line.strip().removesuffix(".") for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("Exception from ")), type(error).__name__)
