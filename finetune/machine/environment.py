"""Environment of a run: versions, machine, commit and command, without secrets."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from finetune.version import own_version


def read_cpu_flags() -> frozenset[str]:
    """Return the instruction-set flags of the first CPU; empty where /proc/cpuinfo does not exist."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), ":")
    return frozenset(line.partition(":")[2].split())


def count_usable_cores() -> int:
    """Return the number of cores that this process may use, by its affinity and the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


PACKAGES = (
    *("mindspore", "numpy", "albumentations", "albucore", "scipy", "opencv-python-headless", "opencv-python"),
    *("pillow", "pydantic", "pluggy", "ruamel.yaml"),
    *("safetensors", "tensorboardX", "openvino", "onnxruntime", "typer", "rich"),
)
ISA_FLAGS = ("sse4_2", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "asimddp", "bf16", "sve")

_IN_URL = re.compile(r"(?<=://)[^/\s]*@")
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{8,}|gh[pousr]_[A-Za-z0-9]{8,}|github_pat_\w{8,}|glpat-[\w-]{8,}|sk-[\w-]{16,}"
    r"|xox[a-z]-[\w-]{8,}|AKIA[A-Z0-9]{12,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_NAME = r"(?:tokens?|secrets?|passw(?:or)?d|api[_-]?key|credentials?|signature)"
_NAMED = re.compile(
    rf"(?i)(\b{_NAME}\s*[=:]\s*|_{_NAME}\s*[=:]\s*|--[\w-]*{_NAME}\s+|\b(?:bearer|basic)\s+)"
    r"""(?:"[^"]*"|'[^']*'|[^\s&'"]+)"""
)


def describe_environment() -> dict[str, Any]:
    """Return the environment as JSON; unknown values are None."""
    return {
        "finetune": own_version(),
        "python": platform.python_version(),
        "packages": list_packages(),
        "platform": platform.platform(),
        "cpu": read_cpu_model(),
        "isa_flags": [flag for flag in ISA_FLAGS if flag in read_cpu_flags()],
        "cores": count_usable_cores(),
        "memory_mb": read_total_memory_mb(),
        "git_commit": read_git_commit(),
        "command": format_command(),
    }


def format_command() -> str:
    """Return the command line of this process as the user typed it, with secrets masked."""
    program = Path(sys.argv[0]).name if sys.argv[:1] != [""] else "python"
    return mask_secrets(shlex.join(["finetune" if program == "__main__.py" else program, *sys.argv[1:]]))


def list_packages() -> dict[str, str | None]:
    """Return the installed version of each package that can change a result; None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def read_cpu_model() -> str | None:
    """Return the model name of the CPU."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    line = next((line for line in text.splitlines() if line.startswith(("model name", "Hardware"))), ":")
    return line.partition(":")[2].strip() or platform.machine() or None


def read_peak_memory_mb() -> float | None:
    """Return the peak memory of this process, in MB.

    The kernel resets VmHWM when a program starts; ``getrusage`` would include the memory of the parent at the fork.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return round(int(found[1]) / 1024, 1) if found else None


def read_total_memory_mb() -> float | None:
    """Return the memory of the machine, or of its container if that is less, in MB."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
    limit = read_memory_limit()
    return round(min(total, limit or total) / 2**20, 1)


def read_memory_limit() -> int | None:
    """Return the container's memory limit in bytes; None if there is none."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdecimal() else None


def read_git_commit() -> str | None:
    """Return the commit that is checked out in the current folder; None outside of a repository or without git."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def mask_secrets(text: str) -> str:
    """Replace passwords in URLs, tokens, and values with a secret-sounding name by ``***``."""
    text = _IN_URL.sub("***@", text)
    return _NAMED.sub(r"\1***", _TOKEN.sub("***", text))
