"""Process state: checks that a plugin leaves folder, environment, signals and random generators unchanged."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import re
import signal
import sys
from contextlib import contextmanager, redirect_stdout
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from finetune.errors import PluginError
from finetune.normalisation import find_image_fault
from finetune.weights import fetching, labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune.components import Backbone, Layout, Weights
    from finetune.testing.contract import Inspection


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 5.0  # seconds that a child process has to end
OWN = "FINETUNE_"
LIBRARIES = ("LD_LIBRARY_PATH",)  # set by OpenCV on import
_HOOKED: list[bool] = []
_UNPICKLED: list[list[str]] = []  # one list for each running check


class Report(Protocol):
    """Records broken rules."""

    rules: Any

    def breaks(self, rule: str, text: str) -> None:
        """Record a broken rule."""


@contextmanager
def watch_process(report: Report, *, draws: bool = False) -> Iterator[None]:
    """Report what the code in the block prints, unpickles or changes, and restore the state of the process.

    Set ``draws`` if MindSpore runs in the block, because it draws from the generators of the process.
    """
    generators = random.getstate(), np.random.get_state()
    random.random(), np.random.random()  # so that their state differs from a freshly seeded one
    before = read_state()
    out, unpickled = io.StringIO(), list[str]()
    watch_unpickling()
    _UNPICKLED.append(unpickled)
    try:
        with redirect_stdout(out):
            yield
    finally:
        _UNPICKLED[:] = [each for each in _UNPICKLED if each is not unpickled]
        after = read_state()
        if draws:
            after |= {name: before[name] for name in ("random", "numpy")}
        for text in find_changes(before, after, out.getvalue()):
            report.breaks("process", text)
        if unpickled:
            text = (
                f"{unpickled[0]} was unpickled, and pickles can run any code; read JSON, safetensors, or numeric .npy"
            )
            report.breaks("pickle", text)
        restore_state(before)
        random.setstate(generators[0])
        np.random.set_state(generators[1])
        sys.stdout.write(out.getvalue())


def watch_unpickling() -> None:
    """Install an audit hook that records everything that is unpickled in this process."""
    if not _HOOKED:
        _HOOKED.append(True)
        sys.addaudithook(record_unpickled)


def record_unpickled(event: str, arguments: tuple[Any, ...]) -> None:
    """Record the name of a class or function that a pickle imports."""
    if event == "pickle.find_class":
        for each in _UNPICKLED:
            each.append(".".join(map(str, arguments)))


def read_state() -> dict[str, Any]:
    """Return the state of the process that all code shares."""
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "signals": {each: signal.getsignal(each) for each in SIGNALS},
        "random": random.getstate(),
        "numpy": tuple(np.random.get_state())[1:3],
        "processes": {each.pid for each in multiprocessing.active_children()},
    }


def find_changes(before: dict[str, Any], after: dict[str, Any], printed: str) -> Iterator[str]:
    """Yield each change, with its remedy."""
    if printed:
        yield f"prints {printed[:60]!r}; use run.say, findings or logging, because standard output is for programs"
    if before["folder"] != after["folder"]:
        yield f"changes the current folder to '{after['folder']}'; use absolute paths instead of os.chdir"
    for name, value in before["environment"].items():
        if after["environment"].get(name) != value and name not in LIBRARIES:
            yield f"changes the environment variable {name}; pass the value as an argument"
    if more := [name for name in after["environment"] if name.startswith(OWN) and name not in before["environment"]]:
        yield f"sets the environment variable {more[0]}; leave it to the user"
    for each in SIGNALS:
        if before["signals"][each] != after["signals"][each]:
            yield f"replaces the handler of {each.name}, which saves and stops runs; do not handle signals"
    if before["random"] != after["random"]:
        yield "draws from or seeds the generator of `random`; use your own, random.Random(seed)"
    if not all(map(np.array_equal, before["numpy"], after["numpy"])):
        yield "draws from or seeds the generator of numpy.random; use your own, np.random.default_rng(seed)"
    if has_running_child(after["processes"] - before["processes"]):
        yield "leaves a process running; do not start processes, or join them"


def restore_state(before: dict[str, Any]) -> None:
    """Restore folder, environment and signals; the caller restores the generators."""
    if os.getcwd() != before["folder"]:
        os.chdir(before["folder"])
    os.environ.update(before["environment"])
    for name in [name for name in os.environ if name.startswith(OWN) and name not in before["environment"]]:
        del os.environ[name]
    for each in SIGNALS:
        if signal.getsignal(each) != before["signals"][each] and before["signals"][each] is not None:
            signal.signal(each, before["signals"][each])


def has_running_child(processes: set[int]) -> bool:
    """Return whether one of the child processes keeps running; MindSpore starts some that end by themselves."""
    children = [each for each in multiprocessing.active_children() if each.pid in processes]
    for each in children:
        each.join(GRACE)
    return any(each.is_alive() for each in children)


SIDES = range(16, 4097)  # pixels
RULES = {
    "records": (
        "each of `weights` has an https or file address, a hash of 8 to 64 digits or none, mean and std in 0..1, and a "
        "sane size"
    ),
    "labels": "`labels` of weights, where there are some, name each of their `classes`",
    "layouts": "rules of `layouts` are regular expressions, and each of `transpose` reorders all axes",
}


def inspect_offers(inspection: Inspection[Backbone]) -> None:
    """Check all weights and layouts of a backbone."""
    backbone = inspection.component
    for name, record in backbone.weights.items():
        with inspection.rule("records", f"weights '{name}'", "use the types that finetune.Weights declares"):
            for text in check_record(record):
                inspection.breaks("records", f"weights '{name}': {text}")
        with inspection.rule("labels", f"labels of weights '{name}'", "name a text file with one class a line"):
            if text := check_labels(record):
                inspection.breaks("labels", f"weights '{name}': {text}")
    for layout in backbone.layouts:
        with inspection.rule("layouts", f"layout '{layout.name}'", "use the types that finetune.Layout declares"):
            for text in check_layout(layout):
                inspection.breaks("layouts", f"layout '{layout.name}': {text}")


def check_record(record: Weights) -> Iterator[str]:
    """Yield the faults of a weights record."""
    yield from check_address(record)
    yield from check_hash(record)
    if fault := find_image_fault({"mean": record.mean, "std": record.std}):
        yield f"wrong {fault}"
    if record.size not in SIDES or record.resize not in SIDES or record.resize < record.size:
        sides = f"size is {record.size!r} and resize {record.resize!r}"
        yield f"{sides}; use {SIDES[0]} to {SIDES[-1]} pixels, and a resize that is not smaller than size"
    if record.accuracy is not None and not 0 <= record.accuracy <= 1:
        yield f"accuracy is {record.accuracy}; write top-1 accuracy as a number in 0..1"


def check_address(record: Weights) -> Iterator[str]:
    """Yield the faults of the address of weights."""
    parts = urlsplit(record.url)
    if parts.scheme == "file" and fetching.find_local_file(record.url) is None:
        yield f"url is '{record.url}', which does not exist; add the file to the package, or correct the address"
    elif parts.scheme not in ("https", "file") or (parts.scheme == "https" and not parts.hostname):
        yield f"url is '{record.url}', which is neither https nor file; use one of them"


def check_hash(record: Weights) -> Iterator[str]:
    """Yield the faults of the hash of weights, and contradictions with a hash in the file's name."""
    digest = record.sha256
    if not digest:
        return
    if not re.fullmatch(r"[0-9a-f]{8,64}", digest):
        yield f"sha256 is '{digest:.80}'; write 64 lower-case hex digits, at least the first 8 of them, or ''"
        return
    parts = re.split(r"[-_.]", PurePosixPath(urlsplit(record.url).path).name)
    named = [part for part in parts if re.fullmatch(r"(?=.*[0-9])(?=.*[a-f])[0-9a-f]{8,64}", part)]
    if named and not any(digest.startswith(part) or part.startswith(digest) for part in named):
        yield f"sha256 starts with {digest[:8]}, but the file's name has {named[-1]}; correct one of them"


def check_labels(record: Weights) -> str:
    """Return the fault of the class names of weights; duplicates are allowed, because they are numbered on reading."""
    if record.labels is None:
        return ""
    try:
        labels.read_list(record.labels, record.classes)
    except PluginError as error:
        return str(error)
    return ""


def check_layout(layout: Layout) -> Iterator[str]:
    """Yield the faults of the rules of a layout."""
    patterns = [pattern for pattern, _ in (*layout.rules, *layout.writes, *layout.transpose)]
    patterns += [*layout.ignore, *(layout.pieces[:1] if layout.pieces else ())]
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"'{pattern}' is not a regular expression ({error}); correct it"
    for pattern, axes in layout.transpose:
        if sorted(axes) != list(range(len(axes))):
            yield f"transpose has axes {axes} for '{pattern}'; write each axis once, such as (3, 2, 0, 1)"
