"""The data, on the host and without JAX: which images there are, in what order, as which batches.

A `Source` says what there is and reads example i; some are made of others: parts, mixtures, other
labels. A `Sampling` says which example stands at which position of the training; `decode.decode`
and a `Geometry` make pixels of it; `train_batches` and `evaluation_batches` make batches.
`guess.guess` finds the sources that lie at a path; `prepare.plan` begins a data set that is written
from any source.

Names are imported when they are first used. The functions `decode` and `guess` bear the names of
their modules, and come from there: `from imgclf.data.guess import guess`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgclf.data.arrays import Arrays as Arrays
    from imgclf.data.balance import class_weights as class_weights
    from imgclf.data.check import Finding as Finding
    from imgclf.data.check import findings as findings
    from imgclf.data.check import leaks as leaks
    from imgclf.data.cifar import Cifar as Cifar
    from imgclf.data.class_lists import class_list as class_list
    from imgclf.data.decode import BadImage as BadImage
    from imgclf.data.digits import Digits as Digits
    from imgclf.data.files import Files as Files
    from imgclf.data.folder import Folder as Folder
    from imgclf.data.folder import Images as Images
    from imgclf.data.geometry import Central as Central
    from imgclf.data.geometry import Geometry as Geometry
    from imgclf.data.geometry import Pad as Pad
    from imgclf.data.geometry import Planned as Planned
    from imgclf.data.geometry import RandomResizedCrop as RandomResizedCrop
    from imgclf.data.geometry import Squash as Squash
    from imgclf.data.guess import Guess as Guess
    from imgclf.data.idx import Idx as Idx
    from imgclf.data.measured import Measured as Measured
    from imgclf.data.measured import measure as measure
    from imgclf.data.mixture import Mixture as Mixture
    from imgclf.data.order import GroupOrder as GroupOrder
    from imgclf.data.order import Order as Order
    from imgclf.data.order import Stream as Stream
    from imgclf.data.parquet import Parquet as Parquet
    from imgclf.data.pipeline import Problem as Problem
    from imgclf.data.pipeline import decode_all as decode_all
    from imgclf.data.pipeline import evaluation_batches as evaluation_batches
    from imgclf.data.pipeline import train_batches as train_batches
    from imgclf.data.plan import Plan as Plan
    from imgclf.data.records import Records as Records
    from imgclf.data.relabelled import Relabelled as Relabelled
    from imgclf.data.research import LabelNoise as LabelNoise
    from imgclf.data.research import LongTail as LongTail
    from imgclf.data.sampling import Balanced as Balanced
    from imgclf.data.sampling import EffectiveNumber as EffectiveNumber
    from imgclf.data.sampling import Mixed as Mixed
    from imgclf.data.sampling import Repeated as Repeated
    from imgclf.data.sampling import Sampling as Sampling
    from imgclf.data.sampling import Undersampled as Undersampled
    from imgclf.data.sampling import Uniform as Uniform
    from imgclf.data.source import Source as Source
    from imgclf.data.source import checked_labels as checked_labels
    from imgclf.data.source import fixed_shape as fixed_shape
    from imgclf.data.source import located as located
    from imgclf.data.splits import Fold as Fold
    from imgclf.data.splits import GroupSplit as GroupSplit
    from imgclf.data.splits import Split as Split
    from imgclf.data.subsets import PartiallyLabelled as PartiallyLabelled
    from imgclf.data.subsets import Subset as Subset
    from imgclf.data.synthetic import Synthetic as Synthetic
    from imgclf.data.table import Table as Table
    from imgclf.data.tars import Tar as Tar
    from imgclf.data.tfds import TFDS as TFDS
    from imgclf.data.unlabelled import Empty as Empty

KINDS = ("folder", "table", "cifar", "idx", "arrays", "tfds", "records", "tar", "parquet")
"""What data may be called where their kind is named, as `--kind` does."""

_NAMES = {
    "arrays": ("Arrays",),
    "balance": ("class_weights",),
    "check": ("Finding", "findings", "leaks"),
    "cifar": ("Cifar",),
    "class_lists": ("class_list",),
    "decode": ("BadImage",),
    "digits": ("Digits",),
    "files": ("Files",),
    "folder": ("Folder", "Images"),
    "geometry": ("Central", "Geometry", "Pad", "Planned", "RandomResizedCrop", "Squash"),
    "guess": ("Guess",),
    "idx": ("Idx",),
    "measured": ("Measured", "measure"),
    "mixture": ("Mixture",),
    "order": ("GroupOrder", "Order", "Stream"),
    "parquet": ("Parquet",),
    "pipeline": ("Problem", "decode_all", "evaluation_batches", "train_batches"),
    "plan": ("Plan",),
    "records": ("Records",),
    "relabelled": ("Relabelled",),
    "research": ("LabelNoise", "LongTail"),
    "sampling": (
        "Balanced",
        "EffectiveNumber",
        "Mixed",
        "Repeated",
        "Sampling",
        "Undersampled",
        "Uniform",
    ),
    "source": ("Source", "checked_labels", "fixed_shape", "located"),
    "splits": ("Fold", "GroupSplit", "Split"),
    "subsets": ("PartiallyLabelled", "Subset"),
    "synthetic": ("Synthetic",),
    "table": ("Table",),
    "tars": ("Tar",),
    "tfds": ("TFDS",),
    "unlabelled": ("Empty",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
