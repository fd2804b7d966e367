"""What computes a network that does not train: OpenVINO on a CPU where it can serve, MindSpore elsewhere."""

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

# Images that a graph takes at once on a CPU, whatever the batch size, so that results are the same bits. Few, so that
# little is computed for nothing at a part's end: 4 are as fast as 16.
CHUNK = 4
CHUNK_ELSEWHERE = 64
CHECKED = 2  # images of the first batch that MindSpore computes too
COSINE = 0.999  # between the outputs of both, at least
# Largest difference that may be, as a share of the largest output; bfloat16 has 8 bits, and errors add up.
TOLERANCE = {"f32": 1e-3, "f16": 2e-2, "bf16": 5e-2}
ARCHITECTURES = ("x86_64", "amd64", "aarch64", "arm64")


class Backend(Protocol):
    """Maps chunks, all of one shape, to outputs, in order; ``precision`` is f32, f16 or bf16."""

    name: str
    precision: str

    def outputs(self, chunks: Iterable[Array]) -> Iterator[Array]:
        """Yield the output of each chunk."""
        ...

    def refresh(self) -> None:
        """Take the parameters that the cell has now."""
        ...

    def settle(self) -> None:
        """Expect no other parameters, and keep in memory only what computes."""
        ...

    def rest(self) -> None:
        """Take as little memory as can be until there are chunks again."""
        ...


class Engine:
    """A backend for batches of any size."""

    def __init__(self, backend: Backend, chunk: int) -> None:
        self.backend, self.chunk = backend, chunk
        self.shape: tuple[int, ...] | None = None  # of one image's output, once there was one

    @property
    def about(self) -> dict[str, Any]:
        """Return what decides on the bits of an output, besides the network."""
        return about(self.backend.name, self.backend.precision, self.chunk)

    def run(self, batches: Iterable[Array]) -> Generator[Array, None, None]:
        """Yield the outputs (N, …) of each batch (N, …), float32, in order; a few batches are asked for ahead."""
        sizes: deque[int] = deque()

        def chunks() -> Iterator[Array]:
            for batch in batches:
                if not len(batch):
                    raise ValueError("a batch without rows")
                sizes.append(len(batch))
                for start in range(0, len(batch), self.chunk):
                    yield filled(batch[start : start + self.chunk], self.chunk)

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


def filled(rows: Array, size: int) -> Array:
    """Return rows, the last one repeated until there are ``size``."""
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


class MindSpore:
    """The cell itself, in evaluation mode."""

    name, precision = "mindspore", "f32"

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def outputs(self, chunks: Iterable[Array]) -> Iterator[Array]:
        """Yield the output of each chunk."""
        from mindspore import Tensor

        for chunk in chunks:
            self.cell.set_train(False)
            with interrupts.whole():
                output = self.cell(Tensor(chunk)).asnumpy()
            yield output.astype(np.float32, copy=False)

    def refresh(self) -> None:
        """Do nothing: the cell is what runs."""

    def settle(self) -> None:
        """Do nothing: the cell is all there is."""

    def rest(self) -> None:
        """Do nothing: MindSpore keeps what it has compiled."""


def build(
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

    ``own`` is the same in the form that MindSpore computes faster, if there is one. ``cosine`` is the least that the
    outputs of both may have; a few small logits say little by it.

    Where OpenVINO is only the default, whatever keeps it from serving is said and MindSpore takes its place. Raises
    ``UsageError`` where the recipe asks for it and it cannot serve.
    """
    chunk = min(len(sample), chunk_for(device))
    own = own or cell
    plain = Engine(MindSpore(own), chunk)
    asked = section.engine == "openvino"
    if section.engine == "mindspore":
        return plain
    if reason := unavailable(device):
        if asked:
            raise UsageError(f"inference.engine=openvino, and {reason}")
        if device == "cpu":
            say(f"MindSpore computes what OpenVINO would compute faster: {reason}")
        return plain
    from finetune.network.openvino_graph import Graph

    try:
        engine = Engine(Graph(cell, filled(sample[:chunk], chunk), section.precision), chunk)
        first = sample[:CHECKED]
        found = engine(sample[:chunk])[: len(first)]
        problem = difference(reference(own, first), found, TOLERANCE[engine.backend.precision], cosine)
    except (RuntimeError, TypeError, ValueError, NotImplementedError, OSError) as error:
        problem = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')[:200]}"
    if not problem:
        return engine
    if asked:
        raise UsageError(f"inference.engine=openvino cannot serve this network: {problem}; write inference.engine=auto")
    say(f"MindSpore computes what OpenVINO would compute faster, since that cannot serve: {problem}")
    return plain


def about(name: str, precision: str, chunk: int) -> dict[str, Any]:
    """Return what decides on the bits of an engine's output."""
    return {"name": name, "version": version(name), "precision": precision, "chunk": chunk}


def expected(section: InferenceSection, device: str) -> dict[str, Any]:
    """Return what ``build`` will say of its engine, if it finds nothing wrong with that."""
    if section.engine == "mindspore" or unavailable(device):
        return about(MindSpore.name, MindSpore.precision, chunk_for(device))
    from finetune.network.openvino_graph import Graph, best_precision

    return about(Graph.name, best_precision(section.precision), chunk_for(device))


def chunk_for(device: str) -> int:
    """Return how many images a graph takes at once."""
    return CHUNK if device == "cpu" else CHUNK_ELSEWHERE


def unavailable(device: str) -> str:
    """Return why OpenVINO cannot be used here, or nothing."""
    if device != "cpu":
        return f"it runs on CPUs, not on {device}; write inference.engine=auto"
    if platform.machine().lower() not in ARCHITECTURES:
        return f"it does not run on {platform.machine()}; write inference.engine=auto"
    return broken()


@cache
def broken() -> str:
    """Return why OpenVINO cannot be imported, or nothing."""
    if find_spec("openvino") is None:
        return "it is not installed; run: pip install openvino"
    try:
        import openvino  # noqa: F401
    except (ImportError, OSError) as error:
        return f"it cannot be imported ({error}); run: pip install --force-reinstall openvino"
    return ""


@cache
def version(name: str) -> str:
    """Return the version of the library behind an engine."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed(name)
    except PackageNotFoundError:
        return "unknown"


@interrupts.whole()
def reference(cell: Cell, images: Array) -> Array:
    """Return what MindSpore makes of some images; without compiling a graph for them, where the cell allows it."""
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


def difference(expected: Array, found: Array, tolerance: float, least: float) -> str:
    """Return in what outputs differ by more than rounding explains, or nothing."""
    a, b = expected.reshape(len(expected), -1), found.reshape(len(found), -1)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-30)).min()) if a.any() else 1.0
    largest = float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-30))
    if np.isfinite(b).all() and cosine >= least and largest <= tolerance:
        return ""
    return f"its outputs differ (cosine {cosine:.4f}, largest difference {largest:.2g} of the largest)"
