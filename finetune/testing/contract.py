"""Contract inspection: checks a component and its options, and reports all broken rules together."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from finetune.catalogue import Catalogue, find_fault
from finetune.components import Component, Options
from finetune.errors import FinetuneError, UsageError
from finetune.plugins import HERE, Origin, describe_error, load_plugins
from finetune.recipe.mistakes import Known
from finetune.recipe.parts import SLOTS, get_section_model, validate_values
from finetune.recipe.places import format_path, make_absolute, resolve_paths
from finetune.suggest import did_you_mean
from finetune.testing.process_state import watch_process

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from finetune.recipe.mistakes import Problem

C = TypeVar("C", bound=Component)

COMMON = {
    "component": "it is a component of its kind, has a name, and its options derive from `finetune.Options`",
    "options": "options are strict, valid, and unchanged after they are written to a recipe and read again",
}
PROCESS = {
    "process": "it prints nothing, and does not change the folder, environment, signals or random numbers",
}


class ContractError(AssertionError):
    """A component breaks rules; ``broken`` has a pair of rule and message for each."""

    def __init__(self, component: str, broken: Collection[tuple[str, str]]) -> None:
        self.component, self.broken = component, tuple(broken)
        rules = "a rule" if len(self.broken) == 1 else f"{len(self.broken)} rules"
        super().__init__("\n".join([f"{component} breaks {rules}", *(f"  {rule}: {text}" for rule, text in broken)]))


class StopCheck(Exception):
    """Ends a check that cannot continue."""


class Inspection(Generic[C]):
    """A component under inspection, with its options as in a recipe, and the rules that it breaks."""

    def __init__(
        self, component: C, name: str, origin: Origin, rules: Mapping[str, str], skip: Collection[str]
    ) -> None:
        self.component, self.name, self.origin = component, name, origin
        self.rules, self.skip = rules, skip
        self.options: Options
        self.broken: dict[str, str] = {}

    def breaks(self, rule: str, text: str) -> None:
        """Record a broken rule; only the first message of each rule is kept."""
        assert rule in self.rules, rule
        if rule not in self.skip:
            self.broken.setdefault(rule, text)

    def wants(self, rule: str) -> bool:
        """Return whether a rule is to be checked and is not already broken."""
        return rule not in self.skip and rule not in self.broken

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Run checks in the block until they end or cannot continue."""
        with suppress(StopCheck):
            yield

    def report(self) -> None:
        """Raise ``ContractError`` with all broken rules, if there are any."""
        __tracebackhide__ = True
        if self.broken:
            order = [*self.rules]
            raise ContractError(self.name, sorted(self.broken.items(), key=lambda item: order.index(item[0])))

    @contextmanager
    def rule(self, rule: str, what: str, remedy: str, *, vital: bool = False, draws: bool = False) -> Iterator[None]:
        """Record the rule as broken if the block raises; a broken ``vital`` rule ends the check.

        Set ``draws`` if MindSpore runs in the block, because it draws from the generators of the process.
        """
        before = set(self.broken)
        try:
            with watch_process(self, draws=draws):
                yield
        except (KeyboardInterrupt, StopCheck):
            raise
        except BaseException as error:  # a plugin may raise anything
            self.breaks(rule, f"{what} {describe_failure(error, remedy)}")
            if vital:
                raise StopCheck from None
        if vital and rule in set(self.broken) - before:
            raise StopCheck


def describe_failure(error: BaseException, remedy: str) -> str:
    """Describe an error, with the remedy appended unless it is an error of the project, which has its own."""
    words = describe_error(error).strip()
    if isinstance(error, FinetuneError):
        return f"raised {type(error).__name__}: {words}"
    first = words.partition("\n")[0][:300]
    return f"raised {type(error).__name__}{': ' if first else ''}{first}; {remedy}"


def inspect_component(
    kind: type[C],
    given: C | str,
    options: Mapping[str, Any] | None,
    rules: Mapping[str, str],
    skip: Collection[str],
) -> Inspection[C]:
    """Return the inspection of a component, or of an installed one by name, with component and options checked.

    Raises ``UsageError`` for an unknown component or an unknown rule in ``skip``, and ``ContractError`` if the object
    is not a component or the options are not valid for it.
    """
    __tracebackhide__ = True
    for name in skip:
        if name not in rules:
            raise UsageError(f"no rule named '{name}' for a {kind.kind}{did_you_mean(name, rules)}")
    component, origin = find_component(kind, given)
    inspection = Inspection(component, describe_component(kind, component, origin), origin, rules, skip)
    with inspection.going_on():
        check_component(kind, inspection)
        check_options(inspection, options or {})
    if not hasattr(inspection, "options"):
        inspection.report()
    return inspection


def find_component(kind: type[C], given: C | str) -> tuple[C, Origin]:
    """Return the component and its origin."""
    if isinstance(given, str):
        catalogue = Catalogue(load_plugins())
        component = catalogue.get(kind, given)
        return component, catalogue.origin(component)
    return given, Origin(name=str(getattr(given, "name", "?")), distribution=HERE, version="-")


def describe_component(kind: type[Component], component: object, origin: Origin) -> str:
    """Return the name of a component in reports."""
    whose = "" if origin.distribution == HERE else f" of {origin}"
    return f"{kind.kind} '{getattr(component, 'name', '?')}'{whose}"


def check_component(kind: type[Component], inspection: Inspection[Any]) -> None:
    """Check that the object is a component of its kind."""
    if (wrong := find_fault(kind, inspection.component)) is not None:
        inspection.breaks("component", wrong)
        raise StopCheck


def check_options(inspection: Inspection[Any], given: Mapping[str, Any]) -> None:
    """Validate options as in a recipe, and check that they are strict and can be written to a recipe and read back."""
    component = inspection.component
    model, slot = component.options, next(slot for slot, kind in SLOTS.items() if kind is type(component))
    if both := get_section_model(slot).model_fields.keys() & model.model_fields.keys():
        text = f"an option is named '{min(both)}', which is a key of the engine; rename it"
        inspection.breaks("options", text)
        raise StopCheck
    with inspection.rule("options", "the option model", "fix it", vital=True):
        wrong: list[Problem] = []
        options = validate_values(model, dict(given), Known(model), wrong)
        if options is None:
            lines = "; ".join(f"{format_path(each.path)}: {each.text}" for each in wrong)
            inspection.breaks("options", f"{lines}; pass the options as in a recipe, without `use:`")
            raise StopCheck
        inspection.options = resolve_paths(options, (), lambda path, at: make_absolute(path, Path.cwd()))
        if validate_values(model, {**given, "no_such_option": 1}, Known(model), []) is not None:
            text = "an unknown key is accepted, so a misspelt key has no effect; remove `extra` from model_config"
            inspection.breaks("options", text)
        again = validate_values(model, inspection.options.model_dump(mode="json", by_alias=True), Known(model), [])
        if again != inspection.options:
            text = "they change when written to a recipe and read back; use types of JSON, and Path"
            inspection.breaks("options", text)
        model.model_json_schema()


def call_build(inspection: Inspection[Any], *arguments: Any) -> Any:
    """Return the result of ``build`` for the options; an error ends the check."""
    result = None
    remedy = "fix it; if users can fix the cause, raise an error of finetune, such as DataError"
    with inspection.rule("build", "build", remedy, vital=True):
        result = inspection.component.build(inspection.options, *arguments)
    return result
