"""Inference engines for networks that do not train: OpenVINO on a CPU if possible, else MindSpore."""

from __future__ import annotations

import platform
from collections import deque
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from finetune.errors import UsageError
from finetune.machine import interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from mindspore.nn import Cell
    from numpy.typing import NDArray

    from finetune.recipe.models import InferenceSection

    Array = NDArray[np.float32]

# Images per call of a graph on a CPU, independent of the batch size, so that results are bit-identical. Few, so that
# little work is wasted at the end of a part: 4 are as fast as 16.
CHUNK = 4
CHUNK_ELSEWHERE = 64
CHECKED = 2  # images of the first batch that MindSpore computes for comparison
COSINE = 0.999  # minimum cosine similarity between the outputs of both
# Maximum difference as a share of the largest output; bfloat16 has 8 bits, and errors add up.
TOLERANCE = {"f32": 1e-3, "f16": 2e-2, "bf16": 5e-2}
ARCHITECTURES = ("x86_64", "amd64", "aarch64", "arm64")


class Backend(Protocol):
    """Computes the outputs of chunks that all have the same shape; ``precision`` is f32, f16 or bf16."""

    name: str
    precision: str

    def outputs(self, chunks: Iterable[Array]) -> Iterator[Array]:
        """Yield the output of each chunk."""
        ...

    def refresh(self) -> None:
        """Use the current parameters of the cell."""
        ...

    def settle(self) -> None:
        """Fix the parameters, and free the memory that only ``refresh`` needs."""
        ...

    def rest(self) -> None:
        """Free as much memory as possible until the next chunks arrive."""
        ...


class Engine:
    """Computes batches of any size with a backend."""

    def __init__(self, backend: Backend, chunk: int) -> None:
        self.backend, self.chunk = backend, chunk
        self.shape: tuple[int, ...] | None = None  # shape of one image's output, known after the first

    @property
    def about(self) -> dict[str, Any]:
        """Everything except the network that affects the bits of an output."""
        return describe_engine(self.backend.name, self.backend.precision, self.chunk)

    def run(self, batches: Iterable[Array]) -> Generator[Array, None, None]:
        """Yield the outputs (N, …) of each batch (N, …), float32, in order; a few batches are read ahead."""
        sizes: deque[int] = deque()

        def chunks() -> Iterator[Array]:
            for batch in batches:
                if not len(batch):
                    raise ValueError("a batch without rows")
                sizes.append(len(batch))
                for start in range(0, len(batch), self.chunk):
                    yield pad_rows(batch[start : start + self.chunk], self.chunk)

        parts: list[Array] = []
        for output in self.backend.outputs(chunks()):
            self.shape = output.shape[1:]
            parts.append(output)
            if len(parts) * self.chunk >= sizes[0]:
                size = sizes.popleft()
                yield (parts[0] if len(parts) == 1 else np.concatenate(parts))[:size]
                parts = []

    def __call__(self, batch: Array) -> Array:
        """Return the outputs of one batch."""
        return next(self.run([batch]))


def pad_rows(rows: Array, size: int) -> Array:
    """Repeat the last row until there are ``size`` rows."""
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


class MindSpore:
    """A backend that runs the cell itself, in evaluation mode."""

    name, precision = "mindspore", "f32"

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def outputs(self, chunks: Iterable[Array]) -> Iterator[Array]:
        """Yield the output of each chunk."""
        from mindspore import Tensor

        for chunk in chunks:
            self.cell.set_train(False)
            with interrupts.hold_signals():
                output = self.cell(Tensor(chunk)).asnumpy()
            yield output.astype(np.float32, copy=False)

    def refresh(self) -> None:
        """Do nothing: the cell itself runs."""

    def settle(self) -> None:
        """Do nothing: only the cell is in memory."""

    def rest(self) -> None:
        """Do nothing: MindSpore cannot free compiled graphs."""


