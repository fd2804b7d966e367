"""What Slurm says to a process that it started: how many machines there are, and which one this is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A job step: this machine is number ``node`` of ``nodes``, and ``first`` is the name of number 0."""

    nodes: int = 1
    node: int = 0
    first: str = ""


def step(environ: Mapping[str, str]) -> Step:
    """Return the step that ``srun`` started this process in; one machine where it did not.

    A batch script by itself runs on its first machine alone, so that only the variables of a step count.
    """
    nodes, node, names = (environ.get(f"SLURM_{key}", "") for key in ("STEP_NUM_NODES", "NODEID", "STEP_NODELIST"))
    if not (nodes.isdecimal() and node.isdecimal() and names):
        return Step()
    return Step(nodes=int(nodes), node=int(node), first=first_host(names))


def first_host(names: str) -> str:
    """Return the first of hosts as Slurm writes them: ``a1``, ``a1,b2``, ``npu[003-010,12]``, ``r[1-2]n[01-04]``."""
    first = re.match(r"(?:[^,\[\]]|\[[^\]]*\])+", names)
    text = first[0] if first else names
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", text)
