"""Finding, loading and calling plugins: built-ins by name, everyone else by the entry-point group ``finetune``."""

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

HERE = "this process"  # stands for the distribution of what Python code brings along
BUILTINS = (
    "finetune_model",
    "finetune_plugins.folder",
    "finetune_plugins.csv",
    "finetune_plugins.mindrecord",
    "finetune_plugins.flowers102",
    "finetune_plugins.shapes",
    "finetune_plugins.fractals",
    "finetune_plugins.albumentations",
    "finetune_plugins.freezing",
    "finetune_plugins.tensorboard",
    "finetune_plugins.checkpoint",
    "finetune_plugins.early_stopping",
)
NAME_OF_API = "finetune_api"
SLOW = 10.0  # seconds after which a plugin is said to keep a run waiting
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("finetune_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a plugin comes from."""

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin '{self.name}' ({self.distribution} {self.version})"

    @property
    def foreign(self) -> bool:
        """Tell whether it is installed beside this project, neither part of it nor made in this process."""
        return self.distribution not in (DISTRIBUTION, HERE)

    @property
    def remedy(self) -> str:
        """Return what one can do about a failure who did not write the plugin; nothing for one made in this process."""
        if not self.foreign:
            return ""
        return f"update or mend {self.distribution}, or leave it out with FINETUNE_DISABLE_PLUGINS={self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    origin: Origin
    reason: str


class Plugins:
    """The plugins of one process or run: a fresh manager, nothing global."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.origins: dict[int, Origin] = {}
        self.broken: list[Broken] = []
        self.slow: set[tuple[Origin, str]] = set()

    def register(self, plugin: object, origin: Origin) -> None:
        """Register a module or object; ``PluginError`` names a hook that does not exist or asks too much."""
        for name in dir(plugin):
            value = getattr(plugin, name)
            if not name.startswith("finetune_") or not callable(value):
                continue
            if name not in HOOKS:
                raise PluginError(f"{origin}: no hook named '{name}'{did_you_mean(name, HOOKS)}")
            if not hasattr(value, f"{hookspecs.PROJECT}_impl"):
                raise PluginError(f"{origin}: '{name}' would never be called; decorate it with @hookimpl")
            options = getattr(value, f"{hookspecs.PROJECT}_impl")
            if options["wrapper"] or options["hookwrapper"]:
                raise PluginError(f"{origin}: '{name}' is a wrapper, which would never run; make it a plain @hookimpl")
            there = signature(getattr(hookspecs, name)).parameters
            asked = signature(value).parameters.values()
            if more := [each.name for each in asked if each.default is each.empty and each.name not in there]:
                takes = f"it takes {', '.join(there)}" if there else "it takes none"
                raise PluginError(f"{origin}: '{name}' asks for the argument '{more[0]}'; {takes}")
        try:
            self.manager.register(plugin, name=f"{origin.name}:{id(plugin)}")
            self.manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            if id(plugin) not in self.origins and self.manager.is_registered(plugin):
                self.manager.unregister(plugin)  # its hooks must not be called without an origin
            raise PluginError(f"{origin}: {error}") from error
        self.origins[id(plugin)] = origin

    def copy(self) -> Plugins:
        """Return a manager with the same plugins, to which a run adds its own."""
        other = Plugins()
        for _, plugin in self.manager.list_name_plugin():  # in the order registered
            other.register(plugin, self.origins[id(plugin)])
        other.broken = list(self.broken)
        return other

    def hooks(self) -> Iterator[tuple[Origin, tuple[str, ...]]]:
        """Yield each plugin with the hooks that it implements, in the order registered."""
        for _, plugin in self.manager.list_name_plugin():
            callers = self.manager.get_hookcallers(plugin) or ()
            yield self.origins[id(plugin)], tuple(name for name in HOOKS if name in {each.name for each in callers})

    def call(self, hook: str, **arguments: Any) -> Iterator[tuple[Origin, Any]]:
        """Call one plugin after the other, last registered first, and yield what each returned.

        A failing plugin raises ``PluginError`` with plugin, distribution, version and hook; the project's own errors
        and interrupts pass through.
        """
        for impl in reversed(getattr(self.manager.hook, hook).get_hookimpls()):
            origin = self.origins[id(impl.plugin)]
            with attribute_errors(origin, hook):
                result = impl.function(*(arguments[name] for name in impl.argnames))
            yield origin, result

    def first(self, hook: str, **arguments: Any) -> tuple[Origin, Any] | None:
        """Return the first answer that is not None, and whose it is."""
        return next((answer for answer in self.call(hook, **arguments) if answer[1] is not None), None)

    def fire(self, event: str, **arguments: Any) -> None:
        """Call an event of every plugin, in the order registered, and say once which one takes long."""
        began = time.monotonic()
        for origin, _ in self.call(event, **arguments):
            seconds, began = time.monotonic() - began, time.monotonic()
            if seconds > SLOW and (origin, event) not in self.slow:
                self.slow.add((origin, event))
                arguments["run"].say(f"warning: {origin} took {seconds:.0f} s in {event}; training waits for it")

    def fire_all(self, event: str, **arguments: Any) -> list[FinetuneError]:
        """Call an event of every plugin even where one fails, and return the failures."""
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
        """Yield every component that a catalogue hook returns, with its plugin; generators run here, guarded."""
        for impl in getattr(self.manager.hook, hook).get_hookimpls():
            origin = self.origins[id(impl.plugin)]
            try:
                with attribute_errors(origin, hook):
                    components = list(impl.function() or ())
            except PluginError as error:
                self.broken.append(Broken(origin=origin, reason=str(error)))
                continue
            yield from ((origin, component) for component in components)


class attribute_errors:
    """Turn what a plugin raises into a ``PluginError`` that names it and the hook."""

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
    """Return an error's own words; those of a plugin may fail themselves."""
    try:
        return str(error)
    except Exception:
        return ""


def load_plugins() -> Plugins:
    """Return the built-in plugins and the installed ones; what fails to load is kept in ``broken``.

    ``FINETUNE_DISABLE_PLUGINS=a,b`` leaves out entry points by name.
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
    """Return the entry points of installed plugins; a distribution whose list cannot be read is noted as broken."""
    try:
        return entry_points(group=hookspecs.PROJECT)
    except Exception:  # one damaged file stops the search in all others
        found = []
    for dist in distributions():
        try:
            found += [point for point in dist.entry_points if point.group == hookspecs.PROJECT]
        except Exception as error:
            reason = f"its entry_points.txt is damaged: {describe_error(error)}; install it anew"
            plugins.broken.append(Broken(origin=make_origin(dist, "?"), reason=reason))
    return found


def load_entry_point(plugins: Plugins, point: EntryPoint) -> None:
    """Load and register one installed plugin, or note why it cannot be."""
    origin = get_origin(point)
    try:
        check_version(point)
        plugin = point.load()
        check_api(plugin, sys.modules.get(point.module))
        plugins.register(plugin, origin)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may even call sys.exit while it is imported
        reason = (
            describe_error(error)
            if isinstance(error, PluginError)
            else f"{type(error).__name__}: {describe_error(error)}"
        )
        plugins.broken.append(Broken(origin=origin, reason=reason))


def check_version(point: EntryPoint) -> None:
    """Raise ``PluginError`` if a plugin's distribution asks for another version of this project than there is."""
    stated = (point.dist.requires if point.dist else None) or ()
    for text in (text for text in stated if text.lower().replace("_", "-").startswith(DISTRIBUTION)):
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        wanted = Requirement(text)
        if canonicalize_name(wanted.name) != DISTRIBUTION or (wanted.marker and not wanted.marker.evaluate()):
            continue
        if not wanted.specifier.contains(own_version(), prereleases=True):
            here = f"it is made for {DISTRIBUTION} {wanted.specifier}, and this is {own_version()}"
            raise PluginError(f"{here}; install another version of one of them")


def check_api(plugin: object, module: ModuleType | None) -> None:
    """Raise ``PluginError`` unless a plugin, or its module, is written for this API of plugins, or says none."""
    asked = getattr(plugin, NAME_OF_API, getattr(module, NAME_OF_API, hookspecs.API))
    if type(asked) is not int or asked != hookspecs.API:
        here = f"{NAME_OF_API} is {asked!r:.40}, and {DISTRIBUTION} {own_version()} has {hookspecs.API}"
        raise PluginError(f"{here}; install another version of one of them")


def get_origin(point: EntryPoint) -> Origin:
    """Return name, distribution and version of an entry point."""
    return make_origin(point.dist, point.name)


def make_origin(dist: Distribution | None, name: str) -> Origin:
    """Return what a plugin is called; metadata may be damaged."""
    try:
        about = (dist.name, dist.version) if dist else ("?", "?")
    except Exception:
        about = (Path(str(getattr(dist, "_path", "?"))).name, "?")
    return Origin(name=name, distribution=str(about[0]), version=str(about[1]))
