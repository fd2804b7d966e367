"""Installed plugins that cannot be loaded, or fail where a recipe needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.drawn import folder as drawn
from tests.faults.case import SITE, Case, case

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.case import Make

RECIPE = """\
backbone: {use: resnext_nano, weights: none}
dataset: {use: birds}
image: {size: 16, resize: 16}
"""
HEAD = "from finetune import Augmentation, Backbone, Callback, Dataset, Freezer, Options, Samples, hookimpl\n"
DATASET = "@hookimpl\ndef finetune_datasets():\n    yield Dataset(name='birds', build=build)\n"


def install(folder: Path, source: str, name: str = "birds", target: str = "", requires: str = "") -> None:
    """Put a plugin where Python finds it, as an installer does."""
    site = folder / SITE
    info = site / f"{name}_plugin-1.2.dist-info"
    info.mkdir(parents=True)
    about = f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.2\n"
    (info / "METADATA").write_text(about + (f"Requires-Dist: {requires}\n" if requires else ""))
    (info / "entry_points.txt").write_text(f"[finetune]\n{name} = {target or f'{name}_plugin'}\n")
    (site / f"{name}_plugin.py").write_text(source)


def plugin(source: str, recipe: str = RECIPE, **more: str) -> Make:
    """Return what installs a plugin and checks a recipe that needs it."""

    def make(folder: Path) -> list[str]:
        install(folder, source, **more)
        (folder / "r.yaml").write_text(recipe)
        return ["check", "r.yaml"]

    return make


def built(body: str) -> Make:
    """Return what installs a dataset whose ``build`` has this body."""
    return plugin(f"{HEAD}def build(options, split):\n    {body}\n{DATASET}")


def samples(images: str = "", labels: str = "") -> str:
    """Return the body of a dataset of these images and labels."""
    return f"return Samples(images=[{images}], labels=[{labels}], classes=('a', 'b'))"


def used(kind: str, component: str, section: str) -> Make:
    """Return what installs a component of another kind, and uses it on drawn photos."""

    def make(folder: Path) -> list[str]:
        drawn(folder / "photos", each=3, size=16)
        install(folder, f"{HEAD}{component}\n@hookimpl\ndef finetune_{kind}():\n    yield bad\n")
        recipe = f"dataset: {{use: folder, root: photos}}\nimage: {{size: 16, resize: 16}}\n{section}\n"
        (folder / "r.yaml").write_text(recipe)
        return ["check", "r.yaml"]

    return make


def two(folder: Path) -> list[str]:
    """Install two plugins that offer one name, and check a recipe that uses it."""
    for name in ("birds", "more"):
        install(folder, f"{HEAD}def build(options): ...\n{DATASET}", name=name)
    (folder / "r.yaml").write_text(RECIPE)
    return ["check", "r.yaml"]


NANO = "backbone: {use: resnext_nano, weights: none}"
MISSING = "no dataset named 'birds'"
TITLE = "plugin 'birds' (birds-plugin 1.2)"

CASES: list[Case] = [
    case("G2", "fails at import", plugin("1 / 0"), 2, MISSING, TITLE, "ZeroDivisionError"),
    case("G2", "imports what is not there", plugin("import no_such_module"), 2, MISSING, "No module named"),
    case("G2", "no Python", plugin("def ("), 2, MISSING, "SyntaxError"),
    case("G2", "ends the process at import", plugin("raise SystemExit(0)"), 2, MISSING, "SystemExit"),
    case("G3", "entry point to no module", plugin("", target="gone"), 2, MISSING, "No module named 'gone'"),
    case("G3", "entry point to no object", plugin("", target="birds_plugin:gone"), 2, MISSING, "gone"),
    case("G5", "two of one name", two, 6, "birds-plugin 1.2", "more-plugin 1.2"),
    case(
        "G5",
        "a name of a built-in",
        plugin(
            f"{HEAD}def build(options): ...\n{DATASET}".replace("'birds'", "'folder'"),
            RECIPE.replace("birds", "folder, root: x"),
        ),
        6,
        "'folder'",
        "birds-plugin 1.2",
    ),
    case(
        "G6",
        "misspelt hook",
        plugin(f"{HEAD}@hookimpl\ndef finetune_dataset(): ...\n"),
        2,
        MISSING,
        "finetune_datasets",
    ),
    case("G6", "hook without @hookimpl", plugin("def finetune_datasets(): ...\n"), 2, MISSING, "@hookimpl"),
    case(
        "G7",
        "hook that asks for more",
        plugin(f"{HEAD}@hookimpl\ndef finetune_datasets(run): ...\n"),
        2,
        MISSING,
        "run",
    ),
    case("G8", "made for another version", plugin("", requires="mindspore-finetune>=99"), 2, MISSING, "made for"),
    case(
        "G1",
        "hook that fails",
        plugin(f"{HEAD}@hookimpl\ndef finetune_datasets(): 1 / 0\n"),
        2,
        MISSING,
        "ZeroDivision",
    ),
    case(
        "G12", "components that are none", plugin(f"{HEAD}@hookimpl\ndef finetune_datasets(): return [3]\n"), 2, MISSING
    ),
    case(
        "G12",
        "a component of another kind",
        plugin(f"{HEAD}{DATASET.replace('Dataset(', 'Freezer(')}".replace("build=build", "build=print")),
        2,
        MISSING,
    ),
    case("G1", "dataset that fails", built("raise KeyError('x')"), 6, TITLE, "KeyError: 'x'"),
    case("G1", "dataset that ends the process", built("raise SystemExit(0)"), 6, TITLE, "SystemExit"),
    case(
        "G12",
        "dataset that is none",
        built("return None"),
        3,
        "dataset 'birds' has no training split",
        "return Samples",
    ),
    case(
        "G12",
        "dataset of another type",
        built("return {'train': 3}"),
        3,
        "build returned a dict; return finetune.Sampl",
    ),
    case(
        "G12", "dataset of nothing", built(samples()), 3, "dataset 'birds' cannot be used", "there is none to train on"
    ),
    case(
        "G12", "labels outside", built(samples("'a.jpg'", "7")), 3, "split train: label 0 is 7", "labels must be 0 to 1"
    ),
    case(
        "G12", "more labels than images", built(samples("", "0, 1")), 3, "0 images but 2 labels", "give one label for e"
    ),
    case(
        "G1",
        "freezing that fails",
        used("freezers", "bad = Freezer(name='bad', build=lambda options: 1 / 0)", f"{NANO}\nfreeze: {{use: bad}}"),
        6,
        TITLE,
        "ZeroDivisionError",
    ),
    case(
        "G12",
        "freezing that returns no stages",
        used(
            "freezers",
            "bad = Freezer(name='bad', build=lambda options: lambda epoch, stages: 3)",
            f"{NANO}\nfreeze: {{use: bad}}",
        ),
        6,
        TITLE,
    ),
    case(
        "G12",
        "freezing of unknown stages",
        used(
            "freezers",
            "bad = Freezer(name='bad', build=lambda options: lambda epoch, stages: frozenset(['x']))",
            f"{NANO}\nfreeze: {{use: bad}}",
        ),
        6,
        "freezing policy 'bad' names stage 'x'; known: head, layer1",
    ),
    case(
        "G1",
        "augmentation that fails",
        used(
            "augmentations",
            "bad = Augmentation(name='bad', build=lambda options, image: 1 / 0)",
            f"{NANO}\naugment: [{{use: bad}}]",
        ),
        6,
        TITLE,
        "ZeroDivisionError",
    ),
    case(
        "G1",
        "callback that fails",
        used(
            "callbacks", "bad = Callback(name='bad', build=lambda options: 1 / 0)", f"{NANO}\ncallbacks: [{{use: bad}}]"
        ),
        6,
        TITLE,
        "ZeroDivisionError",
    ),
    case(
        "G1",
        "backbone that fails",
        used(
            "backbones",
            "bad = Backbone(name='bad', build=lambda options: 1 / 0, stages=('a',), features=8)",
            "backbone: {use: bad, weights: none}",
        ),
        6,
        TITLE,
        "ZeroDivisionError",
    ),
    case(
        "G12",
        "backbone that returns no stages",
        used(
            "backbones",
            "bad = Backbone(name='bad', build=lambda options: 3, stages=('a',), features=8)",
            "backbone: {use: bad, weights: none}",
        ),
        6,
        TITLE,
    ),
    case(
        "G12",
        "backbone with other stages",
        used(
            "backbones",
            "bad = Backbone(name='bad', build=lambda options: {'b': 3}, stages=('a',), features=8)",
            "backbone: {use: bad, weights: none}",
        ),
        6,
        TITLE,
    ),
]
