"""PyTorch's files (.pth): pickles, which only an installed torch reads, without running code, in a process of its own.

``python -m finetune.weights.formats.torchfile IN OUT`` is that process. It writes safetensors, so that torch and
MindSpore are never loaded together, and whatever a file does to torch does not end a run.
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
from finetune.weights.formats.tensorfile import ANEW, CODES, RESAVE, Index, Record

if TYPE_CHECKING:
    from collections.abc import Mapping

TIME_LIMIT = 300.0  # seconds; 100 MB take two, most of them to import torch
WRAPPERS = ("state_dict", "model")  # where training programs put the tensors
LARGER = 4  # times the file; tensors that share their numbers could be any size
LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number that torch before 1.6 pickled first
OTHERS = "others"


def is_torch(path: Path) -> bool:
    """Tell whether torch wrote a file: a zip archive around a pickle, or the pickles of its early versions."""
    head = tensorfile.read_head(path)
    if not head.startswith(b"PK\x03\x04"):
        return head.startswith(b"\x80") and LEGACY in head[:32]
    try:
        with ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"'{path}' is a damaged zip archive, of PyTorch perhaps ({error}); {ANEW}") from error


def read_index(path: Path) -> Index:
    """Return what is in a file of PyTorch, with its tensors in memory.

    Raises ``WeightsError`` where there is no torch, and for all that torch does not read without running code.
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
    """Run this module in a process of its own."""
    package = str(Path(__file__).parents[3])
    paths = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), package]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(paths)))}
    command = [sys.executable, "-P", "-m", __name__, str(path.absolute()), str(target)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(f"torch did not read '{path}' in {TIME_LIMIT:g} s; {RESAVE}") from None
    if done.returncode < 0:
        raise WeightsError(f"torch was ended by {signal.Signals(-done.returncode).name} reading '{path}'; {RESAVE}")
    if done.returncode:
        said = next(reversed(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
        if done.returncode == ResourceError.exit_code:
            raise ResourceError(said)
        raise WeightsError(f"'{path}' is a PyTorch file that torch does not read safely ({said:.300}); {RESAVE}")


def main(source: str, target: str) -> None:
    """Write the tensors of a file as safetensors, and the names of all other entries into its metadata."""
    import torch

    try:
        if not is_safe(torch.__version__):
            raise WeightsError(f"torch {torch.__version__} can be made to run code (CVE-2025-32434), 2.6 can not")
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
    """Tell whether ``weights_only`` of this version of torch keeps what it promises."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (2, 6)


def explain_failure(error: Exception) -> str:
    """Return the sentence of torch that says what is wrong; others advise to read the file without protection."""
    sentences = re.split(r"\.\s", " ".join(str(error).split()))
    said = next((sentence for sentence in sentences if "nsupported" in sentence), sentences[0])
    return f"{type(error).__name__}: {said}"


def find_tensors(read: Any) -> tuple[Mapping[Any, Any], list[str]]:
    """Return the mapping that holds the tensors, and the names of what is beside it."""
    if not isinstance(read, dict):
        raise WeightsError(f"it holds a {type(read).__name__}, not tensors by name")
    for name in WRAPPERS:
        if isinstance(read.get(name), dict):
            return read[name], [str(other) for other in read if other != name]
    return read, []


def _make_record(name: Any, value: Any) -> Record:
    """Return a tensor as it is written."""
    import torch

    dtype = str(value.dtype).removeprefix("torch.")
    if not isinstance(name, str) or dtype not in CODES or value.layout is not torch.strided or value.is_quantized:
        raise WeightsError(f"it holds {name!r} as {dtype}, {value.layout}, which is not read")
    plain = value.detach()

    def content() -> bytes:
        data: bytes = plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return data

    return Record(dtype, tuple(value.shape), content)


if __name__ == "__main__":
    main(*sys.argv[1:])
