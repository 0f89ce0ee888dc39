"""MoNuSeg 2018: H&E images with one polygon a nucleus, in Aperio's XML.

Kumar et al. (2017), IEEE TMI 36:1550, and Kumar et al. (2020), IEEE TMI 39:1380.
1000 x 1000 pixels at 0.25 um. CC BY-NC-SA 4.0: what is trained on it is not for
commercial use.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from xml.parsers import expat

import numpy as np
import numpy.typing as npt
from skimage.draw import polygon

from napari_sac.core.datasets.archive import (
    RemoteArchive,
    dataset_cache,
    extract_archive,
    fetch_archive,
)
from napari_sac.core.datasets.pairs import ImageLabelPair, LabelledImage
from napari_sac.core.errors import ImageFormatError, LabelFormatError
from napari_sac.core.io import TIFF_SUFFIXES, read_image
from napari_sac.core.progress import Progress, ignore_progress
from napari_sac.core.types import IntArray

# The challenge gives a link to Google Drive and no hash. This one is what two public
# projects measured independently, and it guards against the page that Drive sends
# instead of a file when too many ask for it.
MONUSEG_TRAINING = RemoteArchive(
    title="the MoNuSeg 2018 training images",
    file_name="monuseg_2018_training.zip",
    url="https://drive.usercontent.google.com/download"
    "?id=1ZgqFJomqQGNnsx7w7QBzQQMVA16lbVCA&export=download&confirm=t",
    sha256="25d3d3185bb2970b397cafa72eb664c9b4d24294aee382e7e3df9885affce742",
    homepage="https://monuseg.grand-challenge.org/Data/",
    licence="CC BY-NC-SA 4.0",
)

SAMPLES: Mapping[str, str] = {
    "TCGA-E2-A1B5-01Z-00-DX1": "H&E, breast",
    "TCGA-B0-5710-01Z-00-DX1": "H&E, kidney",
}
"""Name and title of two images, none of them used to train the shipped adapter."""

MAX_XML_BYTES = 64 * 1024**2

# The XML counts pixels from 1, where we count from 0. The thousandth settles what
# belongs to a nucleus when an outline runs through pixel centres, as whole numbers do:
# left and top out, right and bottom in, which is how MATLAB's poly2mask, and so the
# challenge, draws them. With -1 exactly such nuclei grow by a row and a column.
_SHIFT = -1 + 1e-3

_ROOT = "Annotations"
_MIN_VERTICES = 3

Polygon = npt.NDArray[np.float64]


def fetch_monuseg(
    cache: str | Path | None = None,
    progress: Progress = ignore_progress,
    archive: RemoteArchive = MONUSEG_TRAINING,
) -> Path:
    """Return the folder of the training images, downloaded if it is not there yet.

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
    root = dataset_cache() if cache is None else Path(cache)
    folder = root / "monuseg2018"
    if not folder.is_dir():
        path = fetch_archive(archive, root, progress)
        extract_archive(path, folder, _is_ours, progress)
    return folder


def fetch_samples(
    cache: str | Path | None = None,
    progress: Progress = ignore_progress,
    archive: RemoteArchive = MONUSEG_TRAINING,
) -> tuple[LabelledImage, ...]:
    """Return the images of ``SAMPLES``, downloaded if they are not there yet.

    The parameters and errors are those of :func:`fetch_monuseg`.
    """
    pairs = find_monuseg(fetch_monuseg(cache, progress, archive))
    found = {pair.name: pair for pair in pairs}
    return tuple(read_monuseg(found[name]) for name in SAMPLES)


def find_monuseg(folder: str | Path) -> tuple[ImageLabelPair, ...]:
    """Return the images with their XML files, anywhere below ``folder``, by name.

    Raises
    ------
    ImageFormatError
        If there is no such pair.
    """
    root = Path(folder)
    files = [
        p for p in sorted(root.rglob("*")) if _is_ours(PurePosixPath(p.as_posix()))
    ]
    annotations = {p.stem: p for p in files if p.suffix.lower() == ".xml"}
    pairs = tuple(
        ImageLabelPair(p.stem, p, annotations[p.stem])
        for p in files
        if p.suffix.lower() in TIFF_SUFFIXES and p.stem in annotations
    )
    if not pairs:
        raise ImageFormatError(
            f"{root} is not MoNuSeg: no TIFF image in it has an XML file of its name. "
            "Choose the folder that the archive of the challenge was unpacked to."
        )
    return pairs


