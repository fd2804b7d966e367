"""The choice of each stage's form, from processor, measurements, memory and what trains."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from finetune.machine import forms
from finetune.machine.forms import Forms, Tail

if TYPE_CHECKING:
    from pathlib import Path

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
TABLE = frozenset({"layer3", "layer4"})
# Milliseconds as on a CPU where everything up to layer2 is faster as convolutions with AVX2.
MS = {
    "convolutions": {"stem": 10.0, "layer1": 60.0, "layer2": 50.0, "layer3": 60.0, "layer4": 40.0},
    "matmul": {"stem": 30.0, "layer1": 90.0, "layer2": 60.0, "layer3": 50.0, "layer4": 20.0},
}
VALUES = {"stem": 10, "layer1": 70, "layer2": 50, "layer3": 40, "layer4": 10}
MB = 2**18  # numbers of 4 bytes


def tail(*stages: str, **more: Any) -> Tail:
    return Tail(stages=stages or STAGES, table=TABLE, **more)


@pytest.mark.parametrize(
    ("stages", "isa", "fixed", "matmul", "uncapped"),
    [
        (("layer4",), "avx512", None, ("layer4",), True),
        (STAGES, "avx512", None, STAGES, True),
        (STAGES, "avx512", False, ("layer3", "layer4"), False),
        (STAGES, "avx512", True, STAGES, True),
        (("layer4",), "avx2", False, ("layer4",), False),
        (("layer3", "layer4"), "avx2", False, ("layer3", "layer4"), False),
        (STAGES, "avx2", False, ("layer3", "layer4"), False),
        (("stem", "layer1"), "avx2", False, (), False),
        (STAGES, "other", False, (), False),
    ],
)
def test_without_a_measurement_a_table_decides(
    stages: tuple[str, ...], isa: Any, fixed: bool | None, matmul: tuple[str, ...], uncapped: bool
) -> None:
    found = forms.choose_forms(tail(*stages), isa, fixed=fixed)
    assert (found.matmul, found.uncapped) == (matmul, uncapped)
    assert "doctor --measure" in found.why


@pytest.mark.parametrize(
    ("with_avx512", "matmul", "uncapped"),
    [(1.0, STAGES, True), (9.0, ("layer3", "layer4"), False)],
)
def test_a_measurement_decides_between_instruction_sets(
    with_avx512: float, matmul: tuple[str, ...], uncapped: bool
) -> None:
    measured = {**MS, "avx512": {stage: 20.0 * with_avx512 for stage in STAGES}}
    found = forms.choose_forms(tail(measured=measured), "avx512")
    assert found == Forms(matmul=matmul, uncapped=uncapped, why="measured as fastest here")


def test_a_measurement_overrules_the_table_on_any_processor() -> None:
    slower = {**MS, "matmul": {**MS["matmul"], "layer3": 70.0, "stem": 5.0}}
    for isa in ("avx2", "other"):
        found = forms.choose_forms(tail(measured=slower), isa, fixed=False)
        assert found == Forms(matmul=("stem", "layer4"), why="measured as fastest here")


def test_a_measurement_of_fewer_stages_does_not_count() -> None:
    measured = {kind: {"layer4": 1.0} for kind in MS}
    assert forms.choose_forms(tail(measured=measured), "avx2").matmul == ("layer3", "layer4")
    assert forms.choose_forms(tail("layer4", measured=measured), "avx2").matmul == ()


def test_stages_go_back_to_convolutions_where_the_memory_is_not_enough() -> None:
    given = tail(values={stage: count * MB for stage, count in VALUES.items()})
    needed = given.megabytes(("layer3", "layer4"))
    assert needed == pytest.approx(0.95 * 130 + 1.3 * 50)
    assert forms.choose_forms(given, "avx2", free_mb=needed).matmul == ("layer3", "layer4")
    less = forms.choose_forms(given, "avx2", free_mb=needed - 1)
    assert less.matmul == ("layer4",)
    assert less.why == f"layer3 in matmul form would need {needed:,.0f} MB, but only {needed - 1:,.0f} MB are free"
    assert forms.choose_forms(given, "avx2", free_mb=1.0).matmul == ()
    # With AVX-512 all stages are in that form or oneDNN is capped.
    assert forms.choose_forms(given, "avx512", free_mb=234.0).uncapped
    assert forms.choose_forms(given, "avx512", free_mb=233.0) == forms.choose_forms(given, "avx2", free_mb=233.0)
    assert forms.choose_forms(given, "avx512", fixed=True, free_mb=1.0).uncapped


@pytest.mark.parametrize(
    ("flags", "limit", "isa"),
    [
        ({"avx2", "avx512f"}, "", "avx512"),
        ({"avx2", "avx512f"}, "AVX2", "avx2"),
        ({"avx2", "avx512f"}, "avx2_vnni", "avx2"),
        ({"avx2", "avx512f"}, "AVX512_CORE", "avx512"),
        ({"avx2", "avx512f"}, "SSE41", "other"),
        ({"avx2"}, "", "avx2"),
        ({"avx2"}, "DEFAULT", "avx2"),
        ({"avx2"}, "AVX512_CORE", "avx2"),
        ({"asimd"}, "", "other"),
    ],
)
def test_the_strongest_instruction_set(monkeypatch: pytest.MonkeyPatch, flags: set[str], limit: str, isa: str) -> None:
    monkeypatch.setattr(forms, "read_cpu_flags", lambda: frozenset(flags))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert forms.find_strongest_isa() == isa


def test_what_a_run_began_with(tmp_path: Path) -> None:
    file, uncapped = tmp_path / "environment.json", "AVX-512 (all matmul_form)"
    assert forms.read_forms(tmp_path, STAGES, uncapped) is None
    file.write_text("{")
    assert forms.read_forms(tmp_path, STAGES, uncapped) is None
    begun = Forms(matmul=("layer4",), why="as when the run started")
    file.write_text(json.dumps({"isa": "AVX2", "forms": forms.record_forms(begun)}))
    assert forms.read_forms(tmp_path, STAGES, uncapped) == begun
    # Runs of older versions had one form for all stages.
    file.write_text(json.dumps({"isa": "AVX2 (capped)"}))
    assert forms.read_forms(tmp_path, STAGES, uncapped) == Forms(why="as when the run started")
    file.write_text(json.dumps({"isa": uncapped}))
    assert forms.read_forms(tmp_path, STAGES, uncapped) == Forms(
        matmul=STAGES, uncapped=True, why="as when the run started"
    )


def test_the_line_that_is_printed() -> None:
    assert forms.describe_forms(STAGES, Forms(matmul=("layer3", "layer4"), why="measured as fastest here")) == (
        "training stem, layer1, layer2 as convolutions and layer3, layer4 in matmul form: measured as fastest here"
    )
    assert forms.describe_forms(("layer4",), Forms(matmul=("layer4",), why="x")) == "training layer4 in matmul form: x"
    assert forms.describe_forms(("layer4",), Forms(why="x")) == "training layer4 as convolutions: x"
