"""Check ``small_images``: finds images with fewer pixels than the network needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import PositiveInt

from finetune import Audit, AuditedImages, ImageFinding, Options, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class SmallImages(Options):
    """How small is too small, and whether to leave such images out."""

    least: PositiveInt = 64
    """The fewest pixels of the shorter side."""
    exclude: bool = False
    """Whether `corrections.csv` proposes to exclude these images."""


@hookimpl
def finetune_audits() -> Iterable[Audit]:
    """Return the check ``small_images``."""
    return [Audit(name="small_images", options=SmallImages, build=build)]


def build(options: SmallImages) -> Callable[[AuditedImages], Iterator[ImageFinding]]:
    """Return the check with these options."""

    def check(images: AuditedImages) -> Iterator[ImageFinding]:
        for index in range(len(images)):
            height, width = images.read(index).shape[:2]
            if min(height, width) < options.least:
                text = f"only {width} x {height} pixels"
                yield ImageFinding(image=index, text=text, exclude=options.exclude)

    return check
