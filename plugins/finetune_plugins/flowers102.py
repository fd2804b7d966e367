"""Dataset ``flowers102``: Oxford's 102 flowers, 8,189 photos (Nilsback and Zisserman 2008)."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune import (
    DataError,
    Dataset,
    Finding,
    Options,
    Samples,
    Split,
    cache_folder,
    existing_file,
    expand_home,
    explain_missing,
    extract,
    fetch,
    hookimpl,
)
from finetune_plugins import folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

HOME = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
PHOTOS, LABELS, SPLITS = "102flowers.tgz", "imagelabels.mat", "setid.mat"
HASHES = {
    PHOTOS: "sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
    LABELS: "sha256:4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
    SPLITS: "sha256:46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
}
KEYS: dict[Split, str] = {"train": "trnid", "valid": "valid", "test": "tstid"}
NAMES = "cat_to_name.json"


class Flowers102(Options):
    """Photos of 102 kinds of flowers that grow in Britain."""

    root: Path | None = None
    """Folder with `train`, `valid` and `test`, or with the files as distributed; by default a folder in the cache."""
    download: bool = False
    """Whether to download missing files, 345 MB."""
    url: str = HOME
    """Address of the folder to download from; the files are checked against known hashes."""


@hookimpl
def finetune_datasets() -> Iterable[Dataset]:
    """Offer the dataset ``flowers102``."""
    yield Dataset(name="flowers102", options=Flowers102, build=build)


def build(options: Flowers102, split: Split) -> Samples | None:
    """Return the images of a split, with the names of the flowers in the order of their numbers."""
    root = expand_home(options.root or cache_folder() / "flowers102")
    if os.path.isfile(root):
        raise DataError(f"'{root}' is a file, not a folder; check dataset.root")
    names = read_flower_names(root)
    if os.path.isdir(root / "train"):
        samples = folder.build(folder.Folder(root=root), split)
        named = tuple(names.get(number, number) for number in samples.classes) if samples else ()
        return samples and replace(samples, classes=named)
    photos = obtain_photos(root, options)
    labels, ids = read_mat(root / LABELS, "labels"), read_mat(root / SPLITS, KEYS[split])
    if min(labels) < 1 or min(ids) < 1 or max(ids) > len(labels):
        raise DataError(f"'{root}' has {LABELS} and {SPLITS} that do not match; download both again")
    return gather_photos(photos, labels, sorted(ids), names)


def gather_photos(photos: Path, labels: list[int], ids: list[int], names: Mapping[str, str]) -> Samples:
    """Return the images with these ids, which count from 1."""
    numbers = sorted(set(labels))
    there = set(os.listdir(photos))
    found = [(i, f"image_{i:05d}.jpg") for i in ids if f"image_{i:05d}.jpg" in there]
    findings = []
    if len(found) < len(ids):
        text = f"lacks {len(ids) - len(found)} of {len(ids)} photos; remove the folder and unpack {PHOTOS} again"
        findings = [Finding(severity="error", subject=str(photos), text=text)]
    return Samples(
        images=[photos / name for _, name in found],
        labels=[numbers.index(labels[i - 1]) for i, _ in found],
        classes=tuple(names.get(str(number), str(number)) for number in numbers),
        findings=tuple(findings),
    )


def obtain_photos(root: Path, options: Flowers102) -> Path:
    """Return the folder of the images, after downloading and unpacking missing files."""
    writable = root if not root.exists() or os.access(root, os.W_OK) else cache_folder() / "flowers102"
    unpacked = writable / "102flowers"
    photos = next((path for path in (root / "jpg", unpacked / "jpg") if path.is_dir()), None)
    missing = [name for name in HASHES if not (root / name).exists() and (name != PHOTOS or not photos)]
    if missing and not options.download:
        raise make_missing_error(root, missing, options)
    for name in missing:
        fetch(f"{options.url.rstrip('/')}/{name}", HASHES[name], root / name)
    if not photos:
        extract(root / PHOTOS, unpacked)
    return photos or unpacked / "jpg"


def make_missing_error(root: Path, missing: list[str], options: Flowers102) -> DataError:
    """Return the error that lists the missing files and how to get them."""
    what = f"'{root}' lacks {', '.join(missing)}"
    if not os.path.exists(root):
        wrong = explain_missing(root, "dataset.root")
        what = f"no folder '{root}'{wrong.partition(';')[0]}"
        if "did you mean" in wrong:
            return DataError(f"no folder '{root}'{wrong}")
    return DataError(f"{what}; set dataset.download=true, or put the files from {options.url} in it")


def read_mat(file: Path, key: str) -> list[int]:
    """Return a list of integers from a MATLAB file; raises ``DataError`` if the file is damaged or has no such list."""
    from scipy.io import loadmat

    existing_file(file, "dataset.root")
    try:
        values: NDArray[np.int64] = loadmat(file, variable_names=[key])[key].ravel()
        return [int(value) for value in values] or [0]
    except Exception as error:  # scipy raises many kinds of errors for a damaged file
        raise DataError(f"'{file}' is damaged or has no numbers '{key}'; delete it and download it again") from error


def read_flower_names(root: Path) -> dict[str, str]:
    """Return the names by number (as text), from a file next to the images if there is one."""
    file = root / NAMES
    if not file.exists():
        names = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
        return {str(number): name for number, name in enumerate(names, 1)}
    try:
        given: Any = json.loads(file.read_text(encoding="utf-8"))
        return {str(number): str(name) for number, name in given.items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"'{file}' does not map numbers to names; fix it or delete it") from error
