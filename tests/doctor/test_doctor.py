"""The doctor on this machine, and on machines that are worse off."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from finetune import plugins
from finetune.catalogue import Catalogue
from finetune.components import Backbone
from finetune.doctor import checks, probe
from finetune.features import identity
from finetune.machine import ascend, forms, speeds
from finetune.network import engines
from tests.cli.calling import answer, command, environment

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = ("ok", "warning", "error")


def call(repo: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("doctor", *arguments), env=environment(repo, **env), capture_output=True, text=True, check=False
    )


def of(report: dict[str, Any], topic: str) -> list[dict[str, str]]:
    return [remark for remark in report["remarks"] if remark["topic"] == topic]


def test_this_machine(repo: Path, tmp_path: Path) -> None:
    done = call(
        repo, "--json", FINETUNE_HOME=str(tmp_path / "not there yet"), OMP_NUM_THREADS="1000", FINETUNE_OFFLINE="1"
    )
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    report = answer(done)
    assert report["ok"]
    for remark in report["remarks"]:
        assert remark["level"] in LEVELS
        assert bool(remark["remedy"]) == (remark["level"] != "ok"), remark
    topics = {remark["topic"] for remark in report["remarks"]}
    assert {"python", "mindspore", "numpy", "cores", "memory", "convolutions", "cpu", "gpu", "ascend"} <= topics
    assert {"cache", "output", "network", "plugins", "environment"} <= topics
    assert str(tmp_path / "not there yet") in of(report, "cache")[0]["text"]
    assert not (tmp_path / "not there yet").exists()
    (threads,) = (remark for remark in of(report, "environment") if "OMP_NUM_THREADS" in remark["text"])
    assert threads["level"] == "warning"
    assert report["mindspore"]["devices"]["cpu"] == {"available": True, "lacks": []}


def fake_mindspore(folder: Path, code: str) -> str:
    """Write a MindSpore that behaves as ``code`` when it is imported, and return what to put on the path."""
    (folder / "mindspore").mkdir()
    (folder / "mindspore" / "__init__.py").write_text(code)
    return str(folder)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "raise ImportError('libgomp.so.1: cannot open shared object file')",
            "libgomp.so.1: cannot open shared object",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "ended by SIGILL (Illegal instruction)"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_mindspore_that_cannot_be_imported(repo: Path, tmp_path: Path, code: str, said: str) -> None:
    paths = [fake_mindspore(tmp_path, code), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from finetune.cli import main; raise SystemExit(main(['doctor']))"],
        env={
            **environment(repo, COLUMNS="200"),
            "PYTHONPATH": os.pathsep.join([*paths, environment(repo).get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.split()[:2] == ["error", "mindspore"])
    assert "cannot be imported" in line
    assert said in line
    assert "convolutions" not in done.stdout


def test_a_device_that_is_asked_for_must_be_there() -> None:
    found = {
        "devices": {"cpu": {"available": True, "lacks": []}, "gpu": {"available": False, "lacks": ["libcudnn.so.8"]}}
    }
    cpu, gpu = checks.check_devices(found, "gpu")
    assert (cpu.level, gpu.level) == ("ok", "error")
    assert "libcudnn.so.8" in gpu.text
    assert "LD_LIBRARY_PATH" in gpu.remedy


def test_hardware_that_mindspore_cannot_use_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ascend, "NODE", str(tmp_path))
    (remark,) = checks.check_devices({"devices": {"ascend": {"available": False, "lacks": []}}}, "auto")
    assert (remark.level, remark.text) == ("warning", "is in this machine, but MindSpore lacks a device")
    assert "CANN" in remark.remedy


def test_folders_that_cannot_be_written_or_are_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    remark = checks.check_folder("cache", tmp_path / "file" / "below", "set FINETUNE_HOME")
    assert (remark.level, remark.remedy) == ("error", "set FINETUNE_HOME")
    for free, level in ((10 << 30, "ok"), (1 << 30, "warning"), (1 << 20, "error")):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("shutil.disk_usage", lambda path, usage=usage: usage)
        assert checks.check_folder("cache", tmp_path, "set FINETUNE_HOME").level == level


def test_versions_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.machine.environment.list_packages", lambda: {"mindspore": None, "numpy": "2.1.0"})
    levels = {remark.topic: (remark.level, remark.remedy) for remark in checks.check_versions({})}
    assert levels["mindspore"] == ("error", "install mindspore 2.10.x")
    assert levels["numpy"] == ("warning", "install numpy 1.26.x")


def test_who_set_a_variable(repo: Path) -> None:
    for given, who in ((None, "finetune"), ("2", "you")):
        env = environment(repo, HTTPS_PROXY="http://me:pw@proxy:1", ONEDNN_MAX_CPU_ISA="AVX2")
        # This process may have imported MindSpore, which sets variables of its own.
        env = {name: value for name, value in env.items() if name not in ("GLOG_v", "KMP_DUPLICATE_LIB_OK")}
        env |= {"GLOG_v": given} if given else {}
        code = "from finetune.doctor import checks as d; import json; print(json.dumps(d.diagnose()))"
        done = subprocess.run([sys.executable, "-P", "-c", code], env=env, capture_output=True, text=True, check=True)
        remarks = {remark["text"]: remark["level"] for remark in of(answer(done), "environment")}
        assert remarks[f"GLOG_v={given or 3}, set by {who}"] == "ok"
        assert remarks["HTTPS_PROXY=http://***@proxy:1, set by you"] == "ok"
        assert remarks["ONEDNN_MAX_CPU_ISA=AVX2, set by you"] == "warning"
        assert "KMP_DUPLICATE_LIB_OK=True, set by MindSpore, when it is imported" in remarks


def test_broken_plugins_are_listed_and_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune import plugins

    origin = plugins.Origin(name="birds", distribution="birds-of-prey", version="0.3")

    def load() -> plugins.Plugins:
        loaded = plugins.Plugins()
        loaded.broken.append(plugins.BrokenPlugin(origin=origin, reason="ImportError: no feathers"))
        return loaded

    monkeypatch.setattr(plugins, "load_plugins", load)
    broken = [remark for remark in checks.check_plugins() if remark.level == "warning"]
    assert [remark.text for remark in broken] == ["plugin 'birds' (birds-of-prey 0.3): ImportError: no feathers"]
    monkeypatch.setattr(plugins, "load_plugins", lambda: {}["x"])
    assert [remark.level for remark in checks.check_plugins()] == ["error"]


def test_a_probe_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIME_LIMIT", 0.01)
    assert probe.run_probe("find_devices") == {"error": "no answer within 0.01 s"}


RATES = {"measure_used": 20.0, "measure_installed": 0.2}
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
MS = {
    "measure_capped": {
        "convolutions": dict(zip(STAGES, (10.0, 60.0, 50.0, 60.0, 40.0), strict=True)),
        "matmul": dict(zip(STAGES, (30.0, 90.0, 60.0, 50.0, 20.0), strict=True)),
    },
    "measure_uncapped": {"avx512": dict.fromkeys(STAGES, 30.0)},
}


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Answer for probes on a processor with AVX-512, and return what was asked about which backbone."""
    asked: list[str] = []

    def ask(what: str, limit: float | None = None, **environment: str) -> dict[str, Any]:
        asked.append(" ".join((what, *environment.values())))
        return {"ms": MS[what]} if what in MS else {"gflop_per_second": RATES[what]}

    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(forms, "read_cpu_flags", lambda: frozenset({"avx2", "avx512f"}))
    monkeypatch.setattr(probe, "run_probe", ask)
    return asked


