"""Stages by position: what the engine makes of them in a freezer's options, and what it says of wrong ones."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from finetune import Backbone, Dataset, Freezer, Options, Weights, hookimpl, plugins
from finetune.catalogue import Catalogue
from finetune.errors import RecipeError
from finetune.plugins import Origin
from finetune.recipe import bundled
from finetune.recipe.plan import Plan, load_plan
from finetune.recipe.positions import replace_positions
from finetune.recipe.schema import build_json_schema
from finetune.testing import ContractError, check_freezer
from finetune.training.prepare import plan_phases

STAGES = ("patches", "blocks", "neck", "head")


class Inner(Options):
    start: str = "last"


class Thaw(Options):
    """Options of a policy that knows only names."""

    train: tuple[str, ...] = ()
    since: str = "head"
    span: tuple[str, str] = ("patches", "neck")
    rates: dict[str, float] = {}  # noqa: RUF012 - pydantic copies it
    inner: Inner = Inner()
    order: Literal["first", "last"] | None = None


def build_thaw(options: Thaw) -> Any:
    def policy(epoch: int, stages: tuple[str, ...]) -> frozenset[str]:
        return frozenset({*options.train, *stages[stages.index(options.since) :]})

    return policy


def named(**options: Any) -> dict[str, Any]:
    """Return the options that differ once positions are names."""
    given = Thaw.model_validate(options)
    found, resolution = replace_positions(given, STAGES)
    assert resolution.wrong == []
    return {name: value for name, value in found if name in options}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"train": ("last",)}, {"train": ("neck",)}),
        ({"train": ("last 2", "head")}, {"train": ("blocks", "neck", "head")}),
        ({"train": ("last 3",)}, {"train": ("patches", "blocks", "neck")}),
        ({"train": ("all",)}, {"train": STAGES}),
        ({"train": ("n*", "neck")}, {"train": ("n*", "neck")}),
        ({"since": "last 2"}, {"since": "blocks"}),
        ({"since": "all"}, {"since": "patches"}),
        ({"since": "head"}, {"since": "head"}),
        ({"span": ("last 3", "last")}, {"span": ("patches", "neck")}),
        ({"rates": {"last 2": 0.1, "neck": 0.5}}, {"rates": {"blocks": 0.1, "neck": 0.5}}),
        ({"inner": {"start": "last"}}, {"inner": Inner(start="neck")}),
        ({"order": "last"}, {"order": "last"}),
    ],
)
def test_positions_become_names(options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert named(**options) == expected


def test_a_default_may_be_a_position() -> None:
    found, _ = replace_positions(Thaw(), STAGES)
    assert found.inner.start == "neck"


def test_a_stage_of_that_name_comes_first() -> None:
    found, _ = replace_positions(Thaw(train=("last", "all")), ("first", "last", "all", "head"))
    assert found.train == ("last", "all")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("last 9", "no position 'last 9'; the network has 3 stages below the head (patches, blocks, neck); write"),
        ("last 0", "no position 'last 0'; the network has 3 stages"),
        ("lats 2", "no position or stage named 'lats 2'; did you mean 'last 2'?"),
        ("Last 2", "did you mean 'last 2'?"),
        ("last2", "did you mean 'last 2'?"),
        ("last-2", "did you mean 'last 2'?"),
        ("ALL", "did you mean 'all'?"),
    ],
)
def test_wrong_positions(text: str, message: str) -> None:
    _, resolution = replace_positions(Thaw(train=("last 2", text)), STAGES)
    (wrong,) = resolution.wrong
    assert wrong.path == ("train", 1)
    assert message in wrong.finding.text


class Plugin:
    """A backbone whose stages have other names, and a freezing policy that knows no positions."""

    @hookimpl
    def finetune_backbones(self) -> list[Backbone]:
        weights = {"own": Weights(url="file:///own.safetensors", sha256="", layout="")}
        build: Any = lambda options: {}  # noqa: E731 - a plan builds nothing
        return [Backbone(name="foreign", build=build, stages=STAGES[:-1], features=8, weights=weights)]

    @hookimpl
    def finetune_freezers(self) -> list[Freezer]:
        as_written = Freezer(name="as_written", options=Thaw, build=build_thaw, positions=False)
        return [Freezer(name="thaw", options=Thaw, build=build_thaw), as_written]

    @hookimpl
    def finetune_datasets(self) -> list[Dataset]:
        return [Dataset(name="nothing", build=lambda options, split: None)]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    loaded = plugins.load_plugins()
    loaded.register(Plugin(), Origin(name="foreign", distribution="foreign", version="1"))
    return Catalogue(loaded)


def plan(catalogue: Catalogue, **freeze: Any) -> Plan:
    recipe = {"backbone": {"use": "foreign"}, "dataset": {"use": "nothing"}, "freeze": freeze}
    return load_plan(recipe, [], catalogue)


@pytest.mark.parametrize(
    ("freeze", "trainable"),
    [
        ({"use": "thaw", "since": "last 2"}, [("blocks", "neck", "head")]),
        ({"use": "thaw", "train": ["last"]}, [("neck", "head")]),
        ({"use": "stages", "train": ["last 2"]}, [("blocks", "neck", "head")]),
        ({"use": "stages", "frozen": ["last", "pat*"]}, [("blocks", "head")]),
        ({"use": "gradual", "schedule": {"1": "head", "4": "last", "7": "all"}}, [STAGES[-1:], STAGES[-2:], STAGES]),
    ],
)
def test_each_freezer_takes_positions(
    freeze: dict[str, Any], trainable: list[tuple[str, ...]], catalogue: Catalogue
) -> None:
    found = plan(catalogue, **freeze)
    assert [phase.trainable for phase in plan_phases(found)] == trainable
    assert found.recipe.freeze.given.items() >= {k: v for k, v in freeze.items() if k == "since"}.items()


def test_the_recipe_keeps_positions_and_the_freezer_has_names(catalogue: Catalogue) -> None:
    found = plan(catalogue, use="stages", train=["last 2"])
    assert found.recipe.freeze.given["train"] == ["last 2"]
    assert found.freezer.options == type(found.freezer.options)(train=("blocks", "neck"))  # type: ignore[call-arg]


def test_a_freezer_may_read_words_itself(catalogue: Catalogue) -> None:
    found = plan(catalogue, use="as_written", train=["last"])
    assert found.freezer.options == Thaw(train=("last",))


def test_mistakes_are_where_they_were_written(catalogue: Catalogue) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(catalogue, use="stages", train=["last 2", "bloks", "last 7"])
    assert sorted(line.partition(": ")[2] for line in caught.value.mistakes) == [
        "freeze.train[1]: no stage matches 'bloks'; did you mean 'blocks'?",
        "freeze.train[2]: no position 'last 7'; the network has 3 stages below the head (patches, blocks, neck); "
        "write 'last' to 'last 3', 'all' or 'head'",
    ]


def test_the_contract_puts_names_in_place_of_positions() -> None:
    check_freezer(Freezer(name="thaw", options=Described, build=build_thaw), {"train": ["last 2"]})
    with pytest.raises(ContractError, match=r"train\[0\]: no position 'last 9'"):
        check_freezer(Freezer(name="thaw", options=Described, build=build_thaw), {"train": ["last 9"]})


class Described(Options):
    train: tuple[str, ...] = ()
    """Stages that train."""
    since: str = "head"
    """Lowest stage that trains."""


@pytest.mark.parametrize("name", bundled.list_recipes())
def test_every_bundled_recipe_takes_another_backbone(name: str, catalogue: Catalogue) -> None:
    path = bundled.list_recipes()[name]
    found = load_plan(path, ["backbone.use=foreign", "dataset={use: nothing}"], catalogue)
    assert found.recipe.backbone.weights in ("auto", "none")
    phases = plan_phases(found)
    assert all(phase.trainable[-1] == "head" for phase in phases)


def test_extending_a_bundled_recipe_with_another_backbone(catalogue: Catalogue, tmp_path: Any) -> None:
    (tmp_path / "mine.yaml").write_text("extends: folder\nbackbone: {use: foreign}\n")
    found = load_plan(tmp_path / "mine.yaml", [], catalogue)
    assert [phase.trainable for phase in plan_phases(found)] == [("neck", "head")]


def test_the_schema_offers_positions(catalogue: Catalogue) -> None:
    definitions = build_json_schema(catalogue)["$defs"]
    (train, _) = definitions["freeze.stages"]["properties"]["train"]["anyOf"]
    schedule = definitions["freeze.gradual"]["properties"]["schedule"]
    for taken in (train["items"], schedule["additionalProperties"]):
        assert taken == {"type": "string", "examples": ["head", "last", "last 2", "all"]}
