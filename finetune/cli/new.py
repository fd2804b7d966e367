"""``new``: create a working plugin package, or a recipe for your photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli import completers
from finetune.cli.app import Answer, add_group, command
from finetune.cli.parameters import Force, make_output_option
from finetune.errors import UsageError
from finetune.files.outputs import STDOUT, Output

if TYPE_CHECKING:
    from finetune.components import Backbone

new = add_group(
    "new",
    "Create a plugin or a recipe.",
    "finetune new plugin birds --kind dataset",
    "finetune new recipe photos/",
)

KIND = "What it adds: dataset, augmentation, freezer, callback, audit or backbone."


def list_kinds() -> list[str]:
    """Return the kinds of plugins, for shell completion."""
    from finetune.new.plugin import DRAFTS

    return list(DRAFTS)


Name = Annotated[str, typer.Argument(hidden=True)]
Kind = Annotated[str, typer.Option(metavar="KIND", help=KIND, autocompletion=list_kinds)]
Into = Annotated[Path, typer.Option(metavar="DIR", help="Create the folder in this folder.")]
File = Annotated[Path | None, make_output_option("--output", help="Write the recipe to this file; - prints it.")]
Network = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The network that the recipe trains.", autocompletion=completers.offer_backbones),
]


@command("NAME --kind KIND", "finetune new plugin birds --kind dataset", of=new)
def plugin(name: Name, kind: Kind, output: Into = Path(), force: Force = False) -> Answer:
    """Write a plugin package with a component called NAME.

    The package works as it is: install it, run its tests, use it in a recipe, and
    then change it into what you need.
    """
    from finetune.cli.source import load_catalogue
    from finetune.display.summary import format_path
    from finetune.new import plugin as plugins

    if output == STDOUT:
        raise UsageError("standard output cannot hold a plugin, which is a folder; name a folder with --output")
    made = plugins.write_package(name, kind, output, load_catalogue(), force=force)
    files = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())

    def view() -> str:
        steps = [
            f'pip install -e "{format_path(made)}[dev]"',
            f"pytest {format_path(made)}",
            f"finetune plugins show {name}",
        ]
        return "\n".join([f"{format_path(made)}: {', '.join(files)}", "", "next:", *(f"  {step}" for step in steps)])

    return Answer(data={"folder": str(made), "files": files}, view=view)


@command("PHOTOS", "finetune new recipe photos/", "finetune new recipe labels.csv --output birds.yaml", of=new)
def recipe(
    photos: Annotated[Path, typer.Argument(hidden=True)],
    output: File = None,
    backbone: Network = None,
    force: Force = False,
) -> Answer:
    """Write a recipe for your photos.

    PHOTOS is a folder with a folder of photos for each class, a CSV file, or a
    pack. Comments in the recipe say what was found and explain each choice. The
    recipe is named after PHOTOS unless you pass --output.
    """
    from finetune.cli.source import load_catalogue
    from finetune.components import Backbone
    from finetune.display.summary import format_path
    from finetune.files.atomic import expand_home
    from finetune.new import recipe as looking
    from finetune.new import recipe as recipes
    from finetune.recipe.models import BackboneSection

    photos, catalogue = expand_home(photos), load_catalogue()
    network = catalogue.get(Backbone, backbone or BackboneSection().use)
    path = output or Path(f"{photos.resolve().stem}.yaml")
    target = Output(path=path, command="new recipe", force=force, inputs=[photos])
    target.check()
    seen = looking.look_at_photos(photos, catalogue)
    text = recipes.render_recipe(seen, path.absolute().parent.resolve(), network)
    content = target.write(text.encode())
    if content is not None:
        return Answer(data={"recipe": text}, content=content)
    steps = f"  finetune check {format_path(path)}\n  finetune run {format_path(path)}\n"
    told = f"{text}\nnext:\n{steps}{describe_download(network)}"
    return Answer(data={"file": str(path), "recipe": text}, view=lambda: told)


def describe_download(network: Backbone) -> str:
    """Describe the download of a first run and how to avoid it; empty if the weights are already available."""
    first = next(iter(network.weights.values()), None)
    if first is None or not first.url.startswith("https://"):
        return ""
    size = f" ({first.bytes / 1e6:.0f} MB)" if first.bytes else ""
    remedy = "without a network connection, add: backbone.use=resnext_nano"
    return f"the first run downloads the weights of {network.name}{size}; {remedy}\n"
