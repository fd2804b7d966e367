"""Overrides: what they set and delete, and what they say when they cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.recipe.document import Document, parse_bytes
from finetune.recipe.overrides import apply_overrides
from finetune.recipe.places import format_path

pytestmark = pytest.mark.once

RECIPE = b"""
train: {epochs: 3, ema: null}
callbacks: [{use: tensorboard}, {use: checkpoint, keep: 2}]
seed: 42
image:
"""
DEFAULTS = {"augment": [{"use": "albumentations"}], "callbacks": [{"use": "tensorboard"}]}


def document(content: bytes = RECIPE) -> Document:
    return parse_bytes(content, "recipe.yaml", Path("/recipes"))


def applied(*overrides: str) -> dict[str, Any]:
    result = apply_overrides(document(), overrides, DEFAULTS)
    assert not result.mistakes
    return result.values


VALUES = [
    ("3", 3),
    ("1e-3", 0.001),
    ("no", "no"),
    ("true", True),
    ("null", None),
    ("", None),
    ("010", "010"),
    (" 3 ", 3),
    ("a b", "a b"),
    ("a=b", "a=b"),
    ("a: b", "a: b"),
    ("#1", "#1"),
    ("*a", "*a"),
    ("!x", "!x"),
    ("- a", "- a"),
    ("../x y", "../x y"),
    ("~/photos", "~/photos"),
    ("https://x.org/y.ckpt#sha256=00", "https://x.org/y.ckpt#sha256=00"),
    ("[1, 2.5]", [1, 2.5]),
    ("[]", []),
    ("{a: {b: [c]}}", {"a": {"b": ["c"]}}),
    ('{"a": 1}', {"a": 1}),
    ("'3'", "3"),
    ('" a b "', " a b "),
    ("'it''s'", "it's"),
]


@pytest.mark.parametrize(("text", "value"), VALUES, ids=[text or "empty" for text, _ in VALUES])
def test_values_are_yaml_words_brackets_and_quotes(text: str, value: Any) -> None:
    result = applied(f"train.epochs={text}")["train"]["epochs"]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=1", ["seed"], 1),
        ("head.use=mlp", ["head", "use"], "mlp"),
        ("a.b.c.d=1", ["a", "b", "c", "d"], 1),
        ("image.size=64", ["image", "size"], 64),
        ("callbacks[1].keep=3", ["callbacks", 1, "keep"], 3),
        ("callbacks[0]={use: x}", ["callbacks", 0], {"use": "x"}),
        ("augment[0].preset=light", ["augment", 0], {"use": "albumentations", "preset": "light"}),
        ('loss.class_weights."a.b c"=2', ["loss", "class_weights"], {"a.b c": 2}),
        ("freeze.schedule.1=head", ["freeze", "schedule"], {"1": "head"}),
    ],
)
def test_keys(override: str, path: list[str | int], value: Any) -> None:
    found: Any = applied(override)
    for element in path:
        found = found[element]
    assert found == value


def test_deletion() -> None:
    values = applied("~train.ema", "~callbacks[0]", "~seed", "~image")
    assert values == {"train": {"epochs": 3}, "callbacks": [{"use": "checkpoint", "keep": 2}]}


def test_later_overrides_win_and_the_document_stays() -> None:
    before = document()
    assert apply_overrides(before, ["seed=1", "seed=2", "~train", "train.epochs=5"]).values["train"] == {"epochs": 5}
    assert before.values["seed"] == 42
    assert before.values["train"] == {"epochs": 3, "ema": None}


def test_places() -> None:
    result = apply_overrides(document(), ["~callbacks[0]", "train={epochs: 7}", "callbacks[0].every=1"])
    assert result.place(("callbacks", 0, "keep")).text == "recipe.yaml:3:51", "moved up, still where it was written"
    assert result.place(("train", "epochs")).text == "override 'train={epochs: 7}'"
    assert result.place(("callbacks", 0, "every")).text == "override 'callbacks[0].every=1'"
    assert result.place(("train", "epochs")).folder == Path.cwd()
    assert result.place(("callbacks", 0)).folder == Path("/recipes")


REFUSED = [
    ("train.epochs", "no '='; write KEY=VALUE, or ~KEY to remove a key"),
    ("=3", 'not KEY=VALUE; write the key like train.epochs, augment[0].preset or a."b c"'),
    ("", "not KEY=VALUE; write the key like"),
    ("a b=3", "not KEY=VALUE; write the key like"),
    ("a..b=3", "not KEY=VALUE; write the key like"),
    ("[0]=3", "not KEY=VALUE; write the key like"),
    ("callbacks[-1]=3", "not KEY=VALUE; write the key like"),
    ("~train.epochs=3", "'~' removes a key; leave out the value"),
    ("~train.epoch", "no key 'train.epoch' in the recipe; did you mean 'epochs'?"),
    ("~callback", "no key 'callback' in the recipe; did you mean 'callbacks'?"),
    ("~augment", "no key 'augment' in the recipe, so the default applies; write augment=[] for none"),
    ("~head.use", "no key 'head' in the recipe; known: callbacks, image, seed, train"),
    ("callbacks[2]=x", "'callbacks' has items [0] to [1] only"),
    ("~callbacks[7]", "'callbacks' has items [0] to [1] only"),
    ("augment[1].use=x", "'augment' has item [0] only"),
    ("callbacks.use=x", "'callbacks' is a list; write callbacks[0].use"),
    ("train[0]=x", "'train' is a mapping, not a list"),
    ("seed.x=1", "'seed' is 42, not a section"),
    ("seed[0]=1", "'seed' is 42, not a section"),
    ("head[0]=1", "no key 'head' in the recipe; known: callbacks, image, seed, train"),
    ("seed=[1", "invalid value: unclosed bracket; quote it to pass a string"),
    ("seed={a: 1, a: 2}", "invalid value: duplicate key; quote"),
    ("seed=[&a [*a]]", "invalid value: alias '*a' contains itself"),
    ("seed=\0", "character U+0000 is not allowed; remove it"),
    ("output=/data/\udcff", "character U+DCFF is not allowed; remove it"),
    (".".join("a" * 40) + "=1", "the key is nested too deeply"),
]


@pytest.mark.parametrize(("override", "message"), REFUSED, ids=[repr(row[0])[1:30] for row in REFUSED])
def test_what_cannot_be_carried_out_is_a_mistake(override: str, message: str) -> None:
    result = apply_overrides(document(), [override, "seed=7"], DEFAULTS)
    place, _, text = str(result.mistakes[0]).partition("': ")
    assert place.startswith("override '")
    assert text.startswith(message)
    assert result.values["seed"] == 7, "the others are carried out all the same"


@given(st.lists(st.text(max_size=30) | st.from_regex(r"~?[a-c](\.[a-c]|\[[0-2]\]){0,3}(=.{0,5})?"), max_size=5))
def test_any_override_is_carried_out_or_a_mistake(overrides: list[str]) -> None:
    result = apply_overrides(document(b"a: [{b: 1}, [c]]\nb: {c: [1, 2]}\n"), overrides, {"c": [1]})
    assert len(result.mistakes) <= len(overrides)


def test_keys_are_spelled_as_overrides_read_them() -> None:
    path = ("loss", "class_weights", "a.b c", 0, "x")
    assert format_path(path) == 'loss.class_weights."a.b c"[0].x'


def test_another_component_leaves_the_options_of_the_one_before() -> None:
    text = "freeze: {use: gradual, schedule: {1: head}, batch_norm: frozen}\noptimizer: {use: adamw, lr: 1, eps: 2}\n"
    document = parse_bytes(text.encode(), "r.yaml", Path())
    kept = {"freeze": ("use", "batch_norm")}
    changed = apply_overrides(document, ["freeze.train=[layer4]", "freeze.use=stages", "optimizer.use=sgd"], None, kept)
    assert changed.values == {
        "freeze": {"use": "stages", "batch_norm": "frozen", "train": ["layer4"]},
        "optimizer": {"use": "sgd"},
    }
    same = apply_overrides(document, ["freeze.use=gradual"], None, kept)
    assert same.values["freeze"]["schedule"] == {"1": "head"}
