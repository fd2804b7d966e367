"""Pretrained weights from a folder that a company shares: ``weights: company://net.safetensors#sha256=HEX``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from finetune import Weights, WeightsError, fetch, hookimpl

FOLDER = "COMPANY_WEIGHTS"


@hookimpl
def finetune_fetch_weights(weights: Weights, cache: Path) -> Path | None:
    """Return the file of a ``company://`` address, and leave all other addresses to others."""
    parts = urlsplit(weights.url)
    if parts.scheme != "company":
        return None
    name = unquote(parts.netloc + parts.path)
    if not re.fullmatch("[0-9a-f]{64}", weights.sha256):  # it also tells apart files of the same name in the cache
        raise WeightsError(f"'company://{name}' needs the whole sha256 of its file; write #sha256= and 64 hex digits")
    if not os.environ.get(FOLDER):
        raise WeightsError(f"'company://{name}' is below no folder; set {FOLDER} to the one that the company shares")
    folder = Path(os.environ[FOLDER]).expanduser().resolve()
    file = (folder / name).resolve()
    if folder not in file.parents:
        raise WeightsError(f"'company://{name}' leads out of '{folder}'; name a file in there")
    # A verified copy in the cache is used from then on, also where the folder is not mounted.
    return fetch(file.as_uri(), f"sha256:{weights.sha256}", cache / "company" / f"{weights.sha256[:12]}-{file.name}")
