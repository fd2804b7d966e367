"""Contract checks for plugins, to be called in a plugin's own tests.

>>> from finetune.testing import check_dataset
>>> def test_contract(finetune_photos):
...     check_dataset("byname", {"root": finetune_photos})

Each check takes a component, or the name of an installed one, and its options as in a recipe. It raises one
``ContractError`` that lists every broken rule with the observation and a remedy. ``finetune_photos`` is a pytest
fixture that is available wherever this project is installed: a folder of small photos, one folder for each class.
"""

from finetune.testing.audits import check_audit
from finetune.testing.augmentations import check_augmentation
from finetune.testing.backbones import check_backbone
from finetune.testing.callbacks import check_callback
from finetune.testing.contract import ContractError
from finetune.testing.datasets import check_dataset
from finetune.testing.freezers import check_freezer
from finetune.testing.photos import draw_photos

__all__ = [
    "ContractError",
    "check_audit",
    "check_augmentation",
    "check_backbone",
    "check_callback",
    "check_dataset",
    "check_freezer",
    "draw_photos",
]
