"""Cards of MindSpore Hub: what real ones look like, what is wrong with others, and that no text does harm."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import finetune
from finetune import Weights, WeightsError, hub_card
from finetune.weights import hubcard
from tests.clocks import processor_time

if TYPE_CHECKING:
    from pathlib import Path

SHA = "0123456789abcdef" * 4
OTHER = "f" * 64
LINK = "https://download.example.org/resnext50.ckpt"
# As the Hub writes them, with trailing blanks and an empty line after every field.
HUB = f"""# ResNeXt50

---

model-name: resnext50

backbone-name: resnext50

module-type: cv-classification

fine-tunable: True

input-shape: [224, 224, 3]

model-version: 1.1

train-dataset: imagenet2012

accuracy: 0.7816

repo-link: <https://example.org/mindspore/resnext50>

asset:

-
    file-format: ckpt  \n    asset-link: <{LINK}>
    asset-sha256: {SHA}

license: Apache2.0

summary: resnext50: for image classification

---

## Introduction

---

asset-link: <https://example.org/not-this-one>

## Citation

1. Xie S, Girshick R, et al. Aggregated Residual
   Transformations for Deep Neural Networks. 2016.

## Disclaimer

None of this is read.
"""


def parsed(text: str) -> hubcard.Card:
    return hubcard.parse_card(text, "x.md")


def changed(old: str, new: str) -> str:
    assert old in HUB
    return HUB.replace(old, new)


def test_a_card_of_the_hub_becomes_a_record() -> None:
    card = parsed(HUB)
    assert (card.model, card.backbone) == ("resnext50", "resnext50")
    assert card.weights == Weights(
        url=LINK,
        sha256=SHA,
        layout="",
        size=224,
        resize=256,
        keep_aspect=False,
        licence="Apache-2.0",
        source="MindSpore Hub resnext50 1.1, trained on imagenet2012",
        citation="1. Xie S, Girshick R, et al. Aggregated Residual Transformations for Deep Neural Networks. 2016.",
        accuracy=0.7816,
    )
    assert card.weights.options == {}


def test_a_card_is_read_by_a_public_name(tmp_path: Path) -> None:
    path = tmp_path / "card.md"
    path.write_text(HUB)
    assert finetune.hub_card(str(path)) == parsed(HUB).weights


@pytest.mark.parametrize(
    "text",
    [
        HUB.replace("\n\n", "\n"),
        HUB.replace("\n", "\r\n"),
        HUB.replace("\n", "\r"),
        changed(": ", ":"),
        changed("---", "-----  "),
        changed(SHA, SHA.upper()),
        changed(SHA, f'"{SHA}"'),
        changed(f"<{LINK}>", LINK),
        changed(f"<{LINK}>", f"'{LINK}'  # the file"),
        changed("asset-sha256", "asset_sha256"),
        changed("file-format: ckpt", "file-format: CKPT"),
        changed("-\n    file-format", "- file-format").replace("\n    asset", "\n  asset"),
        changed("    asset", "\n\n    asset"),
        changed("-\n    file-format", "-\nfile-format").replace("\n    asset", "\nasset"),
        changed("-\n    file-format", "file-format").replace("\n    asset", "\nasset"),
        changed(
            "asset:\n\n", f"asset:\n\n-\n    file-format: mindir\n    asset-link: <{LINK}2>\n    asset-sha256: 1\n\n"
        ),
        changed("\nlicense", f"\n- file-format: mslite\n  asset-link: <{LINK}2>\n  asset-sha256: {OTHER}\n\nlicense"),
        changed("\nlicense", f"\n-\n    file-format: ckpt\n    asset-link: <{LINK}>\n\nlicense"),
    ],
)
def test_cards_are_written_in_many_ways(text: str, tmp_path: Path) -> None:
    assert parsed(text) == parsed(HUB)
    path = tmp_path / "card.md"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert hub_card(path) == parsed(HUB).weights


@pytest.mark.parametrize(
    ("shape", "size", "resize"),
    [
        ("[3, 224, 224]", 224, 256),
        ("[227, 227, 3]", 227, 256),
        ("[256,256,3]", 256, 256),
        ("[299, 299, 3]", 299, 342),
        ("", 224, 256),
    ],
)
def test_the_input_shape_gives_size_and_resize(shape: str, size: int, resize: int) -> None:
    weights = parsed(changed("[224, 224, 3]", shape)).weights
    assert (weights.size, weights.resize) == (size, resize)


@pytest.mark.parametrize(
    ("said", "accuracy"),
    [
        ("accuracy: 78", 0.78),
        ("accuracy: 0.881", 0.881),
        ("evaluation: acc78", 0.78),
        ("evaluation: top1acc78.51 | top5acc94.18", 0.7851),
        ("evaluation: map 30", None),
        ("accuracy: vit-tiny: 76.18 / swin-tiny: 82.04", None),
        ("accuracy: 781", None),
        ("f1: 0.55", None),
    ],
)
def test_the_reported_accuracy(said: str, accuracy: float | None) -> None:
    assert parsed(changed("accuracy: 0.7816", said)).weights.accuracy == accuracy


@pytest.mark.parametrize(
    ("said", "licence"),
    [("Apache2.0", "Apache-2.0"), ("Apache License 2.0", "Apache-2.0"), ("MIT", "MIT"), ("", "unknown")],
)
def test_the_licence(said: str, licence: str) -> None:
    assert parsed(changed("Apache2.0", said)).weights.licence == licence


@pytest.mark.parametrize("name", ["resnext50", "ResNeXt-50", "resnext_50"])
def test_the_name_of_the_network_may_be_written_otherwise(name: str) -> None:
    parsed(HUB).check(name, "x.md")
    parsed(changed("backbone-name: resnext50", "backbone-name: resnext")).check(name, "x.md")


def test_a_card_of_another_network_names_both() -> None:
    with pytest.raises(WeightsError, match=r"'x.md' is a card of 'resnext50', but the recipe's backbone is 'resnext_n"):
        parsed(HUB).check("resnext_nano", "x.md")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "'x.md' is not a card of MindSpore Hub: it has no fields between two lines of ---; "
            "name such a card, or the weights file itself",
        ),
        ("# A page\n\n---\n\ntext", "is not a card of MindSpore Hub"),
        ("<!doctype html><title>Log in</title>", "is not a card of MindSpore Hub"),
        ("---\n\0\n---", "is not a card, since it is not text"),
        (
            changed("file-format: ckpt", "file-format: mindir"),
            "has no asset of file-format ckpt; it has 'mindir'; c",
        ),
        (
            "---\nmodel-name: x\n---",
            "has no asset of file-format ckpt; correct the card, or pass the weights as URL",
        ),
        (changed(f"<{LINK}>", ""), "has no asset-link for its checkpoint"),
        (changed(f"asset-sha256: {SHA}", ""), "has no asset-sha256 for its checkpoint, so a download cannot"),
        (
            changed(SHA, SHA[:7]),
            f"has asset-sha256 '{SHA[:7]}', which is not a single sha256 of 64 hex digits, or its first 8",
        ),
        (changed(SHA, SHA + "0"), "which is not a single sha256 of 64 hex digits"),
        (changed(SHA, SHA[:-1] + "g"), "which is not a single sha256 of 64 hex digits"),
        (changed(SHA, f"{SHA}\n    asset-sha256: {OTHER}"), "which is not a single sha256 of 64 hex digits"),
        (
            changed("https://down", "http://down"),
            "has the asset-link 'http://download.*', which is neither https nor",
        ),
        (changed("https://down", "ftp://down"), "which is neither https nor file"),
        (changed(LINK, "https://[x"), "which is neither https nor file"),
        (changed(LINK, "https:///x"), "which is neither https nor file"),
        (changed(LINK, "https://a b/x"), "which is neither https nor file"),
        (changed(LINK, "resnext50.ckpt"), "which is neither https nor file"),
        (
            changed("\nlicense", f"\n-\n    file-format: ckpt\n    asset-link: <{LINK}2>\n\nlicense"),
            f"has 2 checkpoints: '{LINK}', '{LINK}2'; correct the card",
        ),
        (
            changed(f"    asset-link: <{LINK}>", f"    asset-link: {LINK}\n\n    asset-link: {LINK}2"),
            "has 2 checkpoints",
        ),
        (
            changed("[224, 224, 3]", "[32, 32, 1]"),
            r"has input-shape '\[32, 32, 1\]', which is not the shape of square RGB",
        ),
        (changed("[224, 224, 3]", "[112, 96, 3]"), "which is not the shape of square RGB images such as"),
        (changed("[224, 224, 3]", "[1, 3, 224, 224]"), "which is not the shape of square RGB"),
        (changed("[224, 224, 3]", "[3, 99999, 99999]"), "which is not the shape of square RGB"),
        (changed("[224, 224, 3]", "[3, 3, 3]"), "which is not the shape of square RGB"),
    ],
)
def test_what_is_wrong_with_a_card_is_said(text: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        parsed(text)
    assert caught.value.exit_code == 4


def test_files_that_are_no_cards(tmp_path: Path) -> None:
    path = tmp_path / "card.md"
    with pytest.raises(WeightsError, match=r"card.md' cannot be read \(No such file or directory\); name the .md file"):
        hub_card(path)
    path.mkdir()
    with pytest.raises(WeightsError, match=r"is not a file; name the .md file of a card"):
        hub_card(path)
    path.rmdir()
    path.write_bytes(b"\x80\x02" * 99)
    with pytest.raises(WeightsError, match=r"is not a card, since it is not text; copy it again as UTF-8"):
        hub_card(path)
    path.write_bytes(HUB.encode("utf-16"))
    with pytest.raises(WeightsError, match=r"is not text"):
        hub_card(path)
    path.write_bytes(b"a" * (hubcard.MAX_BYTES + 1))
    with pytest.raises(WeightsError, match=r"is too large for a card \(1,048,577 bytes\); name the card itself"):
        hub_card(path)


@pytest.mark.parametrize(
    "piece", ["a" * 9, " " * 9, "a " * 9, "- " * 9, "#" * 9, "---\n", "-\n", "a: b\n", "'" * 9, "<", ":", "1", "\t"]
)
@pytest.mark.parametrize("into", ["", "fields", "value", "shape", "citation"])
def test_the_largest_cards_take_no_longer_than_a_moment(piece: str, into: str) -> None:
    many = piece * (hubcard.MAX_BYTES // len(piece))
    text = {
        "": many,
        "fields": changed("module-type", f"{many}\nmodule-type"),
        "value": changed("Apache2.0", many),
        "shape": changed("[224, 224, 3]", many),
        "citation": HUB + many,
    }[into]
    with processor_time() as used, suppress(WeightsError):
        weights = parsed(text).weights
        assert all(len(said) < 5000 for said in (weights.source, weights.licence, weights.citation))
    assert used.seconds < 5


def test_control_characters_of_a_card_reach_no_terminal() -> None:
    weights = parsed(changed("Apache2.0", "MIT\x1b[31m").replace("Xie", "X\x1b]0;ie")).weights
    assert (weights.licence, weights.citation[:12]) == ("MIT[31m", "1. X]0;ie S,")
    with pytest.raises(WeightsError) as caught:
        parsed(changed(SHA, f"\x1b[2J{'x' * 5000}"))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


@given(st.text() | st.lists(st.sampled_from([*HUB.splitlines(), "-", "---", "", "  x: <>", "a:"])).map("\n".join))
def test_any_text_is_a_card_or_an_error(text: str) -> None:
    with suppress(WeightsError):
        assert hubcard.SHA256.fullmatch(parsed(text).weights.sha256)


@given(st.data())
def test_any_change_of_a_card_is_a_card_or_an_error(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(HUB)))
    end = data.draw(st.integers(start, min(len(HUB), start + 40)))
    try:
        weights = parsed(HUB[:start] + data.draw(st.text(max_size=20)) + HUB[end:]).weights
    except WeightsError:
        return
    assert weights.url.startswith(("https://", "file:"))
    assert weights.size <= weights.resize
