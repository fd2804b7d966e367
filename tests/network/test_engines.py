"""What computes a frozen network: OpenVINO beside MindSpore, batches of any size, new weights, and fallbacks."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from finetune.errors import UsageError
from finetune.machine import device, environment
from finetune.network import engines
from finetune.network.openvino_graph import REQUESTS
from finetune.recipe.models import InferenceSection
from tests.clocks import LONGEST
from tests.features import tiny

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed here")

MINDSPORE = InferenceSection(engine="mindspore")
EXACT = InferenceSection(engine="openvino", precision="fp32")
FASTEST = InferenceSection(engine="openvino")
CHUNK = engines.CHUNK


@pytest.fixture(scope="module", autouse=True)
def mindspore() -> None:
    device.set_up(device="cpu")


def trunk(network: Any = None, count: int = 2) -> Any:
    from finetune.network.network import Trunk

    cell = Trunk(network or tiny.network(), count)
    cell.set_train(False)
    return cell


def build(cell: Any, section: InferenceSection, images: int = CHUNK, said: list[str] | None = None) -> engines.Engine:
    messages: list[str] = []
    made = engines.build_engine(cell, tiny.images(images), section, messages.append)
    if said is None:
        assert messages == []
    else:
        said += messages
    return made


def logits(first: int) -> Any:
    from finetune.model.evaluation import Logits

    return Logits(tiny.network(), first)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_openvino_in_f32_is_mindspore(count: int) -> None:
    cell, images = trunk(count=count), tiny.images(21, seed=5)
    expected, found = build(cell, MINDSPORE)(images), build(cell, EXACT)(images)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (21, *expected.shape[1:])
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_openvino_computes_a_tail_too() -> None:
    images = tiny.images(5, seed=5)
    features = build(trunk(count=2), MINDSPORE)(images)
    plain = engines.build_engine(logits(2), features, MINDSPORE, print)(features)
    assert np.allclose(engines.build_engine(logits(2), features, EXACT, print)(features), plain, atol=1e-4)
    assert np.allclose(build(logits(0), MINDSPORE)(images), plain, atol=1e-4)


def test_the_shortest_numbers_of_the_cpu_are_near_mindspore() -> None:
    cell, images = trunk(), tiny.images(21, seed=5)
    expected, engine = build(cell, MINDSPORE)(images), build(cell, InferenceSection())
    assert engine.backend.name == "openvino"
    assert engine.backend.precision in engines.TOLERANCE
    found = engine(images)
    assert np.abs(found - expected).max() <= engines.TOLERANCE[engine.backend.precision] * np.abs(expected).max()


@pytest.mark.parametrize("section", [MINDSPORE, EXACT, FASTEST], ids=["mindspore", "f32", "shortest"])
def test_an_image_gives_the_same_bits_in_every_batch_and_place(section: InferenceSection) -> None:
    engine, images = build(trunk(), section), tiny.images(90, seed=7)
    whole = engine(images)
    for sizes in ((1, 5, 16, 17, 40, 3, 8), (90,), (45, 45), (1,) * 9, (16, 32)):
        starts = np.cumsum((0, *sizes))
        batches = [images[a:b] for a, b in pairwise(starts)]
        found = list(engine.run(batches))
        assert [len(each) for each in found] == list(sizes)
        assert np.array_equal(np.concatenate(found), whole[: sum(sizes)])
    places = np.random.default_rng(0).permutation(90)
    assert np.array_equal(engine(images[places]), whole[places])
    assert np.array_equal(engine(images[[3, 3, 4]]), whole[[3, 3, 4]])


@pytest.mark.parametrize("section", [MINDSPORE, FASTEST], ids=["mindspore", "openvino"])
def test_only_a_few_batches_are_asked_for_ahead(section: InferenceSection) -> None:
    engine, asked = build(trunk(), section), []

    def batches() -> Iterator[np.ndarray]:
        for number in range(20):
            asked.append(number)
            yield tiny.images(CHUNK, seed=number)

    ahead = REQUESTS * environment.count_usable_cores() if section is FASTEST else 1
    for number, _ in enumerate(engine.run(batches())):
        assert len(asked) <= number + 1 + ahead
    assert list(engine.run([])) == []


@pytest.mark.parametrize("section", [MINDSPORE, FASTEST], ids=["mindspore", "openvino"])
def test_an_engine_serves_others_while_one_is_in_the_middle(section: InferenceSection) -> None:
    engine, images = build(trunk(), section), tiny.images(80, seed=3)
    whole = engine(images)
    running = engine.run([images[:40], images[40:]])
    first = next(running)
    assert np.array_equal(engine(images[20:30]), whole[20:30])
    assert np.array_equal(np.concatenate([first, *running]), whole)


def test_an_engine_that_was_left_in_the_middle_goes_on() -> None:
    engine, images = build(trunk(), FASTEST), tiny.images(40, seed=3)
    whole = engine(images)
    for _ in range(3):
        running = engine.run([images[:16], images[16:32], images[32:]])
        next(running)
        running.close()
        assert np.array_equal(engine(images), whole)

    def broken() -> Iterator[np.ndarray]:
        yield images[:16]
        raise KeyError("gone")

    with pytest.raises(KeyError):
        list(engine.run(broken()))
    assert np.array_equal(engine(images), whole)


PARAMETERS = ("0.weight", "1.gamma", "1.beta", "1.moving_mean", "1.moving_variance")


@pytest.mark.parametrize("name", [f"body.{name}" for name in PARAMETERS])
def test_refresh_takes_each_kind_of_parameter(name: str, refreshed: tuple[Any, engines.Engine]) -> None:
    from mindspore import Tensor

    network, engine = refreshed
    images, plain = tiny.images(4, seed=9), engines.Engine(engines.MindSpore(trunk(network)), CHUNK)
    before = engine(images)
    (parameter,) = (p for p in network.get_parameters() if p.name == name)
    parameter.set_data(Tensor(parameter.asnumpy() * np.float32(1.5) + np.float32(0.1)))
    assert np.array_equal(engine(images), before)
    engine.backend.refresh()
    expected = plain(images)
    assert np.abs(expected - before).max() > 1e-2
    assert np.allclose(engine(images), expected, atol=1e-4)


@pytest.fixture(scope="module")
def refreshed() -> tuple[Any, engines.Engine]:
    network = tiny.network()
    return network, build(trunk(network), EXACT)


def test_refresh_of_all_parameters_at_once_and_of_a_head() -> None:
    from finetune.model.evaluation import Logits
    from finetune.network.network import assign_values, read_values

    network, other, images = tiny.network(1), tiny.network(2), tiny.images(7, seed=9)
    engine = build(Logits(network), EXACT)
    for source in (other, tiny.network(1), other):
        assign_values(network.get_parameters(), read_values(source.get_parameters()))
        engine.backend.refresh()
        assert np.allclose(engine(images), build(Logits(source), MINDSPORE)(images), atol=1e-4)


@pytest.mark.parametrize("settled", [False, True])
def test_a_graph_that_rested_gives_the_same_bits(*, settled: bool) -> None:
    engine, images = build(trunk(), FASTEST), tiny.images(9, seed=3)
    before = engine(images)
    if settled:
        engine.backend.settle()
    for _ in range(2):
        engine.backend.rest()
        assert np.array_equal(engine(images), before)
    running = engine.run([images[:4], images[4:8]])
    first = next(running)
    engine.backend.rest()
    assert np.array_equal(np.concatenate([first, *running]), before[:8])
    assert np.array_equal(engine(images), before)


def test_a_settled_graph_takes_new_parameters_all_the_same() -> None:
    from finetune.network.network import assign_values, read_values

    network, other, images = tiny.network(1), tiny.network(2), tiny.images(7, seed=9)
    engine = build(trunk(network), EXACT)
    engine.backend.settle()
    assign_values(network.get_parameters(), read_values(other.get_parameters()))
    engine.backend.refresh()
    assert np.allclose(engine(images), build(trunk(other), MINDSPORE)(images), atol=1e-4)


def unexportable() -> Any:
    from mindspore import nn

    class Odd(nn.Cell):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(3, 2, pad_mode="pad", padding=1)

        def construct(self, x: Any) -> Any:
            return self.pool(x)

    return Odd()


def test_what_openvino_cannot_take_runs_on_mindspore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MS_OM_PATH", str(tmp_path))
    cell, said = unexportable(), []
    engine = build(cell, InferenceSection(), said=said)
    assert engine.backend.name == "mindspore"
    assert len(said) == 1
    assert re.search(r"MindSpore.*OpenVINO.*does not support.*: \w+", said[0])
    assert "\n" not in said[0]
    assert engine(tiny.images(3)).shape == (3, 3, 8, 8)
    with pytest.raises(UsageError, match=r"cannot be used for this network: .*; set inference.engine=auto") as caught:
        build(cell, FASTEST)
    assert caught.value.exit_code == 2


class Noisy:
    """Spoils what a graph computes."""

    def __init__(self, spoil: Any) -> None:
        from finetune.network.openvino_graph import Graph

        self.spoil, self.outputs = spoil, Graph.outputs

    def __call__(self, graph: Any, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for output in self.outputs(graph, chunks):
            yield self.spoil(output)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows + np.random.default_rng(0).normal(0, 0.5 * rows.std(), rows.shape).astype(np.float32),
        lambda rows: rows * np.float32(np.nan),
        lambda rows: rows[::-1].copy(),
        lambda rows: np.zeros_like(rows),
        lambda rows: rows * np.float32(1.2),
    ],
    ids=["noise", "nan", "order", "zeros", "scale"],
)
def test_a_graph_that_computes_something_else_is_refused(spoil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.network.openvino_graph import Graph

    noisy = Noisy(spoil)
    monkeypatch.setattr(Graph, "outputs", lambda self, chunks: noisy(self, chunks))
    said: list[str] = []
    assert build(trunk(), InferenceSection(), said=said).backend.name == "mindspore"
    assert "its outputs differ (cosine " in said[0]
    with pytest.raises(UsageError, match="its outputs differ"):
        build(trunk(), FASTEST)


def test_without_openvino_mindspore_serves_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "it is not installed; run: pip install openvino"
    monkeypatch.setattr(engines, "explain_broken", lambda: reason)
    said: list[str] = []
    assert engines.build_engine(trunk(), tiny.images(4), InferenceSection(), said.append).backend.name == "mindspore"
    assert said == [f"using MindSpore instead of OpenVINO, which would be faster: {reason}"]
    with pytest.raises(UsageError, match="it is not installed; run: pip install openvino") as caught:
        build(trunk(), FASTEST)
    assert caught.value.exit_code == 2
    assert engines.describe_expected(InferenceSection(), "cpu")["name"] == "mindspore"


def test_openvino_is_for_cpus_that_it_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="it runs on CPUs, not on ascend"):
        engines.build_engine(trunk(), tiny.images(4), FASTEST, print, device="ascend")
    engine = engines.build_engine(trunk(), tiny.images(4), InferenceSection(), print, device="gpu")
    assert engine.backend.name == "mindspore"
    assert engines.describe_expected(InferenceSection(), "gpu")["chunk"] == engines.CHUNK_ELSEWHERE
    monkeypatch.setattr(engines.platform, "machine", lambda: "riscv64")
    with pytest.raises(UsageError, match="it does not run on riscv64"):
        build(trunk(), FASTEST)


@pytest.mark.parametrize("engine", ["auto", "mindspore", "openvino"])
@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_what_is_expected_is_what_is_built(engine: Any, precision: Any) -> None:
    section = InferenceSection(engine=engine, precision=precision)
    expected = engines.describe_expected(section, "cpu")
    assert build(trunk(count=1), section).about == expected
    assert expected["version"] not in ("", "unknown")
    if precision == "fp32" or engine == "mindspore":
        assert expected["precision"] == "f32"


def test_a_sample_smaller_than_a_chunk_makes_smaller_graphs() -> None:
    engine, images = build(trunk(), EXACT, images=3), tiny.images(8, seed=5)
    assert engine.chunk == 3
    assert np.allclose(engine(images), build(trunk(), MINDSPORE)(images), atol=1e-4)


def test_outputs_of_nothing_but_zeros_are_compared_too() -> None:
    zeros, some = np.zeros((2, 3), np.float32), np.full((2, 3), 1e-3, np.float32)
    exact, loose = (engines.TOLERANCE["f32"], engines.COSINE), (engines.TOLERANCE["bf16"], engines.COSINE)
    assert engines.describe_difference(zeros, zeros, *exact) == ""
    assert engines.describe_difference(zeros, some, *loose)
    assert engines.describe_difference(some, zeros, *loose)
    assert engines.describe_difference(some, some * np.float32(1 + 1e-5), *exact) == ""
    assert engines.describe_difference(some, some * np.float32(1.01), *exact)
    assert engines.describe_difference(some, some * np.float32(1.01), *loose) == ""
    assert engines.describe_difference(some, -some, 3.0, engines.COSINE)


SIGNALLED = """
import os, signal, threading
from finetune.recipe.models import InferenceSection
from finetune.network import engines
from tests.features import tiny
from tests.network.test_engines import trunk

seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append("signal"))
held = [engines.build_engine(trunk(), tiny.images(4), InferenceSection(engine="openvino"), print)]
last = threading.Thread(target=held.clear)
last.start()
last.join()
os.kill(os.getpid(), signal.SIGTERM)
print(*seen)
"""


def test_a_signal_after_another_thread_dropped_the_graph(repo: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=LONGEST, cwd=repo)
    assert (done.returncode, done.stdout) == (0, "signal\n"), done.stderr
