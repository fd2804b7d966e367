"""Runs of a backbone with two forms: the form of each stage is reported, recorded, and kept when a run is resumed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from finetune import Backbone, hookimpl, plugins
from finetune.catalogue import Catalogue
from finetune.errors import Interrupted
from finetune.features import identity
from finetune.machine import forms, speeds
from finetune.recipe import plan as plans
from finetune.training import choosing, engine
from finetune_model import build_matmul_form, design, make_activations
from tests.drawn import folder
from tests.training.test_engine import Watcher, recipe, weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """Return all components, and the small ResNeXt with two forms."""
    loaded = plugins.load_plugins()
    nano = Catalogue(loaded).get(Backbone, "resnext_nano")
    made = dataclasses.replace(
        nano,
        name="two_forms",
        matmul_form=build_matmul_form,
        matmul_form_avx2=("layer3", "layer4"),
        activations=make_activations(design.NANO),
    )

    class Plugin:
        @hookimpl
        def finetune_backbones(self) -> Iterator[Backbone]:
            yield made

    loaded.register(Plugin(), plugins.Origin(name="two", distribution="tests", version="1"))
    return Catalogue(loaded)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return a recipe that trains the last stages on a processor with AVX2 alone."""
    monkeypatch.setattr(forms, "read_cpu_flags", lambda: frozenset({"avx2"}))
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    found = recipe(folder(tmp_path / "photos", each=9), tmp_path)
    found["backbone"]["use"] = "two_forms"
    found["image"] = {"size": 32, "resize": 36}
    found["freeze"] = {"use": "stages", "train": ["layer4"]}
    found["train"] = {"epochs": 1, "batch_size": 8}
    return found


def start(said: dict[str, Any], catalogue: Catalogue, heard: list[str], **more: Any) -> Any:
    return engine.fine_tune(plans.load_plan(said, [], catalogue), catalogue, say=heard.append, **more)


def form_lines(heard: list[str]) -> list[str]:
    return [line for line in heard if line.startswith("training ")]


def test_a_resumed_run_keeps_its_forms(
    said: dict[str, Any], catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    whole = start(said, catalogue, heard)
    assert form_lines(heard)[0].startswith("training layer4 in matmul form: usually fastest with AVX2")
    about = json.loads((whole.folder / "environment.json").read_text())
    assert about["forms"] == {"matmul": ["layer4"], "uncapped": False}
    stop = Watcher(("step_end", 2), lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        start(said, catalogue, heard, watchers=[stop])
    monkeypatch.setattr(choosing, "read_available_memory_mb", lambda: 0.001)  # now convolutions would be chosen
    heard.clear()
    resumed = start(said, catalogue, heard, resume=tmp_path / "small-002")
    assert form_lines(heard) == ["training layer4 in matmul form: as when the run started"]
    assert not [line for line in heard if "bit-exact" in line]
    assert weights(resumed) == weights(whole)


def test_what_a_run_chooses_and_what_an_older_one_keeps(
    said: dict[str, Any], catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plans.load_plan(said, [], catalogue)
    assert choosing.choose_forms(plan, ("layer4",), None).matmul == ("layer4",)
    monkeypatch.setattr(choosing, "read_available_memory_mb", lambda: 0.001)
    without = choosing.choose_forms(plan, ("layer4",), None)
    assert without.matmul == ()
    assert without.why.startswith("layer4 in matmul form would need ")
    monkeypatch.undo()
    (tmp_path / "environment.json").write_text(json.dumps({"isa": "default (this CPU has no AVX-512)"}))
    assert choosing.choose_forms(plan, ("layer4",), tmp_path) == forms.Forms(why="as when the run started")
    (tmp_path / "environment.json").unlink()
    assert choosing.choose_forms(plan, ("layer4",), tmp_path).why != "as when the run started"


def test_what_was_measured_decides(
    said: dict[str, Any], catalogue: Catalogue, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plans.load_plan(said, [], catalogue)
    slower = {kind: {stage: ms for stage in design_stages()} for kind, ms in (("convolutions", 1.0), ("matmul", 2.0))}
    monkeypatch.setattr(identity, "hash_code", lambda backbone: "1")
    backbone = plan.backbone.component
    speeds.save_speeds(backbone.name, identity.hash_code(backbone), slower)
    measured = forms.Forms(why="measured as fastest here")
    assert choosing.choose_forms(plan, ("layer4",), None) == measured
    # Neither another version of the code nor another processor may use it.
    monkeypatch.setattr(identity, "hash_code", lambda backbone: "2")
    assert choosing.choose_forms(plan, ("layer4",), None).matmul == ("layer4",)
    monkeypatch.setattr(identity, "hash_code", lambda backbone: "1")
    monkeypatch.setattr(speeds, "describe_machine", lambda: "another machine")
    assert choosing.choose_forms(plan, ("layer4",), None).matmul == ("layer4",)


def design_stages() -> tuple[str, ...]:
    return tuple(design.count_activations(design.NANO, 32))


def test_the_memory_estimate_counts_what_the_network_returns(said: dict[str, Any], catalogue: Catalogue) -> None:
    from finetune.network.network import Network, build_stages
    from finetune.training import batchsize

    backbone = catalogue.get(Backbone, "two_forms")
    from mindspore import nn

    network = Network(build_stages(backbone, backbone.options()), nn.Identity())
    for side in (64, 128):
        counted = design.count_activations(design.NANO, side)
        for first, stage in enumerate(backbone.stages):
            values = sum(counted[name] for name in backbone.stages[first:])
            # On a smaller image, whose sides are not all even, it is off by a little.
            assert batchsize.measure_activations(network, first, side) == pytest.approx(4 * values, rel=0.01), stage


def test_what_trains_the_head_alone_has_no_form(said: dict[str, Any], catalogue: Catalogue) -> None:
    plan = plans.load_plan(said | {"freeze": {"use": "head"}}, [], catalogue)
    from finetune.training.prepare import plan_phases

    stages = choosing.find_trained_stages(plan, plan_phases(plan))
    assert stages == ()
    assert choosing.choose_forms(plan, stages, None) == forms.Forms()


@pytest.mark.parametrize("runner", [{"mode": "pynative"}, {"amp": "O2"}])
def test_other_modes_train_convolutions(said: dict[str, Any], catalogue: Catalogue, runner: dict[str, str]) -> None:
    plan = plans.load_plan(said | {"runner": runner}, [], catalogue)
    found = choosing.choose_forms(plan, ("layer4",), None)
    assert (found.matmul, found.uncapped) == ((), False)
    assert "graph mode" in found.why
