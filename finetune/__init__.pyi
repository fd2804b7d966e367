"""The public names of ``finetune``, and the modules that define them; ``finetune/__init__.py`` reads this table."""

from finetune.components import (
    IMAGENET_MEAN as IMAGENET_MEAN,
)
from finetune.components import (
    IMAGENET_STD as IMAGENET_STD,
)
from finetune.components import (
    Audit as Audit,
)
from finetune.components import (
    AuditedImages as AuditedImages,
)
from finetune.components import (
    Augmentation as Augmentation,
)
from finetune.components import (
    Backbone as Backbone,
)
from finetune.components import (
    Callback as Callback,
)
from finetune.components import (
    Dataset as Dataset,
)
from finetune.components import (
    Encoded as Encoded,
)
from finetune.components import (
    Finding as Finding,
)
from finetune.components import (
    Freezer as Freezer,
)
from finetune.components import (
    ImageFinding as ImageFinding,
)
from finetune.components import (
    ImageSpec as ImageSpec,
)
from finetune.components import (
    Layout as Layout,
)
from finetune.components import (
    NoOptions as NoOptions,
)
from finetune.components import (
    Options as Options,
)
from finetune.components import (
    RunFacts as RunFacts,
)
from finetune.components import (
    Samples as Samples,
)
from finetune.components import (
    Split as Split,
)
from finetune.components import (
    Stage as Stage,
)
from finetune.components import (
    Weights as Weights,
)
from finetune.data.folderreading import (
    FolderReading as FolderReading,
)
from finetune.data.folderreading import (
    read_folder as read_folder,
)
from finetune.data.folderreading import (
    split_pattern as split_pattern,
)
from finetune.data.images import decode as decode
from finetune.data.pack.packed import read_pack as read_pack
from finetune.data.pack.packfile import is_pack as is_pack
from finetune.data.walk import (
    find_images as find_images,
)
from finetune.data.walk import (
    image_endings as image_endings,
)
from finetune.data.walk import (
    is_text as is_text,
)
from finetune.data.walk import (
    natural_key as natural_key,
)
from finetune.errors import (
    DataError as DataError,
)
from finetune.errors import (
    DivergedError as DivergedError,
)
from finetune.errors import (
    DownloadError as DownloadError,
)
from finetune.errors import (
    FinetuneError as FinetuneError,
)
from finetune.errors import (
    PluginError as PluginError,
)
from finetune.errors import (
    RecipeError as RecipeError,
)
from finetune.errors import (
    ResourceError as ResourceError,
)
from finetune.errors import (
    UsageError as UsageError,
)
from finetune.errors import (
    WeightsError as WeightsError,
)
from finetune.explain.explanation import (
    Explanation as Explanation,
)
from finetune.files.archive import extract as extract
from finetune.files.atomic import (
    cache_folder as cache_folder,
)
from finetune.files.atomic import (
    expand_home as expand_home,
)
from finetune.files.download import fetch as fetch
from finetune.files.outputs import (
    existing_file as existing_file,
)
from finetune.files.outputs import (
    existing_folder as existing_folder,
)
from finetune.files.outputs import (
    explain_missing as explain_missing,
)
from finetune.files.outputs import (
    shorten as shorten,
)
from finetune.finetuner import Finetuner as Finetuner
from finetune.hookspecs import hookimpl as hookimpl
from finetune.model.inputs import Prediction as Prediction
from finetune.model.metrics import is_better as is_better
from finetune.run import (
    Predicted as Predicted,
)
from finetune.run import Run as Run
from finetune.suggest import did_you_mean as did_you_mean
from finetune.weights.hubcard import hub_card as hub_card

__version__: str
