"""The 2018 Data Science Bowl, stage 1 training images (BBBC038v1, CC0).

Caicedo et al. (2019), Nature Methods 16:1247. 670 images: fluorescence, purple-stained
tissue and brightfield. The official layout is ``ID/images/ID.png`` with one file a
nucleus in ``ID/masks/``.
"""

from collections.abc import Container, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from napari_sac.core.datasets.archive import (
    RemoteArchive,
    dataset_cache,
    extract_archive,
    fetch_archive,
)
from napari_sac.core.datasets.pairs import LabelledImage
from napari_sac.core.errors import ImageFormatError, LabelFormatError
from napari_sac.core.io import read_image
from napari_sac.core.progress import Progress, ignore_progress
from napari_sac.core.types import AnyArray, BoolArray, IntArray

# The Broad Institute publishes no hash; this is what several public projects measured
# independently of each other.
DSB2018 = RemoteArchive(
    title="the 2018 Data Science Bowl images (BBBC038)",
    file_name="bbbc038_stage1_train.zip",
    url="https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",
    sha256="dcb6edc2690f137406638b2309581a71522c4dff19157d118453b448dcddcb68",
    homepage="https://bbbc.broadinstitute.org/BBBC038",
    licence="CC0",
)


SAMPLES: Mapping[str, str] = {
    "e5384c905e9879cb6e8ff5250fb03155bc1db035d8dde458eece9078b7de8ff1": "Fluorescence",
    "ea94ba4b01d1bd5f7768d10e0ac547743791033df545c71fcec442d0cb5cb5e7": "Purple tissue",
    "2a1a294e21d76efd0399e4eb321b45f44f7510911acd92c988480195c5b4c812": "Brightfield",
}
"""Name and title of one image of each kind, none used to train the shipped model."""


def fetch_dsb2018(
    cache: str | Path | None = None,
    progress: Progress = ignore_progress,
    archive: RemoteArchive = DSB2018,
) -> Path:
    """Return the folder of the whole collection, downloaded if it is not there yet.

    Parameters
    ----------
    cache : str or Path, optional
        Where to keep the archive and the folder; the user's cache by default.
    progress : Progress, optional
        Called with bytes while downloading and with files while unpacking.
    archive : RemoteArchive, optional
        A mirror.

    Raises
    ------
    DownloadError, OutputError
        As :mod:`~napari_sac.core.datasets.archive` raises them.
    """
    return _fetch(archive, "dsb2018", None, cache, progress)


def fetch_samples(
    cache: str | Path | None = None,
    progress: Progress = ignore_progress,
    archive: RemoteArchive = DSB2018,
) -> tuple[LabelledImage, ...]:
    """Return the images of ``SAMPLES``, downloaded if they are not there yet.

    The parameters and errors are those of :func:`fetch_dsb2018`.
    """
    folder = _fetch(archive, "dsb2018-samples", SAMPLES.keys(), cache, progress)
    found = {path.name: path for path in find_dsb2018(folder)}
    return tuple(read_dsb2018(found[name]) for name in SAMPLES)


def find_dsb2018(folder: str | Path) -> tuple[Path, ...]:
    """Return the folder of each image of an unpacked collection, in order of name.

    Raises
    ------
    ImageFormatError
        If no folder below it has an ``images`` folder in it.
    """
    root = Path(folder)
    found = tuple(sorted(p.parent for p in root.rglob("images") if p.is_dir()))
    if not found:
        raise ImageFormatError(
            f"{root} is not the 2018 Data Science Bowl: no ID/images folder in it. "
            "Choose the folder that stage1_train.zip was unpacked to."
        )
    return found


def read_dsb2018(folder: str | Path) -> LabelledImage:
    """Return one image and its labels, from its folder ``ID``.

    The nuclei are numbered 1, 2, ... in the order of the mask files. Masks should not
    overlap; where they do the pixel stays with the first.

    Returns
    -------
    LabelledImage
        ``image`` as stored: (H, W, 4) uint8 RGBA in the official archive; ``labels``
        (H, W) int32.

    Raises
    ------
    ImageFormatError
        If the folder does not have exactly one readable image.
    LabelFormatError
        If it has no masks, or one that cannot be read or is of another size.
    """
    root = Path(folder)
    images = sorted((root / "images").glob("*.png"))
    if len(images) != 1:
        raise ImageFormatError(
            f"{root / 'images'} holds {len(images)} PNG files, not one. "
            "Unpack stage1_train.zip again."
        )
    image = read_image(images[0])
    masks = sorted((root / "masks").glob("*.png"))
    if not masks:
        raise LabelFormatError(
            f"There are no PNG files in {root / 'masks'}. Unpack stage1_train.zip "
            "again; the test images of the Bowl came without masks."
        )
    return LabelledImage(root.name, image, _join_masks(masks, image.shape[:2]))


def _join_masks(paths: list[Path], shape: tuple[int, ...]) -> IntArray:
    labels = np.zeros(shape, dtype=np.int32)
    count = 0
    for path in paths:
        try:
            mask = _foreground(read_image(path))
        except ImageFormatError as error:
            raise LabelFormatError(str(error)) from error
        if mask.shape != shape:
            raise LabelFormatError(
                f"{path} is {mask.shape}, its image is {shape} (height, width). "
                "Unpack stage1_train.zip again."
            )
        free = mask & (labels == 0)
        if free.any():
            count += 1
            labels[free] = count
    return labels


def _foreground(mask: AnyArray) -> BoolArray:
    # An alpha channel, if there is one, is opaque everywhere and says nothing.
    grey: AnyArray = mask if mask.ndim == 2 else mask[..., :3].max(axis=2)
    return grey > 0


def _fetch(
    archive: RemoteArchive,
    name: str,
    ids: Container[str] | None,
    cache: str | Path | None,
    progress: Progress,
) -> Path:
    root = dataset_cache() if cache is None else Path(cache)
    folder = root / name

    def wanted(path: PurePosixPath) -> bool:
        if len(path.parts) < 3 or path.suffix != ".png" or path.name.startswith("."):
            return False
        image_id, kind = path.parts[-3:-1]
        return kind in ("images", "masks") and (ids is None or image_id in ids)

    if not folder.is_dir():
        path = fetch_archive(archive, root, progress)
        extract_archive(path, folder, wanted, progress)
    return folder
