"""Checks come in the order of their cost: device and disk before any scan, the data before any download."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import chdir
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from finetune import Finetuner, UsageError
from finetune.cli import main
from finetune.data import loading
from finetune.errors import ResourceError
from finetune.files import download
from finetune.machine import ascend, device, gpu
from finetune.machine.environment import count_usable_cores
from finetune.training import preflight
from tests.drawn import folder

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = "dataset: {use: folder, root: photos}\nimage: {size: 32, resize: 36}\noutput: runs\n"
NPU, GPU = "/dev/davinci0 is missing", "/dev/nvidia0 is missing"


@pytest.fixture
def project(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a recipe whose weights and photos are missing, where a scan or a download is a failure."""

    def never(*given: Any, **more: Any) -> None:
        raise AssertionError("a scan or a download began")

    monkeypatch.setattr(loading, "load", never)
    monkeypatch.setattr(download, "fetch", never)
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("weights", ["auto", "gone.safetensors", "none"])
@pytest.mark.parametrize("command", ["run", "check", "lr", "run --dry-run", "run optimizer.lr=[1e-3,1e-2]"])
@pytest.mark.parametrize(("name", "said"), [("ascend", NPU), ("gpu", GPU)])
def test_a_missing_device_comes_first(
    project: Path, capsys: pytest.CaptureFixture[str], command: str, weights: str, name: str, said: str
) -> None:
    first, *more = command.split()
    words = [first, "r.yaml", f"backbone.weights={weights}", f"runner.device={name}", *more, "--json"]
    with chdir(project):
        assert main(words) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    assert message.startswith(f"runner.device={name} is not available here: {said}")
    assert not (project / "runs").exists()


def test_a_device_is_missed_without_mindspore() -> None:
    code = (
        "import sys\nfrom finetune.cli import main\n"
        "assert main(['run', 'quickstart', 'runner.device=ascend']) == 2\n"
        "assert 'mindspore' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert NPU in done.stderr


@pytest.mark.parametrize("command", ["run", "check", "lr"])
def test_too_many_devices_come_first(project: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    with chdir(project):
        assert main([command, "r.yaml", "runner.devices=1000", "--json"]) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    cores = count_usable_cores()
    assert message == (
        f"runner.devices=1000: too many processes for {cores} usable cores; set runner.devices={cores} or fewer"
    )


def test_the_python_api_misses_a_device_first(project: Path) -> None:
    ft = Finetuner(device="ascend", output=project / "runs", progress=False)
    with pytest.raises(UsageError, match=NPU):
        ft.fit(folder(project / "photos", each=2))
    with pytest.raises(UsageError, match=NPU):
        ft.embed([project / "photos" / "red" / "00.jpg"])


def test_the_disk_comes_before_the_data(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "file").write_text("")
    with chdir(project):
        for command in ("run", "check"):
            assert main([command, "r.yaml", "output=file", "--json"]) == 7
            assert (
                "file is a file; choose another with --output"
                in json.loads(capsys.readouterr().out)["error"]["message"]
            )


def test_a_file_system_that_does_not_report_its_size_is_not_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (preflight.check_output(tmp_path) or 0) > 1
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: SimpleNamespace(total=0, used=0, free=0))
    assert preflight.check_output(tmp_path) is None
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: SimpleNamespace(total=9, used=9, free=0))
    with pytest.raises(ResourceError, match="is full"):
        preflight.check_output(tmp_path)


def test_data_comes_before_a_download_and_missing_weights_before_data(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*given: Any, **more: Any) -> None:
        raise AssertionError("a download began")

    monkeypatch.setattr(download, "fetch", never)
    (tmp_path / "r.yaml").write_text(RECIPE, encoding="utf-8")
    with chdir(tmp_path):
        assert main(["run", "r.yaml", "--json"]) == 3
        assert "no folder" in capsys.readouterr().out
        assert main(["run", "r.yaml", "backbone.weights=gone.ckpt", "--json"]) == 4
        assert "no weights file at" in capsys.readouterr().out
        monkeypatch.undo()
        monkeypatch.setenv("FINETUNE_HOME", str(home))
        monkeypatch.setenv("FINETUNE_OFFLINE", "1")
        assert main(["run", "r.yaml", "--json"]) == 4
        assert "no weights 'hub-" in capsys.readouterr().out


def test_any_node_of_a_driver_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ascend, gpu):
        monkeypatch.setattr(module, "NODE", str(tmp_path / f"{module.__name__}0"))
        assert module.find_missing_driver()
        (tmp_path / f"{module.__name__}7").touch()  # as a container has it that was given the eighth one
        assert not module.find_missing_driver()


def test_counts_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hal:
        """What MindSpore says on a machine with four NPUs, of which there was none to ask."""

        def device_count(self, target: str) -> int:
            return 4

    class Ms:
        hal = Hal()

    monkeypatch.setattr(device, "import_mindspore", Ms)
    device.check_count("ascend", 4)
    with pytest.raises(
        UsageError, match=r"runner\.devices=8: this machine has only 4 with runner\.device=ascend; set .*=4 or"
    ):
        device.check_count("ascend", 8)
