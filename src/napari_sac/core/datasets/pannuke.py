"""PanNuke: H&E patches of 19 tissues with nuclei of five classes, in three folds.

Gamper et al. (2020), arXiv:2003.10778. CC BY-NC-SA 4.0. A fold is ``images.npy``
(N, 256, 256, 3), ``masks.npy`` (N, 256, 256, 6) and ``types.npy`` (N,), in one folder
or in the subfolders of the official archive. It is read patch by patch: the masks of
one fold are 8 GB.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_sac.core.datasets.pairs import LabelledImage
from napari_sac.core.errors import ImageFormatError, LabelFormatError, NapariSacError
from napari_sac.core.types import AnyArray, IntArray

CLASSES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
"""The classes of channels 0 to 4 of the masks; channel 5 is the background."""

_CHANNELS = len(CLASSES) + 1
_MAX_ID = 2**31 - 1


@dataclass(frozen=True, eq=False)
class PanNukeFold:
    """One fold, its pixels still on disk.

    Parameters
    ----------
    name : str
        Of the folder.
    images : (N, H, W, 3) array
        RGB in 0..255, of any number type.
    masks : (N, H, W, 6) array
        Instance ids by class, and the background.
    tissues : (N,) str
        Tissue of each patch.
    """

    name: str
    images: AnyArray
    masks: AnyArray
    tissues: AnyArray

    def __len__(self) -> int:
        return len(self.images)


def open_fold(folder: str | Path) -> PanNukeFold:
    """Return a fold, with its arrays mapped into memory and not read.

    Raises
    ------
    ImageFormatError
        If an array of images or tissues is missing, damaged or of another shape.
    LabelFormatError
        If the masks are.
    """
    root = Path(folder)
    images = _load(root, "images.npy", ImageFormatError)
    masks = _load(root, "masks.npy", LabelFormatError)
    tissues = _load(root, "types.npy", ImageFormatError)
    if images.ndim != 4 or images.shape[3] != 3:
        raise ImageFormatError(
            f"images.npy in {root} is {images.shape}, not (N, height, width, 3). "
            "Download the fold again."
        )
    if masks.shape != (*images.shape[:3], _CHANNELS):
        raise LabelFormatError(
            f"masks.npy in {root} is {masks.shape}, not "
            f"{(*images.shape[:3], _CHANNELS)} as images.npy asks for. "
            "Use the masks and the images of the same fold."
        )
    if tissues.shape != images.shape[:1]:
        raise ImageFormatError(
            f"types.npy in {root} is {tissues.shape}, not {images.shape[:1]} as "
            "images.npy asks for. Use the files of the same fold."
        )
    return PanNukeFold(root.name, images, masks, tissues)


def read_patch(fold: PanNukeFold, index: int) -> LabelledImage:
    """Return one patch of a fold with its labels, all classes in one.

    Returns
    -------
    LabelledImage
        ``image`` (H, W, 3) uint8, ``labels`` (H, W) int32.

    Raises
    ------
    LabelFormatError
        If an id is not a whole number from 0 to 2**31 - 1.
    """
    pixels = np.nan_to_num(np.asarray(fold.images[index], dtype=np.float64))
    image = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    name = f"{fold.name}_{index:04d}"
    return LabelledImage(name, image, _join_classes(fold.masks[index], name))


def _join_classes(mask: AnyArray, name: str) -> IntArray:
    """Return labels 1, 2, ...: ids of different channels are different nuclei.

    Where channels overlap the later one has the pixel, as in PanNuke's own metrics.
    """
    labels = np.zeros(mask.shape[:2], dtype=np.int32)
    count = 0
    for channel in range(len(CLASSES)):
        stored = np.asarray(mask[..., channel])
        ids = stored.astype(np.int64) if _are_ids(stored) else None
        if ids is None:
            raise LabelFormatError(
                f"The masks of {name} hold values that are no ids "
                f"({CLASSES[channel]}). Download masks.npy again."
            )
        values, index = np.unique(ids, return_inverse=True)
        numbers = np.cumsum(values > 0) + count
        inside = ids > 0
        labels[inside] = numbers[index].reshape(ids.shape)[inside]
        count = int(numbers[-1])
    return labels


def _are_ids(values: AnyArray) -> bool:
    # NaN and infinities fail the comparisons.
    whole = (values >= 0) & (values <= _MAX_ID) & (values == np.floor(values))
    return bool(whole.all())


def _load(root: Path, name: str, error: type[NapariSacError]) -> AnyArray:
    found = sorted(root.rglob(name))
    if len(found) != 1:
        raise error(
            f"{root} holds {len(found)} files {name}, not one. Choose the folder of "
            "one PanNuke fold, with images.npy, masks.npy and types.npy in it."
        )
    try:
        array: AnyArray = np.load(found[0], mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as reason:
        raise error(
            f"{found[0]} could not be read ({reason}). Download it again. An array of "
            "Python objects is not opened, for it could run code: save it as strings, "
            "with np.save(path, array.astype(str)), on a machine where you trust it."
        ) from reason
    return array
