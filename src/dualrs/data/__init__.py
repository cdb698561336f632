"""Data sets that are verified when they are fetched and when they are loaded, and images as tensors."""

from dualrs.data._arrays import ArrayDataset, Dataset
from dualrs.data._augment import random_crop_flip
from dualrs.data._errors import CorruptDataError, DataUnavailableError
from dualrs.data._folder import ImageFolder, load_folder
from dualrs.data._images import decode_image, fit_image, read_image, to_tensor
from dualrs.data._sources import DebianPackage, Download, NpmPackage, Progress, Source
from dualrs.data._store import (
    DatasetInfo,
    available,
    data_root,
    fetch,
    load,
    load_arrays,
    name_of_split,
    open_dataset,
)

__all__ = [
    "ArrayDataset",
    "CorruptDataError",
    "DataUnavailableError",
    "Dataset",
    "DatasetInfo",
    "DebianPackage",
    "Download",
    "ImageFolder",
    "NpmPackage",
    "Progress",
    "Source",
    "available",
    "data_root",
    "decode_image",
    "fetch",
    "fit_image",
    "load",
    "load_arrays",
    "load_folder",
    "name_of_split",
    "open_dataset",
    "random_crop_flip",
    "read_image",
    "to_tensor",
]