def build_engine(
    cell: Cell,
    sample: Array,
    section: InferenceSection,
    say: Callable[[str], None],
    *,
    own: Cell | None = None,
    device: str = "cpu",
    cosine: float = COSINE,
) -> Engine:
    """Return the engine for a cell, checked against MindSpore on the first images of ``sample``.

    ``own`` is an equivalent cell in the form that MindSpore computes faster, if there is one. ``cosine`` is the minimum
    cosine similarity between the outputs of both; it means little for a few small logits.

    If OpenVINO is only the default and cannot be used, the reason is reported and MindSpore takes its place. Raises
    ``UsageError`` if the recipe asks for OpenVINO and it cannot be used.
    """
    chunk = min(len(sample), choose_chunk(device))
    own = own or cell
    plain = Engine(MindSpore(own), chunk)
    asked = section.engine == "openvino"
    if section.engine == "mindspore":
        return plain
    if reason := explain_unavailable(device):
        if asked:
            raise UsageError(f"inference.engine=openvino cannot be used: {reason}")
        if device == "cpu":
            say(f"using MindSpore instead of OpenVINO, which would be faster: {reason}")
        return plain
    from finetune.network.openvino_graph import Graph

    try:
        engine = Engine(Graph(cell, pad_rows(sample[:chunk], chunk), section.precision), chunk)
        first = sample[:CHECKED]
        found = engine(sample[:chunk])[: len(first)]
        problem = describe_difference(compute_reference(own, first), found, TOLERANCE[engine.backend.precision], cosine)
    except (RuntimeError, TypeError, ValueError, NotImplementedError, OSError) as error:
        problem = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')[:200]}"
    if not problem:
        return engine
    if asked:
        what = "inference.engine=openvino cannot be used for this network"
        raise UsageError(f"{what}: {problem}; set inference.engine=auto")
    say(f"using MindSpore instead of OpenVINO, which does not support this network: {problem}")
    return plain


def describe_engine(name: str, precision: str, chunk: int) -> dict[str, Any]:
    """Return everything about an engine that affects the bits of its output."""
    return {"name": name, "version": read_version(name), "precision": precision, "chunk": chunk}


def describe_expected(section: InferenceSection, device: str) -> dict[str, Any]:
    """Return the ``about`` of the engine that ``build_engine`` will return if its checks pass."""
    if section.engine == "mindspore" or explain_unavailable(device):
        return describe_engine(MindSpore.name, MindSpore.precision, choose_chunk(device))
    from finetune.network.openvino_graph import Graph, choose_precision

    return describe_engine(Graph.name, choose_precision(section.precision), choose_chunk(device))


def choose_chunk(device: str) -> int:
    """Return the number of images per call of a graph."""
    return CHUNK if device == "cpu" else CHUNK_ELSEWHERE


def explain_unavailable(device: str) -> str:
    """Return why OpenVINO cannot be used here, or an empty string."""
    if device != "cpu":
        return f"it runs on CPUs, not on {device}; set inference.engine=auto"
    if platform.machine().lower() not in ARCHITECTURES:
        return f"it does not run on {platform.machine()}; set inference.engine=auto"
    return explain_broken()


@cache
def explain_broken() -> str:
    """Return why OpenVINO cannot be imported, or an empty string."""
    if find_spec("openvino") is None:
        return "it is not installed; run: pip install openvino"
    try:
        import openvino  # noqa: F401
    except (ImportError, OSError) as error:
        return f"it cannot be imported ({error}); run: pip install --force-reinstall openvino"
    return ""


@cache
def read_version(name: str) -> str:
    """Return the version of the library behind an engine."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed(name)
    except PackageNotFoundError:
        return "unknown"


@interrupts.hold_signals()
def compute_reference(cell: Cell, images: Array) -> Array:
    """Compute images with MindSpore, without compiling a graph if the cell allows that."""
    import mindspore as ms

    cell.set_train(False)
    before = ms.get_context("mode")
    try:
        ms.set_context(mode=ms.PYNATIVE_MODE)
        output: Array = cell(ms.Tensor(images)).asnumpy()
    except (RuntimeError, TypeError, ValueError):
        ms.set_context(mode=before)
        output = cell(ms.Tensor(images)).asnumpy()
    finally:
        ms.set_context(mode=before)
    return output.astype(np.float32, copy=False)


def describe_difference(expected: Array, found: Array, tolerance: float, least: float) -> str:
    """Return how outputs differ if rounding cannot explain it, else an empty string."""
    a, b = expected.reshape(len(expected), -1), found.reshape(len(found), -1)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-30)).min()) if a.any() else 1.0
    largest = float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-30))
    if np.isfinite(b).all() and cosine >= least and largest <= tolerance:
        return ""
    return f"its outputs differ (cosine {cosine:.4f}, largest difference {largest:.2g} of the largest)"
