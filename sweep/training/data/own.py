"""A user's own arrays: an `.npz` file of decoded images, or Parquet of encoded ones.

In: `data.path`, one of

    images.npz          train_images, train_labels, test_images, test_labels; or images, labels
    images.parquet      columns `image` (encoded bytes, or a struct with the field `bytes`) and `label` (integer)
    a folder            train*.parquet, and test*.parquet or val*.parquet with the same columns, in the order of names

Out: a `Found`. Where there is no test set, a share of the images is held out for it (found.py). Decoded images are
uint8 (N, H, W) or (N, H, W, 3), labels integers (N,). Nothing is unpickled.

The digest is over names and sizes, and for `.npz` over the checksum that the file has of each array, for Parquet over
the last MiB of each file, where its footer stands. Parquet is read on from where the last chunk ended: a row group is
never in memory as a whole.
"""

import os
import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sweep.studies import Data
from sweep.training.data.found import Found, Part, check_labels, given_by, held_out, own_path, part_of, short_digest
from sweep.training.data.images import BadImage, decoded

_TAIL_BYTES = 2**20
_ROWS_AT_ONCE = 64
_DECODED_AT_ONCE = 256  # their encoded bytes are in memory, which may be larger than what becomes of them
_BUFFER_BYTES = 2**20


def find_own(data: Data) -> Found:
    """Raises `ValueError` where the files do not hold what the study states."""
    path = own_path(data)
    if path.suffix == ".npz" and path.is_file():
        return _find_npz(path, data)
    if path.suffix == ".parquet" and path.is_file():
        return _find_parquet([path], [], path, data)
    train, test = (_parquet_in(path, prefixes) for prefixes in (["train"], ["test", "val"]))
    if not train:
        raise ValueError(
            f"{given_by(data)} = {str(path)!r} is neither an .npz file nor a .parquet file nor a folder with "
            "train*.parquet; name one of them"
        )
    return _find_parquet(train, test, path, data)


def _parquet_in(folder: Path, prefixes: Sequence[str]) -> list[Path]:
    found = (sorted(folder.glob(f"{prefix}*.parquet")) for prefix in prefixes)
    return next((paths for paths in found if paths), [])


# -- npz -----------------------------------------------------------------------------------------------------------


def _find_npz(path: Path, data: Data) -> Found:
    try:
        with path.open("rb") as file, _npz(file) as arrays:
            sets = _npz_keys(path, set(arrays.files))
            for images_key, labels_key in sets:
                _check_images(path, images_key, *_header(arrays, images_key), data)
                _check_integers(path, labels_key, *_header(arrays, labels_key), _header(arrays, images_key)[0][0])
            labels = [np.asarray(arrays[key]) for _, key in sets]
            members = [f"{info.filename}\0{info.file_size}\0{info.CRC}\0" for info in arrays.zip.infolist()]
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"data.path: {str(path)!r} cannot be read ({error}); write it again") from error
    test_rows = held_out([str(row) for row in range(len(labels[0]))]) if len(sets) == 1 else None
    train, test = labels if test_rows is None else (labels[0][~test_rows], labels[0][test_rows])
    check_labels(train, test, data.num_classes, str(path))
    return Found(
        source=str(path) if test_rows is None else f"{path} (test set: {len(test)} of its images, held out)",
        digest=short_digest(members),
        parts=partial(_npz_parts, path, sets, test_rows),
        version=short_digest([str(path.stat().st_mtime_ns)]),
    )


def _npz(file: BinaryIO) -> Any:
    if not zipfile.is_zipfile(file):
        raise zipfile.BadZipFile("it is no whole .npz file")
    file.seek(0)
    return np.load(file, allow_pickle=False)


def _npz_keys(path: Path, there: set[str]) -> list[tuple[str, str]]:
    for sets in ([("train_images", "train_labels"), ("test_images", "test_labels")], [("images", "labels")]):
        if {key for pair in sets for key in pair} <= there:
            return sets
    raise ValueError(
        f"data.path: {str(path)!r} holds {', '.join(sorted(there)) or 'nothing'}; it must hold train_images, "
        "train_labels, test_images and test_labels, or images and labels"
    )


