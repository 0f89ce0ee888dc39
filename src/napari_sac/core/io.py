"""Files in and out: images, instance labels and prompts; where our own files are.

Reading never guesses: a file that is not one plane of pixels is refused in one
sentence. Writing is atomic: a file of ours is either whole or not there.
"""

from __future__ import annotations

import csv
import os
import secrets
import struct
import warnings
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import platformdirs
from PIL import Image, UnidentifiedImageError

from napari_sac import __version__
from napari_sac.core.errors import (
    ChannelsNotChosenError,
    ImageFormatError,
    LabelFormatError,
    OutputError,
)
from napari_sac.core.folders import rename
from napari_sac.core.types import (
    NEGATIVE,
    POSITIVE,
    AnyArray,
    FloatArray,
    IntArray,
    Prompts,
    PromptState,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_sac.core.config import Stain

HOME_VARIABLE = "NAPARI_SAC_HOME"

_PROGRAM = "napari-sac "
"""Before the version, in what files say of what made them."""

TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
"""Endings, in lower case, of the files that are images when a folder is read."""
_PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_EXACT_FORMATS = ("PNG", "BMP", "GIF")

PROMPT_COLUMNS = ("object_id", "y", "x", "sign", "score", "state")

_PromptRow = tuple[int, float, float, int, float, str]

_POINT_COLUMNS = (
    ("y", "x", 0.0),
    ("axis-0", "axis-1", 0.0),
    # QuPath counts from the corner of the first pixel, not from its middle
    ("centroid y px", "centroid x px", 0.5),
    ("centroid y µm", "centroid x µm", 0.5),
)
"""Names of columns in lower case, and where the middle of the first pixel is."""

_REFUSED = '<>:"/\\|?*'
"""What a name of a file cannot have on one system or another."""

_LONGEST_STEM = 200
"""Bytes of UTF-8; with what is put behind it most systems take it."""

_UNNAMED_AXES = "QI"
"""What tifffile calls the axis of pages that nothing is said about."""

_MICROMETRES = {
    **dict.fromkeys(("µm", "μm", "um", "\\u00B5m", "micron", "microns"), 1.0),
    "nm": 1e-3,
    "mm": 1e3,
    "cm": 1e4,
}
"""Of the units of OME and of ImageJ, which may write a sign as its number."""

_PIXEL_SIZES = (1e-4, 1e5)
"""Micrometres that a pixel may have; the TIFF tags of others would overflow."""

_NO_RGB = (5, 8)
"""What TIFF calls colours for printing, and CIELAB."""

MAX_PIXELS = 400_000_000
"""Of one plane, four times 10,000 x 10,000: more do not fit in memory with what is
computed of them."""

LOW_PERCENTILE = 0.1
HIGH_PERCENTILE = 99.9
_PERCENTILE_PIXELS = 1 << 20
_BLOCK_VALUES = 1 << 22
# beyond this size a file must be as large as the best lossless coders could make it
_UNCHECKED_BYTES = 1 << 30
HIGHEST_COMPRESSION = 5000

# What the decoders raise, by experiment, for files that are damaged or made to harm.
DECODE_ERRORS = (
    AssertionError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    EOFError,
    AttributeError,
    ImportError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def data_folder() -> Path:
    """Return where models and adapters that the user got are kept; may not exist yet.

    The environment variable ``NAPARI_SAC_HOME`` overrides the place that the operating
    system gives to programs.
    """
    home = os.environ.get(HOME_VARIABLE)
    return Path(home) if home else platformdirs.user_data_path("napari-sac", False)


def cache_folder() -> Path:
    """Return where files are kept that may be deleted any time; may not exist yet."""
    home = os.environ.get(HOME_VARIABLE)
    if home:
        return Path(home) / "cache"
    return platformdirs.user_cache_path("napari-sac", False)


def holds_array(path: str | Path, array: Any) -> bool:
    """Return whether a file alone gives these pixels again, as far as it tells soon.

    A viewer may have put them together of several files, or turned a palette or 16 bits
    into 8.

    Parameters
    ----------
    path : str or Path
    array : array-like
        With ``shape`` and ``dtype``; the pixels as the viewer has them.
    """
    file = Path(path)
    try:
        if file.suffix.lower() not in TIFF_SUFFIXES:
            with Image.open(file, formats=_PILLOW_FORMATS) as image:
                plane = array.shape[:2] == (image.height, image.width)
                return plane and array.dtype == np.uint8 and not _loses_bits(image)
        import tifffile

        with tifffile.TiffFile(file) as tiff:
            first, *others = tiff.series
            return (
                first.shape == array.shape
                and first.keyframe.colormap is None
                and all(series.keyframe.is_reduced for series in others)
            )
    except DECODE_ERRORS:
        return False


def read_image(path: str | Path, *, separate: bool = False) -> AnyArray:
    """Return the pixels of one 2-D image file, with their stored type and range.

    Parameters
    ----------
    path : str or Path
        A TIFF (also OME and ImageJ), PNG, JPEG, BMP, GIF or WebP file.
    separate : bool, optional
        Whether channels are to be chosen from. If not, a file with four that are stored
        apart is refused: as pixels they look like colours with transparency.

    Returns
    -------
    (H, W) or (H, W, C) array
        Channels come last, whatever their order in the file. A palette is resolved
        to RGB, and grey with alpha to grey.

    Raises
    ------
    ImageFormatError
        If the file is missing, damaged, too large, or holds more than one plane;
        ``ChannelsNotChosenError`` where it could be read as ``separate``.
    """
    file = Path(path)
    try:
        return _read_pixels(file, as_labels=False, separate=separate)
    except ImageFormatError:
        raise
    except MemoryError as error:
        raise ImageFormatError(
            f"{file} needs more memory than there is. Crop the region of interest, or "
            "close other programs."
        ) from error
    except DECODE_ERRORS as error:
        raise ImageFormatError(
            f"{file} could not be read as an image ({_reason(error)}). "
            "Check that the file is whole, or save it again as TIFF or PNG."
        ) from error


def read_pixel_size(path: str | Path) -> tuple[float, float] | None:
    """Return height and width of a pixel in micrometres; None if the file has none.

    Only OME-TIFF and the TIFF of ImageJ say it: the dots per inch of other files are
    those of a print.
    """
    if Path(path).suffix.lower() not in TIFF_SUFFIXES:
        return None
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            if tiff.is_ome:
                images = tifffile.xml2dict(tiff.ome_metadata or "")["OME"]["Image"]
                first = images[0] if isinstance(images, list) else images
                about = first["Pixels"]
                size = tuple(
                    float(about[f"PhysicalSize{axis}"])
                    * _MICROMETRES[about.get(f"PhysicalSize{axis}Unit", "µm")]
                    for axis in "YX"
                )
            else:
                # without the tags tifffile says 1
                tags = tiff.pages.first.tags
                unit = _MICROMETRES[(tiff.imagej_metadata or {})["unit"]]
                size = tuple(
                    unit * tags[name].value[1] / tags[name].value[0]
                    for name in ("YResolution", "XResolution")
                )
    except DECODE_ERRORS:
        return None
    return (size[0], size[1]) if is_pixel_size(size) else None


def is_pixel_size(size: Sequence[float]) -> bool:
    """Return whether micrometres can be those of a pixel."""
    low, high = _PIXEL_SIZES
    return all(low <= micrometres <= high for micrometres in size)


def read_labels(path: str | Path) -> IntArray:
    """Return the instance labels of a TIFF or PNG file.

    Returns
    -------
    (H, W) integer array
        0 is background; of the type stored in the file.

    Raises
    ------
    LabelFormatError
        If the file is missing, damaged, or not one plane of whole numbers from 0 up.
    """
    file = Path(path)
    try:
        labels = _read_pixels(file, as_labels=True)
    except (ImageFormatError, *DECODE_ERRORS) as error:
        raise LabelFormatError(
            f"{file} could not be read as labels ({_reason(error)}). "
            "Save them as one TIFF or PNG plane of whole numbers."
        ) from error
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    problem = None
    if labels.ndim != 2:
        problem = f"it has {labels.shape[-1]} channels"
    elif not np.issubdtype(labels.dtype, np.integer):
        problem = f"its values are {labels.dtype}"
    elif labels.size and labels.min() < 0:
        problem = "it has values below 0"
    elif labels.size and labels.max() > np.iinfo(np.int64).max:
        problem = f"it has values above {np.iinfo(np.int64).max:,}"
    if problem:
        raise LabelFormatError(
            f"{file} does not hold instance labels: {problem}. "
            "Labels are one plane of whole numbers: 0 background, one number a nucleus."
        )
    return labels


def safe_name(name: str) -> str:
    """Return the name of an image as the stem of a file's name.

    Only what file systems refuse is replaced: results are to be called as their image,
    with which they pair by name.
    """
    kept = "".join(c if c.isprintable() and c not in _REFUSED else "_" for c in name)
    cut = kept.strip(" .").encode()[:_LONGEST_STEM]
    return cut.decode(errors="ignore") or "nuclei"


def as_uint32(labels: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Return labels (H, W) of any type of whole numbers as uint32.

    Raises
    ------
    ValueError
        If they are not that, or have a number that does not fit.
    """
    values = np.asarray(labels)
    if values.ndim != 2 or values.dtype.kind not in "iub":
        raise ValueError(
            f"labels must be (H, W) integers, got {values.shape} {values.dtype}"
        )
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < 0 or high > np.iinfo(np.uint32).max:
        raise ValueError(f"labels must fit into uint32, got {low} to {high}")
    return values.astype(np.uint32, copy=False)


def write_labels(
    path: str | Path,
    labels: npt.ArrayLike,
    made_by: Mapping[str, str | float | None] | None = None,
    *,
    pixel_size: tuple[float, float] | None = None,
) -> None:
    """Write instance labels as a compressed TIFF, atomically.

    Parameters
    ----------
    path : str or Path
        Replaced if it exists.
    labels : (H, W) integer array
        0 is background. Stored as uint16 when every label is below 65536, else as
        uint32.
    made_by : mapping, optional
        What made them, such as the model, for :func:`read_made_by`. The program and its
        version are noted in any case.
    pixel_size : (float, float), optional
        Height and width of a pixel in micrometres.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there before is kept.
    """
    values = as_uint32(labels)
    high = int(values.max(initial=0))
    dtype = np.uint16 if high <= np.iinfo(np.uint16).max else np.uint32
    # late: it takes nearly half of the time in which a dock opens
    import tifffile

    resolution: dict[str, Any] = {}
    if pixel_size is not None:
        height, width = pixel_size
        # pixels in a centimetre, along x first
        resolution["resolution"] = (1e4 / width, 1e4 / height)
        resolution["resolutionunit"] = "CENTIMETER"
    with atomic_path(path) as partial:
        tifffile.imwrite(
            partial,
            values.astype(dtype),
            compression="zlib",
            photometric="minisblack",
            # beside the shape, which tifffile notes in the same place
            metadata={"program": f"{_PROGRAM}{__version__}", **(made_by or {})},
            **resolution,
        )


def read_made_by(path: str | Path) -> dict[str, Any]:
    """Return what a file of :func:`write_labels` says of what made it.

    Returns
    -------
    dict
        ``program`` and what was given as ``made_by``; empty where the file is not
        there, cannot be read, or comes from another program.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            said = dict((tiff.shaped_metadata or ({},))[0])
    except DECODE_ERRORS:
        return {}
    said.pop("shape", None)
    return said if str(said.get("program")).startswith(_PROGRAM) else {}


def write_prompts(path: str | Path, prompts: Prompts) -> None:
    """Write prompts as CSV, one row a point, atomically.

    The columns are ``PROMPT_COLUMNS``; ``sign`` is ``+`` or ``-``; coordinates and
    scores have as many digits as it takes to read the same numbers back.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there before is kept.
    """
    columns = zip(
        prompts.object_id.tolist(),
        prompts.yx.tolist(),
        prompts.sign.tolist(),
        prompts.score,
        prompts.state.tolist(),
        strict=True,
    )
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(PROMPT_COLUMNS)
        for object_id, (y, x), sign, score, state in columns:
            symbol = "+" if sign == POSITIVE else "-"
            # str of a float32 is the shortest text that reads back as the same one
            writer.writerow((object_id, y, x, symbol, str(score), state))


def read_prompts(path: str | Path) -> Prompts:
    """Return the prompts of a file that :func:`write_prompts` wrote.

    Raises
    ------
    LabelFormatError
        If the file is missing, has other columns, or a row with an impossible value.
    """
    file = Path(path)
    try:
        # Excel begins its UTF-8 with a byte order mark
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelFormatError(
            f"{file} could not be read as prompts ({_reason(error)}). "
            "Check that the file is there and is CSV text."
        ) from error
    if not rows or tuple(rows[0]) != PROMPT_COLUMNS:
        raise LabelFormatError(
            f"{file} is not a prompt file: its first line must be "
            f"{','.join(PROMPT_COLUMNS)}."
        )
    return _prompts_of(
        [_parse_prompt(file, i, row) for i, row in enumerate(rows[1:], start=2)]
    )


def _prompts_of(parsed: Sequence[_PromptRow]) -> Prompts:
    if not parsed:
        return Prompts.empty()
    object_id, y, x, sign, score, state = zip(*parsed, strict=True)
    return Prompts.from_points(
        np.column_stack([y, x]),
        object_id=object_id,
        sign=sign,
        score=score,
        state=state,
    )


def _parse_prompt(file: Path, line: int, row: list[str]) -> _PromptRow:
    try:
        object_id, y, x, sign, score, state = row
        values = (
            int(object_id),
            float(y),
            float(x),
            {"+": POSITIVE, "-": NEGATIVE}[sign],
            float(score),
            PromptState(state).value,
        )
    except (ValueError, KeyError):
        values = None
    if (
        values is None
        or not 1 <= values[0] <= np.iinfo(np.uint32).max
        or not np.isfinite(values[1:3]).all()
        or not 0 <= values[4] <= 1
    ):
        raise LabelFormatError(
            f"{file} is damaged at line {line}: {','.join(row)[:80]!r} is not "
            "a prompt. Correct or delete that line."
        )
    return values


def read_points(
    path: str | Path, *, pixel_size: float | None = None
) -> npt.NDArray[np.float64]:
    """Return the positions of a table of points, such as people and other tools make.

    Parameters
    ----------
    path : str or Path
        CSV or TSV text whose first line names the columns: ``y`` and ``x``; napari's
        ``axis-0`` and ``axis-1``; or QuPath's ``Centroid Y`` and ``Centroid X`` in
        ``px`` or ``µm``. Other columns are passed over. Of a table of prompts, as
        :func:`write_prompts` writes it, the first point in each nucleus that was not
        rejected.
    pixel_size : float, optional
        Micrometres of a pixel, for a table in micrometres.

    Returns
    -------
    (N, 2) float64
        As (y, x) in pixels, the middle of the first pixel at (0, 0).

    Raises
    ------
    LabelFormatError
        If the file is missing, has no such columns, or a row without two numbers.
    """
    file = Path(path)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            heading = stream.readline()
            delimiter = max("\t;,", key=heading.count)
            names = next(csv.reader([heading], delimiter=delimiter), [])
            rows = list(csv.reader(stream, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelFormatError(
            f"{file} could not be read as a table of points ({_reason(error)}). "
            "Check that the file is there and is CSV text."
        ) from error
    if set(PROMPT_COLUMNS) <= set(names):
        # other programs may have added columns, or another delimiter
        places = [names.index(column) for column in PROMPT_COLUMNS]
        parsed = [
            _parse_prompt(file, i, [row[k] for k in places if k < len(row)])
            for i, row in enumerate(rows, start=2)
            if any(cell.strip() for cell in row)
        ]
        return _nuclei_of(_prompts_of(parsed))
    columns, scale, shift = _point_columns(file, names, pixel_size)
    points = [
        _parse_point(file, i, row, columns)
        for i, row in enumerate(rows, start=2)
        if any(cell.strip() for cell in row)
    ]
    return np.array(points, np.float64).reshape(-1, 2) / scale - shift


def _nuclei_of(prompts: Prompts) -> npt.NDArray[np.float64]:
    kept = prompts.usable
    _, first = np.unique(prompts.object_id[kept], return_index=True)
    yx: npt.NDArray[np.float64] = prompts.yx[kept][np.sort(first)].astype(np.float64)
    return yx


def _point_columns(
    file: Path, names: Sequence[str], pixel_size: float | None
) -> tuple[tuple[int, int], float, float]:
    """Return the columns of y and x, the unit in pixels, and where pixels begin."""
    # QuPath writes the micro sign, some programs the Greek letter
    plain = [n.strip().lower().replace("μ", "µ") for n in names]
    if "axis-2" in plain:
        raise LabelFormatError(
            f"{file} has points of a stack, with more than two axes. Save those of one "
            "plane, with the columns y and x."
        )
    for y, x, shift in _POINT_COLUMNS:
        if y in plain and x in plain:
            if not y.endswith("m"):
                return (plain.index(y), plain.index(x)), 1.0, shift
            if pixel_size is None:
                raise LabelFormatError(
                    f"{file} is in micrometres, and the size of a pixel is not known. "
                    "Export it in pixels, or give the image its pixel size."
                )
            return (plain.index(y), plain.index(x)), pixel_size, shift
    raise LabelFormatError(
        f"{file} is not a table of points: its first line must name the columns "
        "y and x, or Centroid Y px and Centroid X px as QuPath does."
    )


def _parse_point(
    file: Path, line: int, row: list[str], columns: tuple[int, int]
) -> tuple[float, float]:
    try:
        y, x = (float(row[column]) for column in columns)
    except (ValueError, IndexError):
        y = x = np.nan
    if not (np.isfinite(y) and np.isfinite(x)):
        raise LabelFormatError(
            f"{file} is damaged at line {line}: {','.join(row)[:80]!r} is not a point. "
            "Correct or delete that line."
        )
    return y, x


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it replaces ``path`` on success.

    Missing folders are made. On failure the partial file is removed and what was at
    ``path`` is kept.

    Raises
    ------
    OutputError
        For any ``OSError`` in the block or in the renaming.
    """
    target = Path(path)
    partial = target.with_name(f".{secrets.token_hex(6)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        # else a loss of power could leave the new name with nothing in it
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        rename(partial, target)
    except OSError as error:
        raise OutputError(
            f"{target} could not be written ({_reason(error)}). Nothing there was "
            "changed; choose a folder that you may write to and that has space left."
        ) from error
    finally:
        # after success it is gone; where the folder is missing it never was
        with suppress(OSError):
            partial.unlink()


def normalise_image(
    image: npt.ArrayLike,
    channels: Sequence[int] | None = None,
    *,
    stain: Stain | None = None,
) -> npt.NDArray[np.uint8]:
    """Return the image as every model of this package reads it.

    Intensities are stretched, all channels by the same line, so that the 0.1
    percentile becomes 0 and the 99.9 percentile 255. Pixels that are not finite count
    as the darkest; a constant image becomes black.

    Parameters
    ----------
    image : (H, W) or (H, W, C) array
        Booleans, integers or floats of any range. Three channels are RGB, four are
        RGBA (alpha is dropped); one or two are grey.
    channels : sequence of int, optional
        The channels, from 0, that carry nuclei. Each is stretched by itself, and
        their sum is the grey image. Needed for more than four channels.
    stain : {"haematoxylin"}, optional
        Of an image in brightfield, this stain alone, in grey: see
        :func:`separate_haematoxylin`.

    Returns
    -------
    (H, W, 3) uint8 array
        Grey images have three equal channels.

    Raises
    ------
    ImageFormatError
        If the image has no pixels, no two axes of space, values that are not real
        numbers, no such channels, or, with a stain, no colours.
    """
    if stain is not None:
        return normalise_image(separate_haematoxylin(image))
    array = np.asarray(image)
    _check_image(array)
    planes = array[..., np.newaxis] if array.ndim == 2 else array
    chosen = _choose_channels(planes.shape[2], channels)
    if chosen is None:
        return _stretch(planes[..., :3])
    grey = _stretch(planes[..., chosen[:1]])
    for channel in chosen[1:]:
        # saturating sum, without a wider copy of a large image
        other = _stretch(planes[..., channel : channel + 1])
        np.minimum(other, 255 - grey, out=other)
        grey += other
    return np.repeat(grey, 3, axis=2)


def separate_haematoxylin(image: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the blue stain of tissue alone, by colour deconvolution.

    Where another stain, such as the brown of DAB, covers nuclei or lies beside them,
    this shows the nuclei without it.

    Parameters
    ----------
    image : (H, W, 3) or (H, W, 4) array
        RGB or RGBA: whole numbers over the range of their type, or floats in [0, 1].

    Returns
    -------
    (H, W) float32
        At most 0: the more stain, the darker, as on the slide.

    Raises
    ------
    ImageFormatError
        If it has no three colours, or floats outside of [0, 1].

    References
    ----------
    Ruifrok and Johnston, Quantification of histochemical staining by color
    deconvolution, Anal Quant Cytol Histol 23, 2001.
    """
    from skimage.color import rgb2hed

    array = np.asarray(image)
    _check_image(array)
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        raise ImageFormatError(
            f"An image of shape {array.shape} has no colours to take a stain out of. "
            "Look at it as it is."
        )
    result = np.empty(array.shape[:2], np.float32)
    rows = max(1, _BLOCK_VALUES // (4 * array.shape[1]))
    for y in range(0, len(array), rows):
        block = array[y : y + rows, :, :3]
        if block.dtype.kind == "f":
            block = np.nan_to_num(block, nan=0.0, posinf=1.0, neginf=0.0)
            if block.min() < 0 or block.max() > 1:
                raise ImageFormatError(
                    "Colours in floating-point numbers must be from 0 to 1 for a stain "
                    "to be taken out. Convert the image to 8 bits."
                )
        result[y : y + rows] = -rgb2hed(block)[..., 0]
    return result


def _check_image(array: AnyArray) -> None:
    if array.ndim not in (2, 3):
        raise ImageFormatError(
            f"An image of shape {array.shape} is not one plane (y, x) or "
            "(y, x, channel). Choose one plane of it."
        )
    if array.size == 0:
        raise ImageFormatError(
            f"An image of shape {array.shape} has no pixels. Choose another image."
        )
    if array.dtype.kind not in "biuf":
        raise ImageFormatError(
            f"Pixels of type {array.dtype} are not intensities. "
            "Convert the image to whole or floating-point numbers."
        )


def _choose_channels(n: int, channels: Sequence[int] | None) -> list[int] | None:
    """Return the channels that make the grey image, or None for a colour image."""
    if channels is None:
        if n in (3, 4):
            return None
        if n > 4:
            raise ChannelsNotChosenError(
                f"The image has {n} channels. Say which one or two of them, "
                "counted from 0, show nuclei."
            )
        return list(range(n))
    missing = [c for c in channels if not 0 <= c < n]
    if missing or not channels:
        raise ImageFormatError(
            f"There is no channel {', '.join(map(str, missing)) or 'chosen'}: "
            f"the image has {n}, counted from 0 to {n - 1}. Choose among these."
        )
    return list(channels)


def _stretch(planes: AnyArray) -> npt.NDArray[np.uint8]:
    """Return (H, W, C) uint8, stretched by the joint percentiles of all channels."""
    result = np.zeros(planes.shape, dtype=np.uint8)
    low, high = _intensity_range(planes)
    # halved, so that a range as wide as the type itself does not overflow
    half_low, half_span = low / 2, high / 2 - low / 2
    if half_span == 0:
        return result
    dtype = np.float32 if planes.dtype.itemsize <= 2 else np.float64
    rows = max(1, _BLOCK_VALUES // (planes.shape[1] * planes.shape[2]))
    for y in range(0, len(planes), rows):
        block: FloatArray = planes[y : y + rows].astype(dtype)
        block[~np.isfinite(block)] = low
        np.clip(block, low, high, out=block)
        result[y : y + rows] = np.rint((block / 2 - half_low) / half_span * 255)
    return result


def _intensity_range(planes: AnyArray) -> tuple[float, float]:
    step = int(np.ceil(np.sqrt(planes.shape[0] * planes.shape[1] / _PERCENTILE_PIXELS)))
    sample = _finite(planes[::step, ::step]).astype(np.float64)
    if sample.size == 0:
        return 0.0, 0.0
    low, high = np.percentile(sample, (LOW_PERCENTILE, HIGH_PERCENTILE))
    if low == high:
        # a few small bright things on an even background lie beyond the percentiles
        values = _finite(planes)
        low, high = values.min(), values.max()
    return float(low), float(high)


def _finite(values: AnyArray) -> AnyArray:
    return values[np.isfinite(values)]


def _read_pixels(file: Path, *, as_labels: bool, separate: bool = False) -> AnyArray:
    """Return the pixels; of labels, the numbers of a palette and not its colours."""
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "is not there"
        raise ImageFormatError(f"{file} {what}. Choose an image file.")
    if file.suffix.lower() in TIFF_SUFFIXES:
        return _read_tiff(file, as_labels=as_labels, separate=separate)
    return _read_pillow(file, as_labels=as_labels)


def _read_tiff(file: Path, *, as_labels: bool, separate: bool) -> AnyArray:
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        if not tiff.series:
            raise ImageFormatError(f"{file} has no image in it. Choose another file.")
        series = tiff.series[0]
        axes = series.axes
        unnamed = [a for a in axes if a in _UNNAMED_AXES]
        may_be_channels = len(unnamed) == 1 and not {"C", "S"} & set(axes)
        if may_be_channels and separate:
            # who names channels says what the file does not
            axes = axes.replace(unnamed[0], "C")
        if int(series.keyframe.photometric) in _NO_RGB and not as_labels:
            raise ImageFormatError(
                f"{file} has its colours as CMYK or Lab. Save it as RGB."
            )
        # previews and labels of slides are smaller copies, and say so
        others = [s for s in tiff.series[1:] if not s.keyframe.is_reduced]
        if others and not tiff.is_svs:
            raise ImageFormatError(
                f"{file} holds {1 + len(others)} images. "
                "Save the one to segment as its own file."
            )
        stacked = [
            (a, n)
            for a, n in zip(axes, series.shape, strict=True)
            if a not in "YXCS" and n > 1
        ]
        if stacked or not {"Y", "X"} <= set(axes) or {"C", "S"} <= set(axes):
            which = " and ".join(f"{n} along {a}" for a, n in stacked) or axes
            several = f"{file} holds more than one plane ({which})."
            if may_be_channels and not as_labels and [a for a, _ in stacked] == unnamed:
                raise ChannelsNotChosenError(
                    f"{several} If they are channels, say which one or two of them, "
                    "counted from 0, show nuclei; else save the plane to segment as "
                    "its own file."
                )
            raise ImageFormatError(
                f"{several} Save the plane to segment as its own file."
            )
        if series.nbytes > max(
            _UNCHECKED_BYTES, HIGHEST_COMPRESSION * file.stat().st_size
        ):
            raise ImageFormatError(
                f"{file} claims {series.nbytes:,} bytes of pixels, more than it can "
                "hold: it is damaged. Save the image again."
            )
        sizes = dict(zip(axes, series.shape, strict=True))
        if sizes["Y"] * sizes["X"] > MAX_PIXELS:
            raise ImageFormatError(
                f"{file} is {sizes['Y']:,} x {sizes['X']:,} pixels, more than fit in "
                "memory at once. Crop the region of interest."
            )
        channels = sizes.get("C", 1)
        # three of eight bits may be the colours of a picture
        colours = channels == 3 and series.dtype == np.uint8 and not tiff.is_imagej
        few = 1 < channels <= 4 and not colours
        if few and not separate and not as_labels:
            raise ChannelsNotChosenError(
                f"{file} has {channels} channels. Say which one or two of them, "
                "counted from 0, show nuclei, or save those as their own file."
            )
        pixels = np.asarray(series.asarray())
        # ImageJ's palettes colour intensities for the eye
        palette = None if as_labels or tiff.is_imagej else series.keyframe.colormap
        beside = [int(sample) for sample in series.keyframe.extrasamples]
        opacity = series.keyframe.samplesperpixel == 2 and beside in ([1], [2])
    kept = [a for a in axes if a in "YXCS"]
    plane = pixels.reshape([pixels.shape[axes.index(a)] for a in kept])
    if palette is not None:
        return (np.asarray(palette)[:, plane] >> 8).astype(np.uint8).transpose(1, 2, 0)
    order = ["Y", "X", *(a for a in kept if a in "CS")]
    ordered = plane.transpose([kept.index(a) for a in order])
    return ordered[..., 0] if opacity and "S" in kept else ordered


def _read_pillow(file: Path, *, as_labels: bool) -> AnyArray:
    with warnings.catch_warnings():
        # about large images (twice that size is refused) and odd metadata
        warnings.simplefilter("ignore")
        with _open_picture(file) as image:
            if as_labels and image.format not in _EXACT_FORMATS:
                raise ImageFormatError(
                    f"{file} is a {image.format}, in which the numbers of labels are "
                    "not kept. Save the labels as TIFF or PNG."
                )
            if getattr(image, "n_frames", 1) > 1:
                raise ImageFormatError(
                    f"{file} holds {image.n_frames} pictures. "  # type: ignore[attr-defined]
                    "Save the one to segment as its own file."
                )
            if image.format == "PNG" and _loses_bits(image):
                import imagecodecs

                pixels = imagecodecs.png_decode(file.read_bytes())
                return np.asarray(pixels[..., 0] if pixels.shape[2] == 2 else pixels)
            return np.asarray(_as_plain_mode(image, as_labels=as_labels))


def _open_picture(file: Path) -> Image.Image:
    try:
        return Image.open(file, formats=_PILLOW_FORMATS)
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ImageFormatError(
            f"{file} has more than {most:,} pixels, too many for this kind of file. "
            "Save it as TIFF, or cut out a piece."
        ) from error


def _loses_bits(image: Image.Image) -> bool:
    """Return whether Pillow would cut 16 bits down to 8, as it does for colours."""
    # what the decoder is told of the file: the mode does not say it any more
    tile = getattr(image, "tile", None)
    stored = str(tile[0][3]) if tile else ""
    return stored.endswith(";16B") and image.mode in ("RGB", "RGBA", "LA")


def _as_plain_mode(image: Image.Image, *, as_labels: bool) -> Image.Image:
    if image.mode == "P":
        return image if as_labels else image.convert("RGB")
    if image.mode in ("LA", "La"):
        return image.convert("L")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "PA", "RGBX"):
        return image.convert("RGB")
    return image


def _reason(error: BaseException) -> str:
    """Return why, without the path that the sentence around it names already."""
    if isinstance(error, UnidentifiedImageError):
        return "its content is no image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text: Any = str(error).splitlines()
    return text[0] if text else type(error).__name__
