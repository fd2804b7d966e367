"""``check_audit``: checks the contract of checks of audits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.components import Audit, AuditedImages, ImageFinding
from finetune.testing.contract import COMMON, PROCESS, Inspection, StopCheck, call_build, inspect_component
from finetune.testing.photos import draw_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from finetune.components import Pixels

RULES = {
    **COMMON,
    "build": "`build(options)` returns a function from `AuditedImages` to findings",
    "findings": "it returns `ImageFinding`s about images of the audit, and relabels only as one of the classes",
    "repeat": "the same images give the same findings, also after another `build`",
    "images": "it does not change features and labels",
    "few": "it can be called with two images",
    **PROCESS,
}
CLASSES = ("blue", "red")
SIZES = ((48, 64), (64, 48), (5, 5), (300, 12), (48, 64), (31, 33), (48, 64), (1, 1))  # height and width in pixels
WIDTH = 16


def check_audit(audit: Audit | str, options: Mapping[str, Any] | None = None, *, skip: Collection[str] = ()) -> None:
    """Raise ``ContractError`` with every rule of checks of audits that one breaks.

    ``audit`` is a component, or the name of an installed one; ``options`` are its options as in a recipe. ``skip``
    lists rules to skip.
    """
    __tracebackhide__ = True
    inspection = inspect_component(Audit, audit, options, RULES, skip)
    with inspection.going_on():
        check_findings(inspection)
    inspection.report()


def make_images(count: int) -> AuditedImages:
    """Return images of several sizes, the last of which equals the first."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((count, WIDTH), np.float32)
    features[-1] = features[0]

    def read(index: int) -> Pixels:
        return draw_picture(*SIZES[index % len(SIZES)], seed=index % (count - 1))

    return AuditedImages(
        paths=tuple(f"{CLASSES[at % 2]}/{at}.jpg" for at in range(count)),
        splits=tuple("train" if at % 4 else "valid" for at in range(count)),
        labels=np.arange(count) % 2,
        classes=CLASSES,
        features=features,
        read=read,
    )


def check_findings(inspection: Inspection[Audit]) -> None:
    """Call the check for a few images, again, after another build, and for two images."""
    check = build_check(inspection)
    images = make_images(len(SIZES))
    features, labels = images.features.copy(), images.labels.copy()
    found: list[ImageFinding] = []
    with inspection.rule("findings", "the check, called for 8 images,", "fix it", vital=True):
        found = list(check(images))
        for finding in found:
            if text := find_fault(finding, len(images)):
                inspection.breaks("findings", text)
                raise StopCheck
    if not (np.array_equal(features, images.features) and np.array_equal(labels, images.labels)):
        inspection.breaks("images", "it changed features or labels; work on a copy")
        raise StopCheck
    with inspection.rule("repeat", "the check, called again,", "keep no state between calls"):
        if list(check(images)) != found or list(build_check(inspection)(images)) != found:
            inspection.breaks("repeat", "called again, it finds something else; keep no state between calls")
    with inspection.rule("few", "the check, called for two images,", "return no findings if there are too few images"):
        list(check(make_images(2)))


def build_check(inspection: Inspection[Audit]) -> Callable[[AuditedImages], Iterable[ImageFinding]]:
    """Return the result of ``build``."""
    check = call_build(inspection)
    if not callable(check):
        inspection.breaks("build", f"build returned {check!r:.80}; return a function of images")
        raise StopCheck
    result: Callable[[AuditedImages], Iterable[ImageFinding]] = check
    return result


def find_fault(finding: object, count: int) -> str:
    """Return what is wrong with a finding; empty if it is valid."""
    if not isinstance(finding, ImageFinding):
        return f"it returned {finding!r:.80}; yield finetune.ImageFinding"
    if not 0 <= finding.image < count:
        return f"it found something about image {finding.image} of {count}; use the index of the image"
    if finding.relabel is not None and finding.relabel not in CLASSES:
        return f"it relabels an image as '{finding.relabel}'; use one of `images.classes`"
    return ""
