"""Reviewed images in one file, read without trusting it in anything.

The arrays are in a zip archive as ``numpy.load`` reads them too; what they must be is
said beside it, in JSON.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_sac.core.errors import TrainingDataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_sac.core.training.reviewed_image import ReviewedImage

_MOST_IMAGES = 10_000
_MOST_PIXELS = 1 << 31
_LONGEST_TEXT = 10_000
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def describe_image(one: ReviewedImage) -> dict[str, Any]:
    """Return what the file will hold of an image, for :func:`read_images`."""
    return {
        "name": one.name,
        "group": one.group,
        "shape": list(one.labels.shape),
        "rejected": len(one.rejected),
        "negatives": len(one.negatives),
    }


def _layout(
    shape: tuple[int, int], rejected: int, negatives: int
) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and dtype of an image's arrays, by the field of ReviewedImage."""
    return {
        "image": ((*shape, 3), np.dtype(np.uint8)),
        "labels": (shape, np.dtype("<i4")),
        "known": (shape, np.dtype(bool)),
        "rejected": ((rejected, 2), np.dtype("<f8")),
        "negatives": ((negatives, 3), np.dtype("<f8")),
    }


def check_amount(images: Sequence[ReviewedImage]) -> None:
    """Refuse more images than :func:`read_images` would read.

    Raises
    ------
    TrainingDataError
    """
    pixels = sum(one.labels.size for one in images)
    if len(images) > _MOST_IMAGES or pixels > _MOST_PIXELS:
        raise TrainingDataError(
            f"{len(images):,} images with {pixels // 10**6:,} megapixels are too many "
            f"for one run here: at most {_MOST_IMAGES:,} with "
            f"{_MOST_PIXELS // 10**6:,}. Nothing was begun. Choose fewer, or fine-tune "
            "on the command line (napari-sac finetune), which has no such limit."
        )


def write_images(file: Path, images: Sequence[ReviewedImage]) -> None:
    """Write the images' arrays, not compressed."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for i, one in enumerate(images):
            shape = (one.labels.shape[0], one.labels.shape[1])
            layout = _layout(shape, len(one.rejected), len(one.negatives))
            for name, (_, dtype) in layout.items():
                values = np.ascontiguousarray(getattr(one, name), dtype)
                entry = zipfile.ZipInfo(f"{i}_{name}.npy", _ZIP_TIME)
                with archive.open(entry, "w", force_zip64=True) as opened:
                    np.lib.format.write_array(
                        opened, values, version=(1, 0), allow_pickle=False
                    )


def read_images(file: Path, described: object) -> list[ReviewedImage]:
    """Return the images that :func:`write_images` wrote.

    Parameters
    ----------
    file : Path
    described : list of object
        What :func:`describe_image` returned for each of them.

    Raises
    ------
    ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile, and what ``zipfile``
    raises for damaged archives
        If the file is not just what is expected, or a value could do harm.
    """
    if not isinstance(described, list) or len(described) > _MOST_IMAGES:
        raise ValueError("there are too many images")
    pixels = 0
    result = []
    with zipfile.ZipFile(file) as archive:
        for i, one in enumerate(described):
            height, width = (_check_count(n, _MOST_PIXELS) for n in one["shape"])
            pixels += height * width
            if pixels > _MOST_PIXELS:
                raise ValueError("the images are too large")
            points = [
                _check_count(one[n], _MOST_PIXELS) for n in ("rejected", "negatives")
            ]
            layout = _layout((height, width), *points)
            arrays = {
                name: _read_array(archive, f"{i}_{name}.npy", *expected)
                for name, expected in layout.items()
            }
            group = check_text(one.get("group", ""))
            image = _checked_image(check_text(one["name"]), arrays)
            result.append(replace(image, group=group))
    return result


def _read_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Return an array, if its header says just what is expected of it."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    entry = archive.getinfo(name)
    # a header is a hundred bytes or so; what unpacks to more is a bomb
    if not size < entry.file_size < size + 4096:
        raise ValueError(f"{name} is of another size")
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    with archive.open(entry) as opened:
        if np.lib.format.read_magic(opened) != (1, 0):
            raise ValueError(f"{name} is of another version")
        try:
            found = np.lib.format.read_array_header_1_0(opened)
        except (SyntaxError, TokenError) as error:
            # the header is Python text
            raise ValueError(f"{name} has no header") from error
        if found != (shape, False, dtype):
            raise ValueError(f"{name} is of another kind")
        data = opened.read()
    if len(data) != size:
        raise ValueError(f"{name} is cut short")
    return np.frombuffer(bytearray(data), dtype).reshape(shape)


def _checked_image(name: str, arrays: dict[str, npt.NDArray[Any]]) -> ReviewedImage:
    """Return an image whose values can do no harm: a label is an index later on."""
    labels, known = arrays["labels"], arrays["known"]
    if labels.size == 0:
        raise ValueError("an image has no pixels")
    if labels.min() < 0 or labels.max() > labels.size:
        raise ValueError("a label is out of range")
    if known.view(np.uint8).max() > 1:
        raise ValueError("a mask is none")
    for points in (arrays["rejected"], arrays["negatives"]):
        # one may lie beside its image, but not at infinity
        if not (np.abs(points) < _MOST_PIXELS).all():
            raise ValueError("a point is nowhere")
    own = arrays["negatives"][:, 2]
    if not np.isin(own, np.unique(labels)).all():
        raise ValueError("a negative point belongs to no nucleus")
    # imported late: it takes half a second, and a dock that opens reads no images
    from napari_sac.core.training.reviewed_image import ReviewedImage

    return ReviewedImage(
        name,
        image=arrays["image"],
        labels=labels,
        known=known,
        rejected=arrays["rejected"],
        negatives=arrays["negatives"],
    )


def check_text(value: object) -> str:
    """Return a text, or raise ``ValueError`` if it is none, or a very long one."""
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or "\0" in value:
        raise ValueError("a text is not one")
    return value


def _check_count(value: object, most: int) -> int:
    """Return a whole number from 0 to ``most``, or raise ``ValueError``."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError("a number is out of range")
    return value
