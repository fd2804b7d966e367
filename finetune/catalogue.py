"""Catalogue: the components of all plugins, by kind and name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from finetune.components import KINDS, Augmentation, Backbone, Callback, Component, Dataset, Freezer, Options
from finetune.errors import PluginError, UsageError
from finetune.plugins import HERE, Broken, Origin, Plugins, attribute_errors
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

C = TypeVar("C", bound=Component)

HOOK_OF: dict[type[Component], str] = {
    Backbone: "finetune_backbones",
    Dataset: "finetune_datasets",
    Augmentation: "finetune_augmentations",
    Freezer: "finetune_freezers",
    Callback: "finetune_callbacks",
}


def find_fault(kind: type[Component], component: object) -> str | None:
    """Return what is wrong with a component that a hook of this kind returned."""
    if not isinstance(component, kind):
        return f"{HOOK_OF[kind]} returned {component!r}, not a {kind.__name__}"
    if not isinstance(component.name, str) or not component.name:
        return f"the name of a {kind.kind} is {component.name!r}, which is not a string; use a name such as 'mine'"
    if isinstance(component, Backbone) and not component.stages:
        return f"backbone '{component.name}' has no stages; name at least one"
    if not (isinstance(component.options, type) and issubclass(component.options, Options)):
        return f"options of {kind.kind} '{component.name}' must be a subclass of finetune.Options"
    return None


class Catalogue:
    """The components of all plugins; a name that two plugins offer is listed but cannot be used."""

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self._entries: dict[type[Component], dict[str, list[tuple[Origin, Component]]]] = {k: {} for k in KINDS}
        for kind in KINDS:
            for origin, component in plugins.collect(HOOK_OF[kind]):
                self._add(kind, origin, component)

    def _add(self, kind: type[Component], origin: Origin, component: object) -> None:
        if (wrong := find_fault(kind, component)) is not None:
            self.plugins.broken.append(Broken(origin=origin, reason=wrong))
        else:
            assert isinstance(component, kind)
            self._entries[kind].setdefault(component.name, []).append((origin, component))

    def names(self, kind: type[Component]) -> tuple[str, ...]:
        """Return the sorted names of a kind."""
        return tuple(sorted(self._entries[kind]))

    def get(self, kind: type[C], name: str) -> C:
        """Return a component; raises ``UsageError`` with a near match for an unknown name, ``PluginError`` for two."""
        offers = self._entries[kind].get(name, [])
        if len(offers) > 1:
            sides = " and ".join(str(origin) for origin, _ in offers)
            remedy = "uninstall one or set FINETUNE_DISABLE_PLUGINS"
            raise PluginError(f"two {kind.kind}s named '{name}': {sides}; {remedy}")
        if not offers:
            near = did_you_mean(name, self.names(kind))
            raise UsageError(f"no {kind.kind} named '{name}'{near}{self._broken_hint()}")
        component = offers[0][1]
        assert isinstance(component, kind)
        return component

    def _broken_hint(self) -> str:
        broken = self.plugins.broken
        if len(broken) == 1:
            (only,) = broken
            reason = only.reason.removeprefix(f"{only.origin}: ").partition("\n")[0]
            return f" ({only.origin} was not loaded: {reason[:200]}); {only.origin.remedy}"
        names = ", ".join(sorted({f"'{each.origin.name}'" for each in broken}))
        return f" (not loaded: {names}; see `finetune plugins`)" if names else ""

    def origin(self, component: Component) -> Origin:
        """Return the plugin that offers a component; a component that was passed in Python has an origin of its own."""
        for offers in self._entries[type(component)].values():
            for origin, offered in offers:
                if offered is component:
                    return origin
        return Origin(name=component.name, distribution=HERE, version="-")

    def call(self, component: Component, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a component's function; errors that it raises name its plugin."""
        with attribute_errors(self.origin(component), f"{what} of {component.kind} '{component.name}'"):
            return function(*arguments)

    def __iter__(self) -> Iterator[tuple[Origin, Component]]:
        """Iterate over all components by kind and name, including duplicates."""
        for kind in KINDS:
            for name in self.names(kind):
                yield from self._entries[kind][name]
