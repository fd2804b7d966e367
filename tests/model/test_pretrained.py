"""Published weights: files in each of their layouts load into the network, equal to the bit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import finetune_model.pretrained
from finetune import WeightsError, hub_card
from finetune.weights import fetching, hubcard, labels, loading
from finetune.weights.formats import tensorfile
from tests.weights.drawn_files import hub, mindcv, torchvision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from finetune import Backbone

BACKBONES = {backbone.name: backbone for backbone in finetune_model.finetune_backbones()}
NANO, RESNEXT50 = BACKBONES["resnext_nano"], BACKBONES["resnext50"]

Arrays = dict[str, np.ndarray]


NAMES: dict[str, Callable[[str], str]] = {
    "mindspore-hub": hub,
    "mindcv": mindcv,
    "torchvision": torchvision,
    "finetune": str,
}


def network(backbone: Backbone, seed: int, classes: int = 5, **options: Any) -> Any:
    import mindspore as ms
    from mindspore import nn

    from finetune.network.network import Network

    class Head(nn.Cell):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Dense(backbone.features, classes)

        def construct(self, features: Any, mask: Any) -> Any:
            return self.fc(features)

    ms.set_seed(seed)
    return Network(backbone.build(backbone.options(**options)), Head()).set_train(False)


def arrays(cell: Any) -> Arrays:
    return {p.name: p.asnumpy().copy() for p in cell.get_parameters()}


def saved(path: Path, named: Arrays) -> fetching.Source:
    """Write a file in the format that its ending says, by the libraries that its users have."""
    if path.suffix == ".ckpt":
        import mindspore as ms

        ms.save_checkpoint([{"name": n, "data": ms.Tensor(a)} for n, a in named.items()], str(path))
    else:
        from safetensors.numpy import save_file

        save_file(named, path)
    return fetching.Source(path=path, name=path.name)


def load(source: fetching.Source, backbone: Backbone, names: Iterable[str], like: Arrays, keep: bool) -> loading.Loaded:
    expected = {name: like[name].shape for name in names}
    return loading.load(source, backbone, expected, frozenset({"head.fc.weight", "head.fc.bias"}), keep)


@pytest.mark.parametrize("ending", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("layout", NAMES)
def test_every_layout_loads_exactly(tmp_path: Path, layout: str, ending: str) -> None:
    from finetune.network.network import assign_values

    trained, fresh = network(NANO, 1), network(NANO, 2)
    mine = {name: array + np.float32(0.01) for name, array in arrays(trained).items()}
    source = saved(tmp_path / f"w{ending}", {NAMES[layout](name): array for name, array in mine.items()})
    loaded = load(source, NANO, mine, mine, keep=True)
    assert loaded.report["layout"] == layout
    assert loaded.report["counts"] == {
        "loaded": len(mine),
        "missing": 0,
        "unexpected": 0,
        "reinitialised": 0,
        "ignored": 0,
        "merged": 0,
    }
    assign_values((p for p in fresh.get_parameters() if p.name in loaded.tensors), loaded.tensors)
    assert all(np.array_equal(array, mine[name]) for name, array in arrays(fresh).items())


@pytest.mark.parametrize(
    ("layout", "padding"), [("mindspore-hub", "same"), ("mindcv", "same"), ("torchvision", "symmetric")]
)
def test_each_layout_brings_the_padding_of_its_networks(tmp_path: Path, layout: str, padding: str) -> None:
    source = saved(tmp_path / "w.safetensors", {NAMES[layout](n): a for n, a in arrays(network(NANO, 1)).items()})
    assert loading.read_options(source, NANO) == {"stem_pool": padding}


@pytest.mark.parametrize("prefix", ["", "network."])
def test_a_whole_training_checkpoint_of_the_hub_loads_without_its_optimizer(tmp_path: Path, prefix: str) -> None:
    mine = arrays(network(NANO, 1))
    theirs = {prefix + hub(name): array for name, array in mine.items()}
    state = {f"moments.{name}": np.zeros_like(array) for name, array in theirs.items()}
    one = np.ones((), np.float32)
    state |= {"momentum": one, "learning_rate": one, "global_step": one, "epoch_num": one, "scale_sense": one}
    loaded = load(saved(tmp_path / "w.ckpt", theirs | state), NANO, mine, mine, keep=False)
    assert set(loaded.report["ignored"]) == set(state)
    assert set(loaded.tensors) == {name for name in mine if not name.startswith("head.")}
    assert all(np.array_equal(array, mine[name]) for name, array in loaded.tensors.items())


def test_batch_counters_of_torchvision_are_ignored(tmp_path: Path) -> None:
    mine = arrays(network(NANO, 1))
    theirs = {torchvision(name): array for name, array in mine.items()}
    counters = {n.replace("running_mean", "num_batches_tracked"): np.array(3) for n in theirs if "running_mean" in n}
    report = load(saved(tmp_path / "w.safetensors", theirs | counters), NANO, mine, mine, keep=False).report
    assert set(report["ignored"]) == set(counters)


def test_split_convolutions_of_ascend_are_joined(tmp_path: Path) -> None:
    mine = arrays(network(NANO, 1))
    theirs: Arrays = {}
    for name, array in mine.items():
        if not name.endswith("conv2.weight"):
            theirs[hub(name)] = array
            continue
        pieces = list(enumerate(np.split(array, 8)))[::-1]  # in no particular order
        for prefix in ("", "moments."):
            theirs |= {prefix + hub(name).replace("weight", f"convs.{i}.weight"): piece for i, piece in pieces}
    loaded = load(saved(tmp_path / "w.ckpt", theirs), NANO, mine, mine, keep=False)
    assert loaded.report["layout"] == "mindspore-hub"
    assert set(loaded.report["ignored"]) == {name for name in theirs if name.startswith("moments.")}
    for name, array in loaded.tensors.items():
        np.testing.assert_array_equal(array, mine[name])


@pytest.mark.parametrize(("piece", "message"), [(3, "lacks piece 3 of 8"), (None, "do not match")])
def test_pieces_that_do_not_fit_are_refused(piece: int | None, message: str, tmp_path: Path) -> None:
    mine = arrays(network(NANO, 1))
    theirs: Arrays = {hub(name): array for name, array in mine.items()}
    whole = theirs.pop("backbone.layer1.0.conv2.weight")
    for i, part in enumerate(np.split(whole, 8)):
        if i != piece:
            wrong = part[:1] if piece is None and i == 2 else part
            theirs[f"backbone.layer1.0.conv2.convs.{i}.weight"] = np.ascontiguousarray(wrong)
    with pytest.raises(WeightsError, match=message):
        load(saved(tmp_path / "w.ckpt", theirs), NANO, mine, mine, keep=False)


def test_the_weights_of_another_size_of_the_network_are_refused(tmp_path: Path) -> None:
    mine = arrays(network(NANO, 1))
    other = {**mine, "layer1.0.conv2.weight": np.zeros((32, 8, 3, 3), np.float32)}
    source = saved(tmp_path / "w.safetensors", {torchvision(name): array for name, array in other.items()})
    with pytest.raises(
        WeightsError, match=r"a different shape for 1: 'layer1.0.conv2.weight \(32, 8, 3, 3\) for \(32, 4"
    ):
        load(source, NANO, mine, mine, keep=False)
    fewer = {torchvision(name): array for name, array in mine.items() if not name.startswith("layer3.1.")}
    with pytest.raises(WeightsError, match=r"nearest layout, 'torchvision', it lacks 15: 'layer3.1.conv1.weight'"):
        load(saved(tmp_path / "w2.safetensors", fewer), NANO, mine, mine, keep=False)


def test_resnext50_loads_a_file_in_the_layout_of_the_hub(tmp_path: Path) -> None:
    mine = arrays(network(RESNEXT50, 1, 1000))
    assert sum(a.size for n, a in mine.items() if not n.endswith(("mean", "variance"))) == 25_028_904
    source = saved(tmp_path / "w.ckpt", {hub(name): array for name, array in mine.items()})
    loaded = load(source, RESNEXT50, mine, mine, keep=True)
    assert all(np.array_equal(array, mine[name]) for name, array in loaded.tensors.items())


# Records


OFFERS = {
    # Name: digits of the sha256, layout, size, resize, aspect kept, reported top-1, licence.
    "hub-v2.5": (8, "mindcv", 224, 256, True, 0.7864, "Apache-2.0"),
    "hub-v1.1": (64, "mindspore-hub", 224, 256, False, 0.7816, "Apache-2.0"),
    "hub-v1.2": (64, "mindspore-hub", 227, 256, False, 0.78, "Apache-2.0"),
    "mindcv": (0, "mindcv", 224, 256, True, 0.7853, "Apache-2.0"),
    "torchvision-v1": (8, "torchvision", 224, 256, True, 0.77618, "BSD-3-Clause"),
    "torchvision-v2": (8, "torchvision", 224, 232, True, 0.81198, "BSD-3-Clause"),
    "timm-a1h": (64, "torchvision", 224, 235, True, 0.811, "Apache-2.0"),
}


@pytest.mark.parametrize("name", OFFERS)
def test_the_records_of_resnext50_are_complete(name: str) -> None:
    record = RESNEXT50.weights[name]
    digits, layout, size, resize, keep_aspect, accuracy, licence = OFFERS[name]
    assert re.fullmatch(f"[0-9a-f]{{{digits}}}", record.sha256)
    assert (record.layout, record.size, record.resize, record.keep_aspect) == (layout, size, resize, keep_aspect)
    assert (record.accuracy, record.licence) == (accuracy, licence)
    assert record.options == {known.name: known for known in RESNEXT50.layouts}[layout].options
    assert record.url.startswith("https://")
    assert record.source.startswith(("MindSpore Hub", "MindCV", "torchvision", "timm"))
    assert "arXiv:1611.05431" in record.citation
    assert labels.read_list(record.labels, record.classes)[0] == "tench"


def test_every_offer_is_known_here_and_the_hub_s_newest_comes_first() -> None:
    assert list(RESNEXT50.weights) == list(OFFERS)
    assert next(iter(RESNEXT50.weights)) == "hub-v2.5"


def test_the_hub_s_newest_file_is_the_one_of_mindcv() -> None:
    record = RESNEXT50.weights["hub-v2.5"]
    assert record.sha256 == "988f75bc"
    assert record.url == (
        "https://download-mindspore.osinfra.cn/toolkits/mindcv/resnext/resnext50_32x4d-988f75bc-910v2.ckpt"
    )
    assert (record.mean, record.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert record.options == {"stem_pool": "same"}
    assert record.source == "MindSpore Hub resnext50_32x4d 2.5, trained on ImageNet2012"


@pytest.mark.parametrize("version", ["v1.1", "v1.2", "v2.5"])
def test_the_cards_in_the_package_are_cards_of_the_hub(version: str) -> None:
    file = finetune_model.pretrained.CARDS / f"hub-{version}.md"
    card, record = hub_card(file), RESNEXT50.weights[f"hub-{version}"]
    assert (card.url, card.sha256, card.size) == (record.url, record.sha256, record.size)
    assert version == "v2.5" or version[1:].replace(".", "") in card.url.split("ascend_v")[1][:2]
    hubcard.read_card(file).check("resnext50", str(file), RESNEXT50.aliases)
    with pytest.raises(WeightsError, match="is a card of 'resnext50"):
        fetching.resolve(str(file), NANO)


def test_the_classes_of_imagenet_are_in_the_order_of_their_ids() -> None:
    names = finetune_model.pretrained.LABELS.read_text(encoding="utf-8").splitlines()
    assert len(names) == len({name.casefold() for name in names}) == 1000
    assert all(name == name.strip() and name.isascii() for name in names)
    places = {0: "tench", 1: "goldfish", 134: "crane (bird)", 207: "golden retriever", 264: "Cardigan (dog)"}
    places |= {281: "tabby", 474: "cardigan (garment)", 517: "crane (machine)", 638: "maillot (tights)"}
    places |= {639: "maillot (swimsuit)", 985: "daisy", 999: "toilet tissue"}
    assert {place: names[place] for place in places} == places


def test_shipped_weights_are_what_their_card_says() -> None:
    record = BACKBONES["resnext_nano"].weights["fractals"]
    source = fetching.resolve("auto", BACKBONES["resnext_nano"])
    assert source is not None
    assert source.path == finetune_model.pretrained.FRACTALS
    assert source.path.stat().st_size < 3_000_000
    assert source.verified == "sha256"
    card = source.path.with_suffix(".md").read_text(encoding="utf-8")
    assert record.sha256 in card
    shapes = BACKBONES["resnext_nano"].shapes
    assert shapes is not None
    expected = shapes(BACKBONES["resnext_nano"].options())
    loaded = loading.load(source, BACKBONES["resnext_nano"], expected, head=frozenset(), keep_head=False)
    assert loaded.report["counts"] == {
        "loaded": len(expected),
        "missing": 0,
        "unexpected": 0,
        "reinitialised": 0,
        "ignored": 0,
        "merged": 0,
    }
    assert tensorfile.inspect(source.path).dtypes == dict.fromkeys(expected, "float16")
    assert loading.read_image_defaults(source)["size"] == record.size
