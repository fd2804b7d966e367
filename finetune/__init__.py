"""Fine-tune pretrained image networks on MindSpore, from a recipe or from Python.

>>> from finetune import Finetuner
>>> ft = Finetuner(backbone="resnext50", freeze="head")
>>> run = ft.fit("photos/", epochs=5)

Everything a plugin needs is imported from here as well: a plugin is a module with ``@hookimpl`` functions that return
components, found through the entry-point group ``finetune`` (see docs/plugins.md).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from finetune.version import VERSION

if TYPE_CHECKING:
    from finetune.components import (
        IMAGENET_MEAN,
        IMAGENET_STD,
        Augmentation,
        Backbone,
        Callback,
        Dataset,
        Encoded,
        Finding,
        Freezer,
        ImageSpec,
        Layout,
        NoOptions,
        Options,
        RunFacts,
        Samples,
        Split,
        Stage,
        Weights,
    )
    from finetune.data.folderreading import FolderReading, read_folder, split_pattern
    from finetune.data.images import decode
    from finetune.data.pack.packed import read_pack
    from finetune.data.walk import find_images, image_endings, is_text, natural_key
    from finetune.errors import (
        DataError,
        DivergedError,
        DownloadError,
        FinetuneError,
        PluginError,
        RecipeError,
        ResourceError,
        UsageError,
        WeightsError,
    )
    from finetune.files.archive import extract
    from finetune.files.atomic import cache_folder, expand_home
    from finetune.files.download import fetch
    from finetune.files.outputs import existing_file, existing_folder, explain_missing, shorten
    from finetune.finetuner import Finetuner
    from finetune.hookspecs import hookimpl
    from finetune.model.inputs import Prediction
    from finetune.run import Run
    from finetune.suggest import did_you_mean
    from finetune.weights.hubcard import hub_card

__version__ = VERSION

# Both are read when the library is imported: they silence MindSpore's warnings and albumentations' network call.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

_HOMES = {
    "components": (
        "IMAGENET_MEAN",
        "IMAGENET_STD",
        "Augmentation",
        "Backbone",
        "Callback",
        "Dataset",
        "Encoded",
        "Finding",
        "Freezer",
        "ImageSpec",
        "Layout",
        "NoOptions",
        "Options",
        "RunFacts",
        "Samples",
        "Split",
        "Stage",
        "Weights",
    ),
    "data.folderreading": (
        "FolderReading",
        "read_folder",
        "split_pattern",
    ),
    "data.images": ("decode",),
    "data.pack.packed": ("read_pack",),
    "data.walk": (
        "image_endings",
        "is_text",
        "natural_key",
        "find_images",
    ),
    "errors": (
        "DataError",
        "DivergedError",
        "DownloadError",
        "FinetuneError",
        "PluginError",
        "RecipeError",
        "ResourceError",
        "UsageError",
        "WeightsError",
    ),
    "files.archive": ("extract",),
    "files.atomic": (
        "cache_folder",
        "expand_home",
    ),
    "files.download": ("fetch",),
    "files.outputs": (
        "existing_file",
        "existing_folder",
        "explain_missing",
        "shorten",
    ),
    "finetuner": ("Finetuner",),
    "hookspecs": ("hookimpl",),
    "model.inputs": ("Prediction",),
    "run": ("Run",),
    "suggest": ("did_you_mean",),
    "weights.hubcard": ("hub_card",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 - in the order of _HOMES
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Augmentation",
    "Backbone",
    "Callback",
    "Dataset",
    "Encoded",
    "Finding",
    "Freezer",
    "ImageSpec",
    "Layout",
    "NoOptions",
    "Options",
    "RunFacts",
    "Samples",
    "Split",
    "Stage",
    "Weights",
    "FolderReading",
    "read_folder",
    "split_pattern",
    "decode",
    "read_pack",
    "image_endings",
    "is_text",
    "natural_key",
    "find_images",
    "DataError",
    "DivergedError",
    "DownloadError",
    "FinetuneError",
    "PluginError",
    "RecipeError",
    "ResourceError",
    "UsageError",
    "WeightsError",
    "extract",
    "cache_folder",
    "expand_home",
    "fetch",
    "existing_file",
    "existing_folder",
    "explain_missing",
    "shorten",
    "Finetuner",
    "hookimpl",
    "Prediction",
    "Run",
    "did_you_mean",
    "hub_card",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import finetune`` is fast."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")
    return getattr(import_module(f"finetune.{_HOME_OF[name]}"), name)
