"""The section ``runner`` of a recipe: what it may say depends on its device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finetune.components import Options

Sink = Annotated[int, Field(ge=1, le=10_000)]


class _Runner(Options):
    """What all devices have."""

    devices: Annotated[int, Field(ge=1, le=1024)] = 1
    """Devices of this machine that train together, each with a process of its own; they divide every batch."""
    nodes: Annotated[int, Field(ge=1, le=65536)] | Literal["auto"] = "auto"
    """Machines that train together, each with as many devices; `auto` is what Slurm says, else 1."""
    node_rank: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Which of the machines this one is, from 0; `auto` is what Slurm says, else 0."""
    master: Annotated[str, Field(pattern=r"^[\w.-]+(:\d{1,5})?$")] | Literal["auto"] = "auto"
    """Where the machines meet: HOST or HOST:PORT of number 0; `auto` is what Slurm says."""
    timeout: Annotated[int, Field(ge=10, le=7200)] = 600
    """Seconds that the processes wait for one another at the start."""
    mode: Literal["graph", "pynative"] = "graph"
    """`graph` compiles each step, `pynative` runs it operator by operator, to look into it."""
    amp: Literal["auto", "off", "O2"] = "auto"
    """Mixed precision: O2 computes in float16, BatchNorm and loss in float32; `auto` is O2 except on CPUs."""
    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    """Threads of each process that read images; `auto` is one for each usable core, 0 reads in the main thread."""
    sink: Sink | Literal["auto", "off"] = "auto"
    """Steps that are sent to the device at once; their losses are read back together, and then callbacks hear of each.
    `auto` is 20 on an NPU, else `off`. Only for what trains from images, and without `train.accumulate`."""
    pipeline: Literal["auto", "native", "processes", "threads"] = "auto"
    """What makes the images of steps that are sunk: MindSpore's own operations, where the augmentation has them, worker
    processes, or threads. `auto` is the first of these that can."""


class AutoRunner(_Runner):
    """The best device that there is: Ascend, else GPU, else CPU."""

    device: Literal["auto"] = "auto"


class CpuRunner(_Runner):
    """The processor."""

    device: Literal["cpu"]
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads of each process that start MindSpore's operators."""


class GpuRunner(_Runner):
    """GPUs by CUDA."""

    device: Literal["gpu"]
    memory_gb: Annotated[int, Field(ge=1, le=1024)] | None = None
    """What of a device's memory may be taken."""


class AscendRunner(_Runner):
    """Ascend NPUs."""

    device: Literal["ascend"]
    memory_gb: Annotated[int, Field(ge=1, le=1024)] | None = None
    """What of a device's memory may be taken."""


Runner = AutoRunner | CpuRunner | GpuRunner | AscendRunner
