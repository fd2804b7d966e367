"""Forms: whether each stage of a backbone trains on a CPU as convolutions or as matrix products (matmul form).

With MindSpore's oneDNN capped at AVX2, convolutions are usable and each stage can take the faster form. With AVX-512,
matrix products are fastest, but convolutions are so slow that every stage has to be in matmul form.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from finetune.machine.environment import read_cpu_flags

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Isa = Literal["avx512", "avx2", "other"]
MATMUL, CONVOLUTIONS = "matmul", "convolutions"
MEASURE = "`finetune doctor --measure` times both forms on this machine"
# Bytes that a training step holds for each byte that the cells of a stage return in the forward pass, measured as the
# peak memory of steps of all stages of ResNeXt-50: the matmul form takes about 38 % more.
HELD = {CONVOLUTIONS: 0.95, MATMUL: 1.3}
MB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """The stages that train in matmul form, whether oneDNN may use AVX-512 (``uncapped``), and why.

    With ``uncapped``, all stages of a backbone that has a matmul form must use it.
    """

    matmul: tuple[str, ...] = ()
    uncapped: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """Speed and memory of the stages of a backbone, from the first stage that trains.

    ``table`` has the stages that the backbone's author found faster in matmul form with AVX2. ``measured`` has the
    milliseconds of a training step by kind (``convolutions``, ``matmul`` with AVX2 or with what the processor has,
    ``avx512``) and stage. ``values`` counts the numbers that the cells of a stage return for a batch; empty if unknown.
    """

    stages: tuple[str, ...]
    table: frozenset[str] = frozenset()
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    values: Mapping[str, int] = field(default_factory=dict)

    def megabytes(self, matmul: tuple[str, ...]) -> float:
        """Return the memory of a training step without weights, given the stages that are in matmul form."""
        held = {stage: HELD[MATMUL if stage in matmul else CONVOLUTIONS] for stage in self.stages}
        return sum(4 * held[stage] * self.values.get(stage, 0) for stage in self.stages) / MB

    def is_measured(self) -> bool:
        """Return whether every stage was measured in both forms."""
        return all({*self.stages} <= {*self.measured.get(kind, {})} for kind in (CONVOLUTIONS, MATMUL))


def choose_forms(tail: Tail, isa: Isa, *, fixed: bool | None = None, free_mb: float | None = None) -> Forms:
    """Return the fastest forms that fit into the free memory.

    ``isa`` is the strongest instruction set that oneDNN may use. ``fixed`` is True if this process already uses
    AVX-512, False if it is already capped, and None while both are possible.
    """
    full, mixed = choose_avx512(tail), choose_by_stage(tail, isa)
    if fixed:
        return full
    if isa != "avx512" or fixed is False or not avx512_pays(tail, mixed):
        return fit_memory(tail, mixed, free_mb)
    if free_mb is None or tail.megabytes(tail.stages) <= free_mb:
        return full
    return fit_memory(tail, mixed, free_mb)


def choose_avx512(tail: Tail) -> Forms:
    """Return all stages in matmul form."""
    measured = tail.is_measured() and bool(tail.measured.get("avx512"))
    why = "measured as fastest here" if measured else f"usually fastest with AVX-512; {MEASURE}"
    return Forms(matmul=tail.stages, uncapped=True, why=why)


def choose_by_stage(tail: Tail, isa: Isa) -> Forms:
    """Return each stage in its faster form with AVX2, or with what a different processor has."""
    if tail.is_measured():
        convolutions, matmul = tail.measured[CONVOLUTIONS], tail.measured[MATMUL]
        faster = tuple(stage for stage in tail.stages if matmul[stage] < convolutions[stage])
        return Forms(matmul=faster, why="measured as fastest here")
    if isa == "other":
        return Forms(why=f"not measured on this processor; {MEASURE}")
    faster = tuple(stage for stage in tail.stages if stage in tail.table)
    return Forms(matmul=faster, why=f"usually fastest with AVX2; {MEASURE}")


def avx512_pays(tail: Tail, mixed: Forms) -> bool:
    """Return whether all stages in matmul form with AVX-512 beat ``mixed`` with AVX2; assumed without measurements."""
    with_512 = tail.measured.get("avx512", {})
    if not tail.is_measured() or not {*tail.stages} <= {*with_512}:
        return True
    kinds = {stage: MATMUL if stage in mixed.matmul else CONVOLUTIONS for stage in tail.stages}
    return sum(with_512[s] for s in tail.stages) < sum(tail.measured[kinds[s]][s] for s in tail.stages)


def fit_memory(tail: Tail, forms: Forms, free_mb: float | None) -> Forms:
    """Move stages back to convolutions, the largest first, until the forms fit into the free memory."""
    matmul, moved = forms.matmul, []
    while matmul and free_mb is not None and (needed := tail.megabytes(matmul)) > free_mb:
        largest = max(matmul, key=lambda stage: tail.values.get(stage, 0))
        matmul = tuple(stage for stage in matmul if stage != largest)
        moved.append(f"{largest} in matmul form would need {needed:,.0f} MB, but only {free_mb:,.0f} MB are free")
    return Forms(matmul=matmul, why=moved[-1] if moved else forms.why)


def find_strongest_isa() -> Isa:
    """Return the strongest instruction set of the CPU that ONEDNN_MAX_CPU_ISA allows oneDNN to use."""
    flags, limit = read_cpu_flags(), os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    allowed = limit in ("", "ALL", "DEFAULT") or limit.startswith(("AVX512", "AVX10"))
    if "avx512f" in flags and allowed:
        return "avx512"
    return "avx2" if "avx2" in flags and (allowed or limit.startswith("AVX2")) else "other"


def describe_forms(stages: tuple[str, ...], forms: Forms) -> str:
    """Describe the form of each of ``stages`` in words, with the reason."""
    matmul = [stage for stage in stages if stage in forms.matmul]
    rest = [stage for stage in stages if stage not in forms.matmul]
    parts = [f"{', '.join(rest)} as convolutions"] if rest else []
    parts += [f"{', '.join(matmul)} in matmul form"] if matmul else []
    return f"training {' and '.join(parts)}: {forms.why}"


def record_forms(forms: Forms) -> dict[str, object]:
    """Convert forms to the JSON in a run's environment.json."""
    return {"matmul": list(forms.matmul), "uncapped": forms.uncapped}


def read_forms(folder: Path, stages: tuple[str, ...], uncapped_text: str) -> Forms | None:
    """Read the forms of the run in a folder; returns None if its environment.json cannot be read.

    Older runs record only the instruction set: ``uncapped_text`` means that all stages were in matmul form.
    """
    try:
        about = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        if "forms" not in about:
            uncapped = about["isa"] == uncapped_text
            recorded = {"matmul": list(stages) if uncapped else [], "uncapped": uncapped}
        else:
            recorded = about["forms"]
        matmul = tuple(stage for stage in stages if stage in recorded["matmul"])
        return Forms(matmul=matmul, uncapped=bool(recorded["uncapped"]), why="as when the run started")
    except (OSError, ValueError, KeyError, TypeError):
        return None
