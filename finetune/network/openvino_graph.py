"""OpenVINO graph: runs a cell with OpenVINO, converted by way of ONNX."""

from __future__ import annotations

import tempfile
from collections import deque
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from mindspore import Tensor, nn

from finetune.machine import interrupts
from finetune.machine.environment import count_usable_cores
from finetune.machine.memory import release_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mindspore.nn import Cell
    from numpy.typing import NDArray

    Array = NDArray[np.float32]


class ExportedCell(nn.Cell):
    """A wrapper for a cell; the graphs that MindSpore compiles for the export are freed with it."""

    def __init__(self, cell: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.cell = cell
        self.set_train(False)

    def construct(self, x: Tensor) -> Tensor:
        return self.cell(x)


REQUESTS = 4  # per chunk that is computed concurrently, so that no thread waits while a shard is written


class Graph:
    """A compiled graph that processes several requests concurrently.

    ONNX keeps the names of parameters, so new values can replace old ones without another export, which takes as long
    as hundreds of images.
    """

    name = "openvino"

    def __init__(self, cell: Cell, sample: Array, precision: Literal["auto", "fp32"]) -> None:
        self.cell, self.sample = cell, sample
        self.precision = choose_precision(precision)
        self.packed: bytes | None = None
        self.idle: list[Any] = []
        self._read()
        self._compile()

    @interrupts.hold_signals()
    def _read(self) -> None:
        import mindspore as ms

        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "graph.onnx"
            ms.export(ExportedCell(self.cell), ms.Tensor(self.sample), file_name=str(path), file_format="ONNX")
            self.model: Any = load_core().read_model(path)
        constants = {o.get_friendly_name(): o for o in self.model.get_ops() if o.get_type_name() == "Constant"}
        self.constants: dict[str, Any] = {p.name: constants.get(p.name) for p in self.cell.get_parameters()}

    def _compile(self) -> None:
        self.rest()  # free the previous graph first
        self._use(load_core().compile_model(self.model, "CPU", self.hints))

    @property
    def hints(self) -> dict[str, Any]:
        """OpenVINO's configuration."""
        return {
            "INFERENCE_PRECISION_HINT": self.precision,
            # One chunk per thread. All threads on one chunk would be equally fast on an idle machine, but half as fast
            # while images are decoded, since each layer would wait for the slowest thread.
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_NUM_THREADS": count_usable_cores(),
        }

    def _use(self, compiled: Any) -> None:
        at_once = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self.idle = [compiled.create_infer_request() for _ in range(REQUESTS * at_once)]

    def settle(self) -> None:
        """Fix the parameters: keep the compiled graph and free the model that it was compiled from."""
        self.model, self.constants = None, {}
        release_memory()

    def rest(self) -> None:
        """Free as much memory as possible until the next chunks arrive."""
        if self.model is None and self.packed is None:
            self.packed = self.idle[0].get_compiled_model().export_model().getvalue()
        self.idle = []
        release_memory()

    def _wake(self) -> None:
        if self.idle:
            return
        if self.packed is None:
            self._compile()
        else:
            self._use(load_core().import_model(self.packed, "CPU", self.hints))

    def refresh(self) -> None:
        """Use the current parameters of the cell; export it again if the graph does not have them under their names."""
        from openvino import Type, opset13

        values = {p.name: p.asnumpy() for p in self.cell.get_parameters()}
        if all(fits(self.constants.get(name), value) for name, value in values.items()):
            for name, value in values.items():
                fresh = opset13.constant(np.ascontiguousarray(value), dtype=Type.f32)
                fresh.set_friendly_name(name)
                self.constants[name].output(0).replace(fresh.output(0))
                self.constants[name] = fresh
        else:
            self._read()
        self.packed = None
        self._compile()

    def outputs(self, chunks: Iterable[Array]) -> Iterator[Array]:
        """Yield the output of each chunk."""
        self._wake()
        idle = self.idle  # requests of this graph, even if it is replaced meanwhile
        busy: deque[tuple[Any, Array]] = deque()  # requests share memory with their chunks
        try:
            for chunk in chunks:
                if not idle:
                    yield finish_request(busy, idle)
                request = idle.pop()
                chunk = np.ascontiguousarray(chunk)
                request.start_async([chunk], share_inputs=True)
                busy.append((request, chunk))
            while busy:
                yield finish_request(busy, idle)
        finally:
            for request, _ in busy:
                request.wait()
                idle.append(request)


def finish_request(busy: deque[tuple[Any, Array]], idle: list[Any]) -> Array:
    """Wait for the oldest request, return its output, and mark the request as idle."""
    request, _ = busy[0]
    request.wait()
    output: Array = request.get_output_tensor().data.astype(np.float32)
    busy.popleft()
    idle.append(request)
    return output


def fits(constant: Any, value: Array) -> bool:
    """Return whether a constant of the graph has the shape of a parameter's value, in floating point."""
    return constant is not None and tuple(constant.shape) == value.shape and constant.get_element_type().is_real()


@cache
def load_core() -> Any:
    """Return OpenVINO's core, one object that is kept until the process ends.

    Its CPU plugin gives the thread that loads it a stack for signals, and frees it in the thread that drops the last
    reference. The next signal would then crash the first thread.
    """
    import openvino

    return openvino.Core()


@cache
def choose_precision(asked: Literal["auto", "fp32"]) -> str:
    """Return the shortest floating-point type that the CPU computes with natively; f32 if ``asked`` is fp32."""
    if asked == "fp32":
        return "f32"
    known = set(load_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return "f16" if "FP16" in known else "bf16" if "BF16" in known else "f32"
