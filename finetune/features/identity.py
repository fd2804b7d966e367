"""What features depend on: everything that could make them others, so that a change of any makes them anew."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import time
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.machine.environment import ISA_FLAGS, cpu_flags, packages, usable_cores
from finetune.version import own_version

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from finetune.components import Component
    from finetune.data.labelled import Part

RULES = 1  # raise when decoding, fitting or the trunk computes other numbers than before
LIBRARIES = (
    *("mindspore", "numpy", "pillow", "albumentations", "albucore", "scipy"),
    *("opencv-python-headless", "opencv-python"),
)
MOST_FILES = 2000  # of a plugin's package that are hashed
LARGE = 1 << 20  # bytes from which on a file of a package counts by size and time
PROCESS = secrets.token_hex(8)
BEGAN = time.time_ns()


@cache
def versions() -> dict[str, Any]:
    """Return the versions of what decodes, augments and computes."""
    found = packages()
    return {"rules": RULES, "finetune": own_version(), **{name: found[name] for name in LIBRARIES}}


def processor() -> list[str]:
    """Return what of the processor decides on rounding: its instruction sets and the number of cores used."""
    return [*(flag for flag in ISA_FLAGS if flag in cpu_flags()), f"{usable_cores()} cores"]


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


def of_package(module: str) -> str:
    """Return a hash of the files of a module's package; if one changed since this process began, for it alone."""
    top = sys.modules.get(module.partition(".")[0])
    own = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or top is None or own is None:
        return PROCESS
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    files = sorted(file for folder in folders for file in folder.rglob("*") if counts(file)) or [Path(own)]
    if len(files) > MOST_FILES:
        files = sorted(file for file in Path(own).parent.glob("*") if counts(file))
    stamps = tuple((file, status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()])
    # What was edited since the process began may not be what runs.
    edited = max(stamp for _, _, stamp in stamps) > BEGAN
    return f"{PROCESS} {of_files(stamps)}" if edited else of_files(stamps)


@cache
def of_files(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Return a hash of files, given with their sizes and times in ns, which count in place of a large content."""
    digest = hashlib.blake2b(digest_size=16)
    for file, length, stamp in stamps:
        digest.update(os.fsencode(file.name) + (file.read_bytes() if length < LARGE else f"{length} {stamp}".encode()))
    return digest.hexdigest()


def counts(file: Path) -> bool:
    """Tell whether a file of a package can decide on what it computes."""
    return "__pycache__" not in file.parts and file.is_file()
