"""Finding, registering and calling plugins, and the catalogue of what they offer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from finetune import hookspecs
from finetune.catalogue import Catalogue
from finetune.components import Callback, Dataset, Freezer, Weights
from finetune.errors import DataError, PluginError, UsageError
from finetune.hookspecs import hookimpl
from finetune.plugins import HOOKS, Origin, Plugins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ARGUMENTS: dict[str, Any] = {
    "weights": Weights(url="https://example.org/w.safetensors", sha256="0" * 64, layout="own"),
    "cache": Path("cache"),
    "run": SimpleNamespace(folder=Path("run")),
    "epoch": 3,
    "step": 7,
    "loss": 0.5,
    "metrics": {"train_loss": 0.5},
    "path": Path("checkpoint"),
    "best": True,
    "error": ValueError("wrong"),
}
CATALOGUE = tuple(hook for hook in HOOKS if hook.endswith("s") and hook != "finetune_fetch_weights")
EVENTS = HOOKS[7:]


def origin(name: str = "birds", distribution: str = "bird-plugin", version: str = "1.2") -> Origin:
    """Return where a plugin of these tests comes from."""
    return Origin(name=name, distribution=distribution, version=version)


def plugin(**hooks: Callable[..., Any]) -> Any:
    """Return a plugin with these hooks."""
    return SimpleNamespace(**{f"finetune_{name}": hookimpl(function) for name, function in hooks.items()})


def registered(*found: Any) -> Plugins:
    """Return a manager with plugins named ``first``, ``second`` and so on, in this order."""
    manager = Plugins()
    for name, one in zip(("first", "second", "third", "fourth"), found, strict=False):
        manager.register(one, origin(name, f"{name}-dist", "1.0"))
    return manager


def test_plugins_tell_their_hooks() -> None:
    manager = registered(plugin(run_end=lambda run: None, datasets=lambda: []), plugin())
    assert [(each.name, hooks) for each, hooks in manager.iterate_hooks()] == [
        ("first", ("finetune_datasets", "finetune_run_end")),
        ("second", ()),
    ]


def arguments(hook: str) -> dict[str, Any]:
    """Return arguments for a hook, by its specification."""
    code = getattr(hookspecs, hook).__code__
    return {name: ARGUMENTS[name] for name in code.co_varnames[: code.co_argcount]}


def implementing(hook: str, body: Callable[[], Any]) -> Any:
    """Return a plugin that takes every argument of a hook and runs ``body``."""
    names = ", ".join(arguments(hook))
    scope: dict[str, Any] = {"body": body}
    exec(f"def {hook}({names}):\n    return body()", scope)
    return SimpleNamespace(**{hook: hookimpl(scope[hook])})


def test_there_are_fourteen_hooks_in_the_order_a_run_meets_them() -> None:
    assert HOOKS == (
        "finetune_backbones",
        "finetune_datasets",
        "finetune_augmentations",
        "finetune_freezers",
        "finetune_callbacks",
        "finetune_audits",
        "finetune_fetch_weights",
        "finetune_run_start",
        "finetune_epoch_start",
        "finetune_step_end",
        "finetune_epoch_end",
        "finetune_checkpoint_saved",
        "finetune_run_error",
        "finetune_run_end",
    )
    assert HOOKS[:6] == CATALOGUE


# Registration


def test_a_misspelt_hook_is_an_error_with_the_nearest_name() -> None:
    message = (
        r"plugin 'birds' \(bird-plugin 1\.2\): no hook named 'finetune_epoch_ends'; did you mean '\w+_epoch_end'\?"
    )
    with pytest.raises(PluginError, match=message):
        Plugins().register(plugin(epoch_ends=lambda run: None), origin())


def test_a_hook_without_its_decorator_is_an_error() -> None:
    bare = SimpleNamespace(finetune_run_end=lambda run: None)
    with pytest.raises(PluginError, match="'finetune_run_end' is missing @hookimpl; add the decorator"):
        Plugins().register(bare, origin())


def test_a_hook_may_take_fewer_arguments() -> None:
    heard: list[int] = []
    registered(plugin(epoch_end=lambda epoch: heard.append(epoch))).fire("finetune_epoch_end", **arguments(EVENTS[3]))
    assert heard == [3]


def test_a_hook_that_asks_for_more_is_an_error() -> None:
    with pytest.raises(PluginError, match=r"(?s)plugin 'birds' \(bird-plugin 1\.2\): .*finetune_run_end.*optimizer"):
        Plugins().register(plugin(run_end=lambda run, optimizer: None), origin())


def test_the_same_plugin_twice_is_an_error() -> None:
    manager, twin = Plugins(), plugin(run_end=lambda run: None)
    manager.register(twin, origin())
    for name in ("birds", "other"):
        with pytest.raises(PluginError, match=rf"plugin '{name}' \(bird-plugin 1\.2\)"):
            manager.register(twin, origin(name))


def test_other_names_of_a_plugin_are_its_own_business() -> None:
    mine = plugin(run_end=lambda run: None)
    mine.finetune_version, mine.helper = "1", lambda: None
    Plugins().register(mine, origin())


@pytest.mark.parametrize(
    "refused",
    [
        plugin(epoch_end=lambda run: None, run_end=lambda run, optimizer: None),
        plugin(epoch_end=lambda run: None, epoch_ends=lambda run: None),
        SimpleNamespace(
            finetune_epoch_end=hookimpl(lambda run: None), own=hookimpl(specname="finetune_x")(lambda: None)
        ),
    ],
    ids=["asks for more", "misspelt", "misspelt specname"],
)
def test_a_refused_plugin_leaves_nothing_behind(refused: Any) -> None:
    manager, heard = Plugins(), []
    with pytest.raises(PluginError):
        manager.register(refused, origin())
    manager.register(plugin(epoch_end=lambda epoch: heard.append(epoch)), origin("sound"))
    manager.fire("finetune_epoch_end", **arguments("finetune_epoch_end"))
    assert heard == [3]


def test_a_wrapper_is_refused_since_it_would_never_run() -> None:
    def wrapper(run: Any) -> Iterator[None]:
        yield

    with pytest.raises(PluginError, match="wrapper"):
        Plugins().register(SimpleNamespace(finetune_run_end=hookimpl(wrapper=True)(wrapper)), origin())


# Calling


@pytest.mark.parametrize("hook", HOOKS)
def test_a_failing_plugin_names_itself_its_distribution_and_the_hook(hook: str) -> None:
    def fail() -> None:
        raise ValueError("no birds today")

    manager = Plugins()
    manager.register(implementing(hook, fail), origin())
    expected = f"plugin 'birds' (bird-plugin 1.2) failed in {hook}: ValueError: no birds today"
    if hook in CATALOGUE:
        assert list(manager.collect(hook)) == []
        assert [broken.reason for broken in manager.broken] == [expected]
        return
    with pytest.raises(PluginError) as caught:
        manager.fire(hook, **arguments(hook))
    assert str(caught.value) == expected
    assert caught.value.exit_code == 6
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_gets_every_argument_it_asks_for(hook: str) -> None:
    calls: list[str] = []
    manager = registered(implementing(hook, lambda: calls.append(hook)))
    if hook in CATALOGUE:
        assert list(manager.collect(hook)) == []
    else:
        manager.fire(hook, **arguments(hook))
    assert calls == [hook]
    assert manager.broken == []


def test_the_last_registered_is_called_first() -> None:
    heard: list[str] = []
    manager = registered(*(plugin(run_end=lambda run, n=n: heard.append(n)) for n in ("a", "b", "c")))
    manager.fire("finetune_run_end", **arguments("finetune_run_end"))
    assert heard == ["c", "b", "a"]


def test_a_plugin_may_ask_to_be_first_or_last() -> None:
    heard: list[str] = []

    def event(name: str, *, first: bool = False, last: bool = False) -> Any:
        def hear(run: Any) -> None:
            heard.append(name)

        return SimpleNamespace(finetune_run_end=hookimpl(hear, tryfirst=first, trylast=last))

    manager = registered(event("first", first=True), event("a"), event("b"), event("last", last=True))
    manager.fire("finetune_run_end", **arguments("finetune_run_end"))
    assert heard == ["first", "b", "a", "last"]


def test_a_copy_calls_in_the_same_order_and_keeps_the_original_as_it_is() -> None:
    heard: list[int] = []
    manager = Plugins()
    for number in range(30):
        manager.register(plugin(run_end=lambda run, n=number: heard.append(n)), origin(f"p{number}"))
    copy = manager.copy()
    copy.register(plugin(run_end=lambda run: heard.append(99)), origin("own"))
    copy.fire("finetune_run_end", **arguments("finetune_run_end"))
    assert heard == [99, *range(29, -1, -1)]
    heard.clear()
    manager.fire("finetune_run_end", **arguments("finetune_run_end"))
    assert heard == list(range(29, -1, -1))


def test_the_first_answer_counts_and_later_plugins_are_not_asked() -> None:
    asked: list[str] = []

    def answer(name: str, result: Path | None) -> Any:
        def fetch(weights: Weights) -> Path | None:
            asked.append(name)
            return result

        return plugin(fetch_weights=fetch)

    manager = registered(answer("a", Path("a")), answer("b", Path("b")), answer("c", None))
    found = manager.call_first("finetune_fetch_weights", **arguments("finetune_fetch_weights"))
    assert found is not None
    assert found[1] == Path("b")
    assert asked == ["c", "b"]


def test_no_answer_is_none() -> None:
    assert registered().call_first("finetune_fetch_weights", **arguments("finetune_fetch_weights")) is None


def raising(error: BaseException) -> Callable[[Any], None]:
    """Return an event that fails."""

    def fail(run: Any) -> None:
        raise error

    return fail


def test_errors_of_the_project_and_interrupts_pass_through() -> None:
    for error in (DataError("no photos in 'x'; put some there"), KeyboardInterrupt()):
        manager = registered(plugin(run_start=raising(error)))
        with pytest.raises(type(error)) as caught:
            manager.fire("finetune_run_start", **arguments("finetune_run_start"))
        assert caught.value is error


def test_a_plugin_cannot_end_the_process() -> None:
    manager = registered(plugin(run_start=raising(SystemExit(0))))
    with pytest.raises(PluginError, match=r"failed in finetune_run_start: SystemExit: 0"):
        manager.fire("finetune_run_start", **arguments("finetune_run_start"))


@pytest.mark.parametrize("error", [ValueError("first failed"), DataError("first failed"), SystemExit("first failed")])
def test_every_plugin_hears_the_end_although_one_fails(error: BaseException) -> None:
    heard: list[str] = []
    manager = registered(
        plugin(run_end=lambda run: heard.append("a")),
        plugin(run_end=raising(error)),
        plugin(run_end=lambda run: heard.append("c")),
    )
    failures = manager.fire_all("finetune_run_end", **arguments("finetune_run_end"))
    assert heard == ["c", "a"]
    assert len(failures) == 1
    assert "first failed" in str(failures[0])


# Catalogue


def freezer(name: str) -> Freezer:
    """Return a policy that freezes nothing."""
    return Freezer(name=name, build=lambda options: lambda epoch, stages: frozenset(stages))


def test_a_catalogue_knows_what_plugins_offer_and_whose_it_is() -> None:
    catalogue = Catalogue(registered(plugin(freezers=lambda: [freezer("b"), freezer("a")])))
    assert catalogue.names(Freezer) == ("a", "b")
    assert catalogue.names(Dataset) == ()
    component = catalogue.get(Freezer, "a")
    assert component.name == "a"
    assert str(catalogue.origin(component)) == "plugin 'first' (first-dist 1.0)"
    assert [(str(whose), found.name) for whose, found in catalogue] == [
        ("plugin 'first' (first-dist 1.0)", "a"),
        ("plugin 'first' (first-dist 1.0)", "b"),
    ]
    assert str(catalogue.origin(freezer("stranger"))) == "plugin 'stranger' (this process -)"


def test_an_unknown_component_is_an_error_with_the_nearest_name() -> None:
    catalogue = Catalogue(registered(plugin(datasets=lambda: [Dataset(name="flowers102", build=lambda o, s: None)])))
    with pytest.raises(UsageError, match=r"^no dataset named 'flowers'; did you mean 'flowers102'\?$"):
        catalogue.get(Dataset, "flowers")
    with pytest.raises(UsageError, match=r"^no freezer named 'head'$"):
        catalogue.get(Freezer, "head")


def test_an_unknown_component_points_at_plugins_that_are_broken() -> None:
    def fail() -> None:
        raise ImportError("no libbird")

    catalogue = Catalogue(registered(plugin(datasets=fail)))
    with pytest.raises(
        UsageError,
        match=r"no dataset named 'birds' \(plugin 'first' \(first-dist 1\.0\) was not loaded: .* no libbird\)",
    ):
        catalogue.get(Dataset, "birds")


def test_two_components_of_one_name_are_an_error_that_names_both_distributions() -> None:
    both = (plugin(freezers=lambda: [freezer("mine"), freezer("other")]), plugin(freezers=lambda: [freezer("mine")]))
    catalogue = Catalogue(registered(*both))
    assert catalogue.get(Freezer, "other").name == "other"
    with pytest.raises(PluginError, match="two freezers named 'mine'") as caught:
        catalogue.get(Freezer, "mine")
    assert "plugin 'first' (first-dist 1.0)" in str(caught.value)
    assert "plugin 'second' (second-dist 1.0)" in str(caught.value)
    assert "FINETUNE_DISABLE_PLUGINS" in str(caught.value)


def test_two_components_of_one_name_in_one_plugin_are_an_error_too() -> None:
    catalogue = Catalogue(registered(plugin(freezers=lambda: [freezer("mine"), freezer("mine")])))
    with pytest.raises(PluginError, match="two freezers named 'mine'"):
        catalogue.get(Freezer, "mine")


def test_a_name_may_be_used_once_for_each_kind() -> None:
    names = plugin(
        freezers=lambda: [freezer("same")], callbacks=lambda: [Callback(name="same", build=lambda options: object())]
    )
    catalogue = Catalogue(registered(names))
    assert catalogue.get(Freezer, "same").kind == "freezer"
    assert catalogue.get(Callback, "same").kind == "callback"


@pytest.mark.parametrize(
    ("components", "reason"),
    [
        (lambda: ["head"], "finetune_freezers returned 'head', not a Freezer"),
        (lambda: [Callback(name="x", build=lambda options: object())], "finetune_freezers returned Callback"),
        (lambda: 7, "failed in finetune_freezers: TypeError: 'int' object is not iterable"),
        (
            lambda: [Freezer(name="x", options=dict, build=freezer("x").build)],  # type: ignore[arg-type]
            "options of freezer 'x' must be a subclass of finetune.Options",
        ),
    ],
)
def test_what_is_no_component_breaks_its_plugin_only(components: Any, reason: str) -> None:
    manager = registered(plugin(freezers=components), plugin(freezers=lambda: [freezer("sound")]))
    assert Catalogue(manager).names(Freezer) == ("sound",)
    (broken,) = manager.broken
    assert str(broken.origin) == "plugin 'first' (first-dist 1.0)"
    assert reason in broken.reason


def test_a_plugin_may_offer_nothing() -> None:
    manager = registered(plugin(freezers=lambda: None), plugin(freezers=lambda: iter(())))
    assert Catalogue(manager).names(Freezer) == ()
    assert manager.broken == []
