"""Makers of bad plugins, for the table of bad inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.drawn import folder as drawn
from tests.faults.case import SITE

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
