"""Notebooks: the example runs in a real kernel, an interrupt leaves that alive, and what is shown is plain HTML."""

from __future__ import annotations

import re
import shutil
import time
from copy import deepcopy
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from finetune import Finetuner, Prediction, Run
from finetune.display import html, notebook
from finetune.display.notebook import Block
from finetune.display.progress import Progress
from finetune.model.inputs import Predictions
from finetune.recipe.models import Recipe
from finetune.run import Best
from tests.clocks import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = "<script>alert('&')</script>"
PLAIN = {"b", "p", "pre", "progress", "table", "td", "th", "thead", "tr"}


class Shown(HTMLParser):
    """What a piece of HTML shows: its tags, their attributes, and its text."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(code)
        assert self.open == [], "not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def plain(code: str) -> list[str]:
    """Return the texts of HTML that does nothing but show them."""
    shown = Shown(code)
    assert shown.tags <= PLAIN
    assert shown.attributes <= {"value", "max"}
    return shown.texts


def new_run(folder: Path, epochs: int, name: str = "flowers") -> Run:
    """Return a run that has made some epochs, the second being the best."""
    line = {"phase": 1, "trainable": ["head"], "train_loss": 0.5, "val_loss": 0.4, "val_accuracy": 0.9, "lr": 1e-3}
    lines = [{**line, "epoch": number, "images_per_second": 80.0, "seconds": 3.0} for number in range(1, epochs + 1)]
    return Run(
        folder=folder,
        recipe=Recipe.model_validate(
            {"name": name, "dataset": {"use": "folder"}, "train": {"epochs": 500, "batch_size": 32}}
        ),
        recipe_text="",
        classes=("daisy", "rose"),
        stages=("stem", "head"),
        device="cpu",
        steps_per_epoch=4,
        images={"train": 120, "valid": 30},
        weights={"source": HOSTILE},
        epoch=epochs,
        step=4 * epochs,
        phase=1,
        trainable=("head",),
        history=lines,
        best=Best(epoch=2, value=0.9) if epochs > 1 else None,
    )


# What is shown


def test_a_run_shows_itself(tmp_path: Path) -> None:
    run = new_run(tmp_path, 3)
    texts = plain(run._repr_html_())
    assert {"flowers", ", epoch 3 of 500", "120 training, 30 validation; 2 classes", f"{HOSTILE}: "} <= set(texts)
    assert [text for text in texts if text.endswith("/500")] == ["1/500", "2/500", "3/500"]
    assert re.findall(r"<th>(\d)/500</th>", run._repr_html_()) == ["2"], "the best is bold"


def test_a_run_of_many_epochs_shows_the_last(tmp_path: Path) -> None:
    texts = plain(new_run(tmp_path, 30)._repr_html_())
    assert "10 earlier epochs" in texts
    assert [text for text in texts if text.endswith("/500")] == [f"{number}/500" for number in range(11, 31)]


def test_a_run_that_has_not_begun_shows_no_table(tmp_path: Path) -> None:
    texts = plain(new_run(tmp_path, 0)._repr_html_())
    assert ", not started" in texts
    assert "train loss" not in texts


def test_a_finished_run_shows_its_result(tmp_path: Path) -> None:
    run = new_run(tmp_path, 3)
    run.result = {"epochs": 3, "seconds": 9.0, "best": {"epoch": 2, "val_accuracy": 0.9}, "test_accuracy": 0.875}
    texts = plain(run._repr_html_())
    assert {", finished", "3 epochs in 0:09", "epoch 2, val accuracy 0.9000", "accuracy 0.8750"} <= set(texts)


def test_predictions_show_themselves() -> None:
    top = ((HOSTILE, 0.75), ("rose", 0.25))
    one = Prediction(path="a\x1b.jpg", label=HOSTILE, probability=0.75, top=top)
    assert plain(one._repr_html_()) == ["a\\x1b.jpg", "class", "probability", HOSTILE, "75.0%", "rose", "25.0%"]
    found = Predictions([one] * 60)
    assert found == [one] * 60
    texts = plain(found._repr_html_())
    assert texts[:8] == ["photo", "class", "probability", "or else", "a\\x1b.jpg", HOSTILE, "75.0%", "rose (25.0%)"]
    assert texts[-1] == "10 more predictions"
    assert (
        plain(Predictions([Prediction(path="a", label="b", probability=1.0, top=(("b", 1.0),))])._repr_html_())[-1]
        == "-"
    )


def test_a_finetuner_that_is_not_fitted_shows_what_it_was_given_but_secrets() -> None:
    ft = Finetuner("resnext_nano", freeze="head", dataset={"api_key": "abc123", "text": HOSTILE})
    texts = plain(ft._repr_html_())
    assert texts[:2] == ["Finetuner", ", not fitted"]
    assert "abc123" not in " ".join(texts)
    assert HOSTILE in " ".join(texts)


# The block below a cell


def test_outside_of_notebooks_there_is_no_block() -> None:
    assert isinstance(notebook.create_progress(), Progress)


def test_a_long_run_does_not_flood_a_notebook(tmp_path: Path) -> None:
    shown: list[str] = []
    times = iter(number / 100 for number in range(1_000_000))
    block = Block(shown.append, now=lambda: next(times))
    run = new_run(tmp_path, 0)
    block.finetune_run_start(run)
    for epoch in range(1, 501):
        run.epoch = epoch
        block.finetune_epoch_start(run, epoch)
        for _ in range(4):
            run.step += 1
            block.finetune_step_end(run, run.step, 0.5)
        run.history = new_run(tmp_path, epoch).history
        block.finetune_epoch_end(run, epoch, run.history[-1])
    block.finetune_run_end(run)
    assert len(shown) < next(times) / notebook.REST + 3
    assert len(shown) > 10
    assert max(map(len, shown)) < 10_000
    assert any('<progress value="2" max="4">' in code for code in shown)
    assert "<progress" not in shown[-1]
    for code in shown:
        plain(code)


def test_a_head_that_is_being_fitted(tmp_path: Path) -> None:
    shown: list[str] = []
    block = Block(shown.append, now=iter(range(0, 1000, 10)).__next__)
    run = new_run(tmp_path, 0)
    block.finetune_run_start(run)
    block.finetune_epoch_start(run, 0)
    assert plain(shown[-1])[-1] == "fitting the head"
    run.history = [{**new_run(tmp_path, 1).history[0], "epoch": 0}]
    block.finetune_epoch_end(run, 0, run.history[0])
    assert "fitting the head" not in shown[-1]
    assert ", the head is fitted" in plain(shown[-1])


def test_messages_stay_in_sight(tmp_path: Path) -> None:
    shown: list[str] = []
    block = Block(shown.append, now=time.monotonic)
    block.say("one")
    block.finetune_run_start(new_run(tmp_path, 1))
    block.say(HOSTILE)
    assert plain(shown[0]) == ["one"]
    assert plain(shown[-1])[0] == f"one\n{HOSTILE}"
    assert html.describe_state(new_run(tmp_path, 1)) == "epoch 1 of 500"


# A real kernel

SMALL = """
from finetune import Finetuner
data = {"use": "shapes", "size": 32, "train": 32, "valid": 8, "test": 0, "classes": 2}
ft = Finetuner("resnext_nano", weights="none", freeze="none", image={"size": 32, "resize": 32}, seed=1)
"""


class Kernel:
    """A kernel in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=LONGEST)

    def run(self, code: str, *, interrupt_at: str | None = None) -> tuple[dict[str, Any], str]:
        """Return how a cell ended and what it printed; interrupt it once what it shows holds a text."""
        printed: list[str] = []
        waiting = [interrupt_at] if interrupt_at else []

        def hook(message: dict[str, Any]) -> None:
            content = message["content"]
            printed.append(content.get("text", ""))
            if waiting and waiting[0] in content.get("data", {}).get("text/html", ""):
                waiting.clear()
                self.manager.interrupt_kernel()

        reply = self.client.execute_interactive(code, output_hook=hook, timeout=LONGEST)
        assert not waiting, f"{interrupt_at} was never shown"
        return reply["content"], "".join(printed)

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """Start a kernel, which starts MindSpore once for all tests below."""
    started = Kernel(tmp_path_factory.mktemp("notebook"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def written(repo: Path) -> Any:
    """Return the example as it lies in the source tree."""
    return nbformat.read(repo / "examples" / "flowers.ipynb", as_version=4)


def executed(written: Any, kernel: Kernel) -> list[Any]:
    """Return the cells of the example after they ran."""
    client = NotebookClient(deepcopy(written), km=kernel.manager, timeout=240)
    client.kc = kernel.client
    ran = client.execute(cleanup_kc=False)
    return [cell for cell in ran.cells if cell.cell_type == "code"]


def shows(cell: Any) -> list[str]:
    """Return the texts of the HTML that a cell shows in one place."""
    (output,) = cell.outputs
    return plain(output.data["text/html"])


@pytest.mark.checkout
def test_the_example_holds_no_output(written: Any) -> None:
    nbformat.validate(written)
    assert not [cell for cell in written.cells if cell.get("outputs") or cell.get("execution_count")]
    assert not [line for cell in written.cells for line in cell.source.splitlines() if len(line) > 120]


@pytest.mark.once
def test_the_example_runs(written: Any, kernel: Kernel) -> None:
    _, new, fit, run, report, predictions, features, loaded = executed(written, kernel)
    assert ", not fitted" in shows(new)
    for cell in (fit, run):
        assert {", finished", "480 training, 100 validation, 100 test; 10 classes"} <= set(shows(cell))
    said = re.fullmatch(r"([\d.]+)% of 100 pictures\nhardest: \w+, [\d.]+% found\n", report.outputs[0].text)
    assert said is not None
    assert float(said[1]) > 50  # by chance 10
    assert shows(predictions).count("images[3]") == 1
    assert features.outputs[0].data["text/plain"] == "(4, 512)"
    assert ", fitted" in shows(loaded)


@pytest.mark.slow
def test_the_example_runs_on_photos(written: Any, kernel: Kernel, flowers: Path) -> None:
    folder = kernel.folder / "photos"
    for name in ("1", "49", "60", "74"):
        shutil.copytree(flowers / "train" / name, folder / name)
    kernel.run(f"import os; os.environ['FLOWERS'] = {str(folder)!r}")
    cells = executed(written, kernel)
    assert any(text.endswith("; 4 classes") for text in shows(cells[3]))
    assert "\nhardest: " in cells[4].outputs[0].text


@pytest.mark.once
def test_an_interrupted_cell_leaves_the_kernel_and_the_run(kernel: Kernel) -> None:
    assert kernel.run(SMALL)[0]["status"] == "ok"
    reply, _ = kernel.run("ft.fit(data, epochs=10_000)", interrupt_at="2/10000</t")
    assert (reply["ename"], reply["status"]) == ("KeyboardInterrupt", "error")
    assert re.match(r"saved and stopped in epoch \d+, step \d+; resume with fit", reply["evalue"])
    reply, printed = kernel.run("print(len(ft.history), ft.run.epoch, ft)")
    done, epoch = map(int, printed.split()[:2])
    assert (reply["status"], done) in (("ok", epoch - 1), ("ok", epoch))
    assert f"<Finetuner: interrupted in epoch {epoch}, " in printed
    again = f"run = ft.fit(data, epochs={epoch + 1}, resume=ft.run.folder, allow_changed=True)"
    assert kernel.run(again)[0]["status"] == "ok"
    said = (
        "print([line['epoch'] for line in ft.history], ft, ft.predict([p.pixels for p in run.predictions(3)])[2].path)"
    )
    _, printed = kernel.run(said)
    assert printed.startswith(f"{[*range(1, epoch + 2)]} <Finetuner: resnext_nano, 2 classes, val_accuracy ")
    assert printed.endswith("> images[2]\n")
