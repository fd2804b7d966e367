"""Every kind of card that MindSpore Hub has: read with the right values, or refused with the reason."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from finetune.errors import DownloadError, WeightsError
from finetune.weights import fetching, hubcard, loading, preprocessing
from tests.weights.drawn_files import checkpoint, mindcv
from tests.weights.hub_cards import NEWEST, OTHERS, READ, REFUSED, RESNEXT50, Kind
from tests.weights.nano import NANO, OWN
from tests.weights.nano import RESNEXT50 as BACKBONE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("home")


def saved(folder: Path, text: str) -> Path:
    path = folder / "card.md"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", READ)
def test_a_card_is_read_as_its_publisher_means_it(name: str) -> None:
    kind, expected = READ[name]
    card = hubcard.parse_card(kind.text(), "card.md")
    said = card.weights
    assert (said.url, said.sha256, said.size, said.resize, said.keep_aspect, said.accuracy) == expected
    assert said.licence == "Apache-2.0"
    card.check(BACKBONE.name, "card.md", BACKBONE.aliases)


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(name: str, end: str, tmp_path: Path) -> None:
    text = READ[name][0].text()
    path = tmp_path / "card.md"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", end).encode())
    assert hubcard.read_card(path) == hubcard.parse_card(text, "x")


@pytest.mark.parametrize("name", REFUSED)
def test_a_card_without_a_checkpoint_is_refused_with_the_reason(name: str) -> None:
    kind, message = REFUSED[name]
    with pytest.raises(WeightsError, match=message) as caught:
        hubcard.parse_card(kind.text(), "card.md")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", OTHERS)
def test_a_card_of_another_network_is_refused(name: str, tmp_path: Path) -> None:
    fields, message = OTHERS[name]
    path = saved(tmp_path, Kind(fields={**RESNEXT50, **fields}, assets=NEWEST).text())
    with pytest.raises(WeightsError, match=message) as caught:
        fetching.resolve(str(path), BACKBONE)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "fields",
    [
        {"model-name": "ResNeXt-50 32x4d"},
        {"model-name": "resnext50"},
        {"model-name": "resnext50_32x4d_imagenet2012"},
        {"model-name": "flowers", "backbone-name": "resnext50_32x4d"},
        {"model-name": "", "backbone-name": "ResNeXt50"},
    ],
)
def test_the_name_may_be_written_in_other_ways(fields: dict[str, str]) -> None:
    card = hubcard.parse_card(Kind(fields={**RESNEXT50, **fields}, assets=NEWEST).text(), "card.md")
    card.check(BACKBONE.name, "card.md", BACKBONE.aliases)


def test_a_choice_among_devices_is_reported() -> None:
    note = hubcard.parse_card(READ["a checkpoint for each device"][0].text(), "card.md").note
    assert note.startswith("the card lists a checkpoint for each device; using 'https://download-mindspore.osinfra.cn/")
    assert note.endswith(
        "resnext50_32x4d-988f75bc-910v2.ckpt', not "
        "'https://download-mindspore.osinfra.cn/toolkits/mindcv/resnext/resnext50_32x4d-af8aba16.ckpt'"
    )


def test_the_newest_card_is_the_source_that_the_backbone_offers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_OFFLINE", "1")
    path = saved(tmp_path, READ["2.3"][0].text())
    record = fetching.find_known("988f75bc", BACKBONE)
    assert record is BACKBONE.weights["hub-v2.5"]
    with pytest.raises(DownloadError, match=r"(?s)no weights '.*card.md' for 'resnext50'.*sha256:  988f75bc\n"):
        fetching.resolve(str(path), BACKBONE)


def local(folder: Path, digits: int) -> tuple[Path, str]:
    """Return a card of today whose checkpoint of the small network is here, but the whole hash."""
    file = checkpoint(folder / "nano-910v2.ckpt", {mindcv(name): array for name, array in OWN.items()})
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    fields = {**RESNEXT50, "model-name": "resnext_nano"}
    return saved(folder, Kind(fields=fields, assets=(("ckpt", file.as_uri(), digest[:digits]),)).text()), digest


@pytest.mark.parametrize("digits", [8, 12, 64])
def test_the_first_digits_of_a_hash_are_compared_and_the_whole_is_kept(digits: int, tmp_path: Path) -> None:
    path, digest = local(tmp_path, digits)
    source = fetching.resolve(str(path), NANO)
    assert source is not None
    assert source.record is not None
    assert source.card is not None
    assert source.record.sha256 == digest
    assert source.verified == ("sha256" if digits == 64 else "prefix")
    assert loading.read_options(source, NANO) == {"stem_pool": "same"}
    found = preprocessing.find_preprocessing(source, NANO)
    assert (found.image["size"], found.image["resize"], found.image["keep_aspect"]) == (224, 256, True)
    assert found.why == "the card"
    if digits < 64:
        stated = f"the publisher states only {digits} digits of their sha256"
        assert f"{stated}; later files must have the hash of this one, {digest}" in source.note
        # From now on a file with the same digits and other content is refused.
        place = tmp_path / "nano-910v2.ckpt"
        place.write_bytes(place.read_bytes() + b"\0")
        with pytest.raises(WeightsError, match=f"not {digest} as at its first use"):
            fetching.resolve(str(path), NANO)


def test_other_digits_than_the_file_has_are_an_error(tmp_path: Path) -> None:
    path, digest = local(tmp_path, 8)
    path.write_text(path.read_text().replace(digest[:8], "00000000"))
    with pytest.raises(WeightsError, match=f"has sha256 {digest}, not 00000000… as expected; correct the hash"):
        fetching.resolve(str(path), NANO)


def test_a_card_with_the_first_digits_of_a_known_file_gets_its_whole_hash() -> None:
    offer = BACKBONE.weights["hub-v1.1"]
    assert fetching.find_known(offer.sha256[:8], BACKBONE) is offer
    assert fetching.find_known("0" * 64, BACKBONE) is None
    none = replace(BACKBONE, weights={"mindcv": BACKBONE.weights["mindcv"]})
    assert fetching.find_known("af8aba16", none) is None
