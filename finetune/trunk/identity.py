"""What features depend on: everything that could make them others, so that a change of any makes them anew."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.machine.environment import packages
from finetune.plugins import own_version

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from finetune.components import Component
    from finetune.data.labelled import Part

RULES = 1  # raise when decoding, fitting or the trunk computes other numbers than before
LIBRARIES = ("mindspore", "numpy", "pillow", "albumentations", "opencv-python-headless")
MOST_FILES = 2000  # of a plugin's package that are hashed
PROCESS = secrets.token_hex(8)


def versions() -> dict[str, Any]:
    """Return the versions of what decodes, augments and computes."""
    found = packages()
    return {"rules": RULES, "finetune": own_version(), **{name: found[name] for name in LIBRARIES}}


def of_arrays(arrays: Iterable[tuple[str, NDArray[np.generic]]]) -> str:
    """Return a hash of named arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in arrays:
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def of_images(part: Part) -> str:
    """Return a hash of the contents of a part's images, in their order."""
    return hashlib.blake2b("\n".join(map(str, part.hashes)).encode(), digest_size=16).hexdigest()


def of_code(component: Component) -> str:
    """Return a hash of the code that a component comes from; of code without a file, a name for this process alone."""
    build: Any = component.build
    while isinstance(build, partial):
        build = build.func
    return of_package(getattr(build, "__module__", None) or type(build).__module__)


@cache
def of_package(module: str) -> str:
    """Return a hash of the source files of a module's package."""
    top = sys.modules.get(module.partition(".")[0])
    own = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or top is None or own is None:
        return PROCESS
    paths = [Path(folder) for folder in getattr(top, "__path__", ())]
    files = sorted(file for folder in paths for file in folder.rglob("*.py")) or [Path(own)]
    if len(files) > MOST_FILES:
        files = sorted(Path(own).parent.glob("*.py"))
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(os.fsencode(file.name))
        digest.update(file.read_bytes())
    return digest.hexdigest()
