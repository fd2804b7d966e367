"""Which files a model consists of, and which files an export writes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from finetune.errors import UsageError
from finetune.files import atomic, outputs
from finetune.files.outputs import API_REMEDY, CLI_REMEDY, Output
from finetune.text import escape_line

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ("onnx", "mindir")
MODEL_FILES = ("model.json", "weights.safetensors", "README.md")
RUN_FILES = (
    *("recipe.yaml", "environment.json", "data.json", "weights.json", "split.csv"),
    *("metrics.jsonl", "result.json", "log.txt"),
)


def own_files(folder: Path) -> list[Path]:
    """Return the files of a model folder and of the run that it belongs to, which no command that reads them writes."""
    own, run = [folder / name for name in MODEL_FILES], folder.parent
    if folder.name == "model" and (run / "recipe.yaml").is_file():
        own += [*(run / name for name in RUN_FILES), *(run / "checkpoints").glob("*")]
    return own


def export_outputs(
    path: Path, format: str, folder: Path | None, *, force: bool, remedy: str = CLI_REMEDY
) -> tuple[Output, Output]:
    """Return the two files that an export of the model in ``folder`` writes, after a look at their places.

    Raises ``UsageError`` for a name with another ending, and for files that exist unless ``force`` replaces them.
    """
    if not path.name or os.path.isdir(path):
        raise UsageError(f"'{escape_line(str(path))}' is a folder; name a file in it that ends with .{format}")
    if path.suffix != f".{format}":
        renamed = path.with_suffix(f".{format}")
        other = f", or choose the format {path.suffix[1:]}" if path.suffix[1:] in FORMATS else ""
        raise UsageError(f"{path} does not end with .{format}; name the file {renamed}{other}")
    inputs = own_files(folder) if folder else []
    graph = Output(path=path, command="export", force=force, inputs=inputs, remedy=remedy)
    beside = path.with_name(f"{path.name}.json")
    about = Output(path=beside, command="export", force=force, inputs=inputs, remedy=remedy)
    outputs.check_all([graph, about])
    return graph, about


def copy_model(source: Path, target: Path, *, force: bool) -> Path:
    """Copy a model folder, ``model.json`` last, and return the copy.

    Raises ``UsageError`` for a folder that holds something else, unless ``force`` overwrites the model's files in it.
    """
    files = sorted((path for path in source.iterdir() if path.is_file()), key=lambda path: path.name == "model.json")
    copies = [
        Output(path=target / file.name, command="save", force=force, inputs=files, remedy=API_REMEDY) for file in files
    ]
    with atomic.disk_errors(target):
        others = {path.name for path in target.iterdir()} - {file.name for file in files} if target.is_dir() else set()
        if others and not force:
            raise UsageError(f"{target} is not empty; name a new folder or pass force=True")
        outputs.check_all(copies)
        for file, copy in zip(files, copies, strict=True):
            copy.write(file.read_bytes())
    return target
