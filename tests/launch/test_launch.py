"""The launch plans, pinned, and everything they use of MindSpore compared with the MindSpore that is installed."""

from __future__ import annotations

import mmap
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from finetune.distributed import launch
from finetune.distributed.launch import Step, parse_first_host, read_step
from finetune.errors import UsageError
from finetune.recipe.models import Recipe
from finetune.recipe.runners import Runner

LOGS, FOLDER = Path("/runs/x-001/logs/001"), Path("/tmp/task")
RUNNER: TypeAdapter[Runner] = TypeAdapter(Runner)
SRUN = {"SLURM_STEP_NUM_NODES": "2", "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "npu[03-04]"}


def planned(environ: dict[str, str] | None = None, **said: Any) -> launch.Launch:
    runner = RUNNER.validate_python({"device": "auto", **said})
    found = launch.plan_processes(runner, runner.device, environ or {})
    assert found is not None
    return found


def words(plan: launch.Launch) -> str:
    return shlex.join(plan.make_command(LOGS)[3:])


def test_one_device_needs_no_launch() -> None:
    for device in ("cpu", "gpu", "ascend", "auto"):
        assert launch.plan_processes(RUNNER.validate_python({"device": device}), device, {}) is None


def test_eight_npus() -> None:
    plan = planned(device="ascend", devices=8)
    assert plan.make_command(LOGS)[:3] == [sys.executable, "-m", "mindspore.parallel.cluster.run"]
    assert words(plan) == (
        "--worker_num=8 --local_worker_num=8 --master_addr=127.0.0.1 --master_port=0 --node_rank=0 "
        "--cluster_time_out=600 --log_dir=/runs/x-001/logs/001 --join=True --tail_worker_log=8 --bind_core=True "
        f"{launch.WORKER}"
    )
    assert plan.make_environment(FOLDER) == {
        "FINETUNE_LAUNCH": "/tmp/task",
        "PYTHONUNBUFFERED": "1",
        "MS_NODE_TIMEOUT": "600",
        "HCCL_CONNECT_TIMEOUT": "7200",
        "HCCL_EXEC_TIMEOUT": "17340",
    }
    assert plan.describe(LOGS, FOLDER)["devices"] == {str(n): f"ascend:{n}" for n in range(8)}


def test_two_machines_of_eight_npus() -> None:
    plans = [
        planned(device="ascend", devices=8, nodes=2, node_rank=node, master="10.0.0.1", timeout=900) for node in (0, 1)
    ]
    for node, plan in enumerate(plans):
        assert words(plan).startswith(
            "--worker_num=16 --local_worker_num=8 --master_addr=10.0.0.1 --master_port=8118 "
            f"--node_rank={node} --cluster_time_out=900 "
        )
    about = plans[1].describe(LOGS, FOLDER)
    assert (about["processes"], about["machines"], about["machine"]) == (16, 2, 1)
    assert about["devices"] == {str(8 + n): f"ascend:{n}" for n in range(8)}


def test_two_processes_of_a_cpu_wait_for_one_another_as_long_as_it_takes() -> None:
    assert planned(device="cpu", devices=2).make_environment(FOLDER) == {
        "FINETUNE_LAUNCH": "/tmp/task",
        "PYTHONUNBUFFERED": "1",
        "MS_NODE_TIMEOUT": "600",
        "MS_CPU_COMM_OP_TIMEOUT": "86400",
        "MS_RECEIVE_MSG_TIMEOUT": "86400",
    }


def test_slurm_says_what_the_recipe_leaves_open() -> None:
    plan = planned(SRUN, device="ascend", devices=8)
    assert (plan.size, plan.node, plan.host, plan.port, plan.ranks) == (16, 1, "npu03", 8118, range(8, 16))
    plan = planned(SRUN, device="ascend", devices=8, nodes=3, node_rank=2, master="head:9000")
    assert (plan.size, plan.node, plan.host, plan.port) == (24, 2, "head", 9000)


@pytest.mark.parametrize("missing", SRUN)
def test_a_batch_script_by_itself_is_one_machine(missing: str) -> None:
    environ = {name: value for name, value in SRUN.items() if name != missing}
    assert read_step({**environ, "SLURM_JOB_NUM_NODES": "2"}) == Step()


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("a1", "a1"),
        ("a1,b2", "a1"),
        ("npu[003-010,12]", "npu003"),
        ("npu[7,9]", "npu7"),
        ("r[1-2]n[01-04]", "r1n01"),
        ("r[1-2]n[01-04].x,b", "r1n01.x"),
    ],
)
def test_the_first_of_slurms_hosts(names: str, first: str) -> None:
    assert parse_first_host(names) == first


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"nodes": 2}, "2 machines need the address of the first one; set runner.master=HOST:PORT"),
        ({"nodes": 2, "node_rank": 2, "master": "a"}, "runner.node_rank=2 must be between 0 and 1"),
    ],
)
def test_what_does_not_fit_is_said(said: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text)):
        planned(**said)


def test_a_batch_must_be_divisible() -> None:
    recipe = Recipe.model_validate({"dataset": {"use": "none"}, "train": {"batch_size": 32}}, strict=False)
    launch.check_divisible(recipe, 8)
    with pytest.raises(UsageError, match=r"train\.batch_size=32 is not a multiple of 3 devices; set it to 33"):
        launch.check_divisible(recipe, 3)


# Against the installed MindSpore

PLANS = [
    {"device": "ascend", "devices": 8},
    {"device": "cpu", "devices": 2},
    {"device": "gpu", "devices": 4, "nodes": 2, "master": "a"},
]


@pytest.mark.parametrize("said", PLANS)
def test_mindspores_launcher_knows_every_flag(said: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from mindspore.parallel.cluster import run

    plan = planned(**said)
    monkeypatch.setattr(sys, "argv", plan.make_command(LOGS)[2:])
    found = run.get_args()
    assert (found.worker_num, found.local_worker_num, found.join) == (plan.size, len(plan.ranks), True)
    assert (found.node_rank, found.cluster_time_out, found.log_dir) == (plan.node, plan.timeout, str(LOGS))
    assert found.task_script == str(launch.WORKER)
    assert launch.WORKER.is_file()


def test_mindspore_reads_every_variable() -> None:
    import mindspore

    names = {name for said in PLANS for name in planned(**said).make_environment(FOLDER)}
    unread = names - {"FINETUNE_LAUNCH", "PYTHONUNBUFFERED"}
    for path in sorted((Path(mindspore.__file__).parent / "lib").rglob("*.so*")):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library:
            unread = {name for name in unread if library.find(name.encode()) < 0}
    assert unread == set()


def test_mindspore_has_every_call_and_level_that_the_device_layer_uses() -> None:
    import mindspore as ms
    from mindspore import amp, communication, nn, ops

    for module, names in {
        ms: ("set_context", "set_device", "get_context", "hal", "set_seed", "GRAPH_MODE", "PYNATIVE_MODE"),
        ms.dataset: ("GeneratorDataset", "zip", "config"),
        ms.hal: ("is_available", "device_count"),
        ms.runtime: ("set_memory", "dispatch_threads_num"),
        amp: ("auto_mixed_precision", "all_finite"),
        communication: ("init", "release", "get_rank", "get_group_size"),
        nn: ("DistributedGradReducer",),
        ops: ("AllReduce", "AllGather", "Broadcast"),
    }.items():
        assert [name for name in names if not hasattr(module, name)] == []
    amp.auto_mixed_precision(nn.Dense(1, 1), "O2")
    with pytest.raises(ValueError, match="level"):
        amp.auto_mixed_precision(nn.Dense(1, 1), "O9")
