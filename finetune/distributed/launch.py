"""Launch plan: the processes that a run needs, and the command that starts those of this machine."""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.distributed.world import is_worker
from finetune.errors import UsageError
from finetune.machine.device import KINDS, choose_device

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finetune.recipe.models import Recipe
    from finetune.recipe.runners import Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A Slurm job step: this machine is number ``node`` of ``nodes``, and ``first`` is the name of number 0."""

    nodes: int = 1
    node: int = 0
    first: str = ""


def read_step(environ: Mapping[str, str]) -> Step:
    """Return the job step in which ``srun`` started this process, or a step of one machine without ``srun``.

    A batch script runs only on its first machine, so only the variables of a step count.
    """
    nodes, node, names = (environ.get(f"SLURM_{key}", "") for key in ("STEP_NUM_NODES", "NODEID", "STEP_NODELIST"))
    if not (nodes.isdecimal() and node.isdecimal() and names):
        return Step()
    return Step(nodes=int(nodes), node=int(node), first=parse_first_host(names))


def parse_first_host(names: str) -> str:
    """Return the first host of a list in Slurm's notation: ``a1,b2``, ``npu[003-010,12]``, ``r[1-2]n[01-04]``."""
    first = re.match(r"(?:[^,\[\]]|\[[^\]]*\])+", names)
    text = first[0] if first else names
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", text)


LAST_PORT = 65534
PORT = 8118  # MindSpore's default port, used if several machines have to agree on one
FOLDER = "FINETUNE_LAUNCH"  # the environment variable with the folder of a launched process's task
WORKER = Path(__file__).parent.parent / "launch" / "worker.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Processes ``ranks`` of ``size`` run on this machine and connect to ``host`` and ``port``.

    Port 0 means any free port.
    """

    device: str
    size: int
    ranks: range
    node: int
    host: str
    port: int
    timeout: int

    def make_command(self, logs: Path) -> list[str]:
        """Return the command line of MindSpore's launcher."""
        return [
            *(sys.executable, "-m", "mindspore.parallel.cluster.run"),
            f"--worker_num={self.size}",
            f"--local_worker_num={len(self.ranks)}",
            f"--master_addr={self.host}",
            f"--master_port={self.port}",
            f"--node_rank={self.node}",
            f"--cluster_time_out={self.timeout}",
            f"--log_dir={logs}",
            "--join=True",
            f"--tail_worker_log={self.size}",  # no process has this number, so no log is copied
            *([] if KINDS[self.device].pins else ["--bind_core=True"]),
            str(WORKER),
        ]

    def make_environment(self, folder: Path) -> dict[str, str]:
        """Return the variables to add to the environment of the processes; ``folder`` contains their task."""
        waits = {"MS_NODE_TIMEOUT": str(self.timeout), **KINDS[self.device].environment(self.timeout)}
        return {FOLDER: str(folder), "PYTHONUNBUFFERED": "1", **waits}

    def describe(self, logs: Path, folder: Path) -> dict[str, Any]:
        """Return the complete plan as JSON."""
        return {
            "processes": self.size,
            "machines": self.size // len(self.ranks),
            "machine": self.node,
            "meet_at": f"{self.host}:{self.port or 'a free port'}",
            "devices": {str(rank): f"{self.device}:{local}" for local, rank in enumerate(self.ranks)},
            "command": shlex.join(["msrun", *self.make_command(logs)[3:]]),
            "environment": self.make_environment(folder),
        }


def plan_processes(runner: Runner, device: str, environ: Mapping[str, str] = os.environ) -> Launch | None:
    """Return the launch that a recipe's runner asks for; None for a single process.

    Values of ``auto`` are taken from Slurm if it started this process. Raises ``UsageError`` for inconsistent values.
    """
    step = read_step(environ)
    nodes = runner.nodes if runner.nodes != "auto" else step.nodes
    node = runner.node_rank if runner.node_rank != "auto" else step.node
    size = nodes * runner.devices
    if size == 1:
        return None
    if node >= nodes:
        raise UsageError(f"runner.node_rank={node} must be between 0 and {nodes - 1}")
    master = runner.master if runner.master != "auto" else step.first
    if nodes > 1 and not master:
        remedy = "set runner.master=HOST:PORT, the address of the machine with runner.node_rank=0"
        raise UsageError(f"{nodes} machines need the address of the first one; {remedy}")
    host, _, port = (master or "127.0.0.1").partition(":")
    if port and int(port) > LAST_PORT:
        remedy = f"use a port below {LAST_PORT + 1}, since the next port is used too"
        raise UsageError(f"runner.master={master}: invalid port; {remedy}")
    own = range(node * runner.devices, (node + 1) * runner.devices)
    number = int(port) if port else (PORT if nodes > 1 else 0)
    return Launch(device=device, size=size, ranks=own, node=node, host=host, port=number, timeout=runner.timeout)


def refuse_alone(recipe: Recipe) -> None:
    """Raise ``UsageError`` in a single process if the recipe asks for several."""
    planned = plan_processes(recipe.runner, recipe.runner.device)
    if planned is not None and not is_worker():
        remedy = "use `finetune run`, which starts them, or start this script with MindSpore's `msrun`"
        raise UsageError(f"runner.devices={recipe.runner.devices} needs {planned.size} processes; {remedy}")


def check_size(recipe: Recipe, size: int) -> None:
    """Raise ``UsageError`` if the number of processes differs from what the recipe asks for."""
    planned = plan_processes(recipe.runner, recipe.runner.device)
    wanted = 1 if planned is None else planned.size
    if size != wanted:
        remedy = "set runner.devices and runner.nodes to the number of processes that you start"
        raise UsageError(f"{size} processes were started, but the recipe asks for {wanted}; {remedy}")
    check_divisible(recipe, size)


def check_divisible(recipe: Recipe, size: int) -> None:
    """Raise ``UsageError`` if the batch size is not a multiple of ``size``."""
    batch = recipe.train.batch_size
    if batch != "auto" and batch % size:
        near = max(1, round(batch / size)) * size
        raise UsageError(f"train.batch_size={batch} is not a multiple of {size} devices; set it to {near}")


def find_free_port() -> int:
    """Return a port of this machine that is not in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number: int = listener.getsockname()[1]
        return number


def plan_launch(recipe: Recipe) -> Launch | None:
    """Return the launch of a run with several processes, on an available device; None if this process is enough."""
    if is_worker() or (planned := plan_processes(recipe.runner, recipe.runner.device)) is None:
        return None
    check_divisible(recipe, planned.size)
    return replace(planned, device=choose_device(recipe.runner.device))
