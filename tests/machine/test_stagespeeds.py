"""Timing of stages in both forms, on one stage of the small ResNeXt."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from finetune import Backbone, plugins
from finetune.catalogue import Catalogue
from finetune.doctor import stagespeeds
from finetune_model import build_matmul_form

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """Return a backbone of the small ResNeXt's first two stages."""
    nano: Any = Catalogue(plugins.load_plugins()).get(Backbone, "resnext_nano")
    stages = nano.stages[:2]

    def build(options: Any) -> Mapping[str, Any]:
        made = nano.build(options)
        return {stage: made[stage] for stage in stages}

    return dataclasses.replace(nano, build=build, stages=stages, matmul_form=build_matmul_form)


def test_every_stage_is_timed_in_both_forms(backbone: Backbone) -> None:
    found = stagespeeds.time_stages(backbone, uncapped=False, side=32)
    assert {kind: tuple(each) for kind, each in found.items()} == {
        "convolutions": backbone.stages,
        "matmul": backbone.stages,
    }
    assert all(ms > 0 for each in found.values() for ms in each.values())


def test_the_shortest_time_counts_and_compiling_does_not() -> None:
    calls: list[str] = []
    found = stagespeeds.time_in_turn({name: lambda name=name: calls.append(name) for name in ("one", "two")})
    assert calls == ["one", "two"] * (1 + stagespeeds.ROUNDS)
    assert set(found) == {"one", "two"}
