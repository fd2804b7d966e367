"""A pretrained network on drawn photos, of which more than the head trains: runs of a few seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.features import tiny

if TYPE_CHECKING:
    from pathlib import Path

LAST = {"use": "stages", "train": ["last"]}


def recipe(photos: Path, output: Path, **sections: Any) -> dict[str, Any]:
    """Return a recipe whose head is fitted and whose last stage then trains, at a rate that the run measures."""
    said: dict[str, Any] = {
        "name": "small",
        "output": str(output),
        "backbone": {"use": "resnext_nano", "weights": "fractals"},
        "dataset": {"use": "folder", "root": str(photos)},
        "image": {"size": 32, "resize": 36},
        "freeze": LAST,
        "train": {"epochs": 2, "batch_size": 8},
        "cache": {"views": 1},
        "callbacks": [],
    }
    for name, section in sections.items():
        said[name] = {**said.get(name, {}), **section} if name in ("train", "cache") else section
    return said


def run(photos: Path, output: Path, *, resume: Path | None = None, **sections: Any) -> tiny.Made:
    """Run such a recipe in this process."""
    return tiny.run(recipe(photos, output, **sections), resume=resume)
