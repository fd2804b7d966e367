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
    """Return the file of a ``company://`` address, and None for any other address."""
    parts = urlsplit(weights.url)
    if parts.scheme != "company":
        return None
    name = unquote(parts.netloc + parts.path)
    if not re.fullmatch("[0-9a-f]{64}", weights.sha256):  # also keeps files of the same name apart in the cache
        raise WeightsError(f"'company://{name}' needs the full sha256 of its file; write #sha256= and 64 hex digits")
    if not os.environ.get(FOLDER):
        raise WeightsError(f"'company://{name}' has no folder to start from; set {FOLDER} to the shared folder")
    folder = Path(os.environ[FOLDER]).expanduser().resolve()
    file = (folder / name).resolve()
    if folder not in file.parents:
        raise WeightsError(f"'company://{name}' leads outside '{folder}'; name a file inside it")
    # From then on, the verified copy in the cache is used, even if the folder is not mounted.
    return fetch(file.as_uri(), f"sha256:{weights.sha256}", cache / "company" / f"{weights.sha256[:12]}-{file.name}")
