"""Where weights come from: from the word in a recipe to a file that is here and verified."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune.components import Backbone, Weights
from finetune.errors import DownloadError, PluginError, UsageError, WeightsError
from finetune.files.atomic import cache_folder
from finetune.hookspecs import hookimpl
from finetune.plugins import Origin, Plugins
from finetune.weights import fetching, loading
from finetune.weights.fetching import Source, resolve
from tests.weights.toy import HEAD, hashed, record, toy

pytestmark = pytest.mark.usefixtures("home")

SHAPES = {"stem.conv.weight": (4, 2), "head.fc.weight": (3, 4), "head.fc.bias": (3,)}


def resolved(name: str, backbone: Backbone, **more: Any) -> Source:
    found = resolve(name, backbone, **more)
    assert found is not None
    return found


def place(offer: Weights) -> Path:
    """Return where an offered file is kept, in a folder that is there."""
    path = fetching.locate_file(offer, cache_folder() / "weights")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# Names and files


def test_none_is_no_file() -> None:
    assert resolve("none", toy()) is None


def test_a_path_is_that_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(str(file), toy()) == Source(path=file, name=str(file))
    monkeypatch.setenv("HOME", str(file.parent))
    assert resolved("~/theirs.safetensors", toy()).path == file
    monkeypatch.chdir(file.parent)
    file.rename("plain")
    assert resolved("plain", toy()).path == Path("plain")


def test_a_path_to_an_offered_file_brings_its_record(file: Path) -> None:
    offer = record(file, size=96)
    other = Weights(url="", sha256="1" * 64, layout="")
    nobody_knows = Weights(url="https://example.invalid/x", sha256="", layout="")
    found = resolved(str(file), toy(unknown=nobody_knows, other=other, best=offer))
    assert (found.record, found.verified) == (offer, "sha256")
    found = resolved(str(file), toy(best=record(file, sha256=hashed(file)[:8], size=96)))
    assert found.record == offer


@pytest.mark.parametrize("name", ["gone.safetensors", "gone.ckpt", "weights/gone", "gone.pth", "gone.md"])
def test_a_missing_file_is_said_to_be_missing(name: str) -> None:
    with pytest.raises(WeightsError, match=f"no weights file at '{name}'; name a .safetensors or .ckpt file, or a Hub"):
        resolve(name, toy())


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    for ending, text in ((".ckpt", "is a pipe"), (".md", "is not a file; name the .md file of a card")):
        os.mkfifo(tmp_path / f"x{ending}")
        with pytest.raises(WeightsError, match=text):
            loading.read_options(resolved(str(tmp_path / f"x{ending}"), toy(best=record(tmp_path))), toy())


def test_an_unknown_name_shows_the_nearest(tmp_path: Path) -> None:
    backbone = toy(**{"hub-v1.1": record(tmp_path), "hub-v1.2": record(tmp_path)})
    with pytest.raises(UsageError, match=r"'toy' offers no weights named 'hub-v11'; did you mean 'hub-v1.1'"):
        resolve("hub-v11", backbone)
    with pytest.raises(UsageError, match=r"'imagenet'; known: auto, hub-v1.1, hub-v1.2, none"):
        resolve("imagenet", backbone)


def test_auto_without_offers_says_how_to_start_from_random() -> None:
    with pytest.raises(UsageError, match=r"'toy' offers no weights; write weights: none for a random start"):
        resolve("auto", toy())


def test_auto_is_the_first_offer_and_a_plugin_is_asked_first(file: Path) -> None:
    asked = []

    def fetch(wanted: Weights, cache: Path) -> Path:
        asked.append((wanted, cache))
        return file

    backbone = toy(first=record(file), second=record(file, size=32))
    found = resolve("auto", backbone, fetch)
    assert found == Source(path=file, name="first", record=backbone.weights["first"], verified="sha256")
    assert asked == [(backbone.weights["first"], cache_folder() / "weights")]
    assert resolved("second", backbone, fetch=fetch).name == "second"


def test_what_a_plugin_fetched_is_verified(file: Path) -> None:
    with pytest.raises(WeightsError, match=f"has sha256 {hashed(file)}, not {'0' * 64} as expected; remove it"):
        resolve("best", toy(best=record(file.parent)), lambda *_: file)
    with pytest.raises(WeightsError, match=f"has sha256 {hashed(file)}, not 00000000… as expected"):
        resolve("best", toy(best=record(file, sha256="0" * 8)), lambda *_: file)


# Downloads


def test_an_offer_is_downloaded_once_and_then_needs_no_network(file: Path, server: str) -> None:
    backbone = toy(best=record(file, url=f"{server}/{file.name}"))
    first = resolved("best", backbone)
    assert first.path == place(backbone.weights["best"])
    assert (first.verified, first.note) == ("sha256", "")
    assert first.path.read_bytes() == file.read_bytes()
    file.unlink()
    assert resolve("best", backbone) == first


def test_a_url_with_its_hash_is_fetched(file: Path, server: str) -> None:
    digest = hashed(file)
    source = resolved(f"{server}/{file.name}#sha256={digest.upper()}", toy())
    assert source.name == f"{server}/{file.name}"
    assert source.path.read_bytes() == file.read_bytes()
    assert source.path.parent == cache_folder() / "weights"
    assert loading.read_options(source, toy()) == {"pool": "same"}
    assert loading.load(source, toy(), SHAPES, HEAD, False).report["sha256"] == digest


@pytest.mark.parametrize("fragment", ["", "#sha256=12", "#md5=" + "0" * 32])
def test_a_url_without_its_hash_is_refused(fragment: str) -> None:
    with pytest.raises(UsageError, match=r"'https://example.invalid/w' needs the sha256 of its file"):
        resolve(f"https://me:pw@example.invalid/w{fragment}", toy())


def test_a_broken_url_is_no_address() -> None:
    with pytest.raises(UsageError, match=r"'https://\[x' is not a valid address; write https://HOST/PATH#sha256=HEX"):
        resolve(f"https://[x?key=1#sha256={'0' * 64}", toy())


def test_what_cannot_be_fetched_is_explained_on_one_screen(tmp_path: Path, offline: None) -> None:
    backbone = toy(best=record(tmp_path))
    with pytest.raises(DownloadError) as caught:
        resolve("best", backbone)
    text = str(caught.value)
    assert caught.value.exit_code == 4
    assert len(text.splitlines()) < 10
    assert text.startswith("no weights 'best' for 'toy': the file is needed, but FINETUNE_OFFLINE is set\n")
    assert "address: https://example.invalid/toy.safetensors\n" in text
    assert "secret" not in text
    assert f"sha256:  {'0' * 64}\n" in text
    assert f"file:    {place(backbone.weights['best'])} (no download if you put the file here)" in text
    for remedy in ("backbone.weights=FILE", "backbone.weights=none", "`finetune run quickstart`"):
        assert remedy in text


def test_a_file_put_there_by_hand_is_found(file: Path, offline: None) -> None:
    backbone = toy(best=record(file))
    there = place(backbone.weights["best"])
    file.rename(there)
    assert resolved("best", backbone).path == there


# Files where they lie


def test_a_file_address_is_used_where_it_lies(file: Path, offline: None) -> None:
    lying = file.with_name("a file #1.safetensors")
    file.rename(lying)
    source = resolved("best", toy(best=record(lying, url=lying.as_uri())))
    assert (source.path, source.verified) == (lying, "sha256")
    assert resolved(f"{lying.as_uri()}#sha256={hashed(lying)}", toy()).path == lying
    assert not cache_folder().exists()
    with pytest.raises(WeightsError, match=f"has sha256 {hashed(lying)}, not {'0' * 64} as expected"):
        resolve(f"{lying.as_uri()}#sha256={'0' * 64}", toy())


def test_a_file_address_of_nothing_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"no weights 'best' for 'toy': the file does not exist\n"):
        resolve("best", toy(best=record(tmp_path, url=(tmp_path / "gone").as_uri())))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(file: Path) -> None:
    digest = hashed(file)
    file.chmod(0)
    with pytest.raises(WeightsError, match=r"cannot be read \(Permission denied\); change its permissions"):
        resolve(f"{file.as_uri()}#sha256={digest}", toy())


# Publishers that state no whole hash


@pytest.mark.parametrize(
    ("digits", "verified", "stated"), [(0, "first use", "no sha256"), (8, "prefix", "only 8 digits of their sha256")]
)
def test_the_hash_of_the_first_use_is_kept(file: Path, server: str, digits: int, verified: str, stated: str) -> None:
    digest = hashed(file)
    offer = record(file, url=f"{server}/{file.name}", sha256=digest[:digits])
    first = resolved("best", toy(best=offer))
    assert first.path == place(offer)
    assert first.verified == verified
    assert first.record is not None
    assert first.record.sha256 == digest
    assert first.note == (
        f"weights 'best': the publisher states {stated}; later files must have the hash of this one, {digest} "
        f"(to accept a different file, remove '{first.path}.sha256' and the file next to it)"
    )
    mark = Path(f"{first.path}.sha256")
    assert mark.read_text() == f"{digest}  {first.path.name}\n"
    second = resolved("best", toy(best=offer))
    assert (second.verified, second.note, second.record) == (verified, "", first.record)

    first.path.write_bytes(b"other")
    with pytest.raises(WeightsError) as caught:
        resolve("best", toy(best=offer))
    text = str(caught.value)
    assert caught.value.exit_code == 4
    assert f"has sha256 {hashed(first.path)}, not {digest} as at its first use; remove it to download it again" in text
    assert f"and also remove '{mark}' if you trust the new file" in text

    first.path.unlink()
    assert resolved("best", toy(best=offer)).path.read_bytes() == file.read_bytes()
    first.path.unlink()
    file.write_bytes(b"the publisher changed it")
    with pytest.raises(DownloadError, match=f"(?s)no weights 'best'.*, expected {digest} as at its first use"):
        resolve("best", toy(best=offer))
    assert not first.path.exists()


def test_a_download_must_begin_with_the_stated_digits(file: Path, server: str) -> None:
    offer = record(file, url=f"{server}/{file.name}", sha256="0" * 8)
    with pytest.raises(DownloadError, match=r"(?s)no weights 'best' for 'toy'.*sha256:  00000000\n"):
        resolve("best", toy(best=offer))
    assert not place(offer).exists()
    there = record(file, url=f"{server}/{file.name}", sha256=hashed(file)[:8])
    place(there).write_bytes(b"another file of this name")
    assert resolved("best", toy(best=there)).path.read_bytes() == file.read_bytes()


def test_without_a_hash_a_file_by_hand_or_a_file_address_is_a_first_use(file: Path, offline: None) -> None:
    offer = record(file, url=file.as_uri(), sha256="")
    first = resolved("best", toy(best=offer))
    assert (first.path, first.verified) == (file, "first use")
    assert "states no sha256" in first.note
    file.write_bytes(b"other")
    with pytest.raises(WeightsError, match=r"as at its first use"):
        resolve("best", toy(best=offer))
    away = record(file, sha256="")
    file.rename(place(away))
    assert resolved("best", toy(best=away)).path == place(away)
    assert place(away) != place(offer)


def test_a_web_page_in_place_of_a_file_is_no_first_use(file: Path, server: str) -> None:
    page = file.with_name("login.html")
    page.write_text("<html><title>Log in</title>")
    offer = record(page, url=f"{server}/{page.name}", sha256="")
    with pytest.raises(DownloadError, match=r"returned a web page titled 'Log in' instead of the expected file"):
        resolve("best", toy(best=offer))
    assert list(place(offer).parent.glob("[!.]*")) == []


def test_without_a_hash_the_explanation_says_so(tmp_path: Path, offline: None) -> None:
    with pytest.raises(DownloadError, match=r"sha256:  not stated by the publisher\n"):
        resolve("best", toy(best=record(tmp_path, sha256="")))


# What is known of a file, and where it may lie


def test_an_address_of_a_known_file_has_all_that_is_known_of_it(file: Path) -> None:
    digest = hashed(file)
    offer = record(file, size=227, keep_aspect=False, licence="MIT", sha256=digest.upper())
    found = resolved(f"{file.as_uri()}#sha256={digest}", toy(best=offer))
    assert found.record is not None
    assert (found.record.size, found.record.keep_aspect, found.record.licence) == (227, False, "MIT")
    assert found.record.url == file.as_uri()
    by_path = resolved(str(file), toy(best=record(file, sha256=digest[:10])))
    assert by_path.verified == "prefix"


def test_the_folder_of_a_run_or_model_stands_for_its_weights(file: Path, tmp_path: Path) -> None:
    inner = tmp_path / "run" / "model" / "weights.safetensors"
    inner.parent.mkdir(parents=True)
    inner.write_bytes(file.read_bytes())
    for folder in (tmp_path / "run", inner.parent):
        assert resolved(str(folder), toy()).path == inner


def test_weights_of_another_layout_than_their_record_says_are_refused(file: Path) -> None:
    source = Source(path=file, name="x", record=record(file, layout="mindcv"))
    expected = {"stem.conv.weight": (4, 2)}
    with pytest.raises(WeightsError, match="has the layout 'theirs', not 'mindcv'; correct the lay"):
        loading.load(source, toy(), expected, HEAD, False)


def answering(answer: object) -> Plugins:
    """Return plugins of which one answers to every question for weights."""
    manager = Plugins()
    plugin = SimpleNamespace(finetune_fetch_weights=hookimpl(lambda weights: answer))
    manager.register(plugin, Origin(name="mine", distribution="mine", version="1"))
    return manager


@pytest.mark.parametrize("answer", [7, "nowhere.safetensors"])
def test_a_plugin_that_returns_no_file_is_an_error(file: Path, answer: object) -> None:
    with pytest.raises(PluginError, match=r"finetune_fetch_weights returned .*, which is not a file"):
        fetching.make_plugin_fetch(answering(answer))(record(file), file.parent)


def test_a_plugin_may_return_text(file: Path) -> None:
    assert fetching.make_plugin_fetch(answering(str(file)))(record(file), file.parent) == file
