"""``weights``: list, fetch, inspect and convert pretrained weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli import completers, output
from finetune.cli.app import Answer, add_group, command
from finetune.cli.parameters import Force, make_output_option
from finetune.cli.source import load_catalogue
from finetune.files.atomic import expand_home
from finetune.files.outputs import STDOUT, Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.console import RenderableType

    from finetune.catalogue import Catalogue
    from finetune.components import Backbone, Weights
    from finetune.weights.examining import Examined

SHOWN = 10  # names of each kind in the table
NAMES = ("loaded", "missing", "unexpected", "merged", "ignored", "head")

weights = add_group(
    "weights",
    "List, fetch, inspect and convert pretrained weights.",
    "finetune weights ls",
    "finetune weights inspect hub.ckpt",
)

Name = Annotated[str, typer.Argument(hidden=True, autocompletion=completers.offer_weights)]
File = Annotated[Path, typer.Argument(hidden=True, readable=False)]  # the reader reports why
Of = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="NAME",
        help="Backbone of the weights; by default any.",
        autocompletion=completers.offer_backbones,
    ),
]
To = Annotated[
    str, typer.Option(metavar="FORM", help="safetensors, ckpt, or a layout.", autocompletion=completers.offer_forms)
]
Out = Annotated[
    Path | None, make_output_option("--output", help="File to write, by default next to FILE; - is standard output.")
]
Half = Annotated[
    bool, typer.Option("--float16", help="Round to float16, which halves the size; the only lossy option.")
]
Headless = Annotated[bool, typer.Option("--no-head", help="Leave the classifier out.")]


@command("", "finetune weights ls", "finetune weights ls --backbone resnext50", of=weights)
def ls(backbone: Of = None) -> Answer:
    """List the weights that recipes can name."""
    catalogue = load_catalogue()
    chosen = list_backbones(catalogue) if backbone is None else (find_backbone(catalogue, backbone),)
    rows = [describe_offer(each, name, record) for each in chosen for name, record in each.weights.items()]
    return Answer(data={"weights": rows}, view=lambda: render_table(rows))


def list_backbones(catalogue: Catalogue) -> Iterator[Backbone]:
    """Yield all backbones, by name."""
    from finetune.components import Backbone

    yield from (component for _, component in catalogue if isinstance(component, Backbone))


def find_backbone(catalogue: Catalogue, name: str) -> Backbone:
    """Return the backbone with this name."""
    from finetune.components import Backbone

    return catalogue.get(Backbone, name)


def describe_offer(backbone: Backbone, name: str, record: Weights) -> dict[str, Any]:
    """Return weights on offer, ready for JSON."""
    from finetune.files.atomic import cache_folder
    from finetune.weights import fetching

    path = fetching.find_local_file(record.url) or fetching.locate_file(record, cache_folder() / "weights")
    here = os.path.isfile(path)
    return {
        "name": name,
        "backbone": backbone.name,
        "accuracy": record.accuracy,
        "measured": here or record.bytes is not None,
        "bytes": path.stat().st_size if here else record.bytes or estimate_bytes(backbone, record),
        "licence": record.licence,
        "cached": str(path) if here else None,
        "source": record.source,
        "url": record.url,
        "sha256": record.sha256,
    }


def estimate_bytes(backbone: Backbone, record: Weights) -> int | None:
    """Estimate the size of a file from the parameters of the network and its classifier."""
    from math import prod

    from finetune.weights import fitting

    shapes = fitting.compute_default_shapes(backbone)
    if shapes is None:
        return None
    numbers = sum(prod(shape) for shape in shapes.values())
    return 4 * (numbers + record.classes * (backbone.features + 1))


def render_table(rows: Iterable[Mapping[str, Any]]) -> RenderableType:
    """Return weights as a table, and below it the paths of those in the cache."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from finetune.display.terminal import make_printable

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "backbone", "accuracy", "MB", "licence", "cached"):
        drawn.add_column(title, no_wrap=True, justify="right" if title in ("accuracy", "MB") else "left")
    places = []
    for row in rows:
        accuracy = "-" if row["accuracy"] is None else f"{row['accuracy']:.2%}"
        size = "-" if row["bytes"] is None else f"{'' if row['measured'] else '~'}{row['bytes'] / 1e6:.1f}"
        cells = (
            row["name"],
            row["backbone"],
            accuracy,
            size,
            row["licence"],
            output.format_cell(row["cached"] is not None),
        )
        drawn.add_row(*(Text(make_printable(cell)) for cell in cells))
        places += [Text(make_printable(f"{row['name']}: {row['cached']}"))] if row["cached"] else []
    return Group(drawn, *places)


