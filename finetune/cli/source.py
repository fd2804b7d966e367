"""Recipes on the command line: a file, standard input, a bundled recipe, or the recipe of a run to resume."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import UsageError
from finetune.files.atomic import expand_home
from finetune.recipe import bundled
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from finetune.catalogue import Catalogue
    from finetune.recipe.plan import Plan

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeArguments:
    """The recipe on the command line, if any, and its overrides."""

    recipe: str | None
    changes: tuple[str, ...]

    def plan(self, catalogue: Catalogue, *, output: Path | None = None, folder: Path | None = None) -> Plan:
        """Return the plan of the recipe, or of the run in ``folder`` if no recipe is given."""
        from finetune.recipe import plan as plans

        # Quoted, so that a folder named 1 or null stays text.
        last = () if output is None else (f"output={json.dumps(str(output))}",)
        return plans.load_plan(self._source(folder), (*self.changes, *last), catalogue)

    def inputs(self, plan: Plan) -> list[Path]:
        """Return the recipe's files and the files and folders that it names, none of which may be overwritten."""
        from finetune.recipe.extending import list_files
        from finetune.recipe.places import is_weights_file

        recipe, weights = self.recipe, str(plan.recipe.backbone.weights)
        source = None if recipe is None else find_source(recipe)
        written = list_files(bundled.list_recipes()[recipe] if recipe and isinstance(source, dict) else source)
        options = [plan.dataset.options, *(each.options for each in plan.augment)]
        named = [value for each in options for _, value in each if isinstance(value, Path)]
        return [*written, *named, *([Path(weights)] if is_weights_file(weights) else [])]

    def _source(self, folder: Path | None) -> Path | str | Mapping[str, Any]:
        if self.recipe is None:
            if folder is None:
                raise UsageError("no recipe given; name a file, - for standard input, or one that `finetune ls` lists")
            from finetune.recipe.moved import load_run_recipe

            return load_run_recipe(folder)
        return find_source(self.recipe)


def load_catalogue() -> Catalogue:
    """Load the plugins and return their components."""
    from finetune import plugins
    from finetune.catalogue import Catalogue

    return Catalogue(plugins.load_plugins())


def parse_words(words: Sequence[str] | None) -> RecipeArguments:
    """Split words into recipe and overrides: the recipe comes first and has neither ``=`` nor a leading ``~``."""
    first, *rest = words or ("",)
    if not first:
        return RecipeArguments(recipe=None, changes=tuple(rest))
    is_change = re.match(r"[\w.\[\]\"-]+=|~[\w\"][^/]*$", first) is not None and not os.path.exists(first)
    return (
        RecipeArguments(recipe=None, changes=(first, *rest))
        if is_change
        else RecipeArguments(recipe=first, changes=tuple(rest))
    )


def find_source(name: str) -> Path | str | Mapping[str, Any]:
    """Return a source for the engine: ``-``, a file, or the values of a bundled recipe, with paths from this folder."""
    path = expand_home(name)
    if name == "-":
        return name
    is_folder = os.path.isdir(path)  # path.is_dir() raises for a name of 300 letters
    if is_folder and name not in bundled.list_recipes():
        smallest = f"dataset: {{use: folder, root: {name}}}"
        raise UsageError(f"{name} is a folder, not a recipe; the smallest recipe for its photos is '{smallest}'")
    looks_like_file = path.suffix in (".yaml", ".yml", ".json") or "/" in name
    if (os.path.exists(path) and not is_folder) or (looks_like_file and name not in bundled.list_recipes()):
        return path
    known = bundled.list_recipes()
    if name not in known:
        raise UsageError(f"no file and no bundled recipe named '{name}'{did_you_mean(name, known)}")
    from finetune.recipe.document import read_recipe

    return {"name": name.rpartition("/")[2], **read_recipe(known[name]).values}


def find_run_to_resume(
    given: str | None, asked: RecipeArguments, catalogue: Catalogue, output: Path | None
) -> Path | None:
    """Return the run folder to resume; for ``auto``, the newest run of the recipe with a checkpoint, or None."""
    if given is None:
        return None
    if given != AUTO:
        folder = expand_home(given)
        if not os.path.isfile(folder / "recipe.yaml"):
            raise UsageError(f"no run in {given}: it has no recipe.yaml; name a folder that `finetune run` made")
        return folder
    if asked.recipe is None:
        raise UsageError("--resume auto needs a recipe; name the recipe of the run")
    recipe = asked.plan(catalogue, output=output).recipe
    return find_newest_run(recipe.output, recipe.name)


def find_newest_run(output: Path, name: str) -> Path | None:
    """Return the run folder with the highest number among those that have a checkpoint or are finished."""
    pattern = re.compile(rf"{re.escape(name)}-(\d+)")
    folders = [path for path in output.glob(f"{name}-*") if pattern.fullmatch(path.name)]
    begun = [path for path in folders if any(path.glob("checkpoints/*")) or (path / "result.json").exists()]
    return max(begun, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
