"""PyTorch files (.pth): pickles that an installed torch converts, without running code, in a separate process.

``python -m finetune.weights.formats.torchfile IN OUT`` is that process. It writes safetensors, so that torch and
MindSpore are never loaded together, and a file that crashes torch does not end a run.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from finetune.errors import FinetuneError, ResourceError, WeightsError
from finetune.weights.formats import tensorfile
from finetune.weights.formats.tensorfile import AGAIN, CODES, RESAVE, Index, Record

if TYPE_CHECKING:
    from collections.abc import Mapping

TIME_LIMIT = 300.0  # seconds; 100 MB take two, mostly for importing torch
WRAPPERS = ("state_dict", "model")  # keys under which training programs store the tensors
LARGER = 4  # maximum ratio of the tensors to the file; tensors that share their numbers could have any size
LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch before 1.6 pickles first
OTHERS = "others"


def is_torch(path: Path) -> bool:
    """Return whether torch wrote a file: a zip archive around a pickle, or the pickles of early versions."""
    head = tensorfile.read_head(path)
    if not head.startswith(b"PK\x03\x04"):
        return head.startswith(b"\x80") and LEGACY in head[:32]
    try:
        with ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"'{path}' is a damaged zip archive, perhaps of PyTorch ({error}); {AGAIN}") from error


def read_index(path: Path) -> Index:
    """Read a PyTorch file, with its tensors in memory.

    Raises ``WeightsError`` if torch is not installed, and for files that torch cannot read without running code.
    """
    if find_spec("torch") is None:
        raise WeightsError(
            f"'{path}' is a PyTorch file, which could run any code; `pip install torch` lets finetune read it safely, "
            f"or {RESAVE}"
        )
    with TemporaryDirectory(prefix="finetune-") as folder:
        target = Path(folder) / "tensors.safetensors"
        _convert(path, target)
        found = tensorfile.read_index(target)
        held = {n: Record(r.dtype, r.shape, partial(bytearray, r.content())) for n, r in found.records.items()}
    return Index(format="pytorch", records=held, metadata={}, others=tuple(json.loads(found.metadata[OTHERS])))


def _convert(path: Path, target: Path) -> None:
    """Run this module in a separate process."""
    package = str(Path(__file__).parents[3])
    paths = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), package]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(paths)))}
    command = [sys.executable, "-P", "-m", __name__, str(path.absolute()), str(target)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(f"torch timed out after {TIME_LIMIT:g} s while reading '{path}'; {RESAVE}") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise WeightsError(f"torch was killed by {name} while reading '{path}'; {RESAVE}")
    if done.returncode:
        reason = next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
        if done.returncode == ResourceError.exit_code:
            raise ResourceError(reason)
        raise WeightsError(f"'{path}' is a PyTorch file that torch cannot read safely ({reason:.300}); {RESAVE}")


def main(source: str, target: str) -> None:
    """Convert a file to safetensors, with the names of entries that are not tensors in its metadata."""
    import torch

    try:
        if not is_safe(torch.__version__):
            raise WeightsError(
                f"torch {torch.__version__} can be made to run code (CVE-2025-32434); install 2.6 or later"
            )
        read = torch.load(source, map_location="cpu", weights_only=True)
        found, others = find_tensors(read)
        records = {name: _make_record(name, value) for name, value in found.items() if isinstance(value, torch.Tensor)}
        size = sum(record.itemsize * found[name].numel() for name, record in records.items())
        if not records or size > LARGER * os.path.getsize(source):
            raise WeightsError(f"it holds {len(records)} tensors of {size:,} bytes together")
        others += [str(name) for name in found if name not in records]
        tensorfile.write_records(Path(target), records, {OTHERS: json.dumps(others)})
    except FinetuneError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        raise SystemExit(explain_failure(error)) from None


def is_safe(version: str) -> bool:
    """Return whether ``weights_only`` is safe in this version of torch."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (2, 6)


def explain_failure(error: Exception) -> str:
    """Return the sentence of torch's error with the cause; other sentences advise reading the file unprotected."""
    sentences = re.split(r"\.\s", " ".join(str(error).split()))
    cause = next((sentence for sentence in sentences if "nsupported" in sentence), sentences[0])
    return f"{type(error).__name__}: {cause}"


def find_tensors(read: Any) -> tuple[Mapping[Any, Any], list[str]]:
    """Return the mapping with the tensors, and the names of the entries next to it."""
    if not isinstance(read, dict):
        raise WeightsError(f"it holds a {type(read).__name__}, not tensors by name")
    for name in WRAPPERS:
        if isinstance(read.get(name), dict):
            return read[name], [str(other) for other in read if other != name]
    return read, []


def _make_record(name: Any, value: Any) -> Record:
    """Make the record of a tensor; raises ``WeightsError`` for unsupported types."""
    import torch

    dtype = str(value.dtype).removeprefix("torch.")
    if not isinstance(name, str) or dtype not in CODES or value.layout is not torch.strided or value.is_quantized:
        raise WeightsError(f"it holds {name!r} as {dtype}, {value.layout}, which is not supported")
    plain = value.detach()

    def content() -> bytes:
        data: bytes = plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return data

    return Record(dtype, tuple(value.shape), content)


if __name__ == "__main__":
    main(*sys.argv[1:])
