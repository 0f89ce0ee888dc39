"""What an adapter, and those it was made from, have learned from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_sac.core.errors import IncompatibleAdapterError
from napari_sac.core.io import atomic_path
from napari_sac.core.models.adapter import LEARNED_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_sac.core.models.adapter import AdapterInfo
    from napari_sac.core.training.reviewed_image import ReviewedImage

_FORMAT = 1
_LARGEST = 64 << 20

NucleiByImage = Mapping[str, npt.NDArray[np.int64]]
"""A pixel (N, 2), (y, x), of each of some nuclei, by what their image is known by, as
:func:`~napari_sac.core.training.reviewed_image.image_keys` returns it."""


class Seen(StrEnum):
    """Whether an adapter has learned from the nuclei that it is measured by."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


@dataclass(frozen=True, eq=False)
class Learned:
    """Nuclei that were learned from.

    Parameters
    ----------
    nuclei : dict of str to (N, 2) int64
        The innermost pixel (y, x) of each, by each key of its image.
    names : dict of str to str
        Of the images, by the same keys.
    """

    nuclei: NucleiByImage = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


def learned_by(adapter: AdapterInfo | None) -> Learned:
    """Return what an adapter and those it was made from have learned from.

    Nothing is known of adapters that came with napari-sac.

    Raises
    ------
    IncompatibleAdapterError
        If what lies beside the adapter is no such list.
    """
    file = None if adapter is None else adapter.path / LEARNED_FILE
    # a device would be read without end
    if file is None or not os.path.isfile(file):
        return Learned()
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] != _FORMAT:
            raise ValueError(f"its format is {values['format']!r:.20}")
        images = [(str(one["sha256"]), one) for one in values["images"]]
        return Learned(
            {key: _as_pixels(one["nuclei"]) for key, one in images},
            {key: str(one["name"]) for key, one in images},
        )
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise IncompatibleAdapterError(
            f"{file} does not say what the adapter has learned from ({error}). Nothing "
            "was changed. Get the adapter again from its source, or delete that file: "
            "then nobody knows whether nuclei that it is measured by are new to it."
        ) from error


def write_learned(
    folder: Path, images: Iterable[ReviewedImage], before: Learned
) -> None:
    """Write what an adapter has learned from beside it, atomically.

    Parameters
    ----------
    folder : Path
        Of the adapter.
    images : iterable of ReviewedImage
    before : Learned
        What it went on from has learned from.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    # imported late: it takes long, which opening a dock need not
    from napari_sac.core.training.reviewed_image import image_keys, middles_of

    nuclei, names = dict(before.nuclei), dict(before.names)
    for one in images:
        middles = middles_of(one.labels)
        for key in image_keys(one):
            known = nuclei.get(key, np.empty((0, 2), np.int64))
            nuclei[key] = np.unique(np.concatenate([known, middles]), axis=0)
            names[key] = one.name
    values = [
        {"name": names[key], "sha256": key, "nuclei": pixels.tolist()}
        for key, pixels in nuclei.items()
    ]
    with atomic_path(folder / LEARNED_FILE) as partial:
        partial.write_text(
            json.dumps({"format": _FORMAT, "images": values}), encoding="utf-8"
        )


def has_seen(adapter: AdapterInfo, reviewed: ReviewedImage) -> Seen:
    """Return whether an adapter, or one that it was made from, has learned from nuclei.

    It may have if it has learned from an image of the same name: that may be another
    piece of the same.

    Raises
    ------
    IncompatibleAdapterError
        As :func:`learned_by`.
    """
    # imported late: it takes long, which opening a dock need not
    from napari_sac.core.training.reviewed_image import learned_nuclei

    learned = learned_by(adapter)
    if len(learned_nuclei(reviewed, learned.nuclei)):
        return Seen.YES
    return Seen.MAYBE if reviewed.name in learned.names.values() else Seen.NO


def _as_pixels(values: object) -> npt.NDArray[np.int64]:
    pixels = np.asarray(values).reshape(-1, 2)
    if len(pixels) and not np.issubdtype(pixels.dtype, np.integer):
        raise ValueError("its nuclei are no pixels")
    return pixels.astype(np.int64)
