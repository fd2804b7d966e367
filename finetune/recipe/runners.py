"""The section ``runner`` of a recipe; its keys depend on the device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finetune.components import Options

Sink = Annotated[int, Field(ge=1, le=10_000)]


class _Runner(Options):
    """The options of every device."""

    devices: Annotated[int, Field(ge=1, le=1024)] = 1
    """Devices of this machine that train together, each with its own process; every batch is divided among them."""
    nodes: Annotated[int, Field(ge=1, le=65536)] | Literal["auto"] = "auto"
    """Machines that train together, each with the same number of devices; `auto` takes it from Slurm, or is 1."""
    node_rank: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Number of this machine, from 0; `auto` takes it from Slurm, or is 0."""
    master: Annotated[str, Field(pattern=r"^[\w.-]+(:\d{1,5})?$")] | Literal["auto"] = "auto"
    """Address of machine 0, as HOST or HOST:PORT; `auto` takes it from Slurm."""
    timeout: Annotated[int, Field(ge=10, le=7200)] = 600
    """Seconds that the processes wait for each other at the start."""
    mode: Literal["graph", "pynative"] = "graph"
    """`graph` compiles each step; `pynative` runs it operator by operator, for debugging."""
    amp: Literal["auto", "off", "O2"] = "auto"
    """Mixed precision: O2 computes in float16, BatchNorm and loss in float32; `auto` is O2 except on CPUs."""
    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    """Threads of each process that read images; `auto` is one per usable core, and 0 reads in the main thread."""
    sink: Sink | Literal["auto", "off"] = "auto"
    """Steps that are sent to the device at once; their losses are read back together, and callbacks then receive each
    step. `auto` is 20 on an NPU and otherwise `off`. Only for training from images, and without `train.accumulate`."""
    pipeline: Literal["auto", "native", "processes", "threads"] = "auto"
    """What prepares the images if `sink` is used: `native` operations of MindSpore, if the augmentation offers them,
    worker `processes`, or `threads`. `auto` is the first of these that works."""


class AutoRunner(_Runner):
    """The best available device: Ascend, then GPU, then CPU."""

    device: Literal["auto"] = "auto"


class CpuRunner(_Runner):
    """The CPU."""

    device: Literal["cpu"]
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads of each process that start MindSpore's operators."""


class GpuRunner(_Runner):
    """GPUs with CUDA."""

    device: Literal["gpu"]
    memory_gb: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Maximum memory to use on each device, in GB."""


class AscendRunner(_Runner):
    """Ascend NPUs."""

    device: Literal["ascend"]
    memory_gb: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Maximum memory to use on each device, in GB."""


Runner = AutoRunner | CpuRunner | GpuRunner | AscendRunner
