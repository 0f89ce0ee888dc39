"""The images of *File > Open Sample > Segment Any Cell*.

What must be downloaded takes long: :mod:`napari_sac.widgets.samples` waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_sac.core.datasets import dsb2018, monuseg
from napari_sac.core.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_sac.core.datasets.archive import RemoteArchive
    from napari_sac.core.datasets.pairs import LabelledImage

    LayerData = tuple[Any, dict[str, Any], str]

MONUSEG_MICROMETRES = 0.25
"""Size of a pixel of MoNuSeg, which was scanned at 40 x."""


def immunohistochemistry() -> list[LayerData]:
    """Return stained tissue that scikit-image brings along; no network is needed.

    Its nuclei are blue, a protein in some of its cells is brown.
    """
    from skimage import data

    image = data.immunohistochemistry()
    return [(image, {"name": "immunohistochemistry", "rgb": True}, "image")]


def dsb2018_samples(
    progress: Progress = ignore_progress,
    cache: Path | None = None,
    archive: RemoteArchive = dsb2018.DSB2018,
) -> list[LayerData]:
    """Return an image of each kind in the 2018 Data Science Bowl, and its true labels.

    Raises
    ------
    Cancelled
        By ``progress``; nothing is kept then.
    DownloadError
        If there is no network; the message says so, and where else to get the file.
    """
    samples = dsb2018.fetch_samples(cache, progress, archive)
    return _as_layers(samples, dsb2018.SAMPLES, {})


def monuseg_samples(
    progress: Progress = ignore_progress,
    cache: Path | None = None,
    archive: RemoteArchive = monuseg.MONUSEG_TRAINING,
) -> list[LayerData]:
    """Return tissue from MoNuSeg 2018, and its true labels.

    Raises
    ------
    Cancelled
        By ``progress``; nothing is kept then.
    DownloadError
        If there is no network; the message says so, and where else to get the file.
    """
    samples = monuseg.fetch_samples(cache, progress, archive)
    scale = (MONUSEG_MICROMETRES, MONUSEG_MICROMETRES)
    return _as_layers(samples, monuseg.SAMPLES, {"scale": scale, "units": ("um", "um")})


def _as_layers(
    samples: tuple[LabelledImage, ...],
    titles: Mapping[str, str],
    geometry: dict[str, Any],
) -> list[LayerData]:
    """Return an image and hidden labels for each sample; only the last is shown.

    It is the newest, so the one in which the dock looks for nuclei.
    """
    layers: list[LayerData] = []
    for i, sample in enumerate(samples):
        title = titles[sample.name]
        image, labels = {"name": title}, {"name": f"{title}, true nuclei"}
        shown = {"visible": i == len(samples) - 1} | geometry
        layers.append((sample.image, image | shown, "image"))
        layers.append((sample.labels, labels | geometry | {"visible": False}, "labels"))
    return layers