@command("NAME", "finetune weights fetch hub-v1.1", "finetune weights fetch card.md", of=weights)
def fetch(name: Name, backbone: Of = None) -> Answer:
    """Download weights into the cache and verify them.

    NAME is as in a recipe: one that `finetune weights ls` lists, URL#sha256=HEX,
    or a card of MindSpore Hub. Without --backbone, it is the backbone that offers
    NAME, or the default backbone of recipes.
    """
    from finetune.errors import UsageError, WeightsError
    from finetune.weights import examining, fetching, loading
    from finetune.weights.fetching import resolve

    catalogue = load_catalogue()
    chosen = find_offering_backbone(catalogue, name) if backbone is None else find_backbone(catalogue, backbone)
    source = resolve(name, chosen, fetching.make_plugin_fetch(catalogue.plugins))
    if source is None:
        raise UsageError("nothing to download for 'none'; choose one of the weights listed by `finetune weights ls`")
    digest = loading.hash_file(source.path)
    failure: WeightsError | None
    try:
        failure = examining.examine(source.path, (), chosen).failure
    except WeightsError as error:  # downloaded and verified, but not usable
        failure = error
    data = {
        "name": source.name,
        "backbone": chosen.name,
        "path": str(source.path),
        "sha256": digest,
        "verified": source.verified,
        "note": source.note,
    }
    shown = [(key, str(value)) for key, value in data.items() if value]
    return Answer(data=data, view=lambda: output.render_pairs(shown), failure=failure)


def find_offering_backbone(catalogue: Catalogue, name: str) -> Backbone:
    """Return the backbone that offers weights with this name, or the default backbone of recipes."""
    from finetune.errors import UsageError
    from finetune.recipe.models import BackboneSection

    found = [each for each in list_backbones(catalogue) if name in each.weights]
    if len(found) > 1:
        raise UsageError(f"{' and '.join(each.name for each in found)} offer weights '{name}'; choose with --backbone")
    return found[0] if found else find_backbone(catalogue, BackboneSection().use)


@command(
    "FILE", "finetune weights inspect hub.ckpt", "finetune weights inspect hub.ckpt --backbone resnext50", of=weights
)
def inspect(file: File, backbone: Of = None) -> Answer:
    """Show what a weights file contains.

    FILE is a safetensors file, a MindSpore checkpoint, a PyTorch file if torch is
    installed, or the folder of a run or model. With --backbone, a file that does
    not fit is an error.
    """
    from finetune.weights import examining

    about = examine_file(file, backbone)
    found = examining.build_report(about)
    return Answer(data=found, view=lambda: render_description(found), failure=about.failure)


def examine_file(file: Path, backbone: str | None) -> Examined:
    """Examine a file, or the folder of a run or model, and compare it with one backbone or with all."""
    from finetune.errors import WeightsError
    from finetune.weights import examining
    from finetune.weights.fetching import CARD, check_name, find_in_folder

    catalogue = load_catalogue()
    chosen = None if backbone is None else find_backbone(catalogue, backbone)
    path = find_in_folder(expand_home(file))
    check_name(path)
    if path.suffix.lower() == CARD and path.is_file():
        remedy = "fetch them with `finetune weights fetch`, and name the file that it prints"
        raise WeightsError(f"'{path}' is a card, which only describes weights; {remedy}")
    return examining.examine(path, list_backbones(catalogue), chosen)


