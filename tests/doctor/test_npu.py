"""``finetune doctor --device ascend``, on made machines: files and programs as the Ascend software leaves them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from finetune.cli import main
from finetune.doctor import npu
from finetune.doctor.npu import Machine, examine
from tests.clocks import LONGEST, processor_time

if TYPE_CHECKING:
    from pathlib import Path

    from finetune.doctor.probe import Remark

pytestmark = pytest.mark.once

SMI = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.2.0                   Version: 25.2.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | {health:<13} | 92.6        46                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          {used:>5}/ 65536         |
+===========================+===============+====================================================+
| 1     910B3               | OK            | 88.1        45                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          3380 / 65536         |
+===========================+===============+====================================================+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 2175643       | python3                  | 30720                   |
| No running processes found in NPU 1                                                            |
+===========================+===============+====================================================+
"""
HCCN = 'case "$*" in *link*) echo "link status: {link}";; *) echo "net health status: {net}";; esac'


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def program(root: Path, name: str, script: str) -> None:
    write(root / "programs" / name, f"#!/bin/sh\n{script}\n", 0o755)


@pytest.fixture
def whole(tmp_path: Path) -> Machine:
    """A machine on which nothing is missing."""
    for name in ("davinci0", "davinci1", *npu.MANAGERS):
        write(tmp_path / "dev" / name, "", 0o660)
    write(tmp_path / "usr/local/Ascend/driver/version.info", "Version=25.2.0\nascendhal_version=7.35.23\n")
    write(tmp_path / "usr/local/Ascend/firmware/version.info", "Version=7.7.0.6.236\nfirmware_version=1.0\n")
    cann = "/usr/local/Ascend/ascend-toolkit/8.2.RC1"
    write(tmp_path / cann[1:] / "compiler/version.info", "Version=8.2.RC1\nversion_dir=8.2.RC1\n")
    (tmp_path / cann[1:] / "opp").mkdir()
    smi(tmp_path)
    hccn(tmp_path)
    environ = {"ASCEND_HOME_PATH": cann, "ASCEND_OPP_PATH": f"{cann}/opp"}
    path = f"{tmp_path / 'programs'}{os.pathsep}{os.environ['PATH']}"
    return Machine(root=tmp_path, environ={**environ, "PATH": path}, supported=("8.2", "8.3"))


def smi(root: Path, health: str = "OK", used: int = 3380) -> None:
    write(root / "smi.txt", SMI.format(health=health, used=used))
    program(root, "npu-smi", f"cat {root / 'smi.txt'}")


def hccn(root: Path, link: str = "UP", net: str = "Success") -> None:
    program(root, "hccn_tool", HCCN.format(link=link, net=net))


def wrong(machine: Machine) -> dict[str, Remark]:
    """Return what is not well, by topic."""
    return {remark.topic: remark for remark in examine(machine) if remark.level != "ok"}


def test_a_whole_machine_has_nothing_to_mend(whole: Machine) -> None:
    remarks = list(examine(whole))
    assert [remark.topic for remark in remarks if remark.level != "ok"] == []
    assert {remark.topic: remark.text for remark in remarks} == {
        "NPU": "2 devices that this user can access",
        "driver": "25.2.0",
        "firmware": "7.7.0.6.236",
        "CANN": "8.2.RC1",
        "device 0": "910B3: OK, 62,156 MB free",
        "device 1": "910B3: OK, 62,156 MB free",
    }
    assert not any(remark.remedy for remark in remarks)


def test_a_machine_without_any_of_it_says_how_to_get_each(tmp_path: Path) -> None:
    found = wrong(Machine(root=tmp_path, environ={"PATH": str(tmp_path)}, supported=("8.2",)))
    assert list(found) == ["NPU", "driver", "firmware", "CANN", "environment", "npu-smi"]
    assert all(remark.level == "error" and remark.remedy for remark in found.values())
    assert "install CANN 8.2 (https://" in found["CANN"].remedy


@pytest.mark.parametrize("name", ["driver", "firmware"])
@pytest.mark.parametrize("text", ["", "garbage\0\x01", "Version=", "[Version]"])
def test_a_version_file_that_says_none(whole: Machine, name: str, text: str) -> None:
    write(whole.file(f"/usr/local/Ascend/{name}/version.info"), text)
    assert wrong(whole)[name].text.endswith("version.info contains no version")


def test_another_cann_than_mindspore_was_made_for(whole: Machine) -> None:
    write(whole.cann / "compiler" / "version.info", "Version=7.0.0\n")
    remark = wrong(whole)["CANN"]
    assert (remark.level, remark.text) == ("warning", "7.0.0, which this MindSpore does not support")
    assert remark.remedy.startswith("install CANN 8.2 or 8.3: https://")


