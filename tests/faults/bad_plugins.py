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
HOOK = f"{HEAD}@hookimpl"
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


def fetching(body: str) -> Make:
    """Return what installs a plugin that fetches weights with this body, and checks a recipe that needs them."""

    def make(folder: Path) -> list[str]:
        drawn(folder / "photos", each=3, size=16)
        install(folder, f"{HEAD}from pathlib import Path\n@hookimpl\ndef finetune_fetch_weights(): {body}\n")
        (folder / "w.ckpt").write_bytes(b"x")
        recipe = "backbone: {use: resnext50, weights: hub-v1.1}\ndataset: {use: folder, root: photos}\n"
        (folder / "r.yaml").write_text(recipe)
        return ["check", "r.yaml"]

    return make


def options(body: str, kind: str = "O") -> Make:
    """Return what installs a dataset whose options have this body, and checks a recipe that uses it."""
    head = f"{HEAD}from pydantic import model_validator\nclass O(Options):\n    {body}\n"
    return plugin(head + DATASET.replace("build=build", f"build=print, options={kind}"))


def watching(method: str) -> Make:
    """Return what installs a callback with this method, and uses it."""
    source = f"class C:\n    {method}\nbad = Callback(name='bad', build=lambda options: C())"
    return used("callbacks", source, f"{NANO}\ncallbacks: [{{use: bad}}]")


def policy(build: str) -> Make:
    """Return what installs a freezing policy that ``build`` makes, and uses it."""
    source = f"bad = Freezer(name='bad', build=lambda options: {build})"
    return used("freezers", source, f"{NANO}\nfreeze: {{use: bad}}")


def network(build: str) -> Make:
    """Return what installs a backbone of one stage that ``build`` makes, and uses it."""
    source = f"bad = Backbone(name='bad', build=lambda options: {build}, stages=('a',), features=8)"
    return used("backbones", source, "backbone: {use: bad, weights: none}")


NANO = "backbone: {use: resnext_nano, weights: none}"
MISSING = "no dataset named 'birds'"
TITLE = "plugin 'birds' (birds-plugin 1.2)"


def other_kind(section: str, use: str) -> Make:
    """Return what installs a component that builds nothing, and uses it."""
    kind = section.capitalize()
    source = f"bad = {kind}(name='bad', build=lambda *arguments: None)"
    return used(f"{section}s", source, f"{NANO}\n{use}: [{{use: bad}}]")


def entry_points(content: bytes) -> Make:
    """Return what installs a plugin whose list of entry points is damaged, and checks a recipe that needs it."""

    def make(folder: Path) -> list[str]:
        install(folder, "")
        (folder / SITE / "birds_plugin-1.2.dist-info" / "entry_points.txt").write_bytes(content)
        (folder / "r.yaml").write_text(RECIPE)
        return ["check", "r.yaml"]

    return make


