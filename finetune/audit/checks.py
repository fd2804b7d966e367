"""Checks from plugins: run the components of the recipe's ``audit`` section on the images of an audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.components import AuditedImages, ImageFinding
from finetune.data.images import decode
from finetune.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from finetune.audit.audit import Examined
    from finetune.catalogue import Chosen
    from finetune.components import Audit, Pixels


def run_checks(
    chosen: Sequence[Chosen[Audit]], images: Examined, say: Callable[[str], None], check: Callable[[], None]
) -> dict[str, tuple[ImageFinding, ...]]:
    """Return the findings of each check, by its name; a check that is there twice is numbered.

    Raises ``PluginError`` with the plugin's name if a check fails or returns something else.
    """
    given = convert_images(images)
    found: dict[str, tuple[ImageFinding, ...]] = {}
    for each in chosen:
        check()
        name, number = each.component.name, 2
        while name in found:
            name, number = f"{each.component.name} {number}", number + 1
        say(f"running the check '{name}'")
        function = each.build()
        with each.attribute("the check"):
            found[name] = tuple(require_finding(finding, images) for finding in function(given))
    return found


def convert_images(images: Examined) -> AuditedImages:
    """Return images as plugins see them."""

    def read(index: int) -> Pixels:
        return decode(images.sources[index])

    return AuditedImages(
        paths=images.names,
        splits=images.splits,
        labels=images.labels,
        classes=images.classes,
        features=images.features,
        read=read,
    )


def require_finding(finding: object, images: Examined) -> ImageFinding:
    """Return a valid finding; raises ``PluginError`` otherwise."""
    if not isinstance(finding, ImageFinding):
        raise PluginError(f"returned {finding!r:.80}, which is not a finding; yield finetune.ImageFinding")
    if not 0 <= finding.image < len(images.names):
        raise PluginError(f"returned a finding about image {finding.image} of {len(images.names)}; use an index below")
    if finding.relabel is not None and finding.relabel not in images.classes:
        raise PluginError(f"relabels an image as '{finding.relabel}', which is not a class; use a name from classes")
    return finding
