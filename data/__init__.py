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
    HoldOutError,
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
from data._classes import Names, by_label, find_class
from data._copies import compare_files
from data._decode import FileFact, decode, decoder_versions, file_fact, quiet_pillow
from data._feature_loader import FeatureLoader
from data._imbalance import Imbalance, label_order
from data._loader import Batch, Loader
from data._near_duplicates import image_hashes, near_pairs
from data._notes import OWN_SHARES, SHARED_GROUPS, Validation
from data._progress import of_files, progress
from data._split import build
from data._statistics import content_key
from data.samplers._base import Sampler

__all__ = [
    "OWN_SHARES",
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
    "HoldOutError",
    "ImageShape",
    "Images",
    "Imbalance",
    "Labelled",
    "Loader",
    "LongTailed",
    "Names",
    "Pool",
    "Sampler",
    "Size",
    "Source",
    "Split",
    "Validation",
    "build",
    "by_label",
    "class_histogram",
    "compare_files",
    "content_key",
    "data_root",
    "decode",
    "decoder_versions",
    "file_fact",
    "find_class",
    "image_hashes",
    "label_order",
    "near_pairs",
    "of_files",
    "progress",
    "quiet_pillow",
]