def read_monuseg(pair: ImageLabelPair) -> LabelledImage:
    """Return one image, and the labels drawn from its XML file.

    Raises
    ------
    ImageFormatError
        If the image cannot be read.
    LabelFormatError
        As :func:`read_annotation` does.
    """
    image = read_image(pair.image)
    shape = (image.shape[0], image.shape[1])
    return LabelledImage(
        pair.name, image, draw_polygons(read_annotation(pair.labels), shape)
    )


def read_annotation(path: str | Path) -> tuple[Polygon, ...]:
    """Return the outline of each nucleus in an Aperio XML file.

    The document is refused before anything in it is expanded if it has a document
    type, for that is where entities come from.

    Returns
    -------
    tuple of (V, 2) float64
        Vertices (y, x) in pixels of the image, counted from 0 at the centre of the
        first pixel, in the order of the file.

    Raises
    ------
    LabelFormatError
        If the file is missing, too large, not XML, not an annotation, has a document
        type, or a vertex that is not a pair of finite numbers.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_XML_BYTES:
            raise _refused(file, f"it is larger than {MAX_XML_BYTES >> 20} MB")
        return _parse(file.read_bytes())
    except OSError as error:
        raise _refused(file, error.strerror or str(error)) from error
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise _refused(file, str(error)) from error


def draw_polygons(polygons: Sequence[Polygon], shape: tuple[int, int]) -> IntArray:
    """Return labels with the area of each polygon, numbered from 1 in their order.

    Where polygons overlap the pixel stays with the first; what lies outside of the
    image is cut. A polygon without area leaves its number unused.

    Parameters
    ----------
    polygons : sequence of (V, 2) float64
        As :func:`read_annotation` returns them.
    shape : (int, int)
        Height and width of the image.

    Returns
    -------
    (H, W) int32
    """
    labels = np.zeros(shape, dtype=np.int32)
    for number, vertices in enumerate(polygons, start=1):
        if len(vertices) < _MIN_VERTICES:
            continue
        rows, columns = polygon(vertices[:, 0], vertices[:, 1], shape)
        free = labels[rows, columns] == 0
        labels[rows[free], columns[free]] = number
    return labels


def _is_ours(path: PurePosixPath) -> bool:
    # macOS hides a second file "._name" behind each one when it makes an archive.
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return not hidden and path.suffix.lower() in (*TIFF_SUFFIXES, ".xml")


def _parse(document: bytes) -> tuple[Polygon, ...]:
    outlines: list[list[tuple[float, float]]] = []
    roots: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if not roots:
            roots.append(name)
        if name == "Region":
            outlines.append([])
        elif name == "Vertex" and outlines:
            outlines[-1].append(_vertex(attributes))

    def refuse_doctype(*_: object) -> None:
        raise ValueError("it has a document type, which annotations have no use for")

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse_doctype
    parser.StartElementHandler = start
    parser.Parse(document, True)
    if roots != [_ROOT]:
        raise ValueError(f"it is not an Aperio annotation, but <{roots[0]}>")
    return tuple(
        np.array(o, dtype=np.float64).reshape(-1, 2) + _SHIFT for o in outlines
    )


def _vertex(attributes: dict[str, str]) -> tuple[float, float]:
    try:
        y, x = float(attributes["Y"]), float(attributes["X"])
    except (KeyError, ValueError):
        y = x = np.nan
    if not np.isfinite((y, x)).all():
        raise ValueError(f"{attributes} is not a vertex")
    return y, x


def _refused(file: Path, why: str) -> LabelFormatError:
    return LabelFormatError(
        f"{file} could not be read as an annotation: {why}. "
        "Export it again from the annotation program, or download it again."
    )
