"""Catalogue: the components of all plugins, by kind and name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from finetune.components import KINDS, Backbone, Component, Dataset, Options
from finetune.errors import PluginError, UsageError
from finetune.plugins import HERE, BrokenPlugin, Origin, Plugins, attribute_errors
from finetune.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Reads = Callable[[Path], Mapping[str, Any] | None]

C = TypeVar("C", bound=Component)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen(Generic[C]):
    """A component with the options that the recipe gives it, and the plugin that it comes from."""

    component: C
    options: Options
    origin: Origin

    def build(self, *arguments: Any) -> Any:
        """Call the component's ``build`` with its options; errors that it raises name the plugin."""
        return self.call("build", self.component.build, self.options, *arguments)

    def call(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the component; errors that it raises name the plugin."""
        with self.attribute(what):
            return function(*arguments)

    def attribute(self, what: str) -> attribute_errors:
        """Return a context manager in which errors name the plugin."""
        return attribute_errors(self.origin, f"{what} of {self.component.kind} '{self.component.name}'")

    @property
    def prefix(self) -> str:
        """The beginning of messages about an installed plugin's component; empty for other components."""
        return f"{self.origin}: " if self.origin.foreign else ""


def find_fault(kind: type[Component], component: object) -> str | None:
    """Return what is wrong with a component that a hook of this kind returned."""
    if not isinstance(component, kind):
        return f"{kind.hook} returned {component!r}, not a {kind.__name__}"
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
            for origin, component in plugins.collect(kind.hook):
                self._add(kind, origin, component)

    def _add(self, kind: type[Component], origin: Origin, component: object) -> None:
        if (wrong := find_fault(kind, component)) is not None:
            self.plugins.broken.append(BrokenPlugin(origin=origin, reason=wrong))
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

    def choose(self, component: C, options: Options) -> Chosen[C]:
        """Return a component with its options and its plugin."""
        return Chosen(component=component, options=options, origin=self.origin(component))

    def list_readers(self) -> Sequence[tuple[str, Reads]]:
        """Return the datasets that read paths, with their ``reads``; the last registered comes first.

        ``reads`` raises ``PluginError`` with the plugin's name if it fails or does not return options.
        """
        found = []
        for name, offers in reversed(self._entries[Dataset].items()):
            origin, dataset = offers[0]
            if len(offers) == 1 and isinstance(dataset, Dataset) and dataset.reads is not None:
                found.append((name, partial(self._read_path, origin, dataset)))
        return found

    def _read_path(self, origin: Origin, dataset: Dataset, path: Path) -> Mapping[str, Any] | None:
        assert dataset.reads is not None
        with attribute_errors(origin, f"reads of dataset '{dataset.name}'"):
            options = dataset.reads(path)
            if options is None:
                return None
            if not isinstance(options, Mapping):
                raise PluginError(f"returned {options!r:.80}, not options; return a mapping or None")
            unknown = [key for key in options if key not in dataset.options.model_fields]
            if unknown:
                raise PluginError(f"returned '{unknown[0]}', which is not an option of the dataset")
            return options

    def __iter__(self) -> Iterator[tuple[Origin, Component]]:
        """Iterate over all components by kind and name, including duplicates."""
        for kind in KINDS:
            for name in self.names(kind):
                yield from self._entries[kind][name]
