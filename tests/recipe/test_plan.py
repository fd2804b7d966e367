"""From recipe to plan: what is accepted, paths, names and the way back, and any recipe at all."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.errors import PluginError
from finetune.recipe.plan import Plan, dump_given, dump_plan, load_plan
from finetune.text import escape_line
from tests.clocks import least_processor_time
from tests.recipe.planning import (
    FOLDER,
    Crop,
    Files,
    Flip,
    Flowers,
    Gradual,
    Images,
    Patience,
    build_catalogue,
    mistakes_of,
    planned,
    refused,
)

if TYPE_CHECKING:
    from finetune.catalogue import Catalogue


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return build_catalogue()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, so that messages begin with ``recipe.yaml``."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_smallest_recipe(catalogue: Catalogue, folder: Path) -> None:
    plan = planned(catalogue, FOLDER)
    assert plan.backbone.component.name == "resnext50"
    assert plan.dataset.options == Files(root=folder / "photos")
    assert [augment.component.name for augment in plan.augment] == ["albumentations"]
    assert plan.freezer.component.name == "head"
    assert [callback.component.name for callback in plan.callbacks] == ["tensorboard", "checkpoint"]
    assert plan.recipe.output == folder / "runs"
    assert plan.recipe.name == "recipe"
    assert plan.recipe.dataset.given["valid"] is None, "the recipe is complete"


def test_values_keep_their_meaning(catalogue: Catalogue) -> None:
    text = """\
backbone: {weights: none}
head: {dropout: 0}
image: {size: 64, resize: auto, mean: [0, 0.5, 1], keep_aspect: false}
augment:
  - {use: albumentations, ops: [{use: crop, size: 3}, {use: flip}], either: {use: flip, p: 1}}
