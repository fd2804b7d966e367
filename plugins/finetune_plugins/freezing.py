"""Freezing policies ``none``, ``head``, ``stages`` and ``gradual``: pure functions from an epoch to its stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import ConfigDict, Field, field_validator, model_validator

from finetune import Finding, Freezer, Options, Stage, UsageError, did_you_mean, hookimpl

Policy = Callable[[int, tuple[str, ...]], frozenset[str]]
Patterns = Annotated[tuple[Stage, ...], Field(min_length=1)]

ALL = "all"
POSITIONS = ("last", "last 2", ALL)  # the engine replaces them by names; used here for near matches


class Stages(Options):
    """Train the same stages in every epoch."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"train": ["last"]}]})

    train: Patterns | None = None
    """Stages to train, by position such as `last 2`, by name, or by pattern such as `layer[34]`; the head always
    trains."""
    frozen: Patterns | None = None
    """Stages to freeze, by position, name or pattern; all other stages train."""

    @model_validator(mode="after")
    def one_of_two(self) -> Stages:
        """Require exactly one of the two lists."""
        if (self.train is None) == (self.frozen is None):
            raise ValueError("give either 'train' or 'frozen', a list of stages such as [last 2]")
        return self


class Gradual(Options):
    """Unfreeze more of the network from epoch to epoch."""

    schedule: Annotated[dict[int, Stage], Field(min_length=1)] = {1: "head", 2: ALL}  # noqa: RUF012 - pydantic copies it
    """Maps an epoch to what trains from that epoch on: `head`, `all`, or a stage and everything above it, by position
    (`last`, `last 2`) or name."""

    @field_validator("schedule")
    @classmethod
    def from_the_start(cls, schedule: dict[int, str]) -> dict[int, str]:
        """Reject a schedule that does not start with epoch 1."""
        first = min(schedule)
        if first != 1:
            raise ValueError(f"the schedule starts with epoch {first}; start it with epoch 1, such as {{1: head}}")
        return schedule


@hookimpl
def finetune_freezers() -> Iterable[Freezer]:
    """Return the policies ``none``, ``head``, ``stages`` and ``gradual``."""
    yield Freezer(name="none", build=lambda options: lambda epoch, stages: frozenset(stages))
    yield Freezer(name="head", build=lambda options: lambda epoch, stages: frozenset(stages[-1:]))
    yield Freezer(name="stages", options=Stages, build=build_stages, check=find_unknown_patterns)
    yield Freezer(name="gradual", options=Gradual, build=build_gradual, check=find_unfit_entries)


def build_stages(options: Stages) -> Policy:
    """Return the policy of the two lists; it raises ``UsageError`` for an unmatched pattern, or if nothing trains."""

    def policy(epoch: int, stages: tuple[str, ...]) -> frozenset[str]:
        if options.train is not None:
            return match_stages("train", options.train, stages) | {stages[-1]}
        trainable = frozenset(stages) - match_stages("frozen", options.frozen or (), stages)
        if not trainable:
            raise UsageError(
                f"freeze.frozen {list(options.frozen or ())} leaves nothing to train; do not freeze the head"
            )
        return trainable

    return policy


def match_stages(option: str, patterns: Iterable[str], stages: tuple[str, ...]) -> frozenset[str]:
    """Return the stages that match any pattern; raises ``UsageError`` for a pattern without a match."""
    found: set[str] = set()
    for pattern in patterns:
        matches = {stage for stage in stages if fnmatchcase(stage, pattern)}
        if not matches:
            raise UsageError(f"freeze.{option}: {describe_unmatched(pattern, stages)}")
        found |= matches
    return frozenset(found)


def describe_unmatched(pattern: str, stages: tuple[str, ...]) -> str:
    """Return the message for a pattern without a match."""
    return f"no stage matches '{pattern}'{did_you_mean(pattern, (*stages, *POSITIONS))}"


def find_unknown_patterns(options: Stages, stages: tuple[str, ...], epochs: int) -> Iterator[Finding]:
    """Yield an error for each pattern without a match, or if nothing is left to train."""
    option, patterns = ("train", options.train) if options.train is not None else ("frozen", options.frozen or ())
    unknown = [index for index, each in enumerate(patterns) if not any(fnmatchcase(stage, each) for stage in stages)]
    for index in unknown:
        yield Finding(severity="error", subject=f"{option}[{index}]", text=describe_unmatched(patterns[index], stages))
    if option == "frozen" and not unknown and match_stages(option, patterns, stages) == {*stages}:
        yield Finding(severity="error", subject=option, text="leaves nothing to train; do not freeze the head")


def build_gradual(options: Gradual) -> Policy:
    """Return the policy of a schedule; it raises ``UsageError`` for an unknown stage."""

    def policy(epoch: int, stages: tuple[str, ...]) -> frozenset[str]:
        # Every call looks up all entries, so that a mistake shows before training and not in its epoch.
        depths = {start: find_depth(name, stages) for start, name in options.schedule.items()}
        return frozenset(stages[depths[find_entry(options.schedule, epoch)] :])

    return policy


def find_entry(schedule: Mapping[int, str], epoch: int) -> int:
    """Return the epoch of the schedule's entry that applies in ``epoch``."""
    return max(start for start in schedule if start <= epoch)


def find_depth(name: str, stages: tuple[str, ...]) -> int:
    """Return the index of the lowest stage that trains."""
    if name == ALL:
        return 0
    if name not in stages:
        raise UsageError(f"freeze.schedule: {describe_unknown(name, stages)}")
    return stages.index(name)


def describe_unknown(name: str, stages: tuple[str, ...]) -> str:
    """Return the message for an unknown stage."""
    return f"no stage named '{name}'{did_you_mean(name, (*stages, *POSITIONS))}"


def find_unfit_entries(options: Gradual, stages: tuple[str, ...], epochs: int) -> Iterator[Finding]:
    """Yield an error for each entry with an unknown stage, and a note for entries after the last epoch."""
    for start, name in sorted(options.schedule.items()):
        subject = f"schedule.{start}"
        if name != ALL and name not in stages:
            yield Finding(severity="error", subject=subject, text=describe_unknown(name, stages))
        elif start > epochs:
            remedy = f"raise train.epochs, which is {epochs}, or remove the entry"
            yield Finding(severity="note", subject=subject, text=f"comes after the last epoch; {remedy}")