CASES: list[Case] = [
    case(
        "G12",
        "name that is a number",
        plugin(HEAD + "build = print\n" + DATASET.replace("'birds'", "3")),
        2,
        MISSING,
        TITLE,
        "is 3",
    ),
    case(
        "G12",
        "backbone without stages",
        used(
            "backbones",
            "bad = Backbone(name='bad', build=print, stages=(), features=8)",
            "backbone: {use: bad, weights: none}",
        ),
        2,
        "no backbone named 'bad'",
        "has no stages",
    ),
    case(
        "G12",
        "backbone of other things than cells",
        network("{'a': 3}"),
        6,
        TITLE,
        "built stage 'a' as int",
        "Cell for each",
    ),
    case(
        "G12",
        "augmentation that is none",
        other_kind("augmentation", "augment"),
        6,
        TITLE,
        "returned None, not a function",
    ),
    case(
        "G12", "callback that is none", other_kind("callback", "callbacks"), 6, TITLE, "returned None", "no event hook"
    ),
    case("G12", "freezing by numbers", policy("lambda epoch, stages: [1]"), 6, TITLE, "returned [1], not stages"),
    case(
        "G12",
        "fetching of no file",
        fetching("return 'gone'"),
        6,
        TITLE,
        "returned 'gone', which is not a file",
        "return the",
    ),
    case(
        "G3",
        "damaged list of entry points",
        entry_points(b"\xff\xfe[finetune"),
        2,
        MISSING,
        "entry_points.txt is damaged",
    ),
    case(
        "G1",
        "error without words",
        plugin("class E(Exception):\n    def __str__(self): 1 / 0\nraise E"),
        2,
        MISSING,
        TITLE,
        "E: ",
    ),
    case("G2", "source with a NUL", plugin("x = 0\0"), 2, MISSING, TITLE, "SyntaxError"),
    case("G2", "fails when looked at", plugin("def __dir__(): 1 / 0"), 2, MISSING, TITLE, "ZeroDivisionError"),
    case(
        "G5",
        "one name twice in one plugin",
        plugin(HEAD + "build = print\n" + DATASET + DATASET.split("\n")[2]),
        6,
        TITLE,
    ),
    case(
        "G6",
        "wrapper",
        plugin(f"{HOOK}(wrapper=True)\ndef finetune_datasets(): yield\n"),
        2,
        MISSING,
        TITLE,
        "use a plain @hookimpl",
    ),
    case(
        "G7",
        "class in place of an object",
        plugin(f"{HEAD}class P:\n    @hookimpl\n    def finetune_datasets(self): ...\n", target="birds_plugin:P"),
        2,
        MISSING,
        TITLE,
        "'self'; it has no arguments",
    ),
    case(
        "G6", "callback with a misspelt hook", watching("def finetune_epoch_ended(self): ..."), 6, TITLE, "epoch_end'?"
    ),
    case(
        "G6",
        "callback without @hookimpl",
        watching("def finetune_epoch_end(self): ..."),
        6,
        TITLE,
        "is missing @hookimpl",
    ),
    case(
        "G7",
        "callback that asks for more",
        watching("@hookimpl\n    def finetune_epoch_end(self, x): ..."),
        6,
        TITLE,
        "'x'; its arguments are run, epoch, metrics",
    ),
    case(
        "G8",
        "requirement that is none",
        plugin("", requires="mindspore-finetune banana"),
        2,
        MISSING,
        TITLE,
        "InvalidRequirement",
    ),
    case("G1", "fetching that fails", fetching("1 / 0"), 6, TITLE, "finetune_fetch_weights: ZeroDivisionError"),
    case("G1", "fetching that ends the process", fetching("raise SystemExit(0)"), 6, TITLE, "SystemExit: 0"),
    case("C7", "fetching of another file", fetching("return Path('w.ckpt')"), 4, "has sha256 2d711642", "as expected"),
    case(
        "G12", "options of another type", options("x: int = 1", "dict"), 2, MISSING, TITLE, "a subclass of finetune.Op"
    ),
    case("G12", "option named use", options("use: int = 1"), 6, TITLE, "an option 'use', which is a key of the engine"),
    case("G12", "option of an unknown type", options("x: 'Nowhere' = 1"), 6, TITLE, "you should define `Nowhere`"),
    case(
        "G1",
        "options that fail",
        options("@model_validator(mode='after')\n    def check(self): 1 / 0"),
        6,
        TITLE,
        "in the options of dataset 'birds': ZeroDivisionError",
    ),
    case("G12", "labels that are no numbers", built(samples("'a.jpg'", "'a'")), 3, "label 0 is 'a'", "whole numbers"),
    case(
        "G12",
        "images that are numbers",
        built(samples("1", "0")),
        3,
        "image 0: is a int, not a path",
        "fix the dataset",
    ),
    case(
        "G12", "classes that are text", built("return Samples(images=[], labels=[], classes='ab')"), 3, "a tuple of s"
    ),
    case(
        "G12", "two classes of one name", built("return Samples(images=[], labels=[], classes=('a', 'a'))"), 3, "differ"
    ),
    case(
        "G12",
        "freezing of everything",
        policy("lambda epoch, stages: frozenset()"),
        2,
        "freezing policy 'bad' trains nothing in epoch 1",
        "return at least the head",
    ),
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
    case("G6", "misspelt hook", plugin(f"{HOOK}\ndef finetune_dataset(): ...\n"), 2, MISSING, "finetune_datasets"),
    case("G6", "hook without @hookimpl", plugin("def finetune_datasets(): ...\n"), 2, MISSING, "@hookimpl"),
    case("G7", "hook that asks for more", plugin(f"{HOOK}\ndef finetune_datasets(run): ...\n"), 2, MISSING, "run"),
    case(
        "G8",
        "made for another version",
        plugin("", requires="mindspore-finetune>=99"),
        2,
        MISSING,
        "it requires mindspore-finetune",
    ),
    case("G1", "hook that fails", plugin(f"{HOOK}\ndef finetune_datasets(): 1 / 0\n"), 2, MISSING, "ZeroDivision"),
    case("G12", "components that are none", plugin(f"{HOOK}\ndef finetune_datasets(): return [3]\n"), 2, MISSING),
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
        "G12",
        "dataset of nothing",
        built(samples()),
        3,
        "dataset 'birds' cannot be used",
        "the training split has no images",
    ),
    case(
        "G12", "labels outside", built(samples("'a.jpg'", "7")), 3, "split train: label 0 is 7", "labels must be 0 to 1"
    ),
    case(
        "G12", "more labels than images", built(samples("", "0, 1")), 3, "0 images but 2 labels", "give one label for e"
    ),
    case("G1", "freezing that fails", policy("1 / 0"), 6, TITLE, "ZeroDivisionError"),
    case("G12", "freezing that returns no stages", policy("lambda epoch, stages: 3"), 6, TITLE),
    case(
        "G12",
        "freezing of unknown stages",
        policy("lambda epoch, stages: frozenset(['x'])"),
        6,
        "freezing policy 'bad' returned unknown stage 'x'; known: head, layer1",
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
    case("G1", "backbone that fails", network("1 / 0"), 6, TITLE, "ZeroDivisionError"),
    case("G12", "backbone that returns no stages", network("3"), 6, TITLE),
    case("G12", "backbone with other stages", network("{'b': 3}"), 6, TITLE),
]
