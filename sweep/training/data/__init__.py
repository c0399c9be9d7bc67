"""Images on a node: found, checked, and mapped once for all trial processes.

In: `[data]` of a study. Out: `DataFiles`, paths of `.npy` arrays that every process on the node maps, and from them a
`Split` into training and validation images.

    published.py, folder.py, own.py     what is on this machine, or can be downloaded    -> found.py
    images.py                           decoded, cropped, resized
    preparation.py, cache.py            made once, in chunks, with sums                  -> DataFiles
    checking.py, split.py               checked, and opened by trials                    -> Split
"""

from sweep.training.data.cache import cache_dir
from sweep.training.data.checking import DamagedDataError
from sweep.training.data.preparation import DataFiles, describe, find_source, prepare
from sweep.training.data.split import PerChannel, Split, num_train_images, open_split, open_test

__all__ = [
    "DamagedDataError",
    "DataFiles",
    "PerChannel",
    "Split",
    "cache_dir",
    "describe",
    "find_source",
    "num_train_images",
    "open_split",
    "open_test",
    "prepare",
]