def render_description(found: Mapping[str, Any]) -> RenderableType:
    """Return the contents of a file for people: a line for each fact, and the first names of each kind."""
    facts = ("path", "bytes", "sha256", "format", "source", "backbone", "layout", "options", "classes", "parameters")
    rows = [(key, output.format_cell(found[key])) for key in facts]
    rows += describe_images(found["preprocessing"])
    for kind in NAMES:
        names = list(found[kind])
        first = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
        rows.append((kind, f"{len(names)}  {first}".rstrip()))
    sizes = (f"{each['name']} {'x'.join(map(str, each['shape']))} {each['dtype']}" for each in found["largest"])
    return output.render_pairs([*rows, ("largest", "\n".join(sizes))])


def describe_images(found: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return the images that weights expect, the reason, and contradictions; empty if no backbone matches."""
    from finetune.weights.preprocessing import format_recipe_line

    if found is None:
        return []
    others = [f"but {each['from']}: {format_recipe_line(each['image'])}" for each in found["alternatives"]]
    return [("images", "\n".join([f"{format_recipe_line(found['image'])}  ({found['why']})", *others]))]


@command(
    "FILE --to FORM",
    "finetune weights convert hub.ckpt --to safetensors",
    "finetune weights convert runs/mine-001/model/weights.safetensors --to ckpt",
    of=weights,
    alone="target",
)
def convert(
    file: File,
    to: To,
    backbone: Of = None,
    target: Out = None,
    float16: Half = False,
    no_head: Headless = False,
    force: Force = False,
) -> Answer:
    """Convert weights to another format, without loss.

    FORM is safetensors or ckpt, with the names of this project, or a layout of
    the backbone such as torchvision. Optimizer state is left out.
    """
    from finetune.weights import examining

    about = examine_file(file, backbone)
    if about.failure is not None:
        raise about.failure
    form = to.lower()
    layout = None if about.backbone is None else examining.choose_layout(about.backbone, form)
    ending = form if layout is None else f"{layout.name}.{layout.format}"
    if target == STDOUT:
        return convert_to_stdout(about, form, half=float16, head=not no_head)
    beside = about.path.with_suffix(f".{ending}").name
    place = about.path.parent / beside if target is None else expand_home(target)
    place = place / beside if os.path.isdir(place) else place
    check_place(place, f".{layout.format if layout else form}")
    output_file = Output(path=place, command="weights convert", force=force, inputs=[expand_home(file), about.path])
    output_file.check()
    done = {**examining.convert(about, form, output_file.place, half=float16, head=not no_head), "path": str(place)}
    output_file.note()
    shown = ((key, output.format_cell(value)) for key, value in done.items() if value not in ("", []))
    return Answer(data=done, view=lambda: output.render_pairs(shown))


def convert_to_stdout(about: Examined, form: str, *, half: bool, head: bool) -> Answer:
    """Return converted weights for standard output, and print warnings about them as messages."""
    from tempfile import TemporaryDirectory

    from finetune.display.progress import Progress
    from finetune.weights import examining

    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        done = examining.convert(about, form, path, half=half, head=head)
        content = path.read_bytes()
    if done["note"]:
        Progress().say(done["note"])
    return Answer(data=done, content=content)


def check_place(place: Path, ending: str) -> None:
    """Raise ``UsageError`` for a file name or folder that does not suit weights of this format."""
    from finetune.errors import UsageError

    if place.suffix.lower() != ending:
        raise UsageError(f"'{place}' does not match the format {ending[1:]}; end its name with {ending}")
    if not os.path.isdir(place.parent):
        raise UsageError(f"no folder '{place.parent}'; create it first")
