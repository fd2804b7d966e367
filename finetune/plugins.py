"""Plugins: finds, loads and calls built-in plugins and those of the entry-point group ``finetune``."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from finetune import hookspecs
from finetune.errors import FinetuneError, PluginError
from finetune.suggest import did_you_mean
from finetune.version import DISTRIBUTION, own_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from finetune.components import Dataset

HERE = "this process"  # distribution of plugins that are passed in Python
BUILTINS = (
    "finetune_model",
    "finetune_plugins.folder",
    "finetune_plugins.csv",
    "finetune_plugins.mindrecord",
    "finetune_plugins.flowers102",
    "finetune_plugins.shapes",
    "finetune_plugins.albumentations",
    "finetune_plugins.freezing",
    "finetune_plugins.tensorboard",
    "finetune_plugins.checkpoint",
    "finetune_plugins.early_stopping",
    "finetune_plugins.small_images",
)
NAME_OF_API = "finetune_api"
SLOW = 10.0  # seconds after which the run warns that a plugin blocks it
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("finetune_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The name of a plugin, and the distribution and version that it comes from."""

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin '{self.name}' ({self.distribution} {self.version})"

    @property
    def foreign(self) -> bool:
        """Return whether the plugin is an installed one, neither built in nor passed in Python."""
        return self.distribution not in (DISTRIBUTION, HERE)

    @property
    def remedy(self) -> str:
        """Return the remedy for a failure of an installed plugin; empty for a plugin that was passed in Python."""
        if not self.foreign:
            return ""
        return f"update or fix {self.distribution}, or disable it with FINETUNE_DISABLE_PLUGINS={self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenPlugin:
    """A plugin that could not be loaded, and the reason."""

    origin: Origin
    reason: str


class Plugins:
    """The plugins of one process or run, in a plugin manager of their own."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.origins: dict[int, Origin] = {}
        self.broken: list[BrokenPlugin] = []
        self.slow: set[tuple[Origin, str]] = set()

    def register(self, plugin: object, origin: Origin) -> None:
        """Register a module or object; raises ``PluginError`` for an unknown hook or an unknown argument of a hook."""
        for name in dir(plugin):
            value = getattr(plugin, name)
            if not name.startswith("finetune_") or not callable(value):
                continue
            if name not in HOOKS:
                raise PluginError(f"{origin}: no hook named '{name}'{did_you_mean(name, HOOKS)}")
            if not hasattr(value, f"{hookspecs.PROJECT}_impl"):
                raise PluginError(f"{origin}: '{name}' is missing @hookimpl; add the decorator")
            options = getattr(value, f"{hookspecs.PROJECT}_impl")
            if options["wrapper"] or options["hookwrapper"]:
                raise PluginError(
                    f"{origin}: '{name}' is a hook wrapper, which is not supported; use a plain @hookimpl"
                )
            there = signature(getattr(hookspecs, name)).parameters
            asked = signature(value).parameters.values()
            if more := [each.name for each in asked if each.default is each.empty and each.name not in there]:
                takes = f"its arguments are {', '.join(there)}" if there else "it has no arguments"
                raise PluginError(f"{origin}: '{name}' has the unknown argument '{more[0]}'; {takes}")
        try:
            self.manager.register(plugin, name=f"{origin.name}:{id(plugin)}")
            self.manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            if id(plugin) not in self.origins and self.manager.is_registered(plugin):
                self.manager.unregister(plugin)  # its hooks must not be called without an origin
            raise PluginError(f"{origin}: {error}") from error
        self.origins[id(plugin)] = origin

    def copy(self) -> Plugins:
        """Return a copy with the same plugins, to which a run adds its own."""
        other = Plugins()
        for _, plugin in self.manager.list_name_plugin():  # in order of registration
            other.register(plugin, self.origins[id(plugin)])
        other.broken = list(self.broken)
        return other

    def iterate_hooks(self) -> Iterator[tuple[Origin, tuple[str, ...]]]:
        """Yield each plugin with the hooks that it implements, in order of registration."""
        for _, plugin in self.manager.list_name_plugin():
            callers = self.manager.get_hookcallers(plugin) or ()
            yield self.origins[id(plugin)], tuple(name for name in HOOKS if name in {each.name for each in callers})

    def call(self, hook: str, **arguments: Any) -> Iterator[tuple[Origin, Any]]:
        """Call a hook of all plugins, last registered first, and yield what each returned.

        If a plugin fails, this raises ``PluginError`` with plugin, distribution, version and hook. The project's own
        errors and interrupts are raised unchanged.
        """
        for impl in reversed(getattr(self.manager.hook, hook).get_hookimpls()):
            origin = self.origins[id(impl.plugin)]
            with attribute_errors(origin, hook):
                result = impl.function(*(arguments[name] for name in impl.argnames))
            yield origin, result

    def call_first(self, hook: str, **arguments: Any) -> tuple[Origin, Any] | None:
        """Return the first result that is not None, with the plugin that returned it."""
        return next((answer for answer in self.call(hook, **arguments) if answer[1] is not None), None)

    def fire(self, event: str, **arguments: Any) -> None:
        """Call an event of every plugin, in order of registration; warns once about each plugin that is slow."""
        began = time.monotonic()
        for origin, _ in self.call(event, **arguments):
            seconds, began = time.monotonic() - began, time.monotonic()
            if seconds > SLOW and (origin, event) not in self.slow:
                self.slow.add((origin, event))
                arguments["run"].say(f"warning: {origin} took {seconds:.0f} s in {event}, which blocks training")

    def fire_all(self, event: str, **arguments: Any) -> list[FinetuneError]:
        """Call an event of every plugin even if some fail, and return the failures."""
        failures = []
        for impl in reversed(getattr(self.manager.hook, event).get_hookimpls()):
            origin = self.origins[id(impl.plugin)]
            try:
                with attribute_errors(origin, event):
                    impl.function(*(arguments[name] for name in impl.argnames))
            except FinetuneError as error:
                failures.append(error)
        return failures

    def collect(self, hook: str) -> Iterator[tuple[Origin, Any]]:
        """Yield every component that a catalogue hook returns, with its plugin; errors name the plugin."""
        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            origin = self.origins[id(impl.plugin)]
            try:
                with attribute_errors(origin, hook):
                    components = list(impl.function() or ())
            except PluginError as error:
                self.broken.append(BrokenPlugin(origin=origin, reason=str(error)))
                continue
            yield from ((origin, component) for component in components)


class DatasetPlugin:
    """A plugin that offers one dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @hookspecs.hookimpl
    def finetune_datasets(self) -> list[Dataset]:
        """Return the dataset that was passed to ``fit``."""
        return [self.dataset]


