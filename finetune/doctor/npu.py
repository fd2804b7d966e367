"""NPU checks: driver, firmware, CANN, device files, health, links and environment of Ascend NPUs.

Written from the documentation of CANN and its tools, and tested with imitations of their files and programs; not
tested on an NPU.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.doctor.probe import Remark

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DRIVERS = "https://www.hiascend.com/hardware/firmware-drivers"
CANN = "https://www.hiascend.com/cann"
SET_ENV = "source /usr/local/Ascend/ascend-toolkit/set_env.sh"
JOIN_GROUP = "sudo usermod -a -G HwHiAiUser $USER, then log in again"
MANAGERS = ("davinci_manager", "devmm_svm", "hisi_hdc")
VERSION = re.compile(r"^\s*(?:package_)?[Vv]ersion\s*=\s*\[?([\w.]+)", re.MULTILINE)
# `npu-smi info` prints two lines for each device: first number, name and health; then, at the end, the used and the
# total memory. The table of processes that follows has numbers in the same places.
DEVICE = re.compile(r"^\|\s*(\d+)\s+(\w*[A-Za-z]\S*)\s*\|\s*([A-Za-z]+)\s*\|")
MEMORY = re.compile(r"(\d+)\s*/\s*(\d+)\s*\|\s*$")
LINK_UP, NET_GOOD = re.compile(r"link status:\s*UP", re.IGNORECASE), re.compile(r":\s*Success", re.IGNORECASE)
PATIENCE = 3.0  # seconds for all programs together
LEAST_MEMORY = 4000  # MB that must be free on a device
SETTINGS = ("ASCEND_HOME_PATH", "ASCEND_OPP_PATH", "ASCEND_TOOLKIT_HOME")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine with its files below ``root``, its environment, and the CANN versions that MindSpore supports."""

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    supported: Sequence[str] = ()

    def file(self, path: str) -> Path:
        """Return a file by its absolute path."""
        return self.root / path.lstrip("/")

    @property
    def cann(self) -> Path:
        """The folder of CANN: the one that its set_env.sh set, or the default installation folder."""
        said = next((self.environ[name] for name in SETTINGS if name != "ASCEND_OPP_PATH" and name in self.environ), "")
        return self.file(said or "/usr/local/Ascend/ascend-toolkit/latest")


def examine(machine: Machine) -> Iterator[Remark]:
    """Yield what is installed and what is missing, in the order of installation."""
    until = time.monotonic() + PATIENCE
    yield from check_files(machine)
    for name in ("driver", "firmware"):
        yield check_package(machine, name)
    yield check_toolkit(machine)
    yield from check_settings(machine)
    yield from check_health(machine, until)
    yield from check_links(machine, until)


