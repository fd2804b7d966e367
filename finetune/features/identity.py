"""Identity of features: hashes of everything that affects them, so that a change leads to a new cache entry."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
import time
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.machine.environment import ISA_FLAGS, count_usable_cores, list_packages, read_cpu_flags
from finetune.version import own_version

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from finetune.components import Component
    from finetune.data.labelled import Part

RULES = 1  # increase when decoding, fitting or the trunk computes different numbers than before
LIBRARIES = (
    *("mindspore", "numpy", "pillow", "albumentations", "albucore", "scipy"),
    *("opencv-python-headless", "opencv-python"),
)
MOST_FILES = 2000  # hashed per package of a plugin
LARGE = 1 << 20  # bytes; larger files of a package are identified by size and time
PROCESS = secrets.token_hex(8)
BEGAN = time.time_ns()


@cache
def list_versions() -> dict[str, Any]:
    """Return the versions of the libraries that decode, augment and compute."""
    found = list_packages()
    return {"rules": RULES, "finetune": own_version(), **{name: found[name] for name in LIBRARIES}}


def describe_processor() -> list[str]:
    """Return the properties of the processor that affect rounding: instruction sets and the number of cores."""
    return [*(flag for flag in ISA_FLAGS if flag in read_cpu_flags()), f"{count_usable_cores()} cores"]


def hash_arrays(arrays: Iterable[tuple[str, NDArray[np.generic]]]) -> str:
    """Return a hash of named arrays."""
    digest = hashlib.blake2b(digest_size=16)
    for name, array in arrays:
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def hash_images(part: Part) -> str:
    """Return a hash of the contents of a part's images, in their order."""
    return hashlib.blake2b("\n".join(map(str, part.hashes)).encode(), digest_size=16).hexdigest()


def hash_code(component: Component) -> str:
    """Return a hash of a component's code; code without a file is identified by this process."""
    build: Any = component.build
    while isinstance(build, partial):
        build = build.func
    return hash_package(getattr(build, "__module__", None) or type(build).__module__)


def hash_package(module: str) -> str:
    """Return a hash of the files of a module's package, valid only in this process if one changed since it started."""
    top = sys.modules.get(module.partition(".")[0])
    own = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or top is None or own is None:
        return PROCESS
    folders = [Path(folder) for folder in getattr(top, "__path__", ())]
    files = sorted(file for folder in folders for file in folder.rglob("*") if affects_results(file)) or [Path(own)]
    if len(files) > MOST_FILES:
        files = sorted(file for file in Path(own).parent.glob("*") if affects_results(file))
    stamps = tuple((file, status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()])
    # A file that was edited since the process started may differ from the code that runs.
    edited = max(stamp for _, _, stamp in stamps) > BEGAN
    return f"{PROCESS} {hash_files(stamps)}" if edited else hash_files(stamps)


@cache
def hash_files(stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """Return a hash of files, given with sizes and times in ns, which replace the content of large files."""
    digest = hashlib.blake2b(digest_size=16)
    for file, length, stamp in stamps:
        digest.update(os.fsencode(file.name) + (file.read_bytes() if length < LARGE else f"{length} {stamp}".encode()))
    return digest.hexdigest()


def affects_results(file: Path) -> bool:
    """Return whether a file of a package may affect what it computes."""
    return "__pycache__" not in file.parts and file.is_file()
