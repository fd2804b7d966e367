"""Fine-tune pretrained image networks on MindSpore, from a recipe or from Python.

>>> from finetune import Finetuner
>>> ft = Finetuner(backbone="resnext50", freeze="head")
>>> run = ft.fit("photos/", epochs=5)

Everything a plugin needs is imported from here as well: a plugin is a module with ``@hookimpl`` functions that return
components, found through the entry-point group ``finetune`` (see docs/plugins.md).
"""

from __future__ import annotations

import ast
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from finetune.version import VERSION

__version__ = VERSION

# Both are read when the library is imported: they silence MindSpore's warnings and albumentations' network call.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def _read_public_names() -> dict[str, str]:
    """Return the module that defines each public name, from the stub that editors and type checkers read too."""
    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


_HOME_OF = _read_public_names()
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import finetune`` is fast."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