def test_both_forms_of_every_stage_are_timed_when_asked_for(probed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Catalogue(plugins.load_plugins()).get(Backbone, "resnext50")
    assert speeds.read_speeds(backbone.name, identity.hash_code(backbone)) == {}
    *_, speed, training = checks.check_convolutions({"isa": "AVX2 (capped)"}, measure=True)
    assert probed == ["measure_used", "measure_installed", "measure_capped resnext50", "measure_uncapped resnext50"]
    assert speed.text == "20.0 GFLOP/s in a run, 0.2 in MindSpore as installed"
    assert "convolutions 10 60 50 60 40, matmul 30 90 60 50 20, avx512 30 30 30 30 30" in training.text
    assert "training stem, layer1, layer2, layer3, layer4 in matmul form: measured as fastest here" in training.text
    assert speeds.read_speeds(backbone.name, identity.hash_code(backbone)) == {
        **MS["measure_capped"],
        **MS["measure_uncapped"],
    }
    monkeypatch.setattr(speeds, "describe_machine", lambda: "another machine")
    assert speeds.read_speeds(backbone.name, identity.hash_code(backbone)) == {}


def test_without_a_choice_of_instruction_set_one_probe_is_enough(
    probed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    *_, training = checks.check_convolutions({"isa": "AVX2 (set)"}, measure=True)
    assert "measure_uncapped resnext50" not in probed
    assert "layer2 as convolutions and layer3, layer4 in matmul form: measured" in training.text


def test_a_damaged_record_of_speeds_is_replaced(probed: list[str]) -> None:
    backbone = Catalogue(plugins.load_plugins()).get(Backbone, "resnext50")
    for text in ("{", "[]", '{"machine": "of an older version", "convolution": 1.0, "matmul_form": 2.0}'):
        speeds.locate_file().write_text(text)
        assert speeds.read_speeds(backbone.name, identity.hash_code(backbone)) == {}
        speeds.save_speeds(backbone.name, identity.hash_code(backbone), MS["measure_capped"])
        assert speeds.read_speeds(backbone.name, identity.hash_code(backbone)) == MS["measure_capped"]


def test_what_could_not_be_timed_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    monkeypatch.setattr(probe, "run_probe", lambda what, *limit, **environment: {"error": "no answer in 1 s"})
    *_, training = checks.check_convolutions({"isa": "AVX2 (capped)"}, measure=True)
    assert (training.level, training.text) == ("warning", "resnext50 not timed: no answer in 1 s")
    other = Catalogue(plugins.load_plugins()).get(Backbone, "resnext50")
    assert speeds.read_speeds(other.name, identity.hash_code(other)) == {}


def test_a_missing_openvino_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = {"devices": {"cpu": {"available": True}}}
    (found,) = checks.check_inference(cpu)
    assert (found.level, found.topic) == ("ok", "openvino")
    monkeypatch.setattr(engines, "explain_unavailable", lambda device: "it is not installed; run: pip install openvino")
    (missing,) = checks.check_inference(cpu)
    assert (missing.level, missing.text, missing.remedy) == (
        "warning",
        "it is not installed",
        "run: pip install openvino",
    )


def test_a_slow_choice_is_a_warning() -> None:
    (slow,) = checks.check_convolutions({"isa": "default (slow: too late)"}, measure=False)
    assert slow.level == "warning"


def test_a_run_is_never_slower_than_mindspore_as_it_comes() -> None:
    assert probe.run_probe("measure_used")["gflop_per_second"] > 1.0
