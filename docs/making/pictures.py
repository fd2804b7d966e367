"""Make the pictures of the documentation by running the program; takes about a minute.

    python docs/making/pictures.py

The run of the first tutorial on a terminal, with the confusion matrix and the predictions of its TensorBoard file; the
quickstart half-way; and a recipe with mistakes. ``architecture.svg`` is drawn by hand.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import screen
import transcripts

REPO = Path(__file__).resolve().parents[2]
PICTURES = REPO / "docs" / "pictures"
MISTAKES = "dataset: {use: folder, root: photos/}\nfreeze: {use: gradul}\ntrain: {epoch: 3, batch_size: none}\n"
UNDER_WAY = re.compile(r"3/4 .*step (1\d|2\d)/", re.S)


def main() -> None:
    """Make all pictures and print their sizes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FINETUNE_HOME"] = str(folder / "home")
        draw_mistakes(folder)
        draw_running(folder)
        draw_fitted(folder)
        draw_tensorboard(folder / "runs" / "my-001" / "tensorboard")
    for file in sorted(PICTURES.iterdir()):
        print(f"{file.relative_to(REPO)}  {file.stat().st_size / 1000:.0f} kB")


def draw_mistakes(folder: Path) -> None:
    """Draw the output of ``finetune check`` for a recipe with mistakes."""
    (folder / "my.yaml").write_text(MISTAKES)
    written = "".join(screen.record(screen.finetune("check", "my.yaml"), folder))
    screen.write_picture(
        PICTURES / "mistakes.svg", "finetune check my.yaml", drop_blank_end(screen.read_lines(written))
    )


def draw_running(folder: Path) -> None:
    """Draw a run in its third epoch."""
    pieces = screen.record(screen.finetune("run", "quickstart"), folder)
    middle = next(number for number, piece in enumerate(pieces) if UNDER_WAY.search(piece))
    command = "finetune run quickstart"
    screen.write_picture(
        PICTURES / "running.svg", command, drop_blank_end(screen.read_lines("".join(pieces[: middle + 1])))
    )


def draw_fitted(folder: Path) -> None:
    """Draw the run of the first tutorial, on the photos that it draws."""
    page = (REPO / "docs" / "tutorials" / "first-model.md").read_text(encoding="utf-8")
    files = dict(step for step in transcripts.steps(page) if not isinstance(step, transcripts.Command))
    for name in ("draw.py", "my.yaml"):
        (folder / name).write_text(files[name], encoding="utf-8")
    screen.record([sys.executable, "draw.py"], folder)
    written = "".join(screen.record(screen.finetune("run", "my.yaml"), folder))
    screen.write_picture(PICTURES / "run.svg", "finetune run my.yaml", drop_blank_end(screen.read_lines(written)))


def drop_blank_end(lines: list[str]) -> list[str]:
    """Return lines without the blank ones at the end."""
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines


def draw_tensorboard(folder: Path) -> None:
    """Save the pictures in the event file of a run."""
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    for tag in ("confusion", "images/predictions"):
        image = Image.open(BytesIO(events.Images(tag)[-1].encoded_image_string)).convert("RGB")
        half = image.crop((0, 0, image.width, image.height // 2)) if tag.startswith("images/") else image
        half.quantize(64).save(PICTURES / f"{tag.rpartition('/')[2]}.png", optimize=True)


if __name__ == "__main__":
    main()
