"""What features depend on: any change makes them anew, and nothing else does, in every process."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from finetune import Augmentation
from finetune.data.labelled import Part
from finetune.features import identity
from tests.drawn import folder
from tests.features import tiny

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


def names(said: dict[str, Any], first: int = 3, alter: Any = None) -> dict[str, str]:
    """Return the names of the entries that a recipe wants: training view 1, training view 2, validation."""
    ready = tiny.prepared(said)
    if alter:
        alter(ready.network)
    phase_data = tiny.phase_data(ready, first)
    wanted = {
        "train 1": phase_data.frozen.make_request("train", 1),
        "train 2": phase_data.frozen.make_request("train", 2),
        "valid": phase_data.frozen.make_request("valid", 0),
    }
    return {what: each.entry.folder.name for what, each in wanted.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {what for what in before if before[what] != after[what]}


ALL = {"train 1", "train 2", "valid"}
TRAIN = {"train 1", "train 2"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("photos"), each=4, size=24)


@pytest.fixture
def plain(photos: Path) -> dict[str, str]:
    return names(tiny.recipe(photos, "runs"))


def test_each_view_and_part_is_an_entry_of_its_own(plain: dict[str, str]) -> None:
    assert len(set(plain.values())) == 3


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"image": {"size": 32, "resize": 36}}, ALL),
        ({"image": {"resize": 18}}, ALL),
        ({"image": {"keep_aspect": False}}, ALL),
        ({"image": {"mean": (0.5, 0.4, 0.4)}}, ALL),
        ({"image": {"std": (0.5, 0.4, 0.4)}}, ALL),
        ({"image": {"background": (0, 255, 255)}}, ALL),
        ({"image": {"color": "ignore"}}, ALL),
        ({"backbone": {"scale": 2.0}}, ALL),
        ({"inference": {"precision": "fp32"}}, ALL),
        ({"inference": {"engine": "mindspore"}}, ALL),
        ({"runner": {"amp": "O2"}}, ALL),
        ({"augment": [{"use": "jitter", "most": 31}]}, TRAIN),
        ({"augment": [{"use": "jitter"}, {"use": "jitter"}]}, TRAIN),
        ({"augment": []}, TRAIN),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_what_changes_features_changes_their_entry(
    sections: dict[str, Any], expected: set[str], plain: dict[str, str], photos: Path
) -> None:
    if sections.get("trunk") == {"precision": "fp32"} and identity_of_precision() == "f32":
        pytest.skip("this CPU has no shorter numbers than float32")
    assert changed(plain, names(tiny.recipe(photos, "runs", **sections))) == expected


def identity_of_precision() -> str:
    from finetune.network import engines
    from finetune.recipe.models import InferenceSection

    return str(engines.describe_expected(InferenceSection(), "cpu")["precision"])


@pytest.mark.parametrize(
    "sections",
    [
        {"optimizer": {"lr": 1e-4}},
        {"train": {"epochs": 9, "batch_size": 3}},
        {"train": {"mixup": 0.2, "ema": 0.9}},
        {"loss": {"label_smoothing": 0.1}},
        {"head": {"use": "mlp", "hidden": 4}},
        {"cache": {"max_gb": 1.0, "views": 7}},
        {"runner": {"workers": 0}},
        {"evaluate": {"metric": "loss"}},
        {"name": "other"},
        {"schedule": {"use": "constant"}},
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_what_changes_no_feature_changes_no_entry(
    sections: dict[str, Any], plain: dict[str, str], photos: Path
) -> None:
    assert names(tiny.recipe(photos, "other", **sections)) == plain


def test_another_seed_is_another_augmentation(photos: Path) -> None:
    alter = partial(tiny.stir, seed=1)  # the seed draws random weights as well, so the same ones for both

    def settle(network: Any) -> None:
        from finetune.network.network import assign_values, read_values

        assign_values(network.get_parameters(), read_values(tiny.network().get_parameters()))
        alter(network)

    one, two = (names(tiny.recipe(photos, "runs", seed=seed), alter=settle) for seed in (1, 2))
    assert changed(one, two) >= TRAIN


@pytest.mark.parametrize("first", [1, 2, 3])
def test_one_bit_of_the_trunks_weights_is_enough_and_of_the_tails_it_is_nothing(first: int, photos: Path) -> None:
    plain = names(tiny.recipe(photos, "runs"), first)
    for place, stage in enumerate(tiny.NAMES):
        for name in flipped_in(stage):

            def alter(network: Any, name: str = name) -> None:
                (parameter,) = (p for p in network.get_parameters() if p.name == name)
                flip(parameter)

            expected = ALL if place < first else set()
            assert changed(plain, names(tiny.recipe(photos, "runs"), first, alter)) == expected, name


def flipped_in(stage: str) -> list[str]:
    return ["head.fc.bias"] if stage == "head" else [f"{stage}.0.weight", f"{stage}.1.moving_variance"]


def flip(parameter: Any) -> None:
    """Change the last bit of the last value."""
    from mindspore import Tensor

    values = parameter.asnumpy().copy()
    values.view(np.uint32).reshape(-1)[-1] ^= 1
    parameter.set_data(Tensor(values))


def test_every_number_of_stages_is_a_trunk_of_its_own(photos: Path) -> None:
    found = [names(tiny.recipe(photos, "runs"), first) for first in (1, 2, 3)]
    assert len({name for each in found for name in each.values()}) == 9


def test_contents_and_order_of_images_count_and_their_names_do_not(photos: Path, tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", each=4, size=24)
    said = tiny.recipe(root, "runs")
    plain = names(said)
    assert plain == names(tiny.recipe(photos, "runs"))  # equal photos in another place
    for path in sorted((root / "red").iterdir()):
        path.rename(path.with_name(f"a{path.name}"))
    assert names(said) == plain
    first, second = sorted((root / "red").iterdir())[:2]
    spare = first.with_suffix(".spare")
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    assert changed(plain, names(said))
    for path in root.rglob("*.jpg"):
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    assert changed(plain, names(said)) == ALL


def test_the_hash_of_images_is_of_each_and_of_their_order() -> None:
    def part(*hashes: str) -> Part:
        return Part(name="x", images=[None] * len(hashes), labels=np.zeros(len(hashes), np.int64), hashes=hashes)  # type: ignore[list-item]

    found = [identity.hash_images(part(*each)) for each in ("ab", "ba", "abb", "aab", "b", ("ab",))]
    assert len(set(found)) == len(found)
    assert identity.hash_images(part("a", "b")) == found[0]


def test_the_hash_of_arrays_is_of_names_shapes_types_and_bits() -> None:
    zeros = np.zeros((2, 3), np.float32)
    other = zeros.copy()
    other.view(np.uint32)[0, 0] = 1
    kinds = [zeros, other, -zeros, zeros.T, zeros.reshape(-1), zeros.astype(np.int32), zeros[:1]]
    found = [identity.hash_arrays([("a", each)]) for each in kinds] + [identity.hash_arrays([("b", zeros)])]
    found += [identity.hash_arrays([("a", zeros), ("b", other)]), identity.hash_arrays([("b", other), ("a", zeros)])]
    assert len(set(found)) == len(found)


CODE = """
from finetune_test_kind import inner
def build(options, image):
    return lambda pixels, rng: pixels{0}
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes the files of a plugin and returns its augmentation, as a new process has it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(made: Any = lambda module: module.build, **files: str) -> Augmentation:
        for name, text in {"__init__": "", "inner": "", "outer": CODE.format(""), **files}.items():
            path = tmp_path / "finetune_test_kind" / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        forget()
        importlib.invalidate_caches()
        return Augmentation(name="x", build=made(importlib.import_module("finetune_test_kind.outer")))

    yield write
    forget()


