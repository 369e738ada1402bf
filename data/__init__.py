"""Data sets, their long-tailed splits, samplers, augmentation and loading.

One file is one data set; its class is built with the root of raw data and its config keys, and
:func:`build` makes splits of it.
"""

from data._augment import Augment
from data._base import (
    Classes,
    DataError,
    Decoding,
    DiskImages,
    Images,
    ImageShape,
    Labelled,
    LongTailed,
    Pool,
    Size,
    Source,
    Split,
    data_root,
)
from data._class_index import ClassIndex, class_histogram
from data._classes import by_label
from data._decode import FileFact, decode, file_fact, quiet_pillow
from data._feature_loader import FeatureLoader
from data._imbalance import Imbalance, label_order
from data._loader import Batch, Loader
from data._near_duplicates import image_hashes, near_pairs
from data._notes import SHARED_GROUPS, Validation
from data._progress import progress
from data._split import build
from data.samplers._base import Sampler

__all__ = [
    "SHARED_GROUPS",
    "Augment",
    "Batch",
    "ClassIndex",
    "Classes",
    "DataError",
    "Decoding",
    "DiskImages",
    "FeatureLoader",
    "FileFact",
    "ImageShape",
    "Images",
    "Imbalance",
    "Labelled",
    "Loader",
    "LongTailed",
    "Pool",
    "Sampler",
    "Size",
    "Source",
    "Split",
    "Validation",
    "build",
    "by_label",
    "class_histogram",
    "data_root",
    "decode",
    "file_fact",
    "image_hashes",
    "label_order",
    "near_pairs",
    "progress",
    "quiet_pillow",
]
