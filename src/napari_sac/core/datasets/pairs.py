"""A folder of images and a folder of labels, paired by the stem of the file name.

``cell.png`` pairs with ``cell.tif`` or ``cell_labels.tif``; the latter is the name that
``napari-sac segment`` writes.
"""

import csv
import os
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from napari_sac.core.errors import ImageFormatError, LabelFormatError, NapariSacError
from napari_sac.core.io import IMAGE_SUFFIXES, TIFF_SUFFIXES, read_image, read_labels
from napari_sac.core.names import LABELS_ENDING
from napari_sac.core.types import AnyArray, IntArray

LABEL_SUFFIXES = (*TIFF_SUFFIXES, ".png")
"""Endings, in lower case, of the files that are labels when a folder is read."""

SPLITS_FILE = "splits.csv"

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class ImageLabelPair:
    """An image file and the file of its labels."""

    name: str
    image: Path
    labels: Path


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image with the labels of its nuclei.

    Parameters
    ----------
    name : str
        Names the image within its collection.
    image : (H, W) or (H, W, C) array
        As stored, of any type and range.
    labels : (H, W) int
        0 background, one number a nucleus; the numbers need not be consecutive.
    """

    name: str
    image: AnyArray
    labels: IntArray

    def __post_init__(self) -> None:
        if self.image.shape[:2] != self.labels.shape:
            raise ValueError(
                f"{self.name}: the image is {self.image.shape[:2]}, "
                f"the labels are {self.labels.shape}"
            )


def find_pairs(
    images_dir: str | Path, labels_dir: str | Path
) -> tuple[ImageLabelPair, ...]:
    """Return the images of one folder with their labels from another, by name.

    Raises
    ------
    ImageFormatError
        If ``images_dir`` is not a folder with images in it.
    LabelFormatError
        If ``labels_dir`` is not a folder with labels in it, an image or a label file
        has no partner, or more than one file claims to be it. Where both folders are
        the same, labels are the files whose name ends in ``_labels``.
    """
    images = _files(images_dir, IMAGE_SUFFIXES, "images", ImageFormatError)
    labels = label_files(labels_dir)
    if os.path.samefile(images_dir, labels_dir):
        images, labels = told_apart(images, labels)
    return tuple(
        ImageLabelPair(image.stem, image, found)
        for image, found in pair_by_stem(images, labels, ("image", "labels"))
    )


def told_apart(
    first: Sequence[Path], second: Sequence[Path]
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return files of one folder as those of two, lest each is its own partner.

    Of ``second`` are those whose name ends in ``_labels``, of ``first`` the others.
    """
    labels = tuple(p for p in second if p.stem.endswith(LABELS_ENDING))
    names = {p.name for p in labels}
    return tuple(p for p in first if p.name not in names), labels


def load_pair(pair: ImageLabelPair, *, separate: bool = False) -> LabelledImage:
    """Return the pixels of a pair.

    Parameters
    ----------
    pair : ImageLabelPair
    separate : bool
        Whether channels may be anything, as somebody will choose of them; see
        :func:`~napari_sac.core.io.read_image`.

    Raises
    ------
    ImageFormatError
        If the image cannot be read.
    LabelFormatError
        If the labels cannot be read, or have another size than the image.
    """
    image, labels = read_image(pair.image, separate=separate), read_labels(pair.labels)
    if image.shape[:2] != labels.shape:
        raise LabelFormatError(
            f"{pair.labels} does not fit its image: the labels are "
            f"{_size(labels)}, {pair.image.name} is {_size(image)} (height x width). "
            "Export the labels at the size of the image, or remove the pair."
        )
    return LabelledImage(pair.name, image, labels)


def names_of_split(folder: Path, split: str) -> set[str]:
    """Return the names that ``splits.csv`` (columns ``id``, ``split``) gives a split.

    Raises
    ------
    LabelFormatError
        If the folder has no such file, or it cannot be read or has other columns.
    """
    file = folder / SPLITS_FILE
    # pathlib raises where one may not look
    if not os.path.exists(file):
        raise LabelFormatError(
            f"{folder} has no {SPLITS_FILE}, which says which images are of a split. "
            "Nothing was read; choose the folder of a collection that has one."
        )
    try:
        # Excel begins its UTF-8 with a byte order mark
        with file.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            columns, rows = set(table.fieldnames or ()), list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelFormatError(
            f"{file} could not be read ({error}). Nothing was read; check that it is "
            "CSV text that you may read."
        ) from error
    if not {"id", "split"} <= columns:
        raise LabelFormatError(
            f"{file} does not say which images are of a split: its first line must be "
            "id,split. Nothing was read; save it with commas and these columns."
        )
    return {row["id"] for row in rows if row["split"] == split}


