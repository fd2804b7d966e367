"""Installed plugins that are broken, each in one way: named with package, version, hook and remedy, and contained.

What ends a process without Python's doing, such as ``os._exit``, cannot be contained in one process, and is not here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from finetune.plugins import HOOKS
from tests.drawn import folder as drawn
from tests.faults.bad_plugins import install
from tests.faults.case import Outcome, case, outcome

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("graph_mode")]

HEAD = """\
import numpy as np
from finetune import Augmentation, Backbone, Callback, Dataset, Freezer, Options, Samples, hookimpl
"""
RECIPE = {
    "output": "runs",
    "backbone": "{use: tiny, weights: none}",
    "dataset": "{use: folder, root: photos}",
    "image": "{size: 16, resize: 16}",
    "augment": "[]",
    "freeze": "{use: head}",
    "train": "{epochs: 2, batch_size: 4}",
    "trunk": "{engine: mindspore}",
    "cache": "{features: 'off'}",
    "callbacks": "[]",
    "runner": "{device: cpu, mode: pynative, workers: 1}",
}
LEAVE = "update or mend bad-plugin, or leave it out with FINETUNE_DISABLE_PLUGINS=bad"
TITLE = "plugin 'bad' (bad-plugin 1.2)"
BIRDS = {"dataset": "{use: bad}"}
IMAGES = "[np.full((16, 16, 3), i, np.uint8) for i in range(12)]"
EVENTS = HOOKS[6:]

Row = tuple[str, str, dict[str, str], int, tuple[str, ...]]


def offering(kind: str, component: str, before: str = "") -> str:
    """Return the source of a plugin that offers a component."""
    return f"{HEAD}{before}\n@hookimpl\ndef finetune_{kind}():\n    yield {component}\n"


def dataset(images: str = IMAGES, labels: str = "[0, 1] * 6", classes: str = "('a', 'b')") -> str:
    """Return the source of a dataset of these samples."""
    samples = f"Samples(images={images}, labels={labels}, classes={classes})"
    build = f"lambda options, split: {samples} if split == 'train' else None"
    return offering("datasets", f"Dataset(name='bad', build={build})")


def building(body: str) -> str:
    """Return the source of a dataset whose ``build`` has this body."""
    return offering("datasets", "Dataset(name='bad', build=build)", f"def build(options, split):\n    {body}\n")


def augmentation(body: str) -> str:
    """Return the source of an augmentation with this body."""
    before = f"def change(pixels, rng):\n    {body}\n"
    return offering("augmentations", "Augmentation(name='bad', build=lambda options, image: change)", before)


def policy(body: str) -> str:
    """Return the source of a freezing policy with this body."""
    before = f"def policy(epoch, stages):\n    {body}\n"
    return offering("freezers", "Freezer(name='bad', build=lambda options: policy)", before)


def backbone(body: str, features: int = 8) -> str:
    """Return the source of a backbone of one stage whose ``build`` has this body."""
    before = f"def build(options):\n    from mindspore import nn\n    {body}\n"
    return offering("backbones", f"Backbone(name='bad', build=build, stages=('a',), features={features})", before)


def callback(methods: str) -> str:
    """Return the source of a callback with these methods."""
    return offering("callbacks", "Callback(name='bad', build=lambda options: Bad())", f"class Bad:\n    {methods}\n")


def listening(event: str, body: str) -> str:
    """Return the source of a plugin that listens to an event of every run."""
    return f"{HEAD}@hookimpl\ndef {event}(run):\n    {body}\n"


# Broken where it is loaded: the recipe names a component that is not there, and the reason is told. Exit code 2 is
# that of recipes, as all that is wrong with one is told at once.
LOADED: list[Row] = [
    ("fails at import", "1 / 0", BIRDS, 2, ("ZeroDivisionError: division by zero",)),
    ("no Python", "def (", BIRDS, 2, ("SyntaxError: invalid syntax",)),
    ("a missing dependency", "import no_such_library", BIRDS, 2, ("No module named 'no_such_library'",)),
    ("ends the process at import", "raise SystemExit(0)", BIRDS, 2, ("SystemExit: 0",)),
    ("wrong API version", "finetune_api = 2", BIRDS, 2, ("finetune_api is 2, and mindspore-finetune ", " has 1;")),
    ("API version that is text", "finetune_api = '1'", BIRDS, 2, ("finetune_api is '1', and mindspore-finetune ",)),
    ("a name that finetune has not", "from finetune import Optimizer", BIRDS, 2, ("cannot import name 'Optimizer'",)),
    (
        "a misspelt hook",
        offering("dataset", "Dataset(name='bad', build=print)"),
        BIRDS,
        2,
        ("no hook named 'finetune_dataset'; did you mean 'finetune_datasets'?",),
    ),
    (
        "a hook without @hookimpl",
        "def finetune_datasets(): ...",
        BIRDS,
        2,
        ("'finetune_datasets' would never be called; decorate it with @hookimpl",),
    ),
    (
        "an extra argument",
        f"{HEAD}@hookimpl\ndef finetune_datasets(run): ...",
        BIRDS,
        2,
        ("'finetune_datasets' asks for the argument 'run'; it takes none",),
    ),
    (
        "another type",
        offering("datasets", "{'name': 'bad'}"),
        BIRDS,
        2,
        ("finetune_datasets returned {'name': 'bad'}",),
    ),
    (
        "options of another type",
        offering("datasets", "Dataset(name='bad', options=dict, build=print)"),
        BIRDS,
        2,
        ("options of dataset 'bad' must be a subclass of finetune.Options",),
    ),
    *(
        (
            f"fails in {hook}",
            f"{HEAD}@hookimpl\ndef {hook}():\n    raise OSError('no disk')\n",
            {"dataset": "{use: bad}"},
            2,
            (f"failed in {hook}: OSError: no disk",),
        )
        for hook in HOOKS[:5]
    ),
]
# Broken where a recipe uses it, before training.
USED: list[Row] = [
    (
        "a name that is taken",
        offering("datasets", "Dataset(name='folder', build=print)"),
        {},
        6,
        ("two datasets named 'folder': plugin 'folder' (mindspore-finetune ", "uninstall one or set FINETUNE_DISABLE_"),
    ),
    (
        "a dataset that fails",
        building("raise KeyError('x')"),
        BIRDS,
        6,
        ("build of dataset 'bad'", "KeyError: 'x'", LEAVE),
    ),
    ("a dataset that ends the process", building("raise SystemExit(0)"), BIRDS, 6, ("SystemExit: 0", LEAVE)),
    (
        "a dataset of another type",
        building("return [1]"),
        BIRDS,
        3,
        ("dataset 'bad', split train: build returned a list; return finetune.Samples or None",),
    ),
    (
        "labels out of range",
        dataset(labels="[0, 1, 9] * 4"),
        BIRDS,
        3,
        ("label 2 is 9, but there are 2 classes; labels must be 0 to 1",),
    ),
    (
        "images of another shape",
        dataset(images=IMAGES.replace("16, 3)", "16)")),
        BIRDS,
        3,
        ("an array of shape 16x16 and type uint8 is no image; pass (height, width, 3) uint8",),
    ),
    (
        "images of another type",
        dataset(images=IMAGES.replace("np.uint8", "np.float32")),
        BIRDS,
        3,
        ("an array of shape 16x16x3 and type float32 is no image; pass (height, width, 3) uint8",),
    ),
    (
        "a backbone that fails",
        backbone("raise ImportError('no weights')"),
        {"backbone": "{use: bad, weights: none}"},
        6,
        ("failed in build of backbone 'bad': ImportError: no weights", LEAVE),
    ),
    (
        "other stages",
        backbone("return {'b': nn.ReLU()}"),
        {"backbone": "{use: bad, weights: none}"},
        6,
        ("built stages b; its component says a: make them equal, in the same order", LEAVE),
    ),
    (
        "features of another width",
        backbone("return {'a': nn.Conv2d(3, 4, 2, 2)}", features=8),
        {"backbone": "{use: bad, weights: none}"},
        6,
        ("failed in stages of backbone 'bad': backbone 'bad' returns features of shape 1x4 and says 8", LEAVE),
    ),
    (
        "an augmentation that cannot be built",
        offering("augmentations", "Augmentation(name='bad', build=lambda options: None)"),
        {"augment": "[{use: bad}]"},
        6,
        ("build of augmentation 'bad': TypeError: ", "<lambda>() takes 1 positional argument but 2 were given", LEAVE),
    ),
    (
        "a policy that fails",
        policy("return stages[epoch * 9]"),
        {"freeze": "{use: bad}"},
        6,
        ("policy of freezer 'bad': IndexError: tuple index out of range", LEAVE),
    ),
    (
        "a policy of unknown stages",
        policy("return {'layer4'}"),
        {"freeze": "{use: bad}"},
        6,
        ("freezing policy 'bad' names stage 'layer4'; known: body, head, neck, stem", LEAVE),
    ),
    (
        "a callback with a misspelt event",
        callback("@hookimpl\n    def finetune_epoch_ends(self, run): ..."),
        {"callbacks": "[{use: bad}]"},
        6,
        ("no hook named 'finetune_epoch_ends'; did you mean 'finetune_epoch_end'?",),
    ),
    (
        "fails in finetune_run_start",
        listening("finetune_run_start", "raise KeyError('gone')"),
        {},
        6,
        ("failed in finetune_run_start: KeyError: 'gone'", LEAVE),
    ),
    (
        "weights that cannot be fetched",
        f"{HEAD}@hookimpl\ndef finetune_fetch_weights(weights):\n    raise OSError('no route')\n",
        {"backbone": "{use: resnext50, weights: hub-v1.1}"},
        6,
        ("failed in finetune_fetch_weights: OSError: no route", LEAVE),
    ),
]
# Of 24 images in two epochs, some of the first read twice; the twentieth is of the second.
COUNT = "change.count = getattr(change, 'count', 0) + 1\n    "
FAIL = "if run.epoch == 2: raise KeyError('gone')"
# Broken while a run trains: what was trained is kept.
TRAINING: list[Row] = [
    *(
        (f"fails in {event}", listening(event, FAIL), {}, 6, (f"failed in {event}: KeyError: 'gone'", LEAVE))
        for event in EVENTS
        if event not in ("finetune_run_error", "finetune_run_start")
    ),
    (
        "ends the process at an event",
        listening("finetune_epoch_end", "raise SystemExit(0)"),
        {},
        6,
        ("failed in finetune_epoch_end: SystemExit: 0", LEAVE),
    ),
    (
        "an augmentation that fails later",
        augmentation(f"{COUNT}return pixels[: 30 // (20 - change.count)]"),
        {"augment": "[{use: bad}]"},
        6,
        (f"augment[0] ('bad' of {TITLE}) failed on '", "ZeroDivisionError: integer division or modulo by zero", LEAVE),
    ),
    (
        "an augmentation of another type",
        augmentation(f"{COUNT}return pixels if change.count < 20 else pixels / 2"),
        {"augment": "[{use: bad}]"},
        6,
        (
            "returned an array of shape 16x16x3 and type float64 for '",
            "return (height, width, 3) uint8; the eng",
            LEAVE,
        ),
    ),
    (
        "state that is no JSON",
        listening("finetune_epoch_end", "run.state['bad'] = {1, 2}"),
        {},
        6,
        ("run.state['bad'] cannot be saved as JSON", "keep numbers, text"),
    ),
]
# What they do is not nice, but runs end as they should.
HARMLESS = {
    "prints": listening("finetune_epoch_end", "print('hello')"),
    "changes the folder": listening("finetune_step_end", "import os\n    os.chdir('/')"),
    "changes the environment": listening(
        "finetune_run_start", "import os\n    os.environ['FINETUNE_HOME'] = '/nowhere'"
    ),
    "seeds": listening("finetune_step_end", "np.random.seed(0)"),
    "closes standard output": listening("finetune_run_end", "import sys\n    sys.stdout = None"),
}


@pytest.fixture(scope="module")
def graph_mode() -> Any:
    """Leave MindSpore to others as they expect it."""
    from finetune.devices import device

    yield
    device.setup(device="cpu")


def recipe(folder: Path, sections: dict[str, str], source: str | None, name: str = "bad") -> None:
    """Write a recipe and its photos, and install a sound network and a broken plugin."""
    drawn(folder / "photos", each=5, size=16)
    install(folder, "from tests.trunk.tiny import Tiny\nplugin = Tiny()\n", "tiny", "tiny_plugin:plugin")
    (folder / "r.yaml").write_text("".join(f"{key}: {value}\n" for key, value in (RECIPE | sections).items()))
    if source is not None:
        install(folder, source, name)


def finetune(folder: Path, *words: str, disable: str = "") -> Outcome:
    """Call the command line in this process."""
    with mock.patch.dict(os.environ, FINETUNE_DISABLE_PLUGINS=disable):
        return outcome(case("", "", lambda folder: words, 0), folder)


def named(found: Outcome, says: tuple[str, ...]) -> list[str]:
    """Return what a message lacks: the plugin with its package and version, and more."""
    return [text for text in (TITLE, *says) if text not in found.message]


@pytest.mark.parametrize(("source", "sections", "code", "says"), [r[1:] for r in LOADED], ids=[r[0] for r in LOADED])
def test_broken_where_it_is_loaded(
    source: str, sections: dict[str, str], code: int, says: tuple[str, ...], tmp_path: Path
) -> None:
    recipe(tmp_path, sections, source)
    found = finetune(tmp_path, "run", "r.yaml")
    assert (found.code, named(found, (*says, LEAVE))) == (code, []), found.message
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("source", "sections", "code", "says"), [r[1:] for r in USED], ids=[r[0] for r in USED])
def test_broken_where_it_is_used(
    source: str, sections: dict[str, str], code: int, says: tuple[str, ...], tmp_path: Path
) -> None:
    recipe(tmp_path, sections, source)
    found = finetune(tmp_path, "run", "r.yaml")
    assert (found.code, named(found, says)) == (code, []), found.message
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("source", "sections", "code", "says"), [r[1:] for r in TRAINING], ids=[r[0] for r in TRAINING]
)
def test_broken_while_a_run_trains(
    source: str, sections: dict[str, str], code: int, says: tuple[str, ...], tmp_path: Path
) -> None:
    recipe(tmp_path, sections, source)
    found = finetune(tmp_path, "run", "r.yaml")
    assert (found.code, named(found, says)) == (code, []), found.message
    assert "Traceback" not in found.stderr
    assert list((tmp_path / "runs" / "r-001" / "checkpoints").glob("*.safetensors"))


def test_a_plugin_that_fails_when_it_hears_of_an_error_is_named_too(tmp_path: Path) -> None:
    source = listening("finetune_epoch_end", FAIL) + listening("finetune_run_error", "raise OSError('no mail')")
    recipe(tmp_path, {}, source)
    found = finetune(tmp_path, "run", "r.yaml")
    assert (found.code, named(found, ("failed in finetune_epoch_end: KeyError: 'gone'",))) == (6, [])
    assert f"warning: {TITLE} failed in finetune_run_error: OSError: no mail" in found.stderr


def test_other_commands_and_recipes_work(tmp_path: Path) -> None:
    recipe(tmp_path, {}, None)
    rows = [row for row in (*LOADED, *USED, *TRAINING) if row[0] != "a name that is taken"]
    sources = {f"bad{number}": source for number, (_, source, *_) in enumerate(rows)}
    for name, source in sources.items():
        install(tmp_path, source.replace("name='bad'", f"name='{name}'"), name)
    listens = [name for name, source in sources.items() if any(f"\ndef {event}" in source for event in EVENTS)]
    found = finetune(tmp_path, "plugins")
    assert found.code == 0
    broken = {each["plugin"]: each for each in found.answer["broken"]}
    assert {*broken} == {*[*sources][: len(LOADED)]}
    for name, each in broken.items():
        assert (each["package"], each["version"]) == (f"{name}-plugin", "1.2")
        assert each["error"]
        assert each["remedy"] == LEAVE.replace("bad", name)
    assert finetune(tmp_path, "ls").code == 0
    assert finetune(tmp_path, "check", "r.yaml").code == 0
    found = finetune(tmp_path, "run", "r.yaml", disable=",".join(listens))
    assert (found.code, found.answer["epochs"]) == (0, 2), found.message


def test_what_misbehaves_does_no_harm(tmp_path: Path) -> None:
    recipe(tmp_path, {}, None)
    for number, source in enumerate(HARMLESS.values()):
        install(tmp_path, source, f"bad{number}")
    found = finetune(tmp_path, "run", "r.yaml")
    assert (found.code, found.answer["epochs"]) == (0, 2), found.message
    assert (tmp_path / "runs" / "r-001" / "result.json").exists()


@pytest.mark.parametrize("source", ["finetune_api = 1\n", ""])
def test_this_api_version_or_none_is_taken(source: str, tmp_path: Path) -> None:
    recipe(tmp_path, BIRDS, source + dataset())
    assert finetune(tmp_path, "check", "r.yaml").code == 0


def test_an_object_may_say_its_api_version_or_its_module(tmp_path: Path) -> None:
    recipe(tmp_path, {}, None)
    install(tmp_path, "class P:\n    finetune_api = 3\nplugin = P()\n", "one", "one_plugin:plugin")
    install(tmp_path, "finetune_api = 4\nclass P: ...\nplugin = P()\n", "two", "two_plugin:plugin")
    errors = {each["plugin"]: each["error"] for each in finetune(tmp_path, "plugins").answer["broken"]}
    assert errors["one"].startswith("finetune_api is 3, and mindspore-finetune ")
    assert errors["two"].endswith(" has 1; install another version of one of them")


def test_there_are_enough_and_every_hook_is_among_them() -> None:
    rows = [*LOADED, *USED, *TRAINING]
    assert len(rows) >= 25
    names = [row[0] for row in rows]
    assert len(set(names)) == len(names)
    failing = {hook for hook in HOOKS if any(f"def {hook}" in row[1] for row in rows)}
    assert failing | {"finetune_run_error"} == set(HOOKS)
