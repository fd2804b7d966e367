"""Sources of installed plugins that are broken, with recipes that need them, and what is to be said."""

from __future__ import annotations

from finetune.plugins import HOOKS

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
LEAVE = "update or fix bad-plugin, or disable it with FINETUNE_DISABLE_PLUGINS=bad"
TITLE = "plugin 'bad' (bad-plugin 1.2)"
BIRDS = {"dataset": "{use: bad}"}
IMAGES = "[np.full((16, 16, 3), i, np.uint8) for i in range(12)]"
EVENTS = HOOKS[7:]

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
    ("wrong API version", "finetune_api = 2", BIRDS, 2, ("finetune_api is 2, but mindspore-finetune ", " has 1;")),
    ("API version that is text", "finetune_api = '1'", BIRDS, 2, ("finetune_api is '1', but mindspore-finetune ",)),
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
        ("'finetune_datasets' is missing @hookimpl; add the decorator",),
    ),
    (
        "an extra argument",
        f"{HEAD}@hookimpl\ndef finetune_datasets(run): ...",
        BIRDS,
        2,
        ("'finetune_datasets' has the unknown argument 'run'; it has no arguments",),
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
        for hook in HOOKS[:6]
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
        ("an array of shape 16x16 and type uint8 is not an image; pass (height, width, 3) uint8",),
    ),
    (
        "images of another type",
        dataset(images=IMAGES.replace("np.uint8", "np.float32")),
        BIRDS,
        3,
        ("an array of shape 16x16x3 and type float32 is not an image; pass (height, width, 3) uint8",),
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
        ("built stages b but declares a; make them equal, in the same order", LEAVE),
    ),
    (
        "features of another width",
        backbone("return {'a': nn.Conv2d(3, 4, 2, 2)}", features=8),
        {"backbone": "{use: bad, weights: none}"},
        6,
        ("failed in stages of backbone 'bad': backbone 'bad' returns features of shape 1x4 but declares 8", LEAVE),
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
        ("freezing policy 'bad' returned unknown stage 'layer4'; known: body, head, neck, stem", LEAVE),
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
        augmentation(f"{COUNT}return pixels[: 30 // (28 - change.count)]"),
        {"augment": "[{use: bad}]"},
        6,
        (f"augment[0] ('bad' of {TITLE}) failed on '", "ZeroDivisionError: integer division or modulo by zero", LEAVE),
    ),
    (
        "an augmentation of another type",
        augmentation(f"{COUNT}return pixels if change.count < 28 else pixels / 2"),
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
        ("run.state['bad'] cannot be saved as JSON", "store only numbers, text"),
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
