"""Single images on their way into the cache: decoded by Pillow, resized and cropped by torchvision.

In: encoded images (files, or bytes), or arrays of decoded ones. Out: uint8 pixels at the study's resolution, and the
`BadImage`s among the encoded ones, each with its name and why it cannot be used.

Size: the largest square in the middle is cropped and resized to the resolution (bilinear, antialiased), so that the
aspect is kept. It shows what resizing the shorter side and cropping the centre shows, but never holds a long strip.
Colour: RGB, or grey as Pillow converts to it. An alpha channel is dropped, and a note that a camera was held sideways
(EXIF) is ignored, as torchvision's `ImageFolder` does.

Shapes: N images, H height, W width.
"""

import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from cluster.machine import num_cores

_BLOCK_BYTES = 2**24
# What is wrong with one file. Other errors (too many open files, a disk that does not answer) are the machine's.
_OF_THE_FILE = {None, errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EINVAL}


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used. `row`: its place in the array, which stays black."""

    row: int
    name: str
    why: str


class _BadImageError(Exception):
    pass


def fitted(images: np.ndarray, resolution: int) -> np.ndarray:
    """Decoded uint8 images (N, H, W) or (N, H, W, 3) at the resolution."""
    if images.shape[1:3] == (resolution, resolution):
        return images
    num = max(1, _BLOCK_BYTES // max(1, images[0].nbytes))
    return np.concatenate([_fitted(images[first : first + num], resolution) for first in range(0, len(images), num)])


def _fitted(images: np.ndarray, resolution: int) -> np.ndarray:
    import torch
    from torchvision.transforms.v2 import functional

    x = torch.from_numpy(np.array(_middle(images)))  # a copy: torch wants to be able to write
    if x.ndim == 3:
        return functional.resize(x, [resolution, resolution], antialias=True).numpy()
    x = functional.resize(x.permute(0, 3, 1, 2), [resolution, resolution], antialias=True)
    return x.permute(0, 2, 3, 1).numpy()


def _middle(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[:, top : top + side, left : left + side]


def decoded(
    contents: Sequence[Path | bytes], names: Callable[[int], str], first_row: int, *, num_channels: int, resolution: int
) -> tuple[np.ndarray, list[BadImage]]:
    """Encoded images as uint8 (N, H, W) or (N, H, W, 3), on all cores; `names` answers that of a row."""
    colour = () if num_channels == 1 else (num_channels,)
    images = np.zeros((len(contents), resolution, resolution, *colour), np.uint8)
    bad = []

    def one(number: int) -> str:
        try:
            images[number] = fitted(_decode(contents[number], num_channels)[None], resolution)[0]
        except _BadImageError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(num_cores()) as pool:
        for number, why in enumerate(pool.map(one, range(len(contents)))):
            if why:
                bad.append(BadImage(first_row + number, names(first_row + number), why))
    return images, bad


def _decode(content: Path | bytes, num_channels: int) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3). Raises `_BadImageError`."""
    from PIL import Image, UnidentifiedImageError

    try:
        if not (os.stat(content).st_size if isinstance(content, Path) else len(content)):
            raise _BadImageError("is empty")
        with Image.open(content if isinstance(content, Path) else BytesIO(content)) as image:
            if image.mode[0] in "IF":
                raise _BadImageError(f"has more than 8 bits a pixel (mode {image.mode})")
            return np.asarray(image.convert("L" if num_channels == 1 else "RGB"))
    except (_BadImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise _BadImageError("is no image that Pillow can read") from error
    except OSError as error:
        if error.errno not in _OF_THE_FILE:
            raise
        raise _BadImageError(error.strerror or str(error)) from error
    except Exception as error:  # decoders raise whatever they stumble over
        raise _BadImageError(f"{type(error).__name__}: {error}") from error
