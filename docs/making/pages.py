"""Photograph the pages of the documentation's guides in a browser: report, audit, review and comparison; a minute.

    python docs/making/pages.py

The photos are drawn by the dataset ``shapes``, and a few lie in wrong folders. Needs chromium and the extra ``dev``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from finetune_plugins.shapes import Shapes, build

REPO = Path(__file__).resolve().parents[2]
PICTURES = REPO / "docs" / "pictures"
FOLDER = Path("/tmp/flowers")  # shown on the pages, so the same each time
SIZE = ("backbone.use=resnext_nano", "image.size=96", "image.resize=96")
MOVED = (("rose", "tulip"), ("daisy", "sunflower"), ("lily", "clover"), ("tulip", "rose"))
COLOURS = 64  # of a picture, which keeps it small


def main() -> None:
    """Make all pictures and print their sizes."""
    with tempfile.TemporaryDirectory() as name:
        folder = FOLDER
        folder.mkdir()
        os.environ["FINETUNE_HOME"] = str(Path(name) / "home")
        draw_photos(folder)
        run(folder, "run", "mine.yaml", "name=before", *SIZE)
        run(folder, "audit", "mine.yaml", *SIZE)
        corrections = "dataset.corrections=runs/audit-001/corrections.csv"
        run(folder, "run", "mine.yaml", "name=after", corrections, *SIZE)
        run(folder, "compare", "runs/before-001", "runs/after-001", "--data", "test", "--html", "compare.html")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            show(browser, f"file://{folder}/runs/before-001/report.html", "report", height=1250)
            show(
                browser, f"file://{folder}/runs/before-001/report.html", "report-dark", width=420, height=900, dark=True
            )
            show(browser, f"file://{folder}/runs/audit-001/audit.html", "audit", height=620)
            show(browser, f"file://{folder}/compare.html", "comparison", height=700)
            with_review(folder, lambda address: show(browser, address, "review", height=600))
            browser.close()
    shutil.rmtree(folder)


def draw_photos(folder: Path) -> None:
    """Draw 40 photos of each of six flowers, of which two of four kinds lie in a wrong folder, and test photos."""
    for top, split in (("photos", "train"), ("test", "test")):
        drawn = build(Shapes(train=240, test=120, classes=6), split)
        assert drawn is not None
        for number, (picture, label) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
            file = folder / top / drawn.classes[label] / f"{number:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)  # type: ignore[arg-type]
    for right, wrong in MOVED:
        for file in sorted((folder / "photos" / right).iterdir())[:2]:
            shutil.move(file, folder / "photos" / wrong / file.name)
    (folder / "mine.yaml").write_text("dataset: {use: folder, root: photos}\n")


def run(folder: Path, *words: str) -> None:
    """Run a command."""
    subprocess.run([sys.executable, "-m", "finetune", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def show(browser: Any, address: str, name: str, *, width: int = 860, height: int = 900, dark: bool = False) -> None:
    """Photograph the top of a page."""
    page: Page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
    page.goto(address)
    page.wait_for_load_state("networkidle")
    target = PICTURES / f"{name}.png"
    page.screenshot(path=target)
    page.close()
    Image.open(target).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target.relative_to(REPO)}  {target.stat().st_size / 1000:.0f} kB")


def with_review(folder: Path, act: Any) -> None:
    """Call ``act`` with the address of a review, and end the review."""
    command = [sys.executable, "-m", "finetune", "review", "runs/audit-001"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        act(next(match for line in process.stderr if (match := re.search(r"http://\S+", line)))[0])
        process.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
