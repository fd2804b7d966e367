"""Cards as sources: a card stands for the weights that it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from finetune.errors import DownloadError, WeightsError
from finetune.weights import loading
from finetune.weights.fetching import Source, resolve
from tests.weights.toy import HEAD, hashed, record, toy

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.components import Backbone

pytestmark = pytest.mark.usefixtures("home")

SHAPES = {"stem.conv.weight": (4, 2), "head.fc.weight": (3, 4), "head.fc.bias": (3,)}

CARD = """# Toy

---

model-name: toy

backbone-name: {backbone}

input-shape: [96, 96, 3]

license: Apache2.0

asset:

-
    file-format: ckpt
    asset-link: <{link}>
    asset-sha256: {sha256}

---
"""


def resolved(name: str, backbone: Backbone, **more: Any) -> Source:
    found = resolve(name, backbone, **more)
    assert found is not None
    return found


def card(folder: Path, file: Path, **said: str) -> Path:
    path = folder / "toy_v1.md"
    text = CARD.format(**{"backbone": "toy", "link": file.as_uri(), "sha256": hashed(file), **said})
    path.write_text(text)
    return path


def test_a_card_stands_for_its_weights(tmp_path: Path, file: Path) -> None:
    path = card(tmp_path, file)
    source = resolved(str(path), toy())
    assert (source.path, source.name, source.verified) == (file, str(path), "sha256")
    assert source.record is not None
    assert (source.record.size, source.record.licence) == (96, "Apache-2.0")
    assert loading.read_options(source, toy()) == {"pool": "same"}  # from the names in the file
    assert loading.read_image_defaults(source)["keep_aspect"] is False
    assert loading.load(source, toy(), SHAPES, HEAD, True).report["reinitialised"] == []


def test_what_the_backbone_knows_of_a_file_comes_before_its_card(tmp_path: Path, file: Path) -> None:
    offer = record(file, size=64, resize=72, accuracy=0.9, options={"pool": "symmetric"})
    path = card(tmp_path, file)
    source = resolved(str(path), toy(best=offer))
    assert (source.path, source.name) == (file, str(path))
    assert source.record is not None
    assert (source.record.size, source.record.accuracy) == (64, 0.9)
    assert loading.read_options(source, toy()) == {"pool": "symmetric"}


def test_a_card_at_an_address_is_fetched_and_verified_first(tmp_path: Path, file: Path, server: str) -> None:
    path = card(tmp_path, file)
    address = f"{server}/{path.name}"
    source = resolved(f"{address}#sha256={hashed(path)}", toy())
    assert (source.path, source.name) == (file, address)
    with pytest.raises(DownloadError, match=r"no weights '.*toy_v1.md'"):
        resolve(f"{address}#sha256={'0' * 64}", toy())


def test_a_card_of_another_network_is_refused(tmp_path: Path, file: Path) -> None:
    path = card(tmp_path, file, backbone="senet")
    path.write_text(path.read_text().replace("model-name: toy", "model-name: senet50"))
    with pytest.raises(WeightsError, match=r"is a card of 'senet50' \(backbone-name 'senet'\), but the recipe's ba"):
        resolve(str(path), toy())