def _header(arrays: Any, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, without reading it."""
    with arrays.zip.open(f"{key}.npy") as file:
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"data.path: {key} has the format {version} of numpy; write it again with numpy.savez")
        shape, _, dtype = readers[version](file)
    return shape, dtype


def _check_images(path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype, data: Data) -> None:
    if dtype != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3) or 0 in shape:
        raise ValueError(
            f"data.path: {key} in {str(path)!r} is {dtype} {shape}; it must be uint8 (N, H, W) for grey images or "
            "(N, H, W, 3) for RGB"
        )
    num_channels = 1 if len(shape) == 3 else 3
    if num_channels != data.num_channels:
        raise ValueError(
            f"data.num_channels = {data.num_channels}, but {key} in {str(path)!r} has {num_channels}; correct it"
        )


def _check_integers(path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype, num: int) -> None:
    if dtype.kind not in "iu" or shape != (num,):
        raise ValueError(
            f"data.path: {key} in {str(path)!r} is {dtype} {shape}; it must hold an integer for each of {num} images"
        )


def _npz_parts(path: Path, sets: list[tuple[str, str]], test_rows: np.ndarray | None) -> tuple[Part, Part]:
    with path.open("rb") as file, _npz(file) as arrays:
        found = [(arrays[images], arrays[labels]) for images, labels in sets]
    if test_rows is not None:
        ((images, labels),) = found
        found = [(images[rows], labels[rows]) for rows in (~test_rows, test_rows)]
    train, test = (part_of(images, labels) for images, labels in found)
    return train, test


# -- Parquet -------------------------------------------------------------------------------------------------------


def _find_parquet(train: list[Path], test: list[Path], path: Path, data: Data) -> Found:
    labels = _labels(train)
    if test:
        rows = [(train, np.arange(len(labels)), labels), (test, np.arange(len(_labels(test))), _labels(test))]
    else:
        chosen = held_out([str(row) for row in range(len(labels))])
        rows = [(train, np.flatnonzero(which), labels[which]) for which in (~chosen, chosen)]
    check_labels(rows[0][2], rows[1][2], data.num_classes, str(path))
    how = "" if test else f" (test set: {len(rows[1][1])} of its images, held out)"
    files = [(file, file.stat()) for file in (*train, *test)]
    return Found(
        source=f"{path}{how}",
        digest=short_digest(f"{file.name}\0{found.st_size}\0{_tail(file)}\0" for file, found in files),
        parts=lambda: (_parquet_part(*rows[0], data.num_channels), _parquet_part(*rows[1], data.num_channels)),
        version=short_digest(f"{found.st_mtime_ns}\0" for _, found in files),
        is_encoded=True,
    )


def _tail(file: Path) -> str:
    with file.open("rb") as opened:
        opened.seek(max(0, os.fstat(opened.fileno()).st_size - _TAIL_BYTES))
        return opened.read().hex()


def _opened(path: Path) -> pq.ParquetFile:
    """Checked for its columns."""
    try:
        file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"data.path: {str(path)!r} cannot be read as Parquet ({error}); write it again") from error
    schema = file.schema_arrow
    types = {name: schema.field(name).type for name in ("image", "label") if name in schema.names}
    image = types.get("image")
    if image is not None and pa.types.is_struct(image):
        image = next((field.type for field in image if field.name == "bytes"), None)
    is_binary = image is not None and (pa.types.is_binary(image) or pa.types.is_large_binary(image))
    if not is_binary or not pa.types.is_integer(types.get("label", pa.null())):
        raise ValueError(
            f"data.path: {str(path)!r} has the columns {', '.join(f'{field.name}: {field.type}' for field in schema)}; "
            "it needs image: binary, or a struct with bytes, and label: an integer"
        )
    return file


def _labels(paths: list[Path]) -> np.ndarray:
    columns = []
    for path in paths:
        with _opened(path) as file:
            column = file.read(columns=["label"])["label"]
        if column.null_count:
            raise ValueError(f"data.path: {str(path)!r} has {column.null_count} rows without a label; drop them")
        columns.append(column.to_numpy())
    return np.concatenate(columns)


class _Encoded:
    """The encoded images of several files by their number. Reading on from the last one is cheap, going back is not."""

    def __init__(self, paths: list[Path]):
        files = [_opened(path) for path in paths]
        self._groups = [(file, group) for file in files for group in range(file.num_row_groups)]
        sizes = [file.metadata.row_group(group).num_rows for file, group in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._group, self._first, self._batch, self._batches = -1, 0, pa.array([]), iter(())

    def take(self, numbers: np.ndarray) -> list[bytes]:
        """Those with these numbers, which rise."""
        found = []
        for number in numbers.tolist():
            while not self._first <= number < self._first + len(self._batch):
                self._go_towards(number)
            found.append(self._batch[number - self._first].as_py() or b"")
        return found

    def _go_towards(self, number: int) -> None:
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        if group != self._group or number < self._first:
            file, inside = self._groups[group]
            self._batches = file.iter_batches(_ROWS_AT_ONCE, row_groups=[inside], columns=["image"])
            self._group, self._first = group, int(self._starts[group])
        else:
            self._first += len(self._batch)
        column: Any = next(self._batches).column(0)
        self._batch = column.field("bytes") if pa.types.is_struct(column.type) else column


def _parquet_part(paths: list[Path], rows: np.ndarray, labels: np.ndarray, num_channels: int) -> Part:
    encoded = _Encoded(paths)

    def read(first: int, end: int, resolution: int) -> tuple[np.ndarray, list[BadImage]]:
        steps = range(first, end, _DECODED_AT_ONCE)
        done = [some(step, min(step + _DECODED_AT_ONCE, end), resolution) for step in steps]
        return np.concatenate([images for images, _ in done]), [image for _, bad in done for image in bad]

    def some(first: int, end: int, resolution: int) -> tuple[np.ndarray, list[BadImage]]:
        try:
            contents = encoded.take(rows[first:end])
        except (pa.ArrowException, OSError) as error:
            files = ", ".join(map(str, paths[:3]))
            raise ValueError(f"data.path: {files}: cannot be read ({error}); write it again") from error
        return decoded(contents, partial(_name, rows), first, num_channels=num_channels, resolution=resolution)

    return Part(labels, read)


def _name(rows: np.ndarray, row: int) -> str:
    return f"row {rows[row]}"