def label_files(folder: str | Path) -> tuple[Path, ...]:
    """Return the label files of a folder, in order of name.

    Hidden files, subfolders and files of other kinds are passed over.

    Raises
    ------
    LabelFormatError
        If it is not a folder, or has no label files.
    """
    return _files(folder, LABEL_SUFFIXES, "labels", LabelFormatError)


def pair_by_stem(
    first: Sequence[Path], second: Sequence[Path], nouns: tuple[str, str]
) -> tuple[tuple[Path, Path], ...]:
    """Return each file of ``first`` with the one of ``second`` that bears its name.

    The same stem pairs before the stem with ``_labels`` added. An accented letter is
    the same whether a file system stores it as one sign, or as two, as a Mac did.

    Parameters
    ----------
    first, second : sequence of Path
        Files of two folders.
    nouns : (str, str)
        What the files are, for the error: ``("image", "labels")``.

    Raises
    ------
    LabelFormatError
        If a file has no partner, or two of a folder have the same name. All of them
        are counted, the first few named.
    """
    stems = _by_stem(first, nouns[0])
    partners: dict[str, Path] = {}
    strangers = []
    for stem, path in _by_stem(second, nouns[1]).items():
        name = stem if stem in stems else stem.removesuffix(LABELS_ENDING)
        if name not in stems:
            strangers.append(path.name)
        elif name in partners:
            raise _ambiguous(nouns[1], name, partners[name], path)
        else:
            partners[name] = path
    alone = [path.name for stem, path in stems.items() if stem not in partners]
    problems = [
        f"no {missing} for {_listed(names)}"
        for missing, names in ((nouns[1], alone), (nouns[0], strangers))
        if names
    ]
    if problems:
        raise LabelFormatError(
            f"Files pair by name, and there is {', and '.join(problems)}. "
            "Add what is missing, or move the files without a partner away."
        )
    return tuple((path, partners[stem]) for stem, path in stems.items())


def find_tables(
    folder: Path, stems: Iterable[str], endings: Sequence[str]
) -> list[Path | None]:
    """Return the file of each stem, with the first ending that is there, else None.

    A file of the very name goes before others; else names are compared as in
    :func:`pair_by_stem`.
    """

    @cache
    def there() -> dict[str, str]:
        # where nobody may list the names, they are looked for as they are
        with suppress(OSError):
            return {composed_name(name): name for name in os.listdir(folder)}
        return {}

    def spelled(name: str) -> Path:
        # pathlib raises where one may not look
        if os.path.isfile(folder / name):
            return folder / name
        return folder / there().get(composed_name(name), name)

    found: list[Path | None] = []
    for stem in stems:
        files = (spelled(f"{stem}{ending}") for ending in endings)
        found.append(next((file for file in files if os.path.isfile(file)), None))
    return found


def _files(
    folder: str | Path,
    suffixes: tuple[str, ...],
    what: str,
    error: type[NapariSacError],
) -> tuple[Path, ...]:
    path = Path(folder)
    # pathlib raises where one may not look
    if not os.path.isdir(path):
        state = "is not there, or lies where you may not look"
        state = "is a file" if os.path.exists(path) else state
        raise error(f"{path} {state}. Choose the folder that holds the {what}.")
    try:
        entries = sorted(path.iterdir())
        # names alone may be there to read
        os.stat(os.path.join(path, os.curdir))
    except OSError as reason:
        raise error(
            f"{path} could not be opened ({reason.strerror}). "
            f"Choose a folder of {what} that you may read."
        ) from reason
    files = tuple(
        p
        for p in entries
        if p.suffix.lower() in suffixes
        and not p.name.startswith(".")
        and os.path.isfile(p)
    )
    if not files:
        raise error(
            f"There are no {what} in {path}: no file ends in {', '.join(suffixes)}. "
            "Choose another folder."
        )
    return files


def _by_stem(paths: Iterable[Path], noun: str) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for path in paths:
        stem = composed_name(path.stem)
        if stem in stems:
            raise _ambiguous(noun, stem, stems[stem], path)
        stems[stem] = path
    return stems


def composed_name(name: str) -> str:
    """Return a name with each accented letter as one sign."""
    return unicodedata.normalize("NFC", name)


def _ambiguous(noun: str, name: str, first: Path, second: Path) -> LabelFormatError:
    return LabelFormatError(
        f"There is more than one {noun} file for {name} in {first.parent}: "
        f"{first.name} and {second.name}. Keep one of them."
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    rest = len(names) - _NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def _size(array: AnyArray) -> str:
    return " x ".join(map(str, array.shape[:2]))