def check_files(machine: Machine) -> Iterator[Remark]:
    """Check the device files."""
    folder = machine.file("/dev")
    found = sorted((path for path in folder.glob("davinci[0-9]*")), key=lambda path: int(path.name[7:] or 0))
    if not found:
        remedy = f"install the driver ({DRIVERS}), and check with `ls /dev/davinci*`; in a container, pass --device"
        yield Remark(level="error", topic="NPU", text="/dev/davinci0 is missing", remedy=remedy)
        return
    wanted = [*found, *(folder / name for name in MANAGERS)]
    missing = [path.name for path in wanted if not path.exists()]
    if missing:
        remedy = f"restart the driver, or pass --device=/dev/{missing[0]} to the container"
        yield Remark(level="error", topic="NPU", text=f"/dev lacks {', '.join(missing)}", remedy=remedy)
    closed = [path.name for path in wanted if path.exists() and not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        text = f"this user has no access to {', '.join(closed[:4])}"
        yield Remark(level="error", topic="NPU", text=text, remedy=JOIN_GROUP)
    if not missing and not closed:
        yield Remark(level="ok", topic="NPU", text=f"{len(found)} devices that this user can access")


def check_package(machine: Machine, name: str) -> Remark:
    """Check the version of the driver or the firmware."""
    path = machine.file(f"/usr/local/Ascend/{name}/version.info")
    version = read_version(path)
    if version is None:
        why = "contains no version" if path.exists() else "is missing"
        return Remark(level="error", topic=name, text=f"{path} {why}", remedy=f"install the {name}: {DRIVERS}")
    return Remark(level="ok", topic=name, text=version)


def check_toolkit(machine: Machine) -> Remark:
    """Compare the version of CANN with those that this MindSpore supports."""
    path = machine.cann / "compiler" / "version.info"
    version, wanted = read_version(path), " or ".join(machine.supported)
    if version is None:
        why = "contains no version" if path.exists() else "is missing"
        remedy = f"install CANN{f' {wanted}' if wanted else ''} ({CANN}), then: {SET_ENV}"
        return Remark(level="error", topic="CANN", text=f"{path} {why}", remedy=remedy)
    if machine.supported and ".".join(version.split(".")[:2]) not in machine.supported:
        text = f"{version}, which this MindSpore does not support"
        return Remark(level="warning", topic="CANN", text=text, remedy=f"install CANN {wanted}: {CANN}")
    return Remark(level="ok", topic="CANN", text=version)


def read_version(path: Path) -> str | None:
    """Read the version in a file of the Ascend software; None without one."""
    try:
        found = VERSION.search(path.read_text(encoding="utf-8", errors="replace")[:10_000])
    except OSError:
        return None
    return found[1] if found else None


def check_settings(machine: Machine) -> Iterator[Remark]:
    """Check the environment variables that CANN's set_env.sh sets."""
    missing = [name for name in SETTINGS[:2] if not machine.environ.get(name)]
    if missing:
        yield Remark(level="error", topic="environment", text=f"{', '.join(missing)} not set", remedy=SET_ENV)
    for name in SETTINGS:
        said = machine.environ.get(name)
        if said and not machine.file(said).is_dir():
            yield Remark(level="error", topic="environment", text=f"{name}={said} is not a folder", remedy=SET_ENV)
    table = machine.environ.get("RANK_TABLE_FILE")
    if table:
        text = f"RANK_TABLE_FILE={table} has no effect: `finetune run` needs no rank table"
        yield Remark(level="warning", topic="environment", text=text, remedy="unset RANK_TABLE_FILE")


def check_health(machine: Machine, until: float) -> Iterator[Remark]:
    """Check the state of each device in the output of `npu-smi info`."""
    said = run_program(machine, until, "npu-smi", "info")
    if said is None:
        remedy = f"install the driver ({DRIVERS}), and check with `npu-smi info`"
        yield Remark(level="error", topic="npu-smi", text="does not respond", remedy=remedy)
        return
    lines, found = said.splitlines(), 0
    for line, after in pairwise([*lines, ""]):
        if (device := DEVICE.match(line)) is None:
            continue
        found += 1
        number, name, state = device.groups()
        memory = MEMORY.search(after)
        free = int(memory[2]) - int(memory[1]) if memory else None
        text = f"{name}: {state}" + ("" if free is None else f", {free:,} MB free")
        if state not in ("OK", "Warning"):
            remedy = f"see `npu-smi info -t health -i {number}`; `npu-smi set -t reset -i {number} -c 0` resets it"
            yield Remark(level="error", topic=f"device {number}", text=text, remedy=remedy)
        elif free is not None and free < LEAST_MEMORY:
            remedy = f"end the processes that use it: `npu-smi info -t proc-mem -i {number}`"
            yield Remark(level="warning", topic=f"device {number}", text=text, remedy=remedy)
        else:
            yield Remark(level="ok", topic=f"device {number}", text=text)
    if not found:
        remedy = "check with `npu-smi info`"
        yield Remark(level="warning", topic="npu-smi", text="lists no device in a known format", remedy=remedy)


def check_links(machine: Machine, until: float) -> Iterator[Remark]:
    """Check the network links of the devices, which runs on several machines need."""
    if shutil.which("hccn_tool", path=machine.environ.get("PATH")) is None:
        text = "hccn_tool is not installed, so the links between machines were not checked"
        yield Remark(level="ok", topic="HCCL", text=text)
        return
    for path in sorted(machine.file("/dev").glob("davinci[0-9]*")):
        number = path.name[7:]
        for what, good in (("-link", LINK_UP), ("-net_health", NET_GOOD)):
            said = run_program(machine, until, "hccn_tool", "-i", number, what, "-g")
            if said is None or good.search(said) is None:
                text = f"`hccn_tool -i {number} {what} -g` reports {' '.join((said or 'nothing').split())[:80]}"
                remedy = f"needed between machines only; see `hccn_tool -i {number} -ip -g` and the cable"
                yield Remark(level="warning", topic="HCCL", text=text, remedy=remedy)


def run_program(machine: Machine, until: float, *command: str) -> str | None:
    """Return the output of a program; None if it is not installed, fails, or takes too long."""
    left = until - time.monotonic()
    program = shutil.which(command[0], path=machine.environ.get("PATH"))
    if left <= 0 or program is None:
        return None
    try:
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return None
    with process:
        try:
            said, _ = process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # also ends the programs that it started
            return None
    return said.decode(errors="replace") if process.returncode == 0 else None