def forget() -> None:
    identity.hash_files.cache_clear()
    for name in [name for name in sys.modules if name.startswith("finetune_test_kind")]:
        del sys.modules[name]


def test_the_code_of_a_plugin_counts_in_every_file_of_its_package(plugin: Any) -> None:
    plain = identity.hash_code(plugin())
    assert identity.hash_code(plugin()) == plain
    found = {plain}
    found.add(identity.hash_code(plugin(outer=CODE.format(" + 1"))))
    found.add(identity.hash_code(plugin(inner="FACTOR = 2")))
    found.add(identity.hash_code(plugin(further="")))
    assert len(found) == 4


def test_the_code_of_a_plugin_counts_however_it_builds(plugin: Any) -> None:
    def bound(module: Any) -> Any:
        return partial(module.build, None)

    plain = identity.hash_code(plugin(bound))
    assert identity.hash_code(plugin(bound, inner="FACTOR = 2")) != plain


def test_the_code_of_a_single_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for text in ("def build(options): ...", "def build(options): pass"):
        (tmp_path / "finetune_test_kind.py").write_text(text)
        forget()
        importlib.invalidate_caches()
        found.append(identity.hash_package(importlib.import_module("finetune_test_kind").build.__module__))
    forget()
    assert len({*found, identity.PROCESS}) == 3


@pytest.mark.parametrize("module", ["__main__", "no_such_module", "builtins"])
def test_code_without_a_file_is_of_this_process_alone(module: str) -> None:
    assert identity.hash_package(module) == identity.PROCESS


def test_another_process_finds_the_same_entries(photos: Path, plain: dict[str, str], repo: Path) -> None:
    code = (
        "import json; from tests.features.test_identity import names; from tests.features import tiny; "
        f"print(json.dumps(names(tiny.recipe({str(photos)!r}, 'runs'))))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join([*sys.path, str(repo)])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == plain


def test_versions_of_what_computes_count(plain: dict[str, str], photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mindspore", "pillow", "albumentations", "numpy"):
        found = {**identity.list_packages(), name: "0.0"}
        monkeypatch.setattr(identity, "list_packages", lambda found=found: found)
        identity.list_versions.cache_clear()
        assert changed(plain, names(tiny.recipe(photos, "runs"))) == ALL
    monkeypatch.undo()
    monkeypatch.setattr(identity, "RULES", identity.RULES + 1)
    identity.list_versions.cache_clear()
    assert changed(plain, names(tiny.recipe(photos, "runs"))) == ALL
    identity.list_versions.cache_clear()