class attribute_errors:
    """Context manager that turns errors of a plugin into a ``PluginError`` with the names of plugin and hook."""

    def __init__(self, origin: Origin, hook: str) -> None:
        self.origin, self.hook = origin, hook

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, KeyboardInterrupt):
            return
        if error.named if isinstance(error, PluginError) else isinstance(error, FinetuneError):
            return
        what = describe_error(error)
        if not isinstance(error, PluginError):
            what = f"{type(error).__name__}: {what}" if what else type(error).__name__
        failure = PluginError(f"{self.origin} failed in {self.hook}: {what}")
        failure.named, failure.remedy = True, self.origin.remedy
        raise failure from error


def describe_error(error: BaseException) -> str:
    """Return the message of an error; the ``__str__`` of a plugin's error may itself fail."""
    try:
        return str(error)
    except Exception:
        return ""


def load_plugins() -> Plugins:
    """Return the built-in and the installed plugins; plugins that fail to load are listed in ``broken``.

    ``FINETUNE_DISABLE_PLUGINS=a,b`` disables entry points by name.
    """
    plugins = Plugins()
    for module in BUILTINS:
        name = module.rpartition(".")[2]
        plugins.register(import_module(module), Origin(name=name, distribution=DISTRIBUTION, version=own_version()))
    disabled = {name.strip() for name in os.environ.get("FINETUNE_DISABLE_PLUGINS", "").split(",")}
    for point in sorted(find_entry_points(plugins), key=lambda point: (get_origin(point).distribution, point.name)):
        if point.name not in disabled:
            load_entry_point(plugins, point)
    return plugins


def find_entry_points(plugins: Plugins) -> Sequence[EntryPoint]:
    """Return the entry points of installed plugins; a distribution with an unreadable list is added to ``broken``."""
    try:
        return entry_points(group=hookspecs.PROJECT)
    except Exception:  # one damaged file stops the search in all distributions
        found = []
    for dist in distributions():
        try:
            found += [point for point in dist.entry_points if point.group == hookspecs.PROJECT]
        except Exception as error:
            reason = f"its entry_points.txt is damaged: {describe_error(error)}; reinstall it"
            plugins.broken.append(BrokenPlugin(origin=make_origin(dist, "?"), reason=reason))
    return found


def load_entry_point(plugins: Plugins, point: EntryPoint) -> None:
    """Load and register one installed plugin, or record why it failed."""
    origin = get_origin(point)
    try:
        check_version(point)
        plugin = point.load()
        check_api(plugin, sys.modules.get(point.module))
        plugins.register(plugin, origin)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may even call sys.exit on import
        reason = (
            describe_error(error)
            if isinstance(error, PluginError)
            else f"{type(error).__name__}: {describe_error(error)}"
        )
        plugins.broken.append(BrokenPlugin(origin=origin, reason=reason))


def check_version(point: EntryPoint) -> None:
    """Raise ``PluginError`` if a plugin's distribution requires a different version of this project."""
    stated = (point.dist.requires if point.dist else None) or ()
    for text in (text for text in stated if text.lower().replace("_", "-").startswith(DISTRIBUTION)):
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        wanted = Requirement(text)
        if canonicalize_name(wanted.name) != DISTRIBUTION or (wanted.marker and not wanted.marker.evaluate()):
            continue
        if not wanted.specifier.contains(own_version(), prereleases=True):
            here = f"it requires {DISTRIBUTION} {wanted.specifier}, but {own_version()} is installed"
            raise PluginError(f"{here}; install another version of one of them")


def check_api(plugin: object, module: ModuleType | None) -> None:
    """Raise ``PluginError`` if a plugin or its module declares a different version of the plugin API."""
    asked = getattr(plugin, NAME_OF_API, getattr(module, NAME_OF_API, hookspecs.API))
    if type(asked) is not int or asked != hookspecs.API:
        here = f"{NAME_OF_API} is {asked!r:.40}, but {DISTRIBUTION} {own_version()} has {hookspecs.API}"
        raise PluginError(f"{here}; install another version of one of them")


def get_origin(point: EntryPoint) -> Origin:
    """Return the origin of an entry point."""
    return make_origin(point.dist, point.name)


def make_origin(dist: Distribution | None, name: str) -> Origin:
    """Return the origin of a plugin, even if its metadata is damaged."""
    try:
        about = (dist.name, dist.version) if dist else ("?", "?")
    except Exception:
        about = (Path(str(getattr(dist, "_path", "?"))).name, "?")
    return Origin(name=name, distribution=str(about[0]), version=str(about[1]))
