"""Small pictures for the tests of data sets: each pixel says which picture it is of."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def colour(number: int) -> tuple[int, int, int]:
    """A colour of its own for each picture, up to 250."""
    return number, 255 - number, (7 * number) % 256


def picture(number: int, size: tuple[int, int] = (9, 9)) -> Image.Image:
    return Image.new("RGB", size, colour(number))


def encoded(number: int, kind: str = "PNG") -> bytes:
    file = BytesIO()
    picture(number).save(file, kind)
    return file.getvalue()


def write_folder(root: Path, part: str, classes: Sequence[str], num: int, *, first: int = 0) -> list[Path]:
    """`num` PNG files for each class, in the order in which they are read."""
    paths = []
    for name in classes:
        folder = root / part / name
        folder.mkdir(parents=True)
        for _ in range(num):
            paths.append(folder / f"{len(paths):03d}.png")
            picture(first + len(paths) - 1).save(paths[-1])
    return paths


def colours_of(images: np.ndarray) -> list[tuple[int, int, int]]:
    """Of pictures in one colour each."""
    assert (images == images[:, :1, :1]).all()
    return [tuple(row) for row in images[:, 0, 0].tolist()]