@pytest.mark.parametrize("missing", npu.MANAGERS)
def test_a_manager_that_is_missing(whole: Machine, missing: str) -> None:
    whole.file(f"/dev/{missing}").unlink()
    assert wrong(whole)["NPU"].text == f"/dev lacks {missing}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every file")
def test_a_device_that_this_user_may_not_use(whole: Machine) -> None:
    whole.file("/dev/davinci1").chmod(0)
    remark = wrong(whole)["NPU"]
    assert remark.text == "this user has no access to davinci1"
    assert "HwHiAiUser" in remark.remedy


def test_settings_that_lead_nowhere(whole: Machine) -> None:
    environ = {**whole.environ, "ASCEND_OPP_PATH": "/gone", "RANK_TABLE_FILE": "/x.json"}
    found = [r for r in examine(Machine(root=whole.root, environ=environ)) if r.topic == "environment"]
    assert [(r.level, r.text) for r in found] == [
        ("error", "ASCEND_OPP_PATH=/gone is not a folder"),
        ("warning", "RANK_TABLE_FILE=/x.json has no effect: `finetune run` needs no rank table"),
    ]
    assert found[1].remedy == "unset RANK_TABLE_FILE"


def test_a_device_that_is_ill(whole: Machine) -> None:
    smi(whole.root, health="Critical")
    found = wrong(whole)
    assert list(found) == ["device 0"]
    assert (found["device 0"].level, found["device 0"].text) == ("error", "910B3: Critical, 62,156 MB free")
    assert "npu-smi info -t health -i 0" in found["device 0"].remedy


def test_a_device_without_memory(whole: Machine) -> None:
    smi(whole.root, used=65000)
    remark = wrong(whole)["device 0"]
    assert (remark.level, remark.text) == ("warning", "910B3: OK, 536 MB free")
    assert "npu-smi info -t proc-mem -i 0" in remark.remedy


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("exit 1", "does not respond"),
        ("kill -9 $$", "does not respond"),
        ("true", "lists no device in a known format"),
        ("head -c 100000 /dev/urandom", "lists no device in a known format"),
        ("echo '| 0 910B | '; echo '||||'", "lists no device in a known format"),
    ],
)
def test_npu_smi_that_fails_or_raves(whole: Machine, script: str, text: str) -> None:
    program(whole.root, "npu-smi", script)
    assert wrong(whole)["npu-smi"].text == text


@pytest.mark.parametrize("sleep", ["sleep {0}", "sleep {0} & sleep {0}"], ids=["alone", "with a child"])
def test_npu_smi_that_hangs_takes_all_the_time_there_is_once(
    whole: Machine, monkeypatch: pytest.MonkeyPatch, sleep: str
) -> None:
    assert npu.PATIENCE <= 5  # seconds for all programs together
    monkeypatch.setattr(npu, "PATIENCE", 0.5)
    called, over = whole.root / "called", whole.root / "over"
    called.touch()
    program(whole.root, "npu-smi", f"echo called >> {called}\n{sleep.format(LONGEST)}\ntouch {over}")
    assert wrong(whole)["npu-smi"].text == "does not respond"
    assert called.read_text() in ("called\n", "")
    assert not over.exists()


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"link": "DOWN"}, "`hccn_tool -i 1 -link -g` reports link status: DOWN"),
        ({"net": "Socket fail"}, "`hccn_tool -i 1 -net_health -g` reports net health status: Socket fail"),
    ],
)
def test_links_that_are_down(whole: Machine, said: dict[str, str], text: str) -> None:
    hccn(whole.root, **said)
    remark = wrong(whole)["HCCL"]
    assert (remark.level, remark.text) == ("warning", text)


def test_without_a_tool_for_links_nothing_is_claimed(whole: Machine) -> None:
    (whole.root / "programs" / "hccn_tool").unlink()
    (remark,) = [remark for remark in examine(whole) if remark.topic == "HCCL"]
    assert remark.level == "ok"
    assert remark.text.endswith("were not checked")


def test_the_command_ends_with_2_after_little_work(capsys: pytest.CaptureFixture[str]) -> None:
    with processor_time() as used:
        assert main(["doctor", "--device", "ascend", "--json"]) == 2
    assert used.seconds < 20  # 5 on a quiet machine
    said = json.loads(capsys.readouterr().out)
    topics = {remark["topic"] for remark in said["remarks"] if remark["level"] == "error"}
    assert {"NPU", "driver", "firmware", "CANN"} <= topics
    assert said["error"]["exit_code"] == 2