freeze: {use: gradual, schedule: {1: head, 4: [layer4, head]}}
loss: {class_weights: {1: 2, no: 0.5}}
optimizer: {lr: 1e-3}
schedule: {use: step, every: 2}
train: {clip_norm: 1}
runner: {amp: off}
callbacks: []
"""
    plan = planned(catalogue, text + FOLDER)
    recipe = plan.recipe
    assert (recipe.backbone.weights, recipe.head.use, recipe.head.dropout) == ("none", "linear", 0.0)
    assert (recipe.image.size, recipe.image.mean, recipe.image.keep_aspect) == (64, (0.0, 0.5, 1.0), False)
    assert plan.augment[0].options == Images(
        ops=(Crop(use="crop", size=3), Flip(use="flip")), either=Flip(use="flip", p=1.0)
    )
    assert plan.freezer.options == Gradual(schedule={1: "head", 4: ("layer4", "head")})
    assert recipe.loss.class_weights == {"1": 2.0, "no": 0.5}
    assert (recipe.optimizer.use, recipe.optimizer.lr, recipe.train.clip_norm) == ("adamw", 0.001, 1.0)
    assert (recipe.schedule.use, recipe.runner.amp, plan.callbacks) == ("step", "off", ())


class TestPaths:
    def test_start_where_they_are_written(self, catalogue: Catalogue, folder: Path, home: Path) -> None:
        (folder / "sub" / "work").mkdir(parents=True)
        text = (
            "dataset: {use: folder, root: ../a/../photos, valid: ~/valid, index: index.csv,\n"
            "  more: [b, /c], named: {d: e}}\nbackbone: {weights: w.ckpt}\noutput: out\n"
        )
        (folder / "sub" / "recipe.yaml").write_text(text)
        os.chdir(folder / "sub" / "work")
        plan = load_plan(Path("../recipe.yaml"), ["dataset.named.x=../y"], catalogue)
        assert plan.dataset.options == Files(
            root=folder / "photos",
            valid=home / "valid",
            index=folder / "sub" / "index.csv",
            more=(folder / "sub" / "b", Path("/c")),
            named={"d": folder / "sub" / "e", "x": folder / "sub" / "y"},
        )
        assert plan.recipe.backbone.weights == str(folder / "sub" / "w.ckpt")
        assert plan.recipe.output == folder / "sub" / "out"

    def test_of_overrides_mappings_and_defaults_start_here(
        self, catalogue: Catalogue, folder: Path, home: Path
    ) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "recipe.yaml").write_text("dataset: {use: flowers102}")
        plan = load_plan(Path("sub/recipe.yaml"), [], catalogue)
        assert plan.dataset.options == Flowers(root=home / "flowers")
        assert plan.recipe.output == folder / "runs"
        plan = load_plan(Path("sub/recipe.yaml"), ["dataset={use: folder, root: x}", "output=y"], catalogue)
        assert plan.dataset.options == Files(root=folder / "x")
        assert plan.recipe.output == folder / "y"
        plan = load_plan({"dataset": {"use": "folder", "root": Path("x")}, "output": "~/y"}, [], catalogue)
        assert plan.dataset.options == Files(root=folder / "x")
        assert plan.recipe.output == home / "y"

    def test_of_standard_input_start_here(
        self, catalogue: Catalogue, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FOLDER.encode())))
        plan = load_plan("-", ["train.epochs=2"], catalogue)
        assert plan.dataset.options == Files(root=folder / "photos")
        assert (plan.recipe.name, plan.recipe.train.epochs) == ("run", 2)

    @pytest.mark.parametrize(
        ("weights", "kept"),
        [
            ("auto", "auto"),
            ("none", "none"),
            ("hub-v1.1", "hub-v1.1"),
            (f"https://x.org/y.ckpt#sha256={'0' * 64}", f"https://x.org/y.ckpt#sha256={'0' * 64}"),
            ("w.safetensors", "{folder}/w.safetensors"),
            ("sub/w", "{folder}/sub/w"),
            ("~/w.md", "{home}/w.md"),
        ],
    )
    def test_of_weights(self, catalogue: Catalogue, folder: Path, home: Path, weights: str, kept: str) -> None:
        plan = planned(catalogue, f"backbone: {{weights: '{weights}'}}\n{FOLDER}")
        assert plan.recipe.backbone.weights == kept.format(folder=folder, home=home)

    @pytest.fixture
    def home(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
        home = tmp_path_factory.mktemp("home")
        monkeypatch.setenv("HOME", str(home))
        return home


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("flowers102.yaml", "flowers102"),
        ("my photos (2).yaml", "my-photos-2"),
        ("花.yaml", "花"),
        ("---.yaml", "run"),
        ("x" * 200 + ".yaml", "x" * 80),
    ],
)
def test_a_recipe_is_named_after_its_file(catalogue: Catalogue, file: str, name: str) -> None:
    Path(file).write_text(FOLDER)
    assert load_plan(Path(file), [], catalogue).recipe.name == name
    assert load_plan(Path(file), ["name=other"], catalogue).recipe.name == "other"


def test_lists_that_the_recipe_leaves_out_can_be_changed(catalogue: Catalogue) -> None:
    plan = planned(
        catalogue, FOLDER, "augment[0].preset=light", "callbacks[1]={use: early_stopping}", "callbacks[1].patience=2"
    )
    assert plan.augment[0].options == Images(preset="light")
    assert [callback.component.name for callback in plan.callbacks] == ["tensorboard", "early_stopping"]
    assert plan.callbacks[1].options == Patience(patience=2)
    assert planned(catalogue, FOLDER, "callbacks=[]").callbacks == ()


ROUND_TRIPS: list[tuple[str, tuple[str, ...]]] = [
    (FOLDER, ()),
    ("dataset: {use: flowers102}\nbackbone: {weights: ../w.ckpt}\noutput: ~/x\n", ("seed=7", "optimizer.lr=1e-8")),
    ("freeze: {use: gradual, schedule: {1: head, 4: [layer4, head], 8: all}}\n" + FOLDER, ()),
    (FOLDER, ("loss.class_weights={1: 2, 010: 3, no: 1e-30, 'a b': 1, \"x: y\": 1}", "dataset.named.1=x")),
    (
        FOLDER,
        ("augment=[{use: albumentations, ops: [{use: crop, size: 3}, {use: flip}], either: {use: crop, size: 1}}]",),
    ),
    (
        FOLDER,
        ("callbacks=[]", "augment=[]", "train.ema=0.999", "head.use=mlp", "schedule.use=constant", "optimizer.use=sgd"),
    ),
    (FOLDER, ("dataset.root='1e3'", "name=no", "image.mean=[0, 0.1, 1]", "image.keep_aspect=true")),
]


@pytest.mark.parametrize(("text", "overrides"), ROUND_TRIPS)
def test_a_plan_written_down_loads_as_the_same_plan(
    catalogue: Catalogue, tmp_path: Path, text: str, overrides: tuple[str, ...]
) -> None:
    plan = planned(catalogue, text, *overrides)
    written = dump_plan(plan)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.yaml").write_text(written, encoding="utf-8")
    os.chdir("/")
    again = load_plan(tmp_path / "elsewhere" / "other.yaml", [], catalogue)
    assert again == plan
    assert dump_plan(again) == written
    (tmp_path / "elsewhere" / "said.yaml").write_text(dump_given(plan), encoding="utf-8")
    same = load_plan(tmp_path / "elsewhere" / "said.yaml", [], catalogue)
    assert (same, same.notes) == (plan, plan.notes)
    assert same.recipe.dataset.model_fields_set == plan.recipe.dataset.model_fields_set
    assert "split" not in same.recipe.dataset.model_fields_set
    assert "split" in again.recipe.dataset.model_fields_set


def test_a_written_plan_is_complete(catalogue: Catalogue, folder: Path) -> None:
    text = dump_plan(planned(catalogue, "freeze: {use: gradual, schedule: {1: head}}\n" + FOLDER))
    for part in (
        f"root: {folder}/photos",
        "    1: head\n",
        "betas: [0.9, 0.999]",
        f"output: {folder}/runs",
        "seed: 42",
    ):
        assert part in text


def test_options_that_the_engine_reads_itself_are_a_plugin_error(catalogue: Catalogue) -> None:
    with pytest.raises(PluginError, match=r"plugin 'some' \(tests 1\): dataset 'clash' has an option 'split'"):
        planned(catalogue, "dataset: {use: clash}")


def test_options_that_fail_are_a_plugin_error(catalogue: Catalogue) -> None:
    with pytest.raises(
        PluginError, match=r"plugin 'some' \(tests 1\) failed in the options of dataset 'failing': KeyErr"
    ):
        planned(catalogue, "dataset: {use: failing, x: 3}")


SECTIONS = [
    *Plan.__dataclass_fields__,
    "extends",
    "head",
    "image",
    "loss",
    "optimizer",
    "schedule",
    "train",
    "augment",
    "freeze",
]
KEYS = st.sampled_from([*SECTIONS, "use", "root", "size", "ops", "epochs", "lr", "betas", "schedule", "class_weights"])
WORDS = st.sampled_from(["folder", "albumentations", "gradual", "crop", "auto", "none", "head", "mlp", "sgd", "~x", ""])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=5),
    max_leaves=25,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.dictionaries(KEYS, VALUES, max_size=6), st.booleans())
def test_any_recipe_is_a_plan_or_a_recipe_error(catalogue: Catalogue, values: dict[str, Any], whole: bool) -> None:
    recipe = {**values, "dataset": {"use": "folder", "root": "x"}} if whole else values
    assert all(line == escape_line(line) for line in mistakes_of(catalogue, recipe))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text(alphabet="ab:1 -[]{},&*!|>'\"%#\n", max_size=80) | st.dictionaries(KEYS, VALUES).map(repr))
def test_any_text_is_a_plan_or_a_recipe_error(catalogue: Catalogue, text: str) -> None:
    Path("recipe.yaml").write_bytes(text.encode("utf-8", "replace"))
    mistakes_of(catalogue, Path("recipe.yaml"), "train.epochs=2")


def test_a_recipe_loads_in_a_moment(catalogue: Catalogue) -> None:
    text = dump_plan(planned(catalogue, FOLDER))
    planned(catalogue, text)
    assert least_processor_time(lambda: planned(catalogue, text), 0.15) < 0.15


@pytest.mark.parametrize("section", ["loss: {class_weights: {%s}}", "train: {%s}", "%s"])
def test_the_largest_wrong_recipe_takes_less_than_a_second(catalogue: Catalogue, section: str) -> None:
    separator = "\n" if section == "%s" else ", "
    text = section % separator.join(f"k{i}: x" for i in range(4990)) + "\n" + FOLDER
    assert least_processor_time(lambda: refused(catalogue, text), 1.0) < 1.0


def test_planning_imports_nothing_heavy() -> None:
    heavy = ("mindspore", "numpy", "albumentations", "cv2", "PIL", "scipy", "tensorboardX", "requests")
    script = (
        f"import sys, finetune.recipe.plan, finetune.recipe.schema; print(*[m for m in {heavy} if m in sys.modules])"
    )
    repo = str(Path(__file__).resolve().parents[1])
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=repo)
    assert result.stdout.split() == []


def test_another_device_leaves_the_options_of_the_one_before_behind(catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "npu.yaml"
    file.write_text(f"dataset: {{use: folder, root: {tmp_path}}}\nrunner: {{device: ascend, memory_gb: 30, amp: O2}}\n")
    runner = load_plan(file, ["runner.device=cpu", "runner.threads=4"], catalogue).recipe.runner
    assert (runner.device, runner.amp, runner.model_dump()["threads"]) == ("cpu", "O2", 4)
